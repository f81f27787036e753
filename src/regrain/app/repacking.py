"""The facade of ``repack``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from regrain.app.compression import compression_of
from regrain.app.floors import floors_of
from regrain.app.recovery import check_owner, storage_error
from regrain.app.undoing import ignore, single_run
from regrain.errors import RefusedError
from regrain.maintain import repack as repacking
from regrain.maintain.repack import Choice, Repack
from regrain.maintain.represent import Represent
from regrain.store.locks import RunDirectory

if TYPE_CHECKING:
    from collections.abc import Callable

    from regrain.settings import Settings
    from regrain.store.root import StoreRoot


def plan_repack(root: StoreRoot, settings: Settings, choice: Choice) -> Repack:
    """Say which objects ``repack`` would look at, and why others stay; change nothing."""
    return repacking.foresee(root, choice, compression_of(settings))


def repack(
    root: StoreRoot,
    settings: Settings,
    choice: Choice,
    *,
    on_progress: Callable[[Repack], None] = ignore,
    stopping: Callable[[], bool] = lambda: False,
) -> Repack:
    """Compress objects, or make them plain again; killed anywhere, it goes on if called again.

    Args:
        root: The store.
        settings: Say how objects are compressed, and when that pays.
        choice: Which.
        on_progress: Told what was done so far.
        stopping: Asked before each object; True ends the run.

    Raises:
        RefusedError: There is too little space to make objects plain; nothing was changed.
        LockedError: Another run holds the store, or writers did not pause in time.
        NoSpaceError: The disk is full.
        HaltedError: The disk failed.
    """
    check_owner(root)
    if choice is Choice.NONE:
        _check_space(root, settings, plan_repack(root, settings, choice))
    with single_run(root, f"regrain repack --compress {choice.value}") as ledger:
        try:
            with RunDirectory(root) as run:
                work = Represent(
                    root,
                    ledger,
                    run,
                    choice,
                    compression_of(settings),
                    fsync_each=settings.store.sync == "fsync",
                )
                done = work.run(on_progress=on_progress, stopping=stopping)
        except OSError as error:
            raise storage_error(error, root) from error
        if done.objects:
            words = f"{choice.value}: {done.objects} objects, {done.before - done.after} bytes less"
            ledger.remember("repacked", detail=words)
        return done


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
