"""The logs of a store: one that is written to, those that are full, and how many are kept.

``<day>.jsonl`` is written to. When it is full, or when the last legacy directory went, it gets a
number, ``<day>.<number>.jsonl``, and is compressed to ``<day>.<number>.jsonl.zst``. The order of
names is that of time. One command at a time writes: the one that holds the run lock. Beside them
lie snapshots of runs that are over, ``<day>.<number>.state.json.zst``, which are no logs.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from regrain import disk
from regrain.model import clock, layout
from regrain.store import frames

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regrain.store.root import StoreRoot

_PLAIN, _PACKED = ".jsonl", ".jsonl.zst"
_SNAPSHOT, _FRAME = ".state.json", ".zst"
_LEVEL = 3
_DIGITS = 6
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class Limits(NamedTuple):
    """How large logs may become.

    Attributes:
        file_bytes: A log that is longer is put away, and another one is begun.
        total_bytes: Of all logs, on disk: where there is more, the oldest go.
    """

    file_bytes: int = 16 << 20
    total_bytes: int = 256 << 20


class Log(NamedTuple):
    """A log that is there.

    Attributes:
        name: Its file's.
        size: Of that file.
    """

    name: str
    size: int

    @property
    def is_packed(self) -> bool:
        """Whether it is compressed."""
        return self.name.endswith(_PACKED)

    @property
    def is_numbered(self) -> bool:
        """Whether it was put away."""
        return "." in self.stem

    @property
    def stem(self) -> str:
        """Its name without the ending."""
        return self.name.removesuffix(_PACKED).removesuffix(_PLAIN)

    @property
    def order(self) -> str:
        """What orders it in time: behind those of its day that were put away."""
        return self.stem if self.is_numbered else f"{self.stem}~"


DEFAULT = Limits()


class Logbook:
    """Appends lines to the log of today.

    Args:
        root: The store.
        limits: How much is kept.

    Raises:
        OSError: The log cannot be opened.
    """

    def __init__(self, root: StoreRoot, limits: Limits = DEFAULT) -> None:
        self._logs = disk.Held(disk.open_directory(layout.LOGS, root.fd))
        self._limits = limits
        self._name, self._size, self._full_at = "", 0, limits.file_bytes
        self._log = self._open()
        with contextlib.suppress(OSError):
            self._forget_oldest()

    def append(self, line: bytes) -> None:
        """Append a line.

        Raises:
            OSError: It cannot be written, or the log that is full cannot be put away.
        """
        disk.write_all(self._log.fd, line)
        self._size += len(line)
        if self._size >= self._full_at:
            # Should it fail, it is tried again when as much was written once more.
            self._full_at = self._size + self._limits.file_bytes
            self._number(self._name)
            self._begin()

    def put_away(self) -> None:
        """Put all logs away, those of former days, too.

        Raises:
            OSError: They cannot be.
        """
        for log in logs_in(self._logs.fd):
            if not log.is_numbered and log.size:
                self._number(log.name)
        self._begin()

    def put_away_snapshot(self, name: str, directory: int) -> None:
        """Put the snapshot of a run away, beside the logs; those a killed process left, too.

        Args:
            name: Its file's; nothing is done where there is none.
            directory: An open one, where it is.

        Raises:
            OSError: It cannot be.
        """
        logs, day = self._logs.fd, clock.day_name(clock.now())
        with contextlib.suppress(FileNotFoundError):
            disk.rename_replace(name, directory, f"{day}.{_next(logs, day)}{_SNAPSHOT}", logs)
        for one in os.listdir(logs):
            if one.endswith(_SNAPSHOT) and not one.startswith("."):
                _pack(logs, one)

    def _number(self, name: str) -> None:
        """Give a log the next number of its day."""
        logs, day = self._logs.fd, name.removesuffix(_PLAIN)
        disk.rename_replace(name, logs, f"{day}.{_next(logs, day)}{_PLAIN}", logs)

    def _open(self) -> disk.Held:
        self._name = f"{clock.day_name(clock.now())}{_PLAIN}"
        log = disk.Held(os.open(self._name, _APPEND, 0o644, dir_fd=self._logs.fd))
        disk.give_to_owner_of(self._logs.fd, log.fd)
        self._size = os.fstat(log.fd).st_size
        self._full_at = self._limits.file_bytes
        return log

    def _begin(self) -> None:
        """Begin a log, as the last one has another name; see to those that nobody writes to."""
        self._log = self._open()
        for log in logs_in(self._logs.fd):
            if log.is_numbered and not log.is_packed:
                _pack(self._logs.fd, log.name)
        self._forget_oldest()

    def _forget_oldest(self) -> None:
        there = logs_in(self._logs.fd)
        size = sum(log.size for log in there)
        for log in there:
            if size > self._limits.total_bytes and log.name != self._name:
                disk.unlink(log.name, self._logs.fd)
                size -= log.size


def _next(logs: int, day: str) -> str:
    """Return the next number of a day."""
    names = [one.removeprefix(f"{day}.") for one in os.listdir(logs) if one.startswith(f"{day}.")]
    taken = [int(text) for rest in names if (text := rest.partition(".")[0]).isdecimal()]
    return f"{max(taken, default=0) + 1:0{_DIGITS}}"


def _pack(logs: int, name: str) -> None:
    """Compress a file that nobody writes to any more."""
    temporary = f".{name.removesuffix(_PLAIN)}"  # what a killed process left is in the way
    with contextlib.suppress(FileNotFoundError):
        disk.unlink(temporary, logs)
    with (
        disk.Closing(disk.open_file(name, logs)) as source,
        disk.Closing(disk.create(temporary, logs)) as target,
    ):
        try:
            _pour(source, target)
            os.fchmod(target, 0o644)
            disk.give_to_owner_of(logs, target)
            disk.fsync(target)  # the plain one goes next
        except BaseException:
            disk.unlink(temporary, logs)
            raise
        disk.rename_replace(temporary, logs, f"{name}{_FRAME}", logs)
    disk.unlink(name, logs)


def _pour(source: int, target: int) -> None:
    for piece in frames.packed(source, os.fstat(source).st_size, _LEVEL):
        disk.write_all(target, piece)


def logs_in(logs: int) -> list[Log]:
    """Return the logs in an open directory, the oldest first; other things are passed over.

    Of one that is there plain and compressed the plain one counts: a process was killed before
    it removed it.
    """
    found = {}
    for name in sorted(os.listdir(logs), reverse=True):  # the compressed one comes first
        if not name.startswith(".") and name.endswith((_PLAIN, _PACKED)):
            status = os.stat(name, dir_fd=logs, follow_symlinks=False)
            if stat.S_ISREG(status.st_mode):
                log = Log(name, status.st_size)
                found[log.stem] = log
    return sorted(found.values(), key=lambda log: log.order)


def content_size(logs: int, log: Log) -> int:
    """Return how many bytes a log has, uncompressed.

    Raises:
        OSError: It cannot be read.
    """
    if not log.is_packed:
        return log.size
    with disk.Closing(disk.open_file(log.name, logs)) as fd:
        return frames.content_size(fd)


def lines_of(logs: int, log: Log) -> Iterator[bytes]:
    """Yield the lines of a log.

    Raises:
        OSError: It cannot be read; lines before that were yielded.
    """
    with disk.Closing(disk.open_file(log.name, logs)) as fd:
        rest = b""
        for piece in frames.pieces(fd) if log.is_packed else _pieces(fd):
            *lines, rest = (rest + piece).split(b"\n")
            yield from lines
        if rest:
            yield rest


def _pieces(fd: int) -> Iterator[bytes]:
    while piece := os.read(fd, disk.PIECE):
        yield piece
