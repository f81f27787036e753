"""Make a package's tree, or a part of it, appear in a directory, from either layout."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, NamedTuple

from blake3 import blake3

from regrain import disk
from regrain.errors import (
    CorruptionError,
    NoSpaceError,
    PackageError,
    RegrainError,
    UnknownPackageError,
    UsageError,
    reason,
    shown,
)
from regrain.model.entry import Entry, Kind, is_inside
from regrain.store.cursor import Cursor
from regrain.store.destination import Destination
from regrain.store.dress import LABELS, dress, dress_symlink
from regrain.store.frames import pour
from regrain.store.objects import hash_fd
from regrain.store.share import LINK_IMPOSSIBLE
from regrain.store.source import MovedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self

    from regrain.store.share import Share
    from regrain.store.source import PackageSource

__all__ = ["LABELS", "WHOLE", "Part", "checkout", "find_part"]

_NEVER_REFLINK = frozenset({errno.EOPNOTSUPP, errno.EXDEV, errno.ENOTTY, errno.ENOSYS})
"""Of what FICLONE answers: what it will answer for the next file, too."""

_DAMAGED = frozenset({errno.EIO, errno.EBADMSG})


class Part(NamedTuple):
    """What of a package is wanted: all, a directory, or one file.

    Attributes:
        top: Its path in the package; empty for all.
        is_file: Whether a file is there.
    """

    top: bytes = b""
    is_file: bool = False

    def place(self, path: bytes) -> bytes | None:
        """Return where a path of the package comes to lie; None if it is not wanted.

        A directory becomes the destination itself; a file lies in it under its own name.
        """
        if not self.top:
            return path
        if path == self.top:
            return path.rpartition(b"/")[2] if self.is_file else b""
        below = self.top + b"/"
        return path[len(below) :] if path.startswith(below) else None

    def of(self, source: PackageSource) -> Iterator[tuple[Entry, bytes]]:
        """Yield what is wanted of a package, and where it comes to lie.

        The whole list is read in any case: what it says counts only if its end fits.
        """
        for entry in source.tree():
            place = self.place(entry.path)
            if place is not None:
                yield entry, place


WHOLE = Part()


def find_part(source: PackageSource, path: str | bytes) -> Part:
    """Return the part of a package that is at ``path``; symbolic links are not followed.

    Raises:
        UsageError: It is no path inside a package.
        UnknownPackageError: The package has no directory and no file there.
    """
    raw = path.encode("utf-8", "surrogateescape") if isinstance(path, str) else path
    top = raw.rstrip(b"/")
    if not top or not is_inside(top):
        raise UsageError(
            "not a path inside a package",
            path=raw,
            why="it must be relative, every component an ordinary name",
            advice="Give it as 'regrain files' shows it.",
        )
    entry = source.lookup(top)
    if entry is None or entry.kind is Kind.SYMLINK:
        raise UnknownPackageError(
            "no directory and no file to check out",
            path=top,
            package=source.hash,
            why=_why_not_there(source, top),
            advice=f"'regrain files {source.hash}' lists what it has.",
        )
    return Part(top, entry.kind is Kind.FILE)


def _why_not_there(source: PackageSource, path: bytes) -> str:
    names = path.split(b"/")
    for count in range(1, len(names) + 1):
        above = b"/".join(names[:count])
        entry = source.lookup(above)
        if entry is None:
            break
        if entry.kind is Kind.SYMLINK:
            return f"'{shown(above)}' is a symbolic link, which is not followed"
    return "the package has no such path"


def checkout(  # noqa: PLR0913 -- one call with its choices, each by its keyword
    source: PackageSource,
    destination: str,
    *,
    part: Part = WHOLE,
    share: Share | None = None,
    avoid: int | None = None,
    on_entry: Callable[[Entry], None] | None = None,
    may_reflink: bool = True,
) -> int:
    """Recreate a package with every bit of metadata; what is handed out is checked.

    Args:
        source: The package.
        destination: A directory that is made, or is there and empty.
        part: What of it.
        share: Links files out of the store where it can; by default nothing is linked.
        avoid: An open directory the destination must not be in: the store.
        on_entry: Called for each entry that is done.
        may_reflink: Whether files may share their blocks with the store's.

    Returns:
        The number of entries made, the top one included.

    Raises:
        UsageError: The destination is in the way.
        NoSpaceError: The destination's file system is full.
        CorruptionError: The package is damaged.
        FileNotFoundError: The package is no longer where it was.
        RegrainError: Something cannot be restored there. Whatever is raised, what was made
            is removed again.
    """
    count = 0
    try:
        with (
            Destination(destination, avoid) as place,
            _Tree(place.fd, part, share, _Copier(source, may_reflink=may_reflink)) as tree,
        ):
            for entry, path in part.of(source):
                tree.add(entry, path)
                count += 1
                if on_entry is not None:
                    on_entry(entry)
            if not count:
                raise _changed(part.top, source.hash)
            tree.finish()
            if part.is_file:
                place.keep_own_metadata()
    except MovedError:
        raise
    except OSError as error:
        kind = NoSpaceError if error.errno in disk.NO_SPACE else RegrainError
        raise kind(
            "cannot check the package out", path=destination, package=source.hash, why=reason(error)
        ) from error
    return count


class _Tree:
    """Builds a tree below an open directory, entry by entry, in the order of paths."""

    def __init__(self, root: int, part: Part, share: Share | None, copier: _Copier) -> None:
        self._root = root
        self._part = part
        self._share = share
        self._copier = copier
        self._cursor = Cursor(root)
        self._directories: list[tuple[Entry, bytes]] = []
        self._stand_ins: dict[bytes, bytes] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._cursor.close()

    def add(self, entry: Entry, path: bytes) -> None:
        """Make one entry at ``path``; directories get their metadata in ``finish``.

        Raises:
            RegrainError: Its name is taken. Nothing was there and every entry has a name of
                its own, so the file system takes it for another's.
        """
        try:
            self._add(entry, path)
        except FileExistsError as error:
            raise RegrainError(
                "a name of the package is taken at the destination",
                path=path,
                why="its file system takes it for that of another file, as where case or "
                "composition is folded, or somebody else writes there",
                advice="Name a directory that tells all names apart, and that nobody else uses.",
            ) from error

    def _add(self, entry: Entry, path: bytes) -> None:
        parent, _, name = path.rpartition(b"/")
        if entry.kind is Kind.DIRECTORY:
            self._directories.append((entry, path))
            if path:
                os.mkdir(name, 0o700, dir_fd=self._cursor.at(parent))
            return
        at = self._cursor.at(parent)
        if entry.hardlink is not None:
            if self._join(entry.hardlink, name, at):
                return
            self._stand_ins[entry.hardlink] = path
        if entry.kind is Kind.SYMLINK:
            os.symlink(entry.target, name, dir_fd=at)
            dress_symlink(entry, name, at)
        elif self._share is None or not self._share.link(entry, name, at):
            with disk.Closing(disk.create(name, at)) as target:
                self._copier.fill(entry, target)
                dress(entry, target)

    def _join(self, group: bytes, name: bytes, at: int) -> bool:
        """Link a file to the others of its group; False if it must be made itself.

        That is so where none of them is wanted, or, in a shared checkout, where the inode
        has as many links as it can have; it then stands for the group from there on.
        """
        path = self._stand_ins.get(group, self._part.place(group))
        if path is None:
            return False
        parent, _, first = path.rpartition(b"/")
        with disk.Closing(disk.descend(parent, self._root)) as first_at:
            try:
                disk.link(first, first_at, name, at)
            except OSError as error:
                if self._share is None or error.errno not in LINK_IMPOSSIBLE:
                    raise
                return False
        return True

    def finish(self) -> None:
        """Give the directories their metadata, the innermost first."""
        for entry, path in reversed(self._directories):
            dress(entry, self._cursor.at(path))


class _Copier:
    """Gives new files the bytes of a package's files, and checks what arrived."""

    def __init__(self, source: PackageSource, *, may_reflink: bool) -> None:
        self._source = source
        self._may_reflink = may_reflink

    def fill(self, entry: Entry, target: int) -> None:
        """Give ``target`` the bytes of a file: by reflink where possible, else by copy."""
        if not entry.size:
            return
        try:
            content, is_compressed = self._source.open_stored(entry)
        except OSError as error:
            raise self._unreadable(entry, error) from error
        with disk.Closing(content):
            try:
                if is_compressed:
                    arrived = pour(content, target)
                else:
                    arrived = self._copy(content, target, entry)
            except disk.SourceReadError as error:
                raise self._unreadable(entry, error) from error
            if entry.digest:
                self._compare(entry, *arrived)
            else:
                status = os.fstat(content)
                if (status.st_size, status.st_mtime_ns) != (entry.size, entry.mtime_ns):
                    raise _changed(entry.path, self._source.hash)

    def _copy(self, content: int, target: int, entry: Entry) -> tuple[str, int]:
        """Copy; return digest and size of what arrived, read back where it was not in hand."""
        if not self._reflink(content, target):
            if _is_small(content, entry.size):
                return _copy_in_hand(content, target, entry.size)
            disk.copy_bytes(content, target, entry.size)
        return hash_fd(target) if entry.digest else ("", 0)

    def _reflink(self, content: int, target: int) -> bool:
        if not self._may_reflink:
            return False
        try:
            disk.reflink(content, target)
        except OSError as error:
            if error.errno not in disk.NO_REFLINK:
                raise
            self._may_reflink = error.errno not in _NEVER_REFLINK
            return False
        return True

    def _compare(self, entry: Entry, digest: str, size: int) -> None:
        if (digest, size) != (entry.digest, entry.size):
            raise CorruptionError(
                "an object does not hold the bytes of its name",
                path=entry.path,
                package=self._source.hash,
                why=f"object {entry.digest} hashes to {digest}",
                advice="Run 'regrain verify' to find what else is damaged.",
            )

    def _unreadable(self, entry: Entry, error: OSError) -> Exception:
        if isinstance(error, FileNotFoundError):
            return MovedError(errno.ENOENT, "the package moved", self._source.hash)
        kind = CorruptionError if error.errno in _DAMAGED else RegrainError
        return kind(
            "cannot read a file of the package",
            path=entry.path,
            package=self._source.hash,
            why=reason(error),
        )


def _is_small(fd: int, size: int) -> bool:
    """Tell whether a file is read in one call, and has no holes to keep."""
    return size <= disk.PIECE and disk.allocated(os.fstat(fd)) >= size


def _copy_in_hand(content: int, target: int, size: int) -> tuple[str, int]:
    try:
        data = os.read(content, size + 1)
    except OSError as error:
        raise disk.SourceReadError(*error.args) from error
    disk.write_all(target, data)
    return blake3(data).hexdigest(), len(data)


def _changed(path: bytes, package: str) -> PackageError:
    return PackageError(
        "the package changed while it was read",
        path=path,
        package=package,
        advice="Let its writer finish, then check it out again.",
    )
