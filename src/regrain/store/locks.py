"""The locks of a store, and its temporary directories, each locked by its run."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from typing import TYPE_CHECKING, Self

from regrain import disk
from regrain.errors import LockedError, RegrainError, reason
from regrain.model import layout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regrain.store.root import StoreRoot

_PARTS = (layout.OBJECTS, layout.PACKAGES, "slices")
_NOTE_BYTES_MAX = 200
_TRIES = 5
_TRY_SECONDS = 0.02
_LOCK_FILE = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


@contextlib.contextmanager
def run_lock(root: StoreRoot, what: str) -> Iterator[None]:
    """Hold the lock that one run (migrate, cutover, …) a store may have.

    Args:
        root: The store.
        what: The command, for whoever comes second.

    Raises:
        LockedError: Another run holds it; the message names that one.
    """
    with disk.Closing(_open(root, layout.RUN_LOCK)) as fd:
        if not _lock_soon(fd):
            holder = os.pread(fd, _NOTE_BYTES_MAX, 0).decode("utf-8", "replace").strip()
            raise LockedError(
                "another run holds the store",
                path=root.path,
                why=holder or "it did not say who it is",
                advice="Wait for it, or stop it, then run the command again.",
            )
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{what}, process {os.getpid()}\n".encode(), 0)
        try:
            yield
        finally:
            os.ftruncate(fd, 0)


def _lock_soon(fd: int) -> bool:
    """Take the lock; whoever only looks whether it is held lets go within an instant."""
    for _ in range(_TRIES):
        if disk.lock(fd, exclusive=True, wait=False):
            return True
        time.sleep(_TRY_SECONDS)
    return False


@contextlib.contextmanager
def store_lock(root: StoreRoot, *, exclusive: bool) -> Iterator[None]:
    """Hold ``store.lock``: shared while writing, exclusive to collect or switch phase."""
    with disk.Closing(_open(root, layout.STORE_LOCK)) as fd:
        disk.lock(fd, exclusive=exclusive, wait=True)
        yield


def is_running(root: StoreRoot) -> str:
    """Return who holds the run lock; empty if nobody does."""
    try:
        fd = _open(root, layout.RUN_LOCK)
    except RegrainError:
        return ""
    with disk.Closing(fd):
        if disk.lock(fd, exclusive=False, wait=False):
            return ""
        return os.pread(fd, _NOTE_BYTES_MAX, 0).decode("utf-8", "replace").strip()


def _open(root: StoreRoot, name: str) -> int:
    try:
        return os.open(name, _LOCK_FILE, 0o600, dir_fd=root.fd)
    except OSError as error:
        raise RegrainError(
            "cannot open a lock of the store",
            path=name,
            why=reason(error),
            advice="Run as the store's owner.",
        ) from error


class RunDirectory:
    """``temp/<run>/``: private staging, locked while the run lives."""

    def __init__(self, root: StoreRoot) -> None:
        self.name = secrets.token_hex(8)
        self._root = root
        with disk.Closing(disk.open_directory(layout.TEMP, root.fd)) as temp:
            try:
                self._make(temp)
            except BaseException:
                with contextlib.suppress(OSError):
                    disk.remove_tree(self.name, temp)
                raise

    def _make(self, temp: int) -> None:
        disk.make_directory(self.name, temp, 0o700)
        self._held = [disk.Held(disk.open_directory(self.name, temp))]
        self.fd = self._held[0].fd
        self._held.append(disk.Held(disk.create("lock", self.fd)))
        disk.lock(self._held[1].fd, exclusive=True, wait=True)
        for name in _PARTS:
            disk.make_directory(name, self.fd, 0o700)
            self._held.append(disk.Held(disk.open_directory(name, self.fd)))
        self.pool, self.staging = self._held[2].fd, self._held[3].fd
        disk.fsync(temp)

    def __enter__(self) -> Self:
        """Return the directory."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Remove it; what is left in it was not published.

        After an error an empty directory stays behind, by which the next run knows that
        objects may have got names without a row in the ledger.
        """
        try:
            for name in _PARTS:
                disk.remove_tree(name, self.fd)
            if kind is None:
                with disk.Closing(disk.open_directory(layout.TEMP, self._root.fd)) as temp:
                    disk.remove_tree(self.name, temp)
        finally:
            self._held.clear()


def empty_dead_runs(root: StoreRoot) -> list[str]:
    """Empty the temporary directories whose run is dead; return their names.

    The directories themselves stay until ``forget_dead_runs``: they tell that objects may
    have got names without a row in the ledger. Only who holds the run lock may call this: a
    single file in ``temp/`` is then left over by somebody who was killed.
    """
    names = dead_runs(root)
    with disk.Closing(disk.open_directory(layout.TEMP, root.fd)) as temp:
        for name in names:
            with disk.Closing(disk.open_directory(name, temp)) as directory:
                for child, _ in disk.list_directory(directory):
                    disk.remove_tree(child, directory)
        for raw, kind in disk.list_directory(temp):
            if kind is not disk.DIRECTORY:
                disk.unlink(raw, temp)
    return names


def forget_dead_runs(root: StoreRoot, names: list[str]) -> None:
    """Remove the emptied directories of dead runs, once all they left has been seen to."""
    with disk.Closing(disk.open_directory(layout.TEMP, root.fd)) as temp:
        for name in names:
            disk.remove_tree(name, temp)


def dead_runs(root: StoreRoot) -> list[str]:
    """Return the temporary directories nobody works in: their lock is free."""
    with disk.Closing(disk.open_directory(layout.TEMP, root.fd)) as temp:
        return [
            os.fsdecode(name)
            for name, kind in disk.list_directory(temp)
            if kind is disk.DIRECTORY and _is_dead(name, temp)
        ]


def _is_dead(name: bytes, temp: int) -> bool:
    try:
        with disk.Closing(disk.open_directory(name, temp)) as directory:
            fd = os.open("lock", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return True
    except PermissionError:  # root's, and we are not: it is for root to sweep
        return False
    with disk.Closing(fd):
        return disk.lock(fd, exclusive=True, wait=False)
