"""Move directories to other parents, also those their owner may not write to."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

from regrain import disk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PINNED = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def move_directory(name: bytes, at: int, target: bytes, target_at: int) -> None:
    """Rename a directory to another parent; FileExistsError if the name there is taken.

    That rewrites its ``..``, for which its owner must have the right to write to it: where
    that is missing it is lent. A file moves just so.
    """
    _with_leave(
        lambda: disk.rename_noreplace(name, at, target, target_at),
        (name, at),
    )


def exchange_directories(name: bytes, at: int, other: bytes, other_at: int) -> None:
    """Let two directories with different parents change places, in one step.

    Files, too. Their own times stay what they were, which xfs does not see to.
    """
    with _times_kept(name, at), _times_kept(other, other_at):
        _with_leave(
            lambda: disk.rename_exchange(name, at, other, other_at),
            (name, at),
            (other, other_at),
        )


def _with_leave(rename: Callable[[], None], *directories: tuple[bytes, int]) -> None:
    """Rename; where that is forbidden, once more with the right to write to the directories."""
    try:
        rename()
    except PermissionError:
        with contextlib.ExitStack() as stack:
            lent = [stack.enter_context(_lent(name, at)) for name, at in directories]
            if not any(lent):
                raise
            rename()


def take_back(name: str, at: int, mode: int) -> None:
    """Take back from a directory the right to write that a killed process had lent to its owner.

    Args:
        name: The directory, in the open directory ``at``.
        at: Where it is.
        mode: What it should have; it is left alone where more than that right differs.
    """
    try:
        pinned = disk.Closing(os.open(name, _PINNED, dir_fd=at))
    except (FileNotFoundError, NotADirectoryError):
        return
    with pinned as fd:
        if not mode & stat.S_IWUSR and stat.S_IMODE(os.fstat(fd).st_mode) == mode | stat.S_IWUSR:
            os.chmod(b"/proc/self/fd/%d" % fd, mode)


@contextlib.contextmanager
def _times_kept(name: bytes, at: int) -> Iterator[None]:
    """Give a directory its modification time back, durably, if it moves meanwhile."""
    try:
        pinned = disk.Closing(os.open(name, _PINNED, dir_fd=at))
    except NotADirectoryError:
        yield
        return
    with pinned as fd:
        before = os.fstat(fd)
        yield
        if os.fstat(fd).st_mtime_ns != before.st_mtime_ns:
            path = b"/proc/self/fd/%d" % fd
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
            with disk.Closing(os.open(path, os.O_RDONLY | os.O_CLOEXEC)) as opened:
                disk.fsync(opened)


@contextlib.contextmanager
def _lent(name: bytes, at: int) -> Iterator[bool]:
    """Give a directory's owner the right to write to it, for a moment; tell whether it lacked it.

    It is pinned, so that the mode comes back to it wherever it lies by then.
    """
    try:
        pinned = disk.Closing(os.open(name, _PINNED, dir_fd=at))
    except NotADirectoryError:
        yield False
        return
    with pinned as fd:
        mode = stat.S_IMODE(os.fstat(fd).st_mode)
        if mode & stat.S_IWUSR:
            yield False
            return
        path = b"/proc/self/fd/%d" % fd
        os.chmod(path, mode | stat.S_IWUSR)
        try:
            yield True
        finally:
            os.chmod(path, mode)
