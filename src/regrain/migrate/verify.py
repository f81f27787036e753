"""Compare what was staged with a fresh look at the source.

The bytes that were hashed are the bytes a name still has if the inode, its size, times
and mode are what they were before reading; the change time moves with every write,
rename or change of metadata and cannot be set back.
"""

from __future__ import annotations

import itertools
import os
import stat
from typing import TYPE_CHECKING

from regrain import disk
from regrain.model.entry import Kind
from regrain.store.legacy import changed, source_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regrain.errors import PackageError
    from regrain.migrate.jobs import Record

ANY_CTIME = -1
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
        for record, seen in itertools.zip_longest(records, _look(root)):
            if record is None or seen is None or record.entry.path != seen[0]:
                raise _different(record, seen)
            _check(record, seen[1])
    except OSError as error:
        raise source_error(error, os.fsencode(error.filename or b"")) from error


def _look(root: int) -> Iterator[tuple[bytes, os.stat_result]]:
    yield b"", os.fstat(root)
    for at, name, path, _ in disk.walk(root):
        yield path, os.stat(name, dir_fd=at, follow_symlinks=False)


def _check(record: Record, status: os.stat_result) -> None:
    entry = record.entry
    if (
        status.st_ino != record.inode
        or record.ctime_ns not in (status.st_ctime_ns, ANY_CTIME)
        or status.st_mtime_ns != entry.mtime_ns
        or status.st_mode != _FORMATS[entry.kind] | entry.mode
        or status.st_uid != entry.uid
        or status.st_gid != entry.gid
        or (status.st_size != entry.size and entry.kind is Kind.FILE)
        or status.st_dev != record.device
    ):
        raise changed(entry.path, "it is not the file that was read")


def _different(record: Record | None, seen: tuple[bytes, os.stat_result] | None) -> PackageError:
    """Return the error for two listings that part: the smaller path is in one only."""
    if record is not None and (seen is None or record.entry.path < seen[0]):
        return changed(record.entry.path, "it vanished")
    return changed(b"" if seen is None else seen[0], "it appeared")
