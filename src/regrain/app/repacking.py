"""The facade of ``repack``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from regrain.app.compression import compression_of
from regrain.app.floors import floors_of
from regrain.app.recovery import check_owner, storage_error
from regrain.app.undoing import ignore, single_run
from regrain.errors import RefusedError, RegrainError, path_of, reason
from regrain.maintain import repack as repacking
from regrain.maintain.remake import Bench, Remaker, make_executor
from regrain.maintain.repack import Choice, Repack
from regrain.maintain.represent import Hands, Represent, own_hands
from regrain.store import engines
from regrain.store.locks import RunDirectory
from regrain.store.objects import all_carriers
from regrain.store.workers import processors, worth_starting

if TYPE_CHECKING:
    from collections.abc import Callable

    from regrain.settings import Settings
    from regrain.store.root import StoreRoot


def plan_repack(root: StoreRoot, settings: Settings, choice: Choice) -> Repack:
    """Say which objects ``repack`` would look at, and why others stay; change nothing.

    Raises:
        RegrainError: They cannot be looked at.
    """
    try:
        return repacking.foresee(root, choice, compression_of(settings))
    except OSError as error:
        raise RegrainError(
            "cannot look through the objects",
            path=path_of(error, root.path),
            why=reason(error),
            advice="Mend the cause, then run the command again; nothing was changed.",
        ) from error


def repack(
    root: StoreRoot,
    settings: Settings,
    choice: Choice,
    *,
    on_progress: Callable[[Repack], None] = ignore,
    stopping: Callable[[], bool] = lambda: False,
    executor: str | None = None,
) -> Repack:
    """Compress objects, or make them plain again; killed anywhere, it goes on if called again.

    Args:
        root: The store.
        settings: Say how objects are compressed, and when that pays.
        choice: Which.
        on_progress: Told what was done so far.
        stopping: Asked again and again; True ends the run after the objects in hand.
        executor: Who has the workers: ``local`` (the default), ``dask:ADDRESS`` or ``mpi``.

    Raises:
        EngineError: The engine that ``executor`` names does not answer, or was lost.
        UsageError: It names none, or its extra is not installed.
        RefusedError: There is too little space to make objects plain; nothing was changed.
        LockedError: Another run holds the store, or writers did not pause in time.
        NoSpaceError: The disk is full.
        HaltedError: The disk failed.
    """
    check_owner(root)
    if choice is Choice.NONE:
        _check_space(root, settings, plan_repack(root, settings, choice))
    with (
        engines.connected(executor) as engine,
        single_run(root, f"regrain repack --compress {choice.value}") as ledger,
    ):
        try:
            with RunDirectory(root) as run, engines.abandoned_if_lost(run):
                # Nobody but a host itself makes durable what it wrote.
                fsync_each = settings.store.sync == "fsync" or engine is not None
                compression = compression_of(settings)
                bench = Bench(root.path, run.name, compression, fsync_each=fsync_each)
                work = Represent(root, ledger, run, choice, compression, fsync_each=fsync_each)
                hands = _hands(root, settings, run, bench, engine, stopping)
                done = work.run(hands, on_progress=on_progress, stopping=stopping)
        except OSError as error:
            raise storage_error(error, root) from error
        if done.objects:
            words = f"{choice.value}: {done.objects} objects, {done.before - done.after} bytes less"
            ledger.remember("repacked", detail=words)
        return done


def _hands(
    root: StoreRoot,
    settings: Settings,
    run: RunDirectory,
    bench: Bench,
    engine: engines.Engine | None,
    stopping: Callable[[], bool],
) -> Hands:
    """Return who does the work: an engine's workers, those of this host, or this process."""
    if engine is not None:
        office = engines.Office(engine, root, run)
        return Hands(*office.dispatcher(Remaker, (bench,)), engine.slots)
    jobs = _jobs(root, settings.store.migration_parallel_files)
    if jobs > 1:
        return Hands(*make_executor(jobs, bench), jobs)
    return own_hands(bench, stopping)


def _jobs(root: StoreRoot, jobs_max: int) -> int:
    """Return how many workers there is enough to do for; they compute, so no more than can."""
    jobs_max = min(jobs_max, processors())
    files = size = 0
    for carrier in all_carriers(root.objects):
        files, size = files + 1, size + carrier.status.st_size
        if worth_starting(jobs_max, files, size) == jobs_max:
            break
    return worth_starting(jobs_max, files, size)


def _check_space(root: StoreRoot, settings: Settings, plan: Repack) -> None:
    space = os.fstatvfs(root.fd)
    floor = floors_of(root.fd, settings).size
    usable = space.f_bavail * space.f_frsize - floor
    if -plan.freed > max(0, usable):
        raise RefusedError(
            "too little space to make all objects plain",
            path=root.path,
            why=f"{plan.objects} objects need {-plan.freed} bytes more; {max(0, usable)} bytes can "
            f"be used, with {floor} to be left free",
            advice="Free some, or lower [migration] free_bytes_min.",
        )
