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
from regrain.model.entry import Entry, Kind
from regrain.store.cursor import Cursor
from regrain.store.legacy import changed, find, source_error
from regrain.store.objects import hash_fd

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regrain.migrate.jobs import Record

_VANISHED = "it vanished"
_FILE, _DIRECTORY = Kind.FILE, Kind.DIRECTORY
_FORMATS = {Kind.FILE: stat.S_IFREG, Kind.DIRECTORY: stat.S_IFDIR, Kind.SYMLINK: stat.S_IFLNK}


def verify_unchanged(root: int, records: Iterator[Record], began_ns: int = 0) -> None:
    """Check that a tree is exactly what ``records`` say, root first, in order of paths.

    The change time of a directory moves with every name that comes or goes, and cannot be set
    back either. So one whose change time lies before the run began has the names that it had
    whenever the run listed it; only the others are listed once more.

    Args:
        root: The open directory.
        records: Of everything in it.
        began_ns: When the run began, by the clock of the file system; 0 lists all.

    Raises:
        PackageError: Something appeared, vanished or changed; it names such a path.
    """
    path = b""
    touched: dict[bytes, set[bytes]] = {}
    try:
        own = os.fstat(root).st_dev
        with Cursor(root) as cursor:
            for record in records:
                path = record.entry.path
                parent, _, name = path.rpartition(b"/")
                at = cursor.at(parent)
                status = os.stat(name, dir_fd=at, follow_symlinks=False) if path else os.fstat(at)
                _check(record, status, at, name or b".", own)
                if parent in touched and path:
                    touched[parent].add(name)
                if record.entry.kind is _DIRECTORY and status.st_ctime_ns >= began_ns:
                    touched[path] = set()
            for path, names in touched.items():
                _check_names(cursor.at(path), path, names)
    except FileNotFoundError as error:
        raise changed(path, _VANISHED) from error
    except OSError as error:
        raise source_error(error, path) from error


def _check_names(directory: int, path: bytes, names: set[bytes]) -> None:
    appeared = {name for name, _ in disk.list_directory(directory)} - names
    if appeared:
        raise changed(b"/".join(filter(None, (path, min(appeared)))), "it appeared")


def _check(record: Record, status: os.stat_result, at: int, name: bytes, own: int) -> None:
    entry = record.entry
    if (
        status.st_ino != record.inode
        or status.st_mtime_ns != entry.mtime_ns
        or status.st_mode != _FORMATS[entry.kind] | entry.mode
        or status.st_uid != entry.uid
        or status.st_gid != entry.gid
        or (status.st_size != entry.size and entry.kind is _FILE)
        or status.st_dev != (record.device or own)
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
