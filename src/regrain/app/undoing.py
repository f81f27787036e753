"""The facade of cleanup, rollback and purge: locks, order, phases."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from regrain.app.recovery import check_owner, finish_begun
from regrain.errors import RefusedError, path_of
from regrain.ledger import Ledger, open_ledger
from regrain.maintain import cleanup as cleaning
from regrain.maintain import purge as purging
from regrain.maintain import rollback as rolling
from regrain.maintain.withdraw import unlink_rest
from regrain.migrate.disk_errors import staging_error
from regrain.migrate.journal import Journal
from regrain.migrate.logbook import DEFAULT, Limits
from regrain.migrate.phases import catch_up, switch
from regrain.migrate.recover import recover
from regrain.model.phase import Phase
from regrain.model.status import Status
from regrain.store import dual
from regrain.store.locks import StoreLock, run_lock
from regrain.store.packages import is_published

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from regrain.maintain.cleanup import Cleaned, Cleaning, Cleanup, Staying
    from regrain.maintain.purge import Purge
    from regrain.maintain.restore import Failure, Restored
    from regrain.maintain.rollback import TakenUp
    from regrain.settings import Settings
    from regrain.store.root import StoreRoot

    UndoingEvent = Cleaned | Staying | Failure | Restored


def ignore(_: object) -> None:
    """Take whatever comes."""


@contextlib.contextmanager
def single_run(root: StoreRoot, what: str) -> Iterator[Ledger]:
    """Hold the run lock, with the ledger open and what was begun before finished."""
    check_owner(root)
    with run_lock(root, what):
        ledger = open_ledger(root.path)
        try:
            with StoreLock(root, exclusive=False):
                finish_begun(root, ledger)
                recover(root, ledger, verified=True)
            yield ledger
        except OSError as error:
            raise staging_error(error, path_of(error, root.path)) from error
        finally:
            ledger.close()


def teller(
    root: StoreRoot, on_event: Callable[[UndoingEvent], None], logs: Limits = DEFAULT
) -> Callable[[UndoingEvent], None]:
    """Return who writes every event to the log before it is passed on."""
    journal = Journal(root, logs)

    def tell(event: UndoingEvent) -> None:
        fields = {name: getattr(event, name) for name in event.__slots__ if name != "path"}
        with contextlib.suppress(OSError):
            journal.line(type(event).__name__, fields)
        on_event(event)

    return tell


# cleanup


def _check_may_clean(root: StoreRoot) -> None:
    phase = root.phase()
    if phase not in (Phase.FILE_LEVEL, Phase.CLEAN):
        advice = {
            Phase.DUAL: "Run 'regrain cutover' first.",
            Phase.ROLLING_BACK: "Run 'regrain rollback' to finish what was begun.",
            Phase.ROLLED_BACK: "The store is read from its legacy directories.",
        }
        raise RefusedError(
            "legacy directories are removed after cutover only",
            path=root.path,
            why=f"the store's phase is '{phase.label}'",
            advice=advice[phase],
        )


def plan_cleanup(
    root: StoreRoot, *, older_than: float | None = None, limit: int | None = None
) -> Cleaning:
    """Say what a cleanup would remove, what stays and why; change nothing.

    Args:
        root: The store.
        older_than: Only packages completed so many seconds ago or longer.
        limit: Only so many.

    Raises:
        RefusedError: The phase does not allow it.
    """
    _check_may_clean(root)
    ledger = open_ledger(root.path, read_only=True)
    try:
        return cleaning.foresee(root, ledger, older_than=older_than, limit=limit)
    finally:
        ledger.close()


def cleanup(
    root: StoreRoot,
    *,
    older_than: float | None = None,
    limit: int | None = None,
    on_event: Callable[[UndoingEvent], None] = ignore,
    stopping: Callable[[], bool] = lambda: False,
    logs: Limits = DEFAULT,
) -> Cleanup:
    """Remove the legacy directories of packages that are proved to be published whole.

    When the last one went, the phase becomes ``clean``, and the logs are put away. Killed
    anywhere, it is resumed by calling it again.

    Args:
        root: The store.
        older_than: Only packages completed so many seconds ago or longer.
        limit: Only so many.
        on_event: Told what became of each package.
        stopping: Asked before each package; True ends the run.
        logs: How large logs may become.

    Raises:
        RefusedError: The phase does not allow it, or a process has files open there.
        LockedError: Another run holds the store.
    """
    check_owner(root)
    _check_may_clean(root)
    with single_run(root, "regrain cleanup") as ledger:
        _check_may_clean(root)
        plan = cleaning.foresee(root, ledger, older_than=older_than, limit=limit, measured=False)
        tell = teller(root, on_event, logs)
        done = cleaning.clean_up(root, ledger, plan.going, on_event=tell, stopping=stopping)
        stuck = unlink_rest(root, ledger)
        doubtful = [one for one in plan.staying if one.in_doubt]
        for one in (*doubtful, *(cleaning.Staying(*item, in_doubt=True) for item in stuck.items())):
            done.kept.append(one)
            tell(one)
        with StoreLock(root, exclusive=True):
            left = bool(stuck) or bool(cleaning.remaining(root, ledger))
            if root.phase() is Phase.FILE_LEVEL and not left:
                switch(root, ledger, Phase.CLEAN)
            else:
                catch_up(root, ledger)
        if root.phase() is Phase.CLEAN:
            Journal(root, logs).put_away()
        return done


# rollback of single packages


def plan_rollback_of(root: StoreRoot, texts: list[str]) -> list[str]:
    """Return those of some packages that a rollback would unpublish; change nothing.

    Raises:
        UnknownPackageError: One is not there.
        RefusedError: The phase does not allow it, or one has no legacy directory.
    """
    _check_may_roll_back_packages(root)
    names = [str(dual.find_hash(root, text)) for text in texts]
    for name in names:
        dual.open_package(root, name)
    found = [name for name in names if is_published(root.packages, name)]
    for name in found:
        rolling.check_has_legacy(root, name)
    return found


def rollback_packages(root: StoreRoot, texts: list[str]) -> list[str]:
    """Read single packages from their legacy directories again; return which.

    The next plain migration takes them up again.

    Args:
        root: The store, whose phase is ``dual``.
        texts: Package hashes, or prefixes.

    Raises:
        UnknownPackageError: One is not there.
        RefusedError: The phase does not allow it, or one has no legacy directory.
        FinishedWithFailuresError: The legacy directory of one is not what was migrated.
        LockedError: Another run holds the store.
    """
    check_owner(root)
    plan_rollback_of(root, texts)
    with single_run(root, "regrain rollback") as ledger:
        names = plan_rollback_of(root, texts)
        return rolling.roll_back_packages(root, ledger, names)


def _check_may_roll_back_packages(root: StoreRoot) -> None:
    phase = root.phase()
    if phase is not Phase.DUAL:
        raise RefusedError(
            "single packages are rolled back before cutover only",
            path=root.path,
            why=f"the store's phase is '{phase.label}'",
            advice="'regrain rollback' without a package rolls the whole store back.",
        )


# purge


def purge(
    root: StoreRoot,
    *,
    on_progress: Callable[[Purge], None] = ignore,
    stopping: Callable[[], bool] = lambda: False,
) -> Purge:
    """Drop file lists and objects of a store that was rolled back.

    Raises:
        RefusedError: It is not rolled back, or a package has no legacy directory.
        LockedError: Another run holds the store, or writers did not pause in time.
    """
    check_owner(root)
    purging.check(root)
    with single_run(root, "regrain rollback --purge") as ledger:
        return purging.purge(root, ledger, on_progress=on_progress, stopping=stopping)


# forward again


def go_forward(root: StoreRoot, settings: Settings, stopping: Callable[[], bool]) -> TakenUp | None:
    """Take up again what was rolled back, before a migration claims anything.

    The caller holds the run lock. What is still published is compared before readers see
    it; then a store that was rolled back becomes ``dual``.

    Returns:
        What became of the packages; None if nothing was rolled back.
    """
    ledger = open_ledger(root.path)
    try:
        is_back = root.phase() is Phase.ROLLED_BACK
        if not is_back and not ledger.in_status(Status.ROLLED_BACK):
            return None
        with StoreLock(root, exclusive=False):
            finish_begun(root, ledger)
            found = rolling.take_up(
                root,
                ledger,
                jobs=settings.store.migration_parallel_files,
                stopping=stopping,
            )
        if is_back and not found.stopped:
            with StoreLock(root, exclusive=True):
                switch(root, ledger, Phase.DUAL)
        return found
    except OSError as error:
        raise staging_error(error, path_of(error, root.path)) from error
    finally:
        ledger.close()
