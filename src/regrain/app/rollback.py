"""The facade of the rollback of a whole store: stop, measure, rebuild, compare, switch."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from regrain.app.floors import floors_of
from regrain.app.logs import limits_of
from regrain.app.patience import Patience
from regrain.app.recovery import check_owner
from regrain.app.undoing import ignore, single_run, teller
from regrain.errors import (
    CorruptionError,
    FinishedWithFailuresError,
    LockedError,
    RegrainError,
)
from regrain.maintain import need as needing
from regrain.maintain import purge as purging
from regrain.maintain import restore as restoring
from regrain.maintain import rollback as rolling
from regrain.migrate.phases import catch_up, switch
from regrain.model import layout
from regrain.model.phase import Phase
from regrain.model.status import LEGACY_CHANGED
from regrain.store.locks import RunDirectory, StoreLock, is_running
from regrain.store.trash import take_back_right

if TYPE_CHECKING:
    from collections.abc import Callable

    from regrain.app.undoing import UndoingEvent
    from regrain.ledger import Ledger
    from regrain.maintain.audit import Audit
    from regrain.maintain.need import Need
    from regrain.maintain.purge import Purge
    from regrain.maintain.restore import Failure
    from regrain.settings import Settings
    from regrain.store.root import StoreRoot

MIGRATION_SECONDS_MAX = 600.0
_TICK_SECONDS = 0.1
_MIGRATION = re.compile(r"\Aregrain migrate, process (\d+)\Z")


@dataclass(slots=True)
class RolledBack:
    """What a rollback did.

    Attributes:
        already: Whether the store was rolled back before.
        restored: Packages that were given a legacy directory.
        failures: What kept the store from being switched.
        stopped: Whether it was ended early.
        purged: What ``cleanup_on_rollback`` dropped afterwards.
    """

    already: bool = False
    restored: int = 0
    failures: list[Failure] = field(default_factory=list)
    stopped: bool = False
    purged: Purge | None = None


def plan_rollback(root: StoreRoot, settings: Settings) -> Need:
    """Say what a rollback of the whole store would take; change nothing.

    Raises:
        RefusedError: There is too little space.
    """
    is_back = root.phase() is Phase.ROLLED_BACK
    return _check_space(root, settings, [] if is_back else needing.lacking(root))


def _ways(root: StoreRoot, settings: Settings) -> needing.Ways:
    store = settings.store
    return needing.ways_of(root, store.ingest, link_outside=store.link_outside)


def rollback(  # noqa: PLR0913 -- one call with its choices, each by its keyword
    root: StoreRoot,
    settings: Settings,
    *,
    on_event: Callable[[UndoingEvent], None] = ignore,
    on_check: Callable[[Audit], None] = ignore,
    on_wait: Callable[[str], None] = ignore,
    on_hold: Callable[[str], None] = ignore,
    stopping: Callable[[], bool] = lambda: False,
) -> RolledBack:
    """Go back to the legacy layout, from whatever phase; the same call resumes it.

    Args:
        root: The store.
        settings: The settings in force.
        on_event: Told each package that was rebuilt, and each failure.
        on_check: Told how far the comparison of the other legacy directories is.
        on_wait: Told whom it stopped and waits for.
        on_hold: Told what it waits for in the middle, and nothing when it goes on.
        stopping: Asked before each package; True ends the run, which can be resumed.

    Raises:
        RefusedError: There is too little space; nothing was changed.
        NoSpaceError: The disk got full, and stayed so for ``space_wait``.
        LockedError: Another run than a migration holds the store.
    """
    check_owner(root)
    if root.phase() is not Phase.ROLLED_BACK:
        stop_migration(root, on_wait, stopping)
    done = RolledBack(stopped=stopping())
    if done.stopped:
        return done
    with single_run(root, "regrain rollback") as ledger:
        if root.phase() is Phase.ROLLED_BACK:
            ledger.all_rolled_back()
            catch_up(root, ledger)
            done.already = True
        else:
            _begin(root, ledger, settings)
            _carry_through(root, ledger, settings, done, on_event, on_check, on_hold, stopping)
        is_over = root.phase() is Phase.ROLLED_BACK
        if is_over and settings.migration.cleanup_on_rollback and not done.stopped:
            done.purged = purging.purge(
                root, ledger, on_progress=ignore, stopping=stopping, compared=not done.already
            )
    return done


def _begin(root: StoreRoot, ledger: Ledger, settings: Settings) -> None:
    _check_space(root, settings, needing.lacking(root))
    if root.phase() is not Phase.ROLLING_BACK:
        with StoreLock(root, exclusive=True):
            switch(root, ledger, Phase.ROLLING_BACK)
        return
    for name in rolling.with_both(root):  # it was begun before, and perhaps killed as it moved one
        take_back_right(root, name)


def _check_space(root: StoreRoot, settings: Settings, package_hashes: list[str]) -> Need:
    """Return what rebuilding these packages takes.

    Raises:
        RefusedError: There is too little.
    """
    floors = floors_of(root.fd, settings)
    wanted = needing.need(root, _ways(root, settings), package_hashes)
    needing.check_space(root, wanted, bytes_min=floors.size, inodes_min=floors.inodes)
    return wanted


def _carry_through(  # noqa: PLR0913, PLR0917 -- a part of rollback
    root: StoreRoot,
    ledger: Ledger,
    settings: Settings,
    done: RolledBack,
    on_event: Callable[[UndoingEvent], None],
    on_check: Callable[[Audit], None],
    on_hold: Callable[[str], None],
    stopping: Callable[[], bool],
) -> None:
    """Rebuild, compare, switch; what went wrong stands in ``done``. A full disk is waited for."""
    patience = Patience(root, settings, on_hold, stopping)
    rotten: dict[str, str] = {}
    told = teller(root, on_event, limits_of(settings))

    def tell(event: UndoingEvent) -> None:
        if isinstance(event, restoring.Restored):
            done.restored += 1
            rotten.pop(event.package_hash, None)
            patience.progressed()
        told(event)

    checked: set[str] = set()
    while True:
        try:
            if _round(root, ledger, settings, done, checked, rotten, tell, on_check, stopping):
                return
        except (RegrainError, OSError) as error:
            known = patience.passing(error)
            if known is None:
                raise
            if not patience.wait_after(known):
                done.stopped = True
                return


def _round(  # noqa: PLR0913, PLR0917 -- a part of rollback
    root: StoreRoot,
    ledger: Ledger,
    settings: Settings,
    done: RolledBack,
    checked: set[str],
    rotten: dict[str, str],
    tell: Callable[[UndoingEvent], None],
    on_check: Callable[[Audit], None],
    stopping: Callable[[], bool],
) -> bool:
    """Rebuild what is lacking or rotten, compare the rest, switch; False: once more."""
    jobs = settings.store.migration_parallel_files
    with RunDirectory(root, marks_errors=False) as run:
        made = restoring.restore(
            root,
            ledger,
            run,
            _ways(root, settings),
            rotten=rotten,
            on_event=tell,
            stopping=stopping,
        )
    checked |= made.packages
    todo = [name for name in rolling.with_both(root) if name not in checked]
    failures, stopped = rolling.check_legacy(
        root,
        [] if made.stopped else todo,
        jobs=jobs,
        on_result=on_check,
        stopping=stopping,
    )
    found: dict[str, str] = {}
    if not stopped:
        found, failures, stopped = rolling.rotten_among(
            root, failures, jobs=jobs, stopping=stopping
        )
    rotten.update(found)
    for failure in failures:
        tell(failure)
        ledger.concern(failure.package_hash, _words(failure))
    checked |= set(todo) - found.keys()
    done.failures += [*made.failures, *failures]
    done.stopped = made.stopped or stopped
    if found and not done.stopped:
        _check_space(root, settings, list(found))
        return False
    return bool(done.failures or done.stopped or _finish(root, ledger, checked))


def _words(failure: Failure) -> str:
    return failure.why if failure.is_damage else f"{LEGACY_CHANGED}{failure.why}"


def _finish(root: StoreRoot, ledger: Ledger, checked: set[str]) -> bool:
    """Switch, unless a package came or lost its directory meanwhile; then it goes round again."""
    with StoreLock(root, exclusive=True):
        if needing.lacking(root) or set(rolling.with_both(root)) - checked:
            return False
        rolling.record_unknown(root, ledger)
        ledger.all_rolled_back()
        switch(root, ledger, Phase.ROLLED_BACK)
        return True


def raise_failures(done: RolledBack) -> None:
    """Raise what the failures of a rollback amount to, if there are any.

    Raises:
        CorruptionError: What is published of some package is damaged.
        FinishedWithFailuresError: Some legacy directory is not what it was.
    """
    if not done.failures:
        return
    damaged = [one for one in done.failures if one.is_damage]
    first = (damaged or done.failures)[0]
    kind = CorruptionError if damaged else FinishedWithFailuresError
    raise kind(
        f"the store was not switched: {len(done.failures)} packages stand against it",
        package=first.package_hash,
        why=first.why,
        advice="All packages are read as before. "
        f"{_OF_DAMAGE if damaged else _OF_CHANGES}; then run 'regrain rollback' again.",
    )


_OF_DAMAGE = (
    "Heal what can be healed with 'regrain verify --level deep --repair', and 'regrain remove' "
    "what is lost"
)
_OF_CHANGES = (
    "Move changed legacy directories away, which are then made anew, or 'regrain exclude' their "
    "packages, which are then served as these are"
)


def stop_migration(
    root: StoreRoot, on_wait: Callable[[str], None], stopping: Callable[[], bool]
) -> None:
    """End a running migration as a signal does, and wait until it has let go, or we are stopped.

    Raises:
        LockedError: It did not end in time.
    """
    holder = is_running(root)
    found = _MIGRATION.match(holder)
    if found is None or not _has_lock_open(root, int(found[1])):
        return
    on_wait(holder)
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(found[1]), signal.SIGTERM)
    due = time.monotonic() + MIGRATION_SECONDS_MAX
    while is_running(root) == holder and not stopping():
        if time.monotonic() > due:
            raise LockedError(
                "the running migration does not end",
                path=root.path,
                why=holder,
                advice="End it, then run 'regrain rollback' again.",
            )
        time.sleep(_TICK_SECONDS)


def _has_lock_open(root: StoreRoot, pid: int) -> bool:
    """Tell whether a process is the one that holds the lock: it may be another's number."""
    wanted = os.stat(layout.RUN_LOCK, dir_fd=root.fd)
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(f"/proc/{pid}/fd/{name}")
                if (status.st_dev, status.st_ino) == (wanted.st_dev, wanted.st_ino):
                    return True
    except OSError:  # it ended, or belongs to somebody else
        return False
    return False
