"""The last lines of a store's logs, without reading all that came before them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from regrain import disk
from regrain.migrate.logbook import Log, logs_in
from regrain.model import layout
from regrain.store import frames

if TYPE_CHECKING:
    from regrain.store.root import StoreRoot

_FILES_MAX = 3
"""Logs are named by day, and put away when they are full: shortly after either the last lines lie
in two of them."""

_Tail = tuple[bytes, bool]
"""The last bytes of a log, and whether anything came before them."""


class LogTail:
    """Reads it again where something was written.

    Args:
        bytes_max: At the most, from the end.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._stamp: object = None
        self._lines: list[bytes] = []
        self._packed: dict[Log, _Tail] = {}

    def lines(self, root: StoreRoot) -> list[bytes]:
        """Return them, the oldest first; none where there is no log, or it cannot be read."""
        try:
            logs = disk.open_directory(layout.LOGS, root.fd)
        except OSError:  # none was written yet
            return []
        with disk.Closing(logs):
            try:
                newest = [log for log in logs_in(logs) if log.size][-_FILES_MAX:]
                stamp = [(log, os.stat(log.name, dir_fd=logs).st_ino) for log in newest]
                if stamp != self._stamp:
                    self._lines = self._read(logs, newest)
                    self._stamp = stamp
            except OSError:
                return []
        return self._lines

    def _read(self, logs: int, newest: list[Log]) -> list[bytes]:
        lines: list[bytes] = []
        left = self._bytes_max
        packed: dict[Log, _Tail] = {}
        for log in reversed(newest):
            if left <= 0:
                break
            if log.is_packed:  # it does not change: it is unpacked once
                raw, is_cut = packed[log] = self._packed.get(log) or self._unpacked(logs, log)
                raw, is_cut = raw[-left:], is_cut or len(raw) > left
            else:
                raw, is_cut = _end_of(logs, log, left)
            left -= len(raw)
            found = raw.split(b"\n")
            # The first line may lack its beginning; what follows the last end is not whole yet.
            lines = [line for line in found[1 if is_cut else 0 : -1] if line.strip()] + lines
        self._packed = packed
        return lines

    def _unpacked(self, logs: int, log: Log) -> _Tail:
        """Return the end of a compressed log; nothing where it is broken, which others tell."""
        raw, size = b"", 0
        try:
            with disk.Closing(disk.open_file(log.name, logs)) as fd:
                for piece in frames.pieces(fd):
                    raw = (raw + piece)[-self._bytes_max :]
                    size += len(piece)
        except OSError:
            return b"", False
        return raw, size > len(raw)


def _end_of(logs: int, log: Log, bytes_max: int) -> _Tail:
    begin = max(0, log.size - bytes_max)
    with disk.Closing(disk.open_file(log.name, logs)) as fd:
        return os.pread(fd, min(log.size, bytes_max), begin), begin > 0
