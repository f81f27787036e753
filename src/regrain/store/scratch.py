"""A private directory beside a legacy directory: for what must not lie in a store.

It has a locked file in it while its owner lives, so that one that was left behind can be told
from one in use, as in ``temp/``.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from typing import TYPE_CHECKING, Self

from regrain import disk

if TYPE_CHECKING:
    from types import TracebackType

PREFIX = ".regrain-rehearsal-"
KEPT_PREFIX = "regrain-rehearsal-"
"""One that is to be kept has a name nobody sweeps."""

_LOCK = "lock"
_LOCK_FILE = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Scratch:
    """A new directory, locked while it is in use, removed at the end.

    Attributes:
        path: Where it is.
    """

    def __init__(self, parent: str, *, keep: bool = False) -> None:
        """Make it; OSError where that is impossible.

        Args:
            parent: The directory it is made in.
            keep: Leave it there at the end.
        """
        self._keep = keep
        self._name = (KEPT_PREFIX if keep else PREFIX) + secrets.token_hex(8)
        self.path = os.path.join(parent, self._name)
        self._parent = disk.Held(os.open(parent, _DIRECTORY))
        # Judged only by who has the parent's lock, since for a moment it has no lock of its own.
        disk.lock(self._parent.fd, exclusive=False, wait=True)
        try:
            disk.make_directory(self._name, self._parent.fd, 0o700)
            with disk.Closing(disk.open_directory(self._name, self._parent.fd)) as own:
                self._lock = disk.Held(disk.create(_LOCK, own))
            disk.lock(self._lock.fd, exclusive=True, wait=True)
        except BaseException:
            self._remove()
            raise
        finally:
            disk.unlock(self._parent.fd)

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove it, unless it is to be kept."""
        if not self._keep:
            self._remove()

    def _remove(self) -> None:
        """Remove all in it first, and what tells that it is in use last."""
        with contextlib.suppress(FileNotFoundError):
            with disk.Closing(disk.open_directory(self._name, self._parent.fd)) as own:
                for name, _ in disk.list_directory(own):
                    if name != _LOCK.encode():
                        disk.remove_tree(name, own)
            disk.remove_tree(self._name, self._parent.fd)


def left_over(parent: str) -> list[str]:
    """Return the names of such directories whose owner is dead; none where one may not look."""
    return sorted(name for name, _ in _dead(parent))


def sweep(parent: str) -> list[str]:
    """Remove what dead ones left behind; return their names."""
    swept, dead = [], _dead(parent)
    if not dead:
        return []
    with disk.Closing(os.open(parent, _DIRECTORY)) as fd:
        for name, _lock in dead:  # held until it is gone
            with contextlib.suppress(FileNotFoundError):  # its owner was at it himself
                disk.remove_tree(name, fd)
                swept.append(name)
    return sorted(swept)


def _dead(parent: str) -> list[tuple[str, disk.Held | None]]:
    """Return those that nobody uses, each with its lock, which keeps others away."""
    try:
        opened = disk.Closing(os.open(parent, _DIRECTORY))
    except OSError:
        return []
    with opened as fd:
        names = [
            os.fsdecode(name)
            for name, kind in disk.list_directory(fd)
            if kind is disk.DIRECTORY and name.startswith(PREFIX.encode())
        ]
        if not names or not disk.lock(fd, exclusive=True, wait=False):
            return []
        found = []
        for name in names:
            with contextlib.suppress(OSError):  # gone, another's to sweep, or in use
                found.append((name, _lock_of(name, fd)))
        return found


def _lock_of(name: str, parent: int) -> disk.Held | None:
    """Take the lock of such a directory; None where it has none, so that nobody uses it.

    Raises:
        OSError: Somebody holds it, or it is not ours to judge.
    """
    with disk.Closing(disk.open_directory(name, parent)) as directory:
        try:
            lock = disk.Held(os.open(_LOCK, _LOCK_FILE, dir_fd=directory))
        except FileNotFoundError:
            return None
    if not disk.lock(lock.fd, exclusive=True, wait=False):
        raise BlockingIOError
    return lock
