"""Packages in the legacy layout: a directory per package. A room that can be deleted."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from regrain import disk
from regrain.errors import PackageError, UnknownPackageError, path_of, reason
from regrain.model.entry import Entry, Kind, is_inside
from regrain.model.layout import MANIFEST
from regrain.model.manifest import BYTES_MAX, Manifest, parse_manifest
from regrain.model.phase import Layout
from regrain.store.objects import Stored, hash_fd
from regrain.store.source import MovedError

if TYPE_CHECKING:
    from collections.abc import Iterator

_SPECIAL = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


_NO_SUCH_PATH = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})


class SpecialFileError(PackageError):
    """A file that is neither regular nor a directory nor a symbolic link."""


def special_file(path: bytes, mode: int) -> SpecialFileError:
    """Return the error for a special file in a package."""
    return SpecialFileError(
        "a special file in a package",
        path=path,
        why=f"it is {_SPECIAL.get(stat.S_IFMT(mode), 'of an unknown type')}",
        advice="Only regular files, directories and symbolic links can be kept; remove it.",
    )


def changed(path: bytes, why: str = "") -> PackageError:
    """Return the error for a package that was written to while it was read."""
    return PackageError(
        "the package changed while it was read",
        path=path,
        why=why,
        advice="Let its writer finish, then 'regrain migrate --retry-failed'.",
    )


def source_error(error: OSError, path: bytes) -> PackageError:
    """Return what an error while reading a legacy tree means for its package."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE):
        return changed(path, reason(error))
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return PackageError(
            "a directory tree too deep for the limit on open files",
            path=path,
            why=reason(error),
            advice="Raise it (ulimit -n) and retry with 'regrain migrate --retry-failed'.",
        )
    return PackageError(
        "cannot read the package",
        path=path,
        why=reason(error),
        advice="Mend the cause, then 'regrain migrate --retry-failed'.",
    )


class Found(NamedTuple):
    """One thing seen in a legacy tree: its entry, digest left empty, and its inode's facts."""

    entry: Entry
    status: os.stat_result


def find(at: int, name: bytes, path: bytes, kind: str) -> Found:
    """Read all metadata of ``name`` in the open directory ``at``.

    Raises:
        SpecialFileError: It is a FIFO, socket or device.
        OSError: It cannot be read, or is not what it was a moment ago.
    """
    if kind is disk.DIRECTORY:
        with disk.Closing(disk.open_directory(name, at)) as fd:
            return found_directory(fd, path)
    if kind is disk.SYMLINK:
        return found_symlink(at, name, path)
    if kind is disk.SPECIAL:
        raise special_file(path, os.stat(name, dir_fd=at, follow_symlinks=False).st_mode)
    with disk.Closing(disk.open_file(name, at)) as fd:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise special_file(path, status.st_mode)
        return Found(file_entry(path, status, disk.read_xattrs(fd)), status)


def found_directory(fd: int, path: bytes) -> Found:
    """Return what an open directory is."""
    status = os.fstat(fd)
    entry = Entry(
        path,
        Kind.DIRECTORY,
        stat.S_IMODE(status.st_mode),
        status.st_uid,
        status.st_gid,
        status.st_mtime_ns,
        xattrs=disk.read_xattrs(fd),
    )
    return Found(entry, status)


def found_symlink(at: int, name: bytes, path: bytes) -> Found:
    """Return what a symbolic link is."""
    status = os.stat(name, dir_fd=at, follow_symlinks=False)
    entry = Entry(
        path,
        Kind.SYMLINK,
        stat.S_IMODE(status.st_mode),
        status.st_uid,
        status.st_gid,
        status.st_mtime_ns,
        target=os.readlink(name, dir_fd=at),
        xattrs=disk.read_xattrs(b"/proc/self/fd/%d/%b" % (at, name)),
    )
    return Found(entry, status)


def file_entry(path: bytes, status: os.stat_result, xattrs: dict[bytes, bytes] | None) -> Entry:
    """Return the entry of a regular file, its digest left empty."""
    return Entry(
        path,
        Kind.FILE,
        stat.S_IMODE(status.st_mode),
        status.st_uid,
        status.st_gid,
        status.st_mtime_ns,
        size=status.st_size,
        xattrs=xattrs,
    )


