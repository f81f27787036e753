"""The facade of ``repack``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regrain.app.compression import compression_of
from regrain.app.recovery import storage_error
from regrain.app.undoing import ignore, single_run
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
        LockedError: Another run holds the store, or writers did not pause in time.
        NoSpaceError: The disk is full.
        HaltedError: The disk failed.
    """
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
