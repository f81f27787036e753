"""The facade of ``backup restore``: the way back from a backup."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Protocol

from regrain import disk
from regrain.app.backup_places import (
    check_apart,
    check_of,
    check_room,
    is_to_be_made,
    make_store,
    open_backup,
    owner_of,
    told_as_copying,
)
from regrain.app.backups import RESTORE_COMMAND, RESTORED, Restored
from regrain.app.recovery import check_owner
from regrain.app.undoing import ignore, single_run
from regrain.app.url_restoring import UrlSource
from regrain.errors import NotAStoreError, UsageError
from regrain.ledger import open_ledger
from regrain.migrate.replica import Replicator
from regrain.migrate.replica_plan import prepare
from regrain.model.digest import is_package_hash
from regrain.model.place import is_url
from regrain.store import root as store_root
from regrain.store.locks import RunDirectory, StoreLock, run_lock
from regrain.store.packages import is_published, published
from regrain.store.root import StoreRoot

if TYPE_CHECKING:
    from collections.abc import Callable

    from regrain.model.events import Event
    from regrain.settings import Settings


class _Source(Protocol):
    """A backup, wherever it lies."""

    backup_of: str
    owner: tuple[int, int, int]

    def names(self) -> list[str]:
        """Return the packages it has."""

    def foresee(self, root: StoreRoot | None, names: list[str], done: Restored) -> None:
        """Say what would be copied."""

    def copy_back(
        self,
        root: StoreRoot,
        names: list[str],
        settings: Settings,
        done: Restored,
        emit: Callable[[Event], None],
        stopping: Callable[[], bool],
    ) -> None:
        """Copy packages into a store that lacks them."""


def restore_backup(  # noqa: PLR0913 -- a facade: every option by its keyword
    path: str,
    settings: Settings,
    place: str,
    *,
    everything: bool = False,
    dry_run: bool = False,
    on_event: Callable[[Event], None] = ignore,
    stopping: Callable[[], bool] = lambda: False,
) -> Restored:
    """Bring back what a store lost.

    An absent or empty directory becomes the store, with all packages at the file level. A
    store that is there is healed, and gets back the packages that its ledger knows and that
    are nowhere in it.

    Args:
        path: The store.
        settings: The settings in force.
        place: The backup.
        everything: Also packages that the ledger does not know: those that were removed after
            the backup, and all where the ledger was made anew.
        dry_run: Say what would be done; change nothing.
        on_event: Told how far it is.
        stopping: Asked often; True ends it.

    Raises:
        UsageError: There is no backup, or it lies in the store.
        RefusedError: It is the backup of another store, or there is too little space.
        LockedError: Another run holds the store.
    """
    backup: _Source = UrlSource(place) if is_url(place) else _Directory(path, place)
    if _is_to_be_made(path):
        done = Restored(created=True)
        if dry_run:
            backup.foresee(None, backup.names(), done)
            return done
        root = make_store(path, backup.owner, backup.backup_of, "")
        backup.copy_back(root, backup.names(), settings, done, on_event, stopping)
        return done
    root = _opened(path, dry_run=dry_run)
    check_of(backup.backup_of, root.store_id, place)
    done = Restored()
    if not dry_run:
        check_owner(root)
    _heal(root, settings, place, done, stopping, dry_run=dry_run)
    if done.stopped:
        return done
    names, done.left = _missing(root, backup, everything=everything)
    if dry_run:
        backup.foresee(root, names, done)
    elif names:
        backup.copy_back(root, names, settings, done, on_event, stopping)
    return done


def _is_to_be_made(path: str) -> bool:
    """Tell whether there is no store yet; a directory of legacy packages is not for this.

    Raises:
        NotAStoreError: It is such a one, or another that is not empty.
    """
    try:
        return is_to_be_made(path)
    except UsageError as error:
        raise NotAStoreError(
            "not an initialised store",
            path=path,
            why=error.why,
            advice="Name a store, or an absent or empty directory to make one of.",
        ) from error


def _opened(path: str, *, dry_run: bool) -> StoreRoot:
    """Open a store; directories of its own that are gone are made anew."""
    try:
        return StoreRoot(path)
    except NotAStoreError:
        if dry_run:
            raise
        with disk.Closing(store_root.open_top(path)) as fd:
            store_root.read_store_file(fd, path)
            store_root.prepare(fd)
        return StoreRoot(path)


def _heal(
    root: StoreRoot,
    settings: Settings,
    place: str,
    done: Restored,
    stopping: Callable[[], bool],
    *,
    dry_run: bool,
) -> None:
    from regrain.app.repairing import Order, repair
    from regrain.maintain.audit import Level

    order = Order(level=Level.FULL, places=(place,), dry_run=dry_run)
    found = repair(root, settings, order, stopping=stopping)
    done.stopped = found.report.stopped
    lost = found.report.lost
    done.healed = len(found.report.repairs) - len(lost)
    done.lost = [f"{one.name}: {one.why}" for one in lost]


def _missing(root: StoreRoot, backup: _Source, *, everything: bool) -> tuple[list[str], list[str]]:
    """Return the packages of a backup that a store lacks: those to copy, those to leave."""
    ledger = open_ledger(root.path, read_only=True)
    try:
        known = ledger.known_packages() | ledger.recorded_packages().keys()
    finally:
        ledger.close()
    nowhere = [
        name
        for name in backup.names()
        if not is_published(root.packages, name) and not is_published(root.fd, name)
    ]
    if everything:
        return nowhere, []
    return (
        [name for name in nowhere if name in known],
        [name for name in nowhere if name not in known],
    )


def _held(backup: StoreRoot) -> contextlib.AbstractContextManager[object]:
    """Keep other runs out of a backup; on a disk that is read-only there are none."""
    if os.fstatvfs(backup.fd).f_flag & os.ST_RDONLY:
        return contextlib.nullcontext()
    return run_lock(backup, RESTORE_COMMAND)


class _Directory:
    """A backup in a directory."""

    def __init__(self, path: str, place: str) -> None:
        check_apart(path, place)
        self._backup = open_backup(place)
        self.backup_of = self._backup.backup_of
        self.owner = owner_of(self._backup)

    def names(self) -> list[str]:
        return [name for name in published(self._backup.packages) if is_package_hash(name)]

    def foresee(self, root: StoreRoot | None, names: list[str], done: Restored) -> None:
        found = prepare(self._backup, root, names)
        done.copied, done.objects, done.size = len(found.parcels), found.objects, found.size

    def copy_back(
        self,
        root: StoreRoot,
        names: list[str],
        settings: Settings,
        done: Restored,
        emit: Callable[[Event], None],
        stopping: Callable[[], bool],
    ) -> None:
        with (
            told_as_copying(),
            _held(self._backup),
            single_run(root, RESTORE_COMMAND) as ledger,
            StoreLock(root, exclusive=False) as lock,
        ):
            manifest = prepare(self._backup, root, names)
            check_room(root, manifest.allocated, manifest.inodes)
            with RunDirectory(root) as run:
                copier = Replicator(self._backup, root, run, ledger, [lock], emit, stopping)
                copied = copier.copy(manifest, settings.store.migration_parallel_files)
            ledger.remember(RESTORED, detail=f"{copied.packages} packages")
        done.copied, done.objects, done.size = copied.packages, copied.objects, copied.size
        done.failed, done.stopped = copied.failed, copied.stopped
