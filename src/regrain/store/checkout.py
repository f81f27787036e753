"""Make a package's tree appear in a directory, from either layout."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

from regrain import disk
from regrain.errors import CorruptionError, NoSpaceError, RegrainError, UsageError, reason
from regrain.model.entry import Entry, Kind

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from regrain.store.source import PackageSource

LABELS = (b"security.selinux", b"security.SMACK64", b"security.apparmor")
"""Labels the system gives by its own policy: recorded, not insisted on."""

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_SECOND = 10**9
_SAFE_SECONDS = range(2**31)
"""Times every file system can hold; others are read back after they were set."""


def checkout_exact(
    source: PackageSource, destination: str, on_entry: Callable[[Entry], None] | None = None
) -> int:
    """Recreate a package with every bit of metadata; nothing is linked into the store.

    Args:
        source: The package.
        destination: A directory that is made, or is there and empty.
        on_entry: Called for each entry that is done.

    Returns:
        The number of entries made, the root included.

    Raises:
        UsageError: The destination is in the way.
        NoSpaceError: The destination's file system is full.
        RegrainError: Something cannot be restored there; what was made is removed again.
    """
    made, fd = _open_destination(destination)
    try:
        with _Tree(fd, source) as tree:
            count = 0
            for entry in source.tree():
                tree.add(entry)
                count += 1
                if on_entry is not None:
                    on_entry(entry)
            tree.finish()
        return count
    except BaseException as error:
        _undo(destination, fd, made=made)
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
            kind = NoSpaceError if error.errno in _NO_SPACE else RegrainError
            raise kind(
                "cannot check the package out",
                path=destination,
                package=source.hash,
                why=reason(error),
            ) from error
        raise
    finally:
        os.close(fd)


def _open_destination(destination: str) -> tuple[bool, int]:
    """Return whether the directory had to be made, and its descriptor."""
    made = False
    try:
        try:
            os.mkdir(destination, 0o700)
            made = True
        except FileExistsError:
            if os.listdir(destination):
                raise UsageError(
                    "the destination is not empty",
                    path=destination,
                    advice="Name a directory that is absent or empty.",
                ) from None
        fd = os.open(destination, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(
            "cannot use the destination",
            path=destination,
            why=reason(error),
            advice="Name a directory that is absent or empty, in one that exists.",
        ) from error
    for name in ("system.posix_acl_default", "system.posix_acl_access"):
        with contextlib.suppress(OSError):  # what it inherited must not spread to the tree
            os.removexattr(fd, name)
    return made, fd


def _undo(destination: str, fd: int, *, made: bool) -> None:
    with contextlib.suppress(OSError):
        for name, _ in disk.list_directory(fd):
            disk.remove_tree(name, fd)
        if made:
            os.rmdir(destination)


class _Tree:
    """Builds a tree below an open directory, entry by entry, in the order of paths."""

    def __init__(self, root: int, source: PackageSource) -> None:
        self._source = source
        self._open: list[tuple[bytes, int]] = [(b"", root)]
        self._directories: list[Entry] = []
        self._root = root

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        while len(self._open) > 1:
            os.close(self._open.pop()[1])

    def add(self, entry: Entry) -> None:
        """Make one entry; directories get their metadata in ``finish``."""
        if entry.kind is Kind.DIRECTORY:
            self._directories.append(entry)
            if not entry.path:
                return
        parent, _, name = entry.path.rpartition(b"/")
        at = self._at(parent)
        if entry.kind is Kind.DIRECTORY:
            os.mkdir(name, 0o700, dir_fd=at)
        elif entry.hardlink is not None:
            first_parent, _, first = entry.hardlink.rpartition(b"/")
            with disk.Closing(disk.descend(first_parent, self._root)) as first_at:
                disk.link(first, first_at, name, at)
        elif entry.kind is Kind.SYMLINK:
            os.symlink(entry.target, name, dir_fd=at)
            _dress_symlink(entry, name, at)
        else:
            self._add_file(entry, name, at)

    def _add_file(self, entry: Entry, name: bytes, at: int) -> None:
        with disk.Closing(disk.create(name, at)) as target:
            with disk.Closing(self._source.open_content(entry)) as content:
                fill(content, target, entry.size)
            if os.fstat(target).st_size != entry.size:
                raise CorruptionError(
                    "a file shorter than its entry says", path=entry.path, package=self._source.hash
                )
            dress(entry, target)

    def _at(self, path: bytes) -> int:
        """Return the open directory ``path``; those on the way stay open for the next entry."""
        while not _is_within(path, self._open[-1][0]):
            os.close(self._open.pop()[1])
        here, fd = self._open[-1]
        rest = path[len(here) :].strip(b"/")
        for name in rest.split(b"/") if rest else ():
            fd = disk.open_directory(name, fd)
            here = here + b"/" + name if here else name
            self._open.append((here, fd))
        return fd

    def finish(self) -> None:
        """Give the directories their metadata, the innermost first."""
        for entry in reversed(self._directories):
            dress(entry, self._at(entry.path))


def _is_within(path: bytes, directory: bytes) -> bool:
    return not directory or path == directory or path.startswith(directory + b"/")


def fill(content: int, target: int, size: int) -> None:
    """Give ``target`` the bytes of ``content``: by reflink where possible, else by copy."""
    if size == 0:
        return
    try:
        disk.reflink(content, target)
    except OSError as error:
        if error.errno not in disk.NO_REFLINK:
            raise
        disk.copy_bytes(content, target, size)


def dress(entry: Entry, fd: int) -> None:
    """Give an open file or directory its owner, mode, attributes and time, in this order.

    ``chown`` takes set-id bits and capabilities away, so mode and attributes follow it;
    the time comes last since all before may change it.
    """
    status = os.fstat(fd)
    if (status.st_uid, status.st_gid) != (entry.uid, entry.gid):
        _must(entry, "owner", os.fchown, fd, entry.uid, entry.gid)
    os.fchmod(fd, entry.mode)
    for name, value in (entry.xattrs or {}).items():
        try:
            os.setxattr(fd, name, value)
        except OSError as error:
            _refuse_unless_label(entry, name, error)
    os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
    _check_time(entry, lambda: os.fstat(fd))


def _dress_symlink(entry: Entry, name: bytes, at: int) -> None:
    status = os.stat(name, dir_fd=at, follow_symlinks=False)
    if (status.st_uid, status.st_gid) != (entry.uid, entry.gid):
        _must(
            entry,
            "owner",
            lambda: os.chown(name, entry.uid, entry.gid, dir_fd=at, follow_symlinks=False),
        )
    for attribute, value in (entry.xattrs or {}).items():
        try:
            os.setxattr(
                b"/proc/self/fd/%d/%b" % (at, name), attribute, value, follow_symlinks=False
            )
        except OSError as error:
            _refuse_unless_label(entry, attribute, error)
    os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=at, follow_symlinks=False)
    _check_time(entry, lambda: os.stat(name, dir_fd=at, follow_symlinks=False))


def _must(entry: Entry, what: str, call: Callable[..., None], *arguments: object) -> None:
    try:
        call(*arguments)
    except OSError as error:
        raise RegrainError(
            f"cannot restore the {what} of a file",
            path=entry.path,
            why=reason(error),
            advice="An exact checkout of files of other owners needs root.",
        ) from error


def _refuse_unless_label(entry: Entry, name: bytes, error: OSError) -> None:
    if name.startswith(LABELS):
        return
    raise RegrainError(
        f"cannot restore the extended attribute {os.fsdecode(name)}",
        path=entry.path,
        why=reason(error),
        advice="Check out to a file system that keeps such attributes, with rights to set them.",
    ) from error


def _check_time(entry: Entry, look: Callable[[], os.stat_result]) -> None:
    """Refuse where the file system silently clamped a time it cannot hold."""
    if entry.mtime_ns // _SECOND in _SAFE_SECONDS:
        return
    if look().st_mtime_ns != entry.mtime_ns:
        raise RegrainError(
            "the file system cannot hold a modification time",
            path=entry.path,
            why=f"{entry.mtime_ns} ns was stored as {look().st_mtime_ns} ns",
            advice="Check out to another file system.",
        )
