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
from regrain.store import beyond

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regrain.store.root import StoreRoot

RUN_DIRECTORY_LOCK = "lock"
_PARTS = (layout.OBJECTS, layout.PACKAGES, "slices")
_NOTE_BYTES_MAX = 200
_TRIES = 5
_TRY_SECONDS = 0.02
PATIENCE_SECONDS = 60.0
"""How long those wait who want the store for themselves, once they are first in line."""

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
        with beyond.held(root, layout.RUN_LOCK, who=what) as (is_free, holder):
            if not is_free:
                raise LockedError(
                    "another run holds the store",
                    path=root.path,
                    why=holder,
                    advice="Wait for it, or stop it, then run the command again.",
                )
            _note(fd, f"{what}, process {os.getpid()}\n")
            try:
                yield
            finally:
                _note(fd, "")


def _note(fd: int, words: str) -> None:
    """Write into a lock who holds it; where that fails, who comes second only learns less."""
    with contextlib.suppress(OSError):
        os.ftruncate(fd, 0)
        os.pwrite(fd, words.encode(), 0)


def _lock_soon(fd: int) -> bool:
    """Take the lock; whoever only looks whether it is held lets go within an instant."""
    for _ in range(_TRIES):
        if disk.lock(fd, exclusive=True, wait=False):
            return True
        time.sleep(_TRY_SECONDS)
    return False


class StoreLock:
    """``store.lock``: shared while writing, exclusive to collect or to switch phase.

    Whoever takes it goes through a turnstile, and whoever waits for it alone stands in it:
    those who come later, to share it, wait behind. So nobody starves, and who shares it
    for long can see that it is wanted and give way.

    Args:
        root: The store.
        exclusive: Alone, or shared with others.
        patience: Seconds to wait for an exclusive lock.
    """

    def __init__(
        self, root: StoreRoot, *, exclusive: bool, patience: float = PATIENCE_SECONDS
    ) -> None:
        self._root = root
        self._exclusive = exclusive
        self._patience = patience
        self._turnstile = disk.Held(_open(root, layout.TURNSTILE))
        self._held: disk.Held | None = None
        self._beyond: beyond.Holding | None = None

    def __enter__(self) -> Self:
        """Take it.

        Raises:
            LockedError: It was not to be had alone in time.
        """
        self._take()
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of it."""
        self.let_go()

    def is_wanted(self) -> bool:
        """Tell whether somebody waits for it, and others behind them."""
        if self._beyond is not None and self._beyond.is_wanted():
            return True
        turnstile = disk.Held(_open(self._root, layout.TURNSTILE))
        return not disk.lock(turnstile.fd, exclusive=False, wait=False)

    def give_way(self) -> None:
        """Let those who wait have it first, then take it again."""
        self.let_go()
        self._take()

    def let_go(self) -> None:
        """Do without it for a while."""
        if self._beyond is not None:
            self._beyond.let_go()
        self._held = self._beyond = None

    def take_again(self) -> bool:
        """Take it if it was let go of; tell whether it was."""
        if self._held is not None:
            return False
        self._take()
        return True

    def _take(self) -> None:
        held = disk.Held(_open(self._root, layout.STORE_LOCK))
        disk.lock(self._turnstile.fd, exclusive=True, wait=True)
        try:
            if self._exclusive:
                self._wait_to_be_alone(held.fd)
            else:
                disk.lock(held.fd, exclusive=False, wait=True)
        finally:
            disk.unlock(self._turnstile.fd)
        self._beyond = self._beyond_too()
        self._held = held

    def _beyond_too(self) -> beyond.Holding | None:
        """Take it on other machines, too."""
        keeper = beyond.keeper_of(self._root)
        if keeper is None:
            return None
        patience = self._patience if self._exclusive else None
        taken = keeper.hold(layout.STORE_LOCK, exclusive=self._exclusive, patience=patience)
        if taken is None:
            raise self._in_use()
        return taken

    def _wait_to_be_alone(self, fd: int) -> None:
        due = time.monotonic() + self._patience
        while not disk.lock(fd, exclusive=True, wait=False):
            if time.monotonic() > due:
                raise self._in_use()
            time.sleep(_TRY_SECONDS)

    def _in_use(self) -> LockedError:
        return LockedError(
            "the store is being written to",
            path=self._root.path,
            why=f"its writers did not pause within {self._patience:g} s",
            advice="Run the command again when they are done.",
        )


@contextlib.contextmanager
def publish_lock(root: StoreRoot) -> Iterator[None]:
    """Hold what makes publishing and unpublishing packages take turns; always for short.

    From the last look whether a package may be published to its row in the ledger, and from
    the intent to remove one to the end of its rows.
    """
    with disk.Closing(_open(root, layout.PUBLISH_LOCK)) as fd:
        disk.lock(fd, exclusive=True, wait=True)
        with beyond.held(root, layout.PUBLISH_LOCK, patience=None):
            yield


def is_running(root: StoreRoot) -> str:
    """Return who holds the run lock; empty if nobody does.

    Opened for reading alone: who only looks may have no right to write, or no wish to.
    """
    try:
        fd = os.open(layout.RUN_LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root.fd)
    except OSError:
        return ""
    with disk.Closing(fd):
        if disk.lock(fd, exclusive=False, wait=False):
            keeper = beyond.keeper_of(root)
            return "" if keeper is None else keeper.holder(layout.RUN_LOCK)
        note = os.pread(fd, _NOTE_BYTES_MAX, 0).decode("utf-8", "replace").strip()
        return note or "a run that has not said what it is"


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
    """``temp/<run>/``: private staging, locked while the run lives.

    Attributes:
        marks_errors: Whether an error leaves an empty directory behind, by which the next
            run knows that objects may have got names without a row in the ledger.
        is_abandoned: Set where workers elsewhere may still write into it: it is left to the next
            run, which sweeps it.
    """

    def __init__(self, root: StoreRoot, *, marks_errors: bool = True) -> None:
        self.marks_errors = marks_errors
        self.is_abandoned = False
        self.name = secrets.token_hex(8)
        self._root = root
        self._held: list[disk.Held] = []
        self._beyond: beyond.Holding | None = None
        with _temp(root, exclusive=False) as temp:
            try:
                self._make(temp)
            except BaseException:
                with contextlib.suppress(OSError):
                    disk.remove_tree(self.name, temp)
                self._let_go()
                raise

    def _make(self, temp: int) -> None:
        keeper = beyond.keeper_of(self._root)
        if keeper is not None:  # before anybody sees it: the lock of temp/ is this machine's
            self._beyond = keeper.hold(_of_run(self.name), exclusive=True, patience=None)
        disk.make_directory(self.name, temp, 0o700)
        self._held.append(disk.Held(disk.open_directory(self.name, temp)))
        self.fd = self._held[0].fd
        self._held.append(disk.Held(disk.create(RUN_DIRECTORY_LOCK, self.fd)))
        disk.lock(self._held[1].fd, exclusive=True, wait=True)
        for name in _PARTS:
            disk.make_directory(name, self.fd, 0o700)
            self._held.append(disk.Held(disk.open_directory(name, self.fd)))
        self.pool, self.staging = self._held[2].fd, self._held[3].fd
        disk.fsync(temp)

    def __enter__(self) -> Self:
        """Return the directory."""
        return self

    def drop(self) -> None:
        """Drop all that is staged; only when nobody stages anything.

        The directories stay: workers know that they are there.
        """
        for fd in (held.fd for held in self._held[2:]):
            for name, kind in disk.list_directory(fd):
                if fd == self.pool and kind is disk.DIRECTORY:
                    with disk.Closing(disk.open_directory(name, fd)) as shard:
                        for carrier, _ in disk.list_directory(shard):
                            disk.unlink(carrier, shard)
                else:
                    disk.remove_tree(name, fd)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Remove it; what is left in it was not published."""
        try:
            if self.is_abandoned:
                return
            for name in os.listdir(self.fd):
                if name != RUN_DIRECTORY_LOCK:
                    disk.remove_tree(name, self.fd)
            if kind is None or not self.marks_errors:
                with _temp(self._root, exclusive=False) as temp:
                    disk.remove_tree(self.name, temp)
        finally:
            self._let_go()

    def _let_go(self) -> None:
        self._held.clear()
        if self._beyond is not None:
            self._beyond.let_go()


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
                with contextlib.suppress(FileNotFoundError):
                    disk.unlink(raw, temp)
    return names


