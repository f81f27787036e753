"""Making a store of a directory: the facade of ``init``."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from regrain import disk
from regrain.errors import NoSpaceError, RegrainError, reason
from regrain.ledger import Ledger, open_ledger
from regrain.migrate.reconcile import queue_all
from regrain.model import layout
from regrain.store import root as store_root
from regrain.store.locks import run_lock
from regrain.store.root import StoreRoot, legacy_names, open_top

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from regrain.store.scan import Usage


@dataclass(frozen=True, slots=True)
class Initialised:
    """What ``init`` did.

    Attributes:
        created: False where it was a store already.
        queued: Packages that were not known before.
        packages: Legacy packages in the directory.
        foreign: Names that are no packages.
    """

    created: bool
    queued: int
    packages: int
    foreign: list[str]


def _ignore(_: object) -> None:
    """Take whatever comes."""


def would_initialise(path: str) -> Initialised:
    """Say what ``initialise`` would do; write nothing.

    Raises:
        NotAStoreError: There is no directory.
        CorruptionError: It is a store, but its ledger is missing or broken.
    """
    with disk.Closing(open_top(path)) as fd:
        created = _is_to_be_made(fd, path)
        names, foreign = legacy_names(fd)
    known: set[str] = set()
    if not created:
        ledger = open_ledger(path, read_only=True)
        known = ledger.known_packages()
        ledger.close()
    return Initialised(created, len(set(names) - known), len(names), foreign)


def initialise(path: str, on_package: Callable[[Usage], None] = _ignore) -> Initialised:
    """Make a store of a directory, empty or legacy, and queue every legacy package.

    Safe to repeat, and to run twice at the same time: it completes what is missing and queues
    what is new. What makes it a store is written last; so a store without a ledger is one that
    lost it, and is not given an empty one.

    Raises:
        NotAStoreError: There is no directory.
        CorruptionError: It is a store, but its ledger is missing or broken.
        LockedError: A run is under way.
        NoSpaceError: The disk is full.
    """
    with disk.Closing(open_top(path)) as fd:
        created = _is_to_be_made(fd, path)
        with making(path):
            store_root.prepare(fd)
            ledger = open_ledger(path, create=created)
        with contextlib.closing(ledger):
            with making(path):
                own_ledger(fd)
                created = created and store_root.first_store_file(fd)
            return _queue_legacy(StoreRoot(path), ledger, on_package, created=created)


@contextlib.contextmanager
def making(path: str) -> Iterator[None]:
    """Say of what the system refuses that no store could be made of a directory.

    Raises:
        NoSpaceError: There is no room.
        RegrainError: Something else.
    """
    try:
        yield
    except OSError as error:
        kind = NoSpaceError if error.errno in disk.NO_SPACE else RegrainError
        raise kind(
            "cannot make a store of the directory",
            path=path,
            why=reason(error),
            advice="Mend that and run it again; it goes on where it was.",
        ) from error


def _is_to_be_made(fd: int, path: str) -> bool:
    """Tell whether the directory is no store yet, and check that this user may make it one.

    Raises:
        UnknownFormatError: It is a store of another version.
        CorruptionError: It is a store without a ledger.
        RegrainError: It belongs to another user.
    """
    owner = os.fstat(fd).st_uid
    if os.geteuid() not in (0, owner):
        raise RegrainError(
            "the directory belongs to another user",
            path=path,
            why=f"user {owner}",
            advice="Run as that user, or as root.",
        )
    if layout.STORE_FILE not in os.listdir(fd):
        return True
    store_root.read_store_file(fd, path)
    if layout.LEDGER not in os.listdir(fd):
        open_ledger(path, read_only=True).close()  # which says what to do where there is none
    return False


def _queue_legacy(
    root: StoreRoot, ledger: Ledger, on_package: Callable[[Usage], None], *, created: bool
) -> Initialised:
    with run_lock(root, "regrain init"):
        names, foreign = legacy_names(root.fd)
        known = ledger.known_packages()
        queued = queue_all(root, ledger, [name for name in names if name not in known], on_package)
        if created:
            ledger.remember("initialised", detail=f"{queued} packages queued")
    return Initialised(created, queued, len(names), foreign)


def own_ledger(fd: int) -> None:
    """Give the ledger to the store's owner, readable by whom the store is."""
    if layout.LEDGER not in os.listdir(fd):  # it is in a server
        return
    status = os.fstat(fd)
    with disk.Closing(disk.open_file(layout.LEDGER, fd)) as ledger:
        os.fchown(ledger, status.st_uid, status.st_gid)
        os.fchmod(ledger, status.st_mode & 0o044 | 0o600)
