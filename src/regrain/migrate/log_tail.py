"""The last lines of a store's logs, without reading all that came before them."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from regrain import disk
from regrain.model import layout

if TYPE_CHECKING:
    from regrain.store.root import StoreRoot

_SUFFIX = b".jsonl"
_FILES_MAX = 2
"""Logs are named by day: shortly after midnight the last lines lie in two of them."""


class LogTail:
    """Reads it again where something was written.

    Args:
        bytes_max: At the most, from the end.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._stamp: object = None
        self._lines: list[bytes] = []

    def lines(self, root: StoreRoot) -> list[bytes]:
        """Return them, the oldest first; none where there is no log, or it cannot be read."""
        try:
            logs = disk.open_directory(layout.LOGS, root.fd)
        except OSError:  # none was written yet
            return []
        with disk.Closing(logs):
            try:
                newest = _newest(logs)
                if newest != self._stamp:
                    self._lines = _read(logs, newest, self._bytes_max)
                    self._stamp = newest
            except OSError:
                return []
        return self._lines


def _newest(logs: int) -> list[tuple[bytes, int, int]]:
    """Return names, inodes and sizes of the newest logs, the oldest of these first."""
    names = sorted(os.fsencode(name) for name in os.listdir(logs))
    found = []
    for name in [name for name in names if name.endswith(_SUFFIX)][-_FILES_MAX:]:
        status = os.stat(name, dir_fd=logs, follow_symlinks=False)
        if stat.S_ISREG(status.st_mode):
            found.append((name, status.st_ino, status.st_size))
    return found


def _read(logs: int, newest: list[tuple[bytes, int, int]], bytes_max: int) -> list[bytes]:
    lines: list[bytes] = []
    for name, _, size in reversed(newest):
        if bytes_max <= 0:
            break
        begin = max(0, size - bytes_max)
        with disk.Closing(disk.open_file(name, logs)) as fd:
            raw = os.pread(fd, min(size, bytes_max), begin)
        bytes_max -= len(raw)
        found = raw.split(b"\n")
        # The first line may lack its beginning; what follows the last end is not whole yet.
        lines = [line for line in found[1 if begin else 0 : -1] if line.strip()] + lines
    return lines