def forget_dead_runs(root: StoreRoot, names: list[str]) -> None:
    """Remove the emptied directories of dead runs, once all they left has been seen to."""
    with disk.Closing(disk.open_directory(layout.TEMP, root.fd)) as temp:
        for name in names:
            disk.remove_tree(name, temp)


def dead_runs(root: StoreRoot) -> list[str]:
    """Return the temporary directories nobody works in: their lock is free."""
    with _temp(root, exclusive=True) as temp:
        return [
            os.fsdecode(name)
            for name, kind in disk.list_directory(temp)
            if kind is disk.DIRECTORY and _is_dead(name, temp) and not _lives_elsewhere(root, name)
        ]


def _of_run(name: str) -> str:
    return f"{layout.TEMP}/{name}"


def _lives_elsewhere(root: StoreRoot, name: bytes) -> bool:
    """Tell whether a run on another machine, whose file lock is not seen here, holds it."""
    keeper = beyond.keeper_of(root)
    return keeper is not None and bool(keeper.holder(_of_run(os.fsdecode(name))))


@contextlib.contextmanager
def _temp(root: StoreRoot, *, exclusive: bool) -> Iterator[int]:
    """Open ``temp/``, locked: shared to make and remove a run's directory, alone to judge them.

    One that is being made has no locked file yet, one that is being removed has none any
    more: both would be taken for dead.
    """
    with disk.Closing(disk.open_directory(layout.TEMP, root.fd)) as temp:
        disk.lock(temp, exclusive=exclusive, wait=True)
        yield temp


def _is_dead(name: bytes, temp: int) -> bool:
    try:
        opened = disk.Closing(disk.open_directory(name, temp))
    except FileNotFoundError:  # whoever sweeps was faster
        return False
    except PermissionError:  # root's, and we are not: it is for root to sweep
        return False
    try:
        with opened as directory:
            fd = os.open(
                RUN_DIRECTORY_LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory
            )
    except FileNotFoundError:
        return True
    except PermissionError:  # root's, and we are not: it is for root to sweep
        return False
    with disk.Closing(fd):
        return disk.lock(fd, exclusive=True, wait=False)
