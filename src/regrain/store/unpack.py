"""Unpack a package archive into an empty directory, and nowhere else.

The tree becomes what ``tar -xp --numeric-owner`` makes as root with all attributes kept.
It is written by directory descriptors, one component at a time, never through a symbolic
link; every name is made new, so that nothing in the archive can change what an earlier
member made. What the archive leaves open is filled in the same way every time.
"""

from __future__ import annotations

import errno
import os
import stat
from array import array
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import msgspec
from blake3 import blake3

from regrain import disk
from regrain.errors import ArchiveError, reason
from regrain.model.layout import MANIFEST
from regrain.store.archive import Member, MemberKind, members
from regrain.store.archive_stream import Limits, Meter, open_stream
from regrain.store.checkout import LABELS
from regrain.store.cursor import Cursor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

__all__ = ["LIMITS", "Limits", "Unpacked", "unpack"]

LIMITS = Limits()

_IMPLIED_MODE = 0o755
_PRIVATE = 0o700
_DESCRIBED = stat.S_ISVTX | _PRIVATE
"""While unpacking, the sticky bit marks a directory that has had its member."""

_SECOND = 10**9
_SAFE_SECONDS = range(2**31)
"""Times every file system can hold; others are read back after they were set."""

_MAKES_A_FILE = (MemberKind.FILE, MemberKind.HARD_LINK)
_NO_DIRECTORY = (errno.ENOTDIR, errno.ELOOP)
_IMPOSSIBLE = (errno.EINVAL, errno.ERANGE, errno.E2BIG)


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What came out of an archive.

    Attributes:
        package_hash: BLAKE3-256 of the archive's own bytes, 64 hexadecimal digits.
        entries: Entries of the tree, the root included.
        files: Regular files, every path counted.
        size: Their bytes, every path counted.
    """

    package_hash: str
    entries: int
    files: int
    size: int


def unpack(archive: int, target: int, *, keep_owner: bool, limits: Limits = LIMITS) -> Unpacked:
    """Unpack a tar archive, plain or compressed with zstd.

    Directories that have no member of their own get mode 0755 and the time 0, and so does
    the root. Holes are made where the archive has them; zeroes are written as zeroes.
    Nothing is flushed. After an error the target is unfinished, and for the caller to remove.

    Args:
        archive: Open for reading at its beginning; a pipe will do.
        target: An open, empty directory that nobody else writes to.
        keep_owner: Give everything the owner the archive names, which takes root; else all
            belongs to this process.
        limits: What the archive may ask for.

    Raises:
        ArchiveError: The archive cannot be read, is broken, or asks for what is refused.
        OSError: The target cannot hold the tree; ``filename`` is the path below it.
    """
    if disk.list_directory(target):
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
    hasher, meter = blake3(), Meter(limits)
    with _Tree(target, limits, keep_owner=keep_owner) as tree:
        for member, content in members(open_stream(archive, hasher, meter, limits), meter, limits):
            tree.add(member, content)
        tree.finish()
        return Unpacked(hasher.hexdigest(), tree.entries, tree.files, tree.size)


def look_through(archive: int, limits: Limits = LIMITS) -> str:
    """Read an archive to its end, and return its package hash; nothing is written.

    Raises:
        ArchiveError: It cannot be read, is broken, asks for what is refused, or is no package.
    """
    hasher, meter = blake3(), Meter(limits)
    has_manifest = False
    for member, _ in members(open_stream(archive, hasher, meter, limits), meter, limits):
        has_manifest |= member.path == MANIFEST.encode() and member.kind in _MAKES_A_FILE
    if not has_manifest:
        raise _no_package()
    return hasher.hexdigest()


class _Tree:
    """Builds the tree; directories get their metadata when all is there."""

    def __init__(self, root: int, limits: Limits, *, keep_owner: bool) -> None:
        for name in ("system.posix_acl_default", "system.posix_acl_access"):
            _remove_attribute(root, name)  # what it inherited must not spread to the tree
        os.fchmod(root, _PRIVATE)
        self.entries = 1
        self.files = self.size = 0
        self._limits = limits
        self._owner = None if keep_owner else (os.geteuid(), os.getegid())
        self._cursor = Cursor(root)
        self._directories = _Directories(root)
        self._directories.note(_implied(b""))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._cursor.close()
        self._directories.close()

    def add(self, member: Member, content: Iterator[tuple[int, memoryview]]) -> None:
        """Make what a member describes; for a directory only its name as yet."""
        try:
            if member.kind is MemberKind.DIRECTORY:
                self._add_directory(member)
                return
            parent, _, name = member.path.rpartition(b"/")
            at = self._at(parent)
            self._count()
            if member.kind is MemberKind.FILE:
                self._add_file(member, content, name, at)
            elif member.kind is MemberKind.SYMLINK:
                os.symlink(member.target, name, dir_fd=at)
                _dress_symlink(member, name, at, self._owner)
            else:
                self._add_link(member, name, parent)
        except FileExistsError as error:
            raise ArchiveError("the same path twice in the archive", path=member.path) from error
        except OSError as error:
            error.filename = member.path
            raise

    def finish(self) -> None:
        """Check that it is a package, then give the directories their metadata."""
        root = self._cursor.at(b"")
        try:
            is_package = disk.kind_of(MANIFEST, root) is disk.FILE
        except FileNotFoundError:
            is_package = False
        if not is_package:
            raise _no_package()
        for directory in self._directories.innermost_first():
            try:
                _dress(directory, self._at(directory.path), self._owner)
            except OSError as error:
                error.filename = directory.path
                raise

    def _add_directory(self, member: Member) -> None:
        parent, _, name = member.path.rpartition(b"/")
        at = self._at(parent) if name else self._cursor.at(b"")
        name = name or b"."
        try:
            disk.make_directory(name, at, _DESCRIBED)
            self._count()
        except FileExistsError:
            status = os.stat(name, dir_fd=at, follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode) or status.st_mode & stat.S_ISVTX:
                raise
            os.chmod(name, _DESCRIBED, dir_fd=at)  # it was implied, and is a real directory
        self._directories.note(member)

    def _add_file(
        self, member: Member, content: Iterator[tuple[int, memoryview]], name: bytes, at: int
    ) -> None:
        with disk.Closing(disk.create(name, at)) as fd:
            position = 0
            for offset, piece in content:
                if offset != position:
                    os.lseek(fd, offset, os.SEEK_SET)
                disk.write_all(fd, piece)
                position = offset + len(piece)
            if position != member.size:
                os.ftruncate(fd, member.size)
            _dress(member, fd, self._owner)
        self.files += 1
        self.size += member.size

    def _add_link(self, member: Member, name: bytes, parent: bytes) -> None:
        """Give an earlier member a second name; its metadata is that of its first."""
        first_parent, _, first = member.target.rpartition(b"/")
        try:
            first_at = os.dup(self._at(first_parent, make=False))
        except FileNotFoundError as error:
            raise _link_to_nothing(member) from error
        with disk.Closing(first_at):
            try:
                status = os.stat(first, dir_fd=first_at, follow_symlinks=False)
            except FileNotFoundError as error:
                raise _link_to_nothing(member) from error
            if stat.S_ISDIR(status.st_mode):
                raise ArchiveError("a hard link to a directory", path=member.path)
            disk.link(first, first_at, name, self._at(parent))
        if stat.S_ISREG(status.st_mode):
            self.files += 1
            self.size += status.st_size

    def _count(self) -> None:
        self.entries += 1
        if self.entries > self._limits.entries_max:
            raise ArchiveError(
                "an archive with too many entries", why=f"the limit is {self._limits.entries_max}"
            )

    def _at(self, path: bytes, *, make: bool = True) -> int:
        """Return the open directory ``path``, which stays open for the next member."""
        return self._cursor.at(path, partial(self._step, make=make))

    def _step(self, name: bytes, at: int, path: bytes, *, make: bool) -> int:
        try:
            return disk.open_directory(name, at)
        except FileNotFoundError:
            if not make:
                raise
        except OSError as error:
            if error.errno in _NO_DIRECTORY:
                raise ArchiveError("a member below what is no directory", path=path) from error
            raise
        disk.make_directory(name, at, _PRIVATE)
        self._count()
        self._directories.note(_implied(path))
        return disk.open_directory(name, at)


def _no_package() -> ArchiveError:
    return ArchiveError(
        f"an archive without a {MANIFEST}",
        why="a package has that file at its root",
        advice="Pack the package's directory from inside, with 'tar -cf FILE -C DIRECTORY .'.",
    )


def _link_to_nothing(member: Member) -> ArchiveError:
    return ArchiveError(
        "a hard link to what is not in the archive before it", path=member.path, why="broken link"
    )


def _implied(path: bytes) -> Member:
    return Member(path, MemberKind.DIRECTORY, _IMPLIED_MODE, os.geteuid(), os.getegid(), 0)


_Row = tuple[bytes, int, int, int, int, int, dict[bytes, bytes]]


class _Directories:
    """What the directories get in the end, kept in a file without a name.

    In memory is a number a directory: its depth, and where in the file it is.
    """

    def __init__(self, target: int) -> None:
        fd = disk.create(b".directories", target)
        disk.unlink(b".directories", target)
        self._file = os.fdopen(fd, "w+b")
        self._index = array("Q")
        self._end = 0

    def note(self, directory: Member) -> None:
        """Take a directory; one that comes again counts as it came last."""
        seconds, nanoseconds = divmod(directory.mtime_ns, _SECOND)
        row: _Row = (
            directory.path,
            directory.mode,
            directory.uid,
            directory.gid,
            seconds,
            nanoseconds,
            directory.xattrs,
        )
        raw = msgspec.msgpack.encode(row)
        self._file.write(len(raw).to_bytes(4) + raw)
        depth = directory.path.count(b"/") + 1 if directory.path else 0
        self._index.append((_DEPTHS - depth) << _OFFSET_BITS | self._end)
        self._end += 4 + len(raw)

    def innermost_first(self) -> Iterator[Member]:
        """Yield the directories, so that none is shut before what is in it is done."""
        for number in sorted(self._index):
            self._file.seek(number & ((1 << _OFFSET_BITS) - 1))
            raw = self._file.read(int.from_bytes(self._file.read(4)))
            path, mode, uid, gid, seconds, nanoseconds, xattrs = _decode_row(raw)
            mtime_ns = seconds * _SECOND + nanoseconds
            yield Member(path, MemberKind.DIRECTORY, mode, uid, gid, mtime_ns, xattrs=xattrs)

    def close(self) -> None:
        """Let the file go."""
        self._file.close()


_decode_row = msgspec.msgpack.Decoder(_Row).decode
_OFFSET_BITS = 44
_DEPTHS = (1 << 64 - _OFFSET_BITS) - 1


def _dress(member: Member, fd: int, owner: tuple[int, int] | None) -> None:
    """Give an open file or directory its owner, attributes, mode and time, in this order.

    ``chown`` takes capabilities and set-id bits away, so all else follows it. Attributes
    come before the mode, since without rights they cannot be set on what is read-only; the
    mode takes none of them away, and an access list agrees with it. The time comes last.
    """
    uid, gid = owner or (member.uid, member.gid)
    status = os.fstat(fd)
    if (status.st_uid, status.st_gid) != (uid, gid):
        os.fchown(fd, uid, gid)
    for name, value in member.xattrs.items():
        _set_attribute(fd, name, value, member)
    os.fchmod(fd, member.mode)
    os.utime(fd, ns=(member.mtime_ns, member.mtime_ns))
    if member.mtime_ns // _SECOND not in _SAFE_SECONDS:
        _check_time(member, os.fstat(fd))


def _dress_symlink(member: Member, name: bytes, at: int, owner: tuple[int, int] | None) -> None:
    uid, gid = owner or (member.uid, member.gid)
    status = os.stat(name, dir_fd=at, follow_symlinks=False)
    if (status.st_uid, status.st_gid) != (uid, gid):
        os.chown(name, uid, gid, dir_fd=at, follow_symlinks=False)
    for attribute, value in member.xattrs.items():
        _set_attribute(b"/proc/self/fd/%d/%b" % (at, name), attribute, value, member)
    time_ns = member.mtime_ns
    os.utime(name, ns=(time_ns, time_ns), dir_fd=at, follow_symlinks=False)
    if time_ns // _SECOND not in _SAFE_SECONDS:
        _check_time(member, os.stat(name, dir_fd=at, follow_symlinks=False))


def _set_attribute(place: int | bytes, name: bytes, value: bytes, member: Member) -> None:
    try:
        os.setxattr(place, name, value, follow_symlinks=isinstance(place, int))
    except OSError as error:
        if name.startswith(LABELS):
            return
        is_link = member.kind is MemberKind.SYMLINK
        if error.errno in _IMPOSSIBLE or (is_link and name.startswith((b"user.", b"system."))):
            raise ArchiveError(
                f"an impossible extended attribute {os.fsdecode(name)}",
                path=member.path,
                why=reason(error),
            ) from error
        raise


def _remove_attribute(fd: int, name: str) -> None:
    try:
        os.removexattr(fd, name)
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP):
            raise


def _check_time(member: Member, status: os.stat_result) -> None:
    """Refuse where the file system silently clamped a time it cannot hold."""
    if status.st_mtime_ns != member.mtime_ns:
        raise OSError(errno.EOVERFLOW, "the file system cannot hold a modification time")
