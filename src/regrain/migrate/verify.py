"""Compare what was staged with a fresh look at the source.

The bytes that were hashed are the bytes a name still has if the inode, its size, times
and mode are what they were before reading; the change time moves with every write,
rename or change of metadata and cannot be set back. Where only that time moved, the bytes
and attributes are read once more.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from msgspec.structs import replace

from regrain import disk
from regrain.errors import path_of
from regrain.model.entry import Entry, Kind
from regrain.store.legacy import changed, find, source_error
from regrain.store.objects import hash_fd

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regrain.errors import PackageError
    from regrain.migrate.jobs import Record

_VANISHED = "it vanished"
_FILE = Kind.FILE
_FORMATS = {Kind.FILE: stat.S_IFREG, Kind.DIRECTORY: stat.S_IFDIR, Kind.SYMLINK: stat.S_IFLNK}


def verify_unchanged(root: int, records: Iterator[Record]) -> None:
    """Check that a tree is exactly what ``records`` say, root first, in order of paths.

    Args:
        root: The open directory.
        records: Of everything in it.

    Raises:
        PackageError: Something appeared, vanished or changed; it names the first such path.
    """
    try:
        _check(next(records), os.fstat(root), root, b".")
        for at, name, path, _ in disk.walk(root):
            record = next(records, None)
            if record is None or record.entry.path != path:
                raise _different(record, path)
            _check(record, os.stat(name, dir_fd=at, follow_symlinks=False), at, name)
        for record in records:
            raise changed(record.entry.path, _VANISHED)
    except OSError as error:
        raise source_error(error, path_of(error)) from error


def _check(record: Record, status: os.stat_result, at: int, name: bytes) -> None:
    entry = record.entry
    if (
        status.st_ino != record.inode
        or status.st_mtime_ns != entry.mtime_ns
        or status.st_mode != _FORMATS[entry.kind] | entry.mode
        or status.st_uid != entry.uid
        or status.st_gid != entry.gid
        or (status.st_size != entry.size and entry.kind is _FILE)
        or status.st_dev != record.device
    ):
        raise changed(entry.path, "it is not the file that was read")
    if record.ctime_ns != status.st_ctime_ns:
        _look_closer(entry, at, name)


def _look_closer(entry: Entry, at: int, name: bytes) -> None:
    """Read an entry again whose change time moved.

    That need not mean a change: another package's run through the pool may have linked or
    renamed the inode they share.
    """
    found = find(at, name, entry.path, disk.kind_of(name, at)).entry
    digest = ""
    if entry.kind is Kind.FILE:
        with disk.Closing(disk.open_file(name, at)) as fd:
            digest = hash_fd(fd)[0]
    if replace(found, digest=digest) != entry:
        raise changed(entry.path, "it is not the file that was read")


def _different(record: Record | None, path: bytes) -> PackageError:
    """Return the error for two listings that part: the smaller path is in one only."""
    if record is not None and record.entry.path < path:
        return changed(record.entry.path, _VANISHED)
    return changed(path, "it appeared")
