"""Bring files in: hash while reading, stage what the store does not have yet.

Runs in a worker process and knows no ledger.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from blake3 import blake3

from regrain import disk
from regrain.errors import RegrainError, path_of
from regrain.migrate.jobs import Record
from regrain.migrate.staging import Stager, facts
from regrain.model.digest import EMPTY
from regrain.model.entry import Entry, Kind
from regrain.store.legacy import changed, find, found_directory, source_error, special_file
from regrain.store.objects import hash_fd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PERMISSIONS = 0o7777
_FILE = Kind.FILE


class StoppedError(RegrainError):
    """The run was asked to stop."""


class Ingester:
    """Hashes and stages files for one run; one a worker process.

    Args:
        stager: Takes the files that are not published yet.
        stopping: Tells whether to stop before the next file.
        throttle: Waits, if need be, before a file of so many bytes is read.
    """

    def __init__(
        self,
        stager: Stager,
        stopping: Callable[[], bool],
        throttle: Callable[[int], None] | None = None,
    ) -> None:
        self.stager = stager
        self._stopping = stopping
        self._throttle = throttle
        self._device = 0
        self.begin()

    def begin(self) -> None:
        """Start counting for the next package or slice."""
        self.stager.begin()
        self.bytes_read = 0

    def ingest(self, root: int, start: bytes, stop: bytes | None) -> Iterator[Record]:
        """Yield a record for everything below ``root`` in the path interval, staged.

        Files with several names are hashed, but staged only when the whole package is
        known (``stage_group``).

        Raises:
            PackageError: The package cannot be brought in.
            NoSpaceError, HaltedError: Nothing can, for now or at all.
        """
        try:
            self._device = os.fstat(root).st_dev
            if not start:
                found = found_directory(root, b"")
                yield self._record(found.entry, found.status)
            for at, name, path, kind in disk.walk(root, start, stop):
                if self._stopping():
                    raise StoppedError("stopped", path=path)
                yield self._one(at, name, path, kind)
        except OSError as error:
            raise source_error(error, path_of(error)) from error

    def _one(self, at: int, name: bytes, path: bytes, kind: str) -> Record:
        try:
            if kind is disk.FILE:
                return self._file(at, name, path)
            found = find(at, name, path, kind)
        except OSError as error:
            raise source_error(error, path) from error
        return self._record(found.entry, found.status)

    def _file(self, at: int, name: bytes, path: bytes) -> Record:
        fd = disk.open_file(name, at)
        try:
            before = os.fstat(fd)
            if not stat.S_ISREG(before.st_mode):
                raise special_file(path, before.st_mode)
            xattrs = disk.read_xattrs(fd)
            size = before.st_size
            content, digest = self._hash(fd, size, path)
            after = os.fstat(fd)
            if after.st_ctime_ns != before.st_ctime_ns:
                _check_unchanged(before, after, path)
            # By place, not by name: this runs for every file, and keywords take half as long again.
            entry = Entry(
                path,
                _FILE,
                before.st_mode & _PERMISSIONS,
                before.st_uid,
                before.st_gid,
                before.st_mtime_ns,
                digest,
                size,
                b"",
                xattrs,
            )
            if size and before.st_nlink == 1:
                self.stager.ensure(entry, fd, before, content)
            return self._record(entry, before)
        finally:
            os.close(fd)

    def _record(self, entry: Entry, status: os.stat_result) -> Record:
        device = 0 if status.st_dev == self._device else status.st_dev
        return Record(entry, device, status.st_ino, status.st_ctime_ns, status.st_nlink)

    def stage_group(self, root: int, records: list[Record]) -> None:
        """Stage the inode of a hard-link group, whose names in this package are all known."""
        entry = records[0].entry
        if not entry.size:
            return
        parent, _, name = entry.path.rpartition(b"/")
        try:
            with (
                disk.Closing(disk.descend(parent, root)) as at,
                disk.Closing(disk.open_file(name, at)) as fd,
            ):
                status = os.fstat(fd)
                if (status.st_ino, status.st_size, status.st_mtime_ns) != (
                    records[0].inode,
                    entry.size,
                    entry.mtime_ns,
                ):
                    raise changed(entry.path)
                inside = status.st_nlink == len(records)
                self.stager.ensure(entry, fd, status, None, inside=inside)
        except OSError as error:
            raise source_error(error, entry.path) from error

    def _hash(self, fd: int, size: int, path: bytes) -> tuple[bytes | None, str]:
        """Read and hash a file of ``size`` bytes; return its bytes too, if it is small."""
        self.bytes_read += size
        if self._throttle is not None:
            self._throttle(size)
        if size == 0:
            return b"", EMPTY
        if size < disk.PIECE:
            content = os.read(fd, size + 1)
            if len(content) != size:
                raise changed(path)
            return content, blake3(content).hexdigest()
        digest, found = hash_fd(fd)
        if found != size:
            raise changed(path)
        return None, digest


def _check_unchanged(before: os.stat_result, after: os.stat_result, path: bytes) -> None:
    """Raise if a file whose change time moved is not what it was before it was read.

    An inode of several names may get or lose one meanwhile, which moves its change time.
    """
    if before.st_nlink == 1 or facts(after) != facts(before):
        raise changed(path)
