"""The facade of the cutover: ask the gate, switch."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from regrain.app import integrity
from regrain.app.health import critical_issues
from regrain.app.recovery import check_owner, finish_begun
from regrain.app.unprotected import why_unprotected
from regrain.errors import LockedError, RefusedError, path_of
from regrain.ledger import Ledger, open_ledger
from regrain.maintain.audit import Level, Scope, audit
from regrain.migrate import cutover as gate
from regrain.migrate import phases
from regrain.migrate.disk_errors import staging_error
from regrain.migrate.reconcile import look, reconcile
from regrain.migrate.recover import recover
from regrain.migrate.shadow import Comparison, compare
from regrain.model.clock import monotonic
from regrain.model.layout import SHARDS
from regrain.model.phase import Phase
from regrain.model.status import Status
from regrain.store.locks import StoreLock, run_lock
from regrain.store.packages import is_published

if TYPE_CHECKING:
    from collections.abc import Callable

    from regrain.migrate.cutover import Failure
    from regrain.settings import Settings
    from regrain.store.root import StoreRoot

_PAUSE_SECONDS = 1.0
_TICK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Cutover:
    """How a cutover ended.

    Attributes:
        switched: Whether this call replaced the phase.
        already: Whether the store was there before.
        failures: What stood in the way, empty if nothing did.
        comparison: Of both layouts; None where the gate was not asked.
        stopped: Whether a signal ended the waiting.
    """

    switched: bool = False
    already: bool = False
    failures: list[Failure] = field(default_factory=list)
    comparison: Comparison | None = None
    stopped: bool = False


def _never() -> bool:
    return False


def cutover(
    root: StoreRoot,
    settings: Settings,
    *,
    wait: float = 0.0,
    no_backup: bool = False,
    dry_run: bool = False,
    stopping: Callable[[], bool] = _never,
) -> Cutover:
    """Ask the gate, and let reads go to the file level if it is open.

    Args:
        root: The store.
        settings: The settings in force.
        wait: Seconds for which to ask again while it is closed.
        no_backup: Do not ask for a backup.
        dry_run: Only ask; nothing is written.
        stopping: Asked while waiting; True ends it.

    Raises:
        RefusedError: The store is past the cutover, or on its way back.
        LockedError: Another run holds the store, or writers did not pause.
    """
    if not dry_run:
        check_owner(root)
    due = monotonic() + wait
    while True:
        begin = monotonic()
        try:
            done = _try_cutover(
                root, settings, no_backup=no_backup, dry_run=dry_run, stopping=stopping
            )
        except OSError as error:
            raise staging_error(error, path_of(error, root.path)) from error
        except LockedError:
            if monotonic() >= due or stopping():
                raise
            done = None
        if done is not None and (not done.failures or stopping() or monotonic() >= due):
            return done
        _sleep(min(due, monotonic() + max(_PAUSE_SECONDS, monotonic() - begin)), stopping)


def _sleep(until: float, stopping: Callable[[], bool]) -> None:
    while not stopping() and (left := until - monotonic()) > 0:
        time.sleep(min(left, _TICK_SECONDS))


def _try_cutover(
    root: StoreRoot,
    settings: Settings,
    *,
    no_backup: bool,
    dry_run: bool,
    stopping: Callable[[], bool],
) -> Cutover:
    if _is_done(root):
        if not dry_run:
            _catch_up(root)
        return Cutover(already=True)
    if dry_run:
        ledger = open_ledger(root.path, read_only=True)
        try:
            evidence = _evidence(
                root, ledger, settings, no_backup=no_backup, dry_run=True, stopping=stopping
            )
        finally:
            ledger.close()
        return Cutover(failures=gate.judge(evidence), comparison=evidence.comparison)
    with run_lock(root, "regrain cutover"):
        ledger = open_ledger(root.path)
        try:
            if _is_done(root):
                return Cutover(already=True)
            with StoreLock(root, exclusive=False):
                finish_begun(root, ledger)
                recover(root, ledger, verified=settings.store.verify_after_migration)
                evidence = _evidence(
                    root, ledger, settings, no_backup=no_backup, dry_run=False, stopping=stopping
                )
            failures = gate.judge(evidence)
            if stopping():
                return Cutover(failures=failures, comparison=evidence.comparison, stopped=True)
            if not failures:
                failures = gate.switch(root, ledger, settings.migration.settle)
            return Cutover(not failures, failures=failures, comparison=evidence.comparison)
        finally:
            ledger.close()


def _catch_up(root: StoreRoot) -> None:
    """Write the line of the history that a cutover killed after the switch left out."""
    with contextlib.suppress(LockedError), run_lock(root, "regrain cutover"):
        ledger = open_ledger(root.path)
        try:
            phases.catch_up(root, ledger)
        finally:
            ledger.close()


def _is_done(root: StoreRoot) -> bool:
    """Tell whether the store is at the file level already.

    Raises:
        RefusedError: It is where no cutover can be.
    """
    phase = root.phase()
    if phase is Phase.FILE_LEVEL:
        return True
    if phase is not Phase.DUAL:
        advice = {
            Phase.CLEAN: "Reads go to the file level already.",
            Phase.ROLLING_BACK: "Finish it: regrain rollback.",
            Phase.ROLLED_BACK: "Begin anew: regrain migrate.",
        }
        raise RefusedError(
            "no cutover from here",
            path=root.path,
            why=f"the store's phase is '{phase.label}'",
            advice=advice[phase],
        )
    return False


def _evidence(
    root: StoreRoot,
    ledger: Ledger,
    settings: Settings,
    *,
    no_backup: bool,
    dry_run: bool,
    stopping: Callable[[], bool],
) -> gate.Evidence:
    """Gather what the gate judges: look at everything, verify what was not."""
    see = look if dry_run else reconcile
    jobs = settings.store.migration_parallel_files
    found = see(root, ledger, settings.migration.settle, full=True, jobs=jobs)
    unverified = _verify_rest(root, ledger, settings, dry_run=dry_run, stopping=stopping)
    standings = ledger.standings()
    both = [
        name
        for name, standing in standings.items()
        if standing.status is Status.COMPLETED
        and is_published(root.packages, name)
        and is_published(root.fd, name)
    ]
    return gate.Evidence(
        standings=standings,
        concerns={name: concern.what for name, concern in ledger.concerns().items()},
        found=found,
        unverified=frozenset(unverified),
        unprotected="" if no_backup else why_unprotected(root, ledger),
        critical=critical_issues(root, settings),
        comparison=compare(root, both, root.store_id),
    )


def _verify_rest(
    root: StoreRoot,
    ledger: Ledger,
    settings: Settings,
    *,
    dry_run: bool,
    stopping: Callable[[], bool],
) -> set[str]:
    """Verify packages that never were; return those that still are not."""
    names = [
        name
        for name, standing in ledger.standings().items()
        if standing.status is Status.COMPLETED
        and standing.verified_at is None
        and not standing.is_excluded
        and is_published(root.packages, name)
    ]
    if not names:
        return set()
    found = audit(
        root,
        Scope(names, list(SHARDS), Level.DEEP, whole=False),
        jobs=settings.store.migration_parallel_files,
        on_result=lambda _: None,
        stopping=stopping,
    )
    if found.stopped:
        return set(names)
    if dry_run:
        return set(integrity.findings(found))
    return set(names) - integrity.record(root, ledger, names, found, Level.DEEP)
