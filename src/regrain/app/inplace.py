"""Migrate in place: each legacy directory goes as soon as its package is verified.

This is the announced exception from the promise that legacy directories are not touched before
cleanup. What makes it safe is what makes cleanup safe, and is its code.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from regrain.app.steering import told
from regrain.app.unprotected import why_unprotected
from regrain.errors import RefusedError, RegrainError, UsageError, path_of, shown
from regrain.ledger import Ledger, matches, open_ledger
from regrain.maintain.cleanup import Cleaned, Cleanup, Staying, Watch, clean_one, foresee
from regrain.maintain.withdraw import unlink_rest
from regrain.migrate import room
from regrain.migrate.cutover import lacking_backup
from regrain.migrate.disk_errors import staging_error
from regrain.migrate.plan import INODES_A_PACKAGE
from regrain.migrate.room import Space
from regrain.migrate.run import TICK_SECONDS
from regrain.model.events import LegacyKept, LegacyRemoved, Remark
from regrain.store.twins import Twins

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from regrain.ledger import Outcome
    from regrain.migrate.orders import Summary
    from regrain.migrate.room import Floors
    from regrain.model.events import Event
    from regrain.settings import Settings
    from regrain.store.locks import StoreLock
    from regrain.store.root import StoreRoot

COMMAND = "regrain migrate --delete-legacy"


def check(root: StoreRoot, settings: Settings, *, delete_legacy: bool, no_backup: bool) -> None:
    """See to it that whoever has legacy directories deleted said so, and is covered.

    Args:
        root: The store.
        settings: The settings in force; ``keep_old_packages`` is false for a migration in place.
        delete_legacy: Whether the command says so, too.
        no_backup: Whether it may go without a backup.

    Raises:
        UsageError: ``no_backup`` without ``delete_legacy``.
        RefusedError: Setting and command are not of one mind, or there is no backup.
    """
    if no_backup and not delete_legacy:
        raise UsageError(
            "--no-backup is for --delete-legacy",
            advice="Without it nothing is deleted, and no backup is asked for.",
        )
    if settings.store.keep_old_packages and delete_legacy:
        raise RefusedError(
            "legacy directories are to be kept",
            why="[store] keep_old_packages = true, and --delete-legacy was given",
            advice="Set it to false to migrate in place, or leave --delete-legacy out.",
        )
    if not settings.store.keep_old_packages and not delete_legacy:
        raise RefusedError(
            "a migration in place deletes each legacy directory, which has to be said",
            why="[store] keep_old_packages = false",
            advice=f"Say '{COMMAND}', after 'regrain backup mark NOTE' or with --no-backup; or "
            "set it to true to keep them.",
        )
    if delete_legacy and not no_backup:
        _check_backup(root)


def _check_backup(root: StoreRoot) -> None:
    ledger = open_ledger(root.path, read_only=True)
    try:
        lacking = lacking_backup(why_unprotected(root, ledger))
    finally:
        ledger.close()
    if lacking:
        raise RefusedError(
            "legacy directories are not deleted without a backup",
            path=root.path,
            why=lacking[0].reason,
            advice=lacking[0].advice,
        )


def check_room_to_begin(root: StoreRoot, floors: Floors) -> None:
    """See to it that there is room for the smallest of packages.

    Raises:
        RefusedError: There is not; nothing was begun.
    """
    least = Space(room.BYTES_A_PACKAGE, INODES_A_PACKAGE)
    room.check_room(root.fd, root.path, least, 1, floors)


class Removal:
    """Removes legacy directories while a run goes on, in the run's process, under its locks.

    One that is in use, or in doubt, stays and is told; the run goes on. An error of the disk
    ends the run: ``has_ended`` is true from then on, and ``finish`` raises it.

    Args:
        root: The store.
        ledger: Its ledger.
        emit: Told what became of each.
        stopping: Whether a stop was asked for; what is left then is for the next run.
    """

    def __init__(
        self,
        root: StoreRoot,
        ledger: Ledger,
        emit: Callable[[Event], None],
        stopping: Callable[[], bool],
    ) -> None:
        self._root = root
        self._ledger = ledger
        self._emit = emit
        self._stopping = stopping
        self._twins = Twins(root)
        self._kept: dict[str, Staying] = {}
        self._done = Cleanup()
        self._error: RegrainError | None = None

    def has_ended(self) -> bool:
        """Tell whether nothing more may be done."""
        return self._error is not None or self._stopping()

    def after_commit(self, outcomes: Sequence[Outcome]) -> None:
        """Remove the legacy directories of packages that were recorded just now."""
        self._remove({one.claim.package_hash: one.list_hash for one in outcomes})

    def sweep(self, only: str | None, lock: StoreLock) -> None:
        """Remove what is there already of completed packages.

        An earlier run was stopped, or kept it since it was in use, or kept all.

        Args:
            only: A glob that a package's name or hash must match.
            lock: The store's, shared; it is given up between packages when somebody wants it.
        """
        names = {row.package_hash: row.name for row in self._ledger.package_rows()}
        recorded = self._ledger.recorded_packages()
        plan = foresee(self._root, self._ledger, measured=False)
        for one in plan.staying:
            if one.in_doubt and self._is_meant(one.package_hash, names, only):
                self._keep(one)
        for name in plan.going:
            if self._is_meant(name, names, only):
                self._wait_while_paused(lock)
                if lock.is_wanted():
                    lock.give_way()
                self._remove({name: recorded.get(name)})

    def _wait_while_paused(self, lock: StoreLock) -> None:
        """Delete nothing that is there already while the migration is paused."""
        is_held = False
        while (why := told(self._root).pause) and not self.has_ended():
            if not is_held:
                self._emit(Remark(f"waiting: {why}"))
                lock.let_go()
            is_held = True
            time.sleep(TICK_SECONDS)
        if is_held:
            lock.take_again()
            self._emit(Remark("going on"))

    @staticmethod
    def _is_meant(name: str, names: dict[str, str], only: str | None) -> bool:
        return only is None or matches(name, names.get(name, ""), only)

    def finish(self, summary: Summary) -> Summary:
        """Return what a run did, with what went.

        Raises:
            RegrainError: The disk failed.
        """
        for name, why in unlink_rest(self._root, self._ledger).items():
            self._keep(Staying(name, why, in_doubt=True))
        if self._error is not None:
            raise self._error
        return replace(
            summary,
            removed=self._done.packages,
            freed_bytes=self._done.freed_bytes,
            kept=len(self._kept),
        )

    def _remove(self, packages: dict[str, str | None]) -> None:
        """Remove directories of packages, each named with the hash of its file list.

        Errors end the run, but not here: what calls this has published these packages.
        """
        try:
            self._remove_unused(packages)
        except RegrainError as error:
            self._error = error
        except OSError as error:
            self._error = staging_error(error, path_of(error, self._root.path))

    def _remove_unused(self, packages: dict[str, str | None]) -> None:
        watch = Watch(self._root, list(packages))
        concerns = self._ledger.concerns()
        for name, list_hash in packages.items():
            if self.has_ended():
                return
            user = watch.users().get(name)
            if name in concerns:
                self._keep(Staying(name, concerns[name].what, in_doubt=True))
            elif user is not None:
                self._keep(Staying(name, f"process {user[0]} has '{shown(user[1])}' open"))
            else:
                self._remove_one(name, list_hash)

    def _remove_one(self, name: str, list_hash: str | None) -> None:
        event = clean_one(self._root, self._ledger, self._twins, name, list_hash)
        if isinstance(event, Staying):
            self._keep(event)
        elif isinstance(event, Cleaned):
            self._kept.pop(name, None)
            self._done.take(event)
            self._emit(LegacyRemoved(name, event.freed_bytes))

    def _keep(self, one: Staying) -> None:
        known = self._kept.get(one.package_hash)
        if known is None or one.in_doubt > known.in_doubt:  # each is told once
            self._kept[one.package_hash] = one
            self._emit(LegacyKept(one.package_hash, one.why, one.in_doubt, shown(one.path)))
