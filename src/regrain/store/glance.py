"""Does a legacy tree still look as its published file list says? A look at every inode, at no byte.

What an inode is shows in its status, but for its extended attributes and the target of a symbolic
link. One whose change time lies before the file list was written has those it had then, since
that time moves with them and cannot be set back. So they are read only of what was touched later,
if only by a link to it.
"""

from __future__ import annotations

import os
import stat
from itertools import zip_longest
from typing import TYPE_CHECKING

from msgspec.structs import replace

from regrain import disk
from regrain.model.entry import Entry, Kind
from regrain.store.compare import first_difference
from regrain.store.legacy import find, found_directory, source_error

if TYPE_CHECKING:
    from collections.abc import Iterator

_FORMATS = {Kind.FILE: stat.S_IFREG, Kind.DIRECTORY: stat.S_IFDIR, Kind.SYMLINK: stat.S_IFLNK}
_FILE = Kind.FILE


def first_change(listed: Iterator[Entry], root: int, listed_at_ns: int) -> tuple[bytes, str] | None:
    """Return path and nature of the first thing that is not as listed; None if all is.

    Args:
        listed: The entries of the file list, the root first.
        root: The open legacy directory.
        listed_at_ns: When the list was written.

    Raises:
        PackageError: The tree cannot be read, or holds a special file.
    """
    wanted = next(listed, None)
    try:
        found = first_difference(
            [] if wanted is None else [wanted], [found_directory(root, b"").entry], content=False
        )
        return found or _first_below(listed, root, listed_at_ns)
    except OSError as error:
        raise source_error(error, os.fsencode(error.filename or b"")) from error


def _first_below(listed: Iterator[Entry], root: int, listed_at_ns: int) -> tuple[bytes, str] | None:
    firsts: dict[tuple[int, int], bytes] = {}
    for wanted, seen in zip_longest(listed, disk.walk(root)):
        if wanted is None or (seen is not None and seen[2] < wanted.path):
            return seen[2], "it appeared"
        if seen is None or wanted.path < seen[2]:
            return wanted.path, "it vanished"
        at, name, path, kind = seen
        try:
            status = os.stat(name, dir_fd=at, follow_symlinks=False)
            first = None
            if status.st_nlink > 1 and kind is not disk.DIRECTORY:
                first = firsts.setdefault((status.st_dev, status.st_ino), path)
                first = None if first == path else first
            if _looks_as(wanted, status, first) and (
                status.st_ctime_ns < listed_at_ns or _has_attributes(wanted, at, name)
            ):
                continue
            entry = find(at, name, path, kind).entry
        except OSError as error:
            raise source_error(error, path) from error
        found = first_difference([wanted], [replace(entry, hardlink=first)], content=False)
        if found is not None:
            return found
    return None


def _looks_as(entry: Entry, status: os.stat_result, hardlink: bytes | None) -> bool:
    return (
        status.st_mtime_ns == entry.mtime_ns
        and status.st_mode == _FORMATS[entry.kind] | entry.mode
        and status.st_uid == entry.uid
        and status.st_gid == entry.gid
        and (status.st_size == entry.size or entry.kind is not _FILE)
        and hardlink == entry.hardlink
    )


def _has_attributes(entry: Entry, at: int, name: bytes) -> bool:
    """Tell whether an inode has the extended attributes of its entry, and the target, if any."""
    found = disk.read_xattrs(b"/proc/self/fd/%d/%b" % (at, name))
    return (found or {}) == (entry.xattrs or {}) and (
        entry.kind is not Kind.SYMLINK or os.readlink(name, dir_fd=at) == entry.target
    )
