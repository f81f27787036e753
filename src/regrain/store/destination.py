"""Where a checkout goes: a directory that is absent or empty, and is so again if it fails."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

from msgspec.structs import replace

from regrain import disk
from regrain.errors import NoSpaceError, RegrainError, UsageError, reason
from regrain.model.entry import Entry, Kind
from regrain.store.dress import dress

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType
    from typing import Self

_PLACE = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_ACLS = (b"system.posix_acl_default", b"system.posix_acl_access")


class Destination:
    """An open directory that is filled inside a ``with`` block.

    If the block fails, what is in the directory is removed; the directory itself goes, too,
    if it was made here, else it gets its own metadata back.

    Attributes:
        fd: The directory.
    """

    def __init__(self, path: str, avoid: int | None = None) -> None:
        """Make the directory, or open it if it is there and empty.

        Args:
            path: Where. Its last component must not be a symbolic link: who else may write
                beside it could lead us anywhere.
            avoid: An open directory it must not be in: the store.

        Raises:
            UsageError: It cannot be used.
        """
        with contextlib.ExitStack() as opened:
            try:
                parent, self._name = _split(path)
                self._parent = os.open(parent, _PLACE)
                opened.callback(os.close, self._parent)
                _check_outside(self._parent, path, avoid)
                self._made = self._make()
                opened.callback(self._remove)
                self.fd = disk.open_directory(self._name, self._parent)
                opened.callback(os.close, self.fd)
                self._was = _metadata(self.fd)
                if self._made:
                    os.fchmod(self.fd, 0o700)
                _check_empty(self.fd, path, avoid)
            except OSError as error:
                raise _unusable(path, error) from error
            self._drop(_ACLS)  # what it inherited must not spread to the tree
            opened.pop_all()

    def _make(self) -> bool:
        try:
            os.mkdir(self._name, dir_fd=self._parent)
        except FileExistsError:
            return False
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._undo()
        os.close(self.fd)
        os.close(self._parent)

    def keep_own_metadata(self) -> None:
        """Let the directory be what it was, or what ``mkdir`` makes, whatever is in it now."""
        was = replace(self._was, mtime_ns=os.fstat(self.fd).st_mtime_ns)
        if _metadata(self.fd) != was:
            dress(was, self.fd)

    def _undo(self) -> None:
        with contextlib.suppress(OSError):
            os.fchmod(self.fd, 0o700)
        with contextlib.suppress(OSError):
            for name, _ in disk.list_directory(self.fd):
                disk.remove_tree(name, self.fd)
        self._remove()
        if not self._made:
            with contextlib.suppress(OSError):
                self._drop(disk.read_xattrs(self.fd) or ())
                dress(self._was, self.fd)

    def _remove(self) -> None:
        if self._made:
            with contextlib.suppress(OSError):
                os.rmdir(self._name, dir_fd=self._parent)

    def _drop(self, names: Iterable[bytes]) -> None:
        for name in names:
            with contextlib.suppress(OSError):
                os.removexattr(self.fd, name)


def look(path: str, avoid: int | None = None) -> None:
    """Raise what ``Destination`` would raise, so far as that shows without making it."""
    with contextlib.ExitStack() as opened:
        try:
            directory, name = _split(path)
            parent = os.open(directory, _PLACE)
            opened.callback(os.close, parent)
            _check_outside(parent, path, avoid)
            with contextlib.suppress(FileNotFoundError):
                fd = disk.open_directory(name, parent)
                opened.callback(os.close, fd)
                _check_empty(fd, path, avoid)
        except OSError as error:
            raise _unusable(path, error) from error


def _split(path: str) -> tuple[str, str]:
    """Return the directory the destination is in, and its name there."""
    if not path or "\0" in path:
        raise UsageError(
            "not the name of a directory",
            path=path,
            advice="Name a directory that is absent or empty.",
        )
    parent, name = os.path.split(path.rstrip("/"))
    return parent or ("." if name else "/"), name or "."


def _check_outside(fd: int, path: str, avoid: int | None) -> None:
    if avoid is not None and is_inside(fd, avoid):
        raise _in_the_store(path)


def is_inside(fd: int, top: int) -> bool:
    """Tell whether an open directory is another, or lies below it, by going up."""
    wanted = _identity(top)
    here = os.dup(fd)
    try:
        while (identity := _identity(here)) != wanted:
            above = os.open("..", _PLACE, dir_fd=here)
            os.close(here)
            here = above
            if _identity(here) == identity:  # the root is its own parent
                return False
        return True
    finally:
        os.close(here)


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def _check_empty(fd: int, path: str, avoid: int | None) -> None:
    if avoid is not None and _identity(fd) == _identity(avoid):
        raise _in_the_store(path)
    if os.listdir(fd):
        raise UsageError(
            "the destination is not empty",
            path=path,
            advice="Name a directory that is absent or empty.",
        )


def _metadata(fd: int) -> Entry:
    status = os.fstat(fd)
    return Entry(
        b"",
        Kind.DIRECTORY,
        stat.S_IMODE(status.st_mode),
        status.st_uid,
        status.st_gid,
        status.st_mtime_ns,
        xattrs=disk.read_xattrs(fd),
    )


def _in_the_store(path: str) -> UsageError:
    return UsageError(
        "the destination is in the store",
        path=path,
        why="nothing but the store's own files may be there",
        advice="Name a directory outside of it.",
    )


def _unusable(path: str, error: OSError) -> RegrainError:
    if error.errno in disk.NO_SPACE:
        return NoSpaceError(
            "no space left at the destination",
            path=path,
            why=reason(error),
            advice="Free space or inodes there, or name another directory.",
        )
    is_symlink = os.path.islink(path.rstrip("/"))
    return UsageError(
        "cannot use the destination",
        path=path,
        why="it is a symbolic link" if is_symlink else reason(error),
        advice="Name a directory that is absent or empty, in one that exists.",
    )