def listing(root: int) -> Iterator[Found]:
    """Yield a whole legacy tree, root first, sorted by raw path bytes; bytes are not read."""
    yield found_directory(root, b"")
    firsts: dict[tuple[int, int], bytes] = {}
    for at, name, path, kind in _walk(root):
        try:
            found = find(at, name, path, kind)
        except OSError as error:
            raise source_error(error, path) from error
        status = found.status
        if found.entry.kind is not Kind.DIRECTORY and status.st_nlink > 1:
            first = firsts.setdefault((status.st_dev, status.st_ino), path)
            if first != path:
                found = Found(replace(found.entry, hardlink=first), status)
        yield found


def _walk(root: int) -> Iterator[tuple[int, bytes, bytes, str]]:
    try:
        yield from disk.walk(root)
    except OSError as error:
        raise source_error(error, path_of(error)) from error


class LegacyPackage:
    """A legacy package, pinned by its open directory."""

    layout = Layout.LEGACY

    def __init__(self, store: int, package_hash: str) -> None:
        """Open it; FileNotFoundError if it has no legacy directory."""
        self.hash = package_hash
        self._store = store
        try:
            self._held = disk.Held(disk.open_directory(package_hash, store))
        except NotADirectoryError as error:
            raise FileNotFoundError(*error.args) from error

    def tree(self) -> Iterator[Entry]:
        """Yield all entries without reading their bytes; digests stay empty.

        Raises:
            MovedError: It was taken away meanwhile, so that what was yielded may not be all.
        """
        try:
            for found in listing(self._held.fd):
                yield found.entry
        except PackageError:
            self.check_there()
            raise
        self.check_there()

    def entries(self) -> Iterator[Entry]:
        """Yield all entries; every file is read for its digest."""
        for entry in self.tree():
            if entry.kind is Kind.FILE:
                with disk.Closing(self.open_content(entry)) as fd:
                    yield replace(entry, digest=hash_fd(fd)[0])
            else:
                yield entry

    def lookup(self, path: bytes) -> Entry | None:
        """Return the entry at ``path``, links not followed; its digest stays empty."""
        if not path:
            return found_directory(self._held.fd, b"").entry
        if not is_inside(path):
            return None
        parent, _, name = path.rpartition(b"/")
        try:
            with disk.Closing(disk.descend(parent, self._held.fd)) as at:
                return find(at, name, path, disk.kind_of(name, at)).entry
        except OSError as error:
            if error.errno not in _NO_SUCH_PATH:
                raise
        self.check_there()
        return None

    def check_there(self) -> None:
        """Tell "no such path" from "the directory itself is being removed under us".

        It loses its name in the store before the first thing in it is removed.
        """
        if not disk.is_at(self._held.fd, self.hash, self._store):
            raise MovedError(errno.ENOENT, "the legacy directory was removed", self.hash)

    def open_content(self, entry: Entry) -> int:
        """Open the bytes of a file's entry."""
        if entry.kind is not Kind.FILE:
            raise UnknownPackageError("not a file", path=entry.path, package=self.hash)
        parent, _, name = entry.path.rpartition(b"/")
        with disk.Closing(disk.descend(parent, self._held.fd)) as at:
            return disk.open_file(name, at)

    def open_stored(self, entry: Entry) -> Stored:
        """Open the bytes of a file's entry, which are never compressed here."""
        return Stored(self.open_content(entry))

    def manifest(self) -> Manifest:
        """Return the package's own manifest."""
        try:
            return parse_manifest(disk.read_all(MANIFEST, self._held.fd, BYTES_MAX))
        except OSError:
            self.check_there()
            return Manifest()


def usage(root: int) -> Iterator[tuple[int, int, os.stat_result]]:
    """Yield (device, inode, status) of everything in a tree, the root included."""
    status = os.fstat(root)
    yield status.st_dev, status.st_ino, status
    for at, name, _, _ in disk.walk(root):
        status = os.stat(name, dir_fd=at, follow_symlinks=False)
        yield status.st_dev, status.st_ino, status


def freed_with(root: int) -> int:
    """Return the bytes on disk that go with a tree: of inodes whose names are all in it."""
    names: dict[tuple[int, int], tuple[int, int]] = {}
    total = 0
    for device, inode, status in usage(root):
        if stat.S_ISDIR(status.st_mode) or status.st_nlink == 1:
            total += disk.allocated(status)
        else:
            seen, _ = names.get((device, inode), (0, 0))
            names[device, inode] = (seen + 1, status.st_nlink)
            if seen + 1 == status.st_nlink:
                total += disk.allocated(status)
    return total
