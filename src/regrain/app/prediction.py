"""The facade of what ``plan`` predicts: a sample, and from it every way of migrating."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from regrain import disk
from regrain.app.compression import compression_of
from regrain.app.floors import floors_of
from regrain.app.migration import plan
from regrain.migrate.prediction import Choice, Room, Subject, choices
from regrain.migrate.room import free_space
from regrain.migrate.sizes import Sizes
from regrain.migrate.strata import Kept, estimate
from regrain.model import clock, layout
from regrain.store.census import Looker, files
from regrain.store.root import open_top
from regrain.store.workers import processors, worth_starting

if TYPE_CHECKING:
    from collections.abc import Callable

    from regrain.migrate.plan import Plan
    from regrain.settings import Settings
    from regrain.store.scan import Usage


def _ignore(_: object) -> None:
    """Take whatever comes."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What ``plan`` found and predicts.

    Attributes:
        plan: What is there.
        kept: What the sample says.
        choices: Every way of migrating.
        chosen: The one that the settings name.
        is_begun: Whether some packages are migrated already.
    """

    plan: Plan
    kept: Kept
    choices: list[Choice]
    chosen: Choice
    is_begun: bool


def predict(
    path: str, settings: Settings, on_package: Callable[[Usage], None] = _ignore
) -> Prediction:
    """Measure all packages, look into a sample, and predict; write nothing.

    What does not fit is added to the plan's blockers, with what would.

    Args:
        path: The store, or a directory of legacy packages that is none yet.
        settings: The settings in force.
        on_package: Told each package that was measured.

    Raises:
        NotAStoreError: There is no directory.
    """
    usages: list[Usage] = []
    sizes = Sizes()

    def add(usage: Usage) -> None:
        sizes.add(usage.name or usage.package_hash, usage.sizes)
        del usage.sizes[:]
        usages.append(usage)
        on_package(usage)

    began = clock.monotonic()
    found = plan(path, settings, add)
    walking = clock.monotonic() - began
    with disk.Closing(open_top(path)) as top:
        names = [one.package_hash for one in usages]
        looker = Looker(top, names, compression_of(settings), clock.monotonic)
        kept = estimate(sizes, lambda: files(top, names), looker.look, clock.monotonic)
        can_reflink = disk.shares_extents(top)
        is_begun = _is_begun(top)
        floors, free = floors_of(top, settings), free_space(top)
    room = Room(
        max(0, free.size - floors.size),
        None if free.inodes is None else max(0, free.inodes - floors.inodes),
    )
    store = settings.store
    every = choices(
        Subject(
            usages,
            sum(one.copies for one in usages),
            kept,
            walking,
            _working(store.migration_parallel_files, found),
            can_reflink,
            store.link_outside,
            room,
        )
    )
    ingest = store.ingest
    if ingest == "auto":
        ingest = "reflink" if can_reflink else "hardlink"
    (chosen,) = [
        one for one in every if (one.ingest, one.compression) == (ingest, store.compression)
    ]
    if not is_begun:
        _refuse(found, chosen, every, room)
    return Prediction(found, kept, every, chosen, is_begun)


def _working(jobs_max: int, found: Plan) -> int:
    """Return how many workers do work at one time: no more than there are processors."""
    return min(worth_starting(jobs_max, found.files, found.size), processors())


def _is_begun(top: int) -> bool:
    """Tell whether packages were migrated already: then what they took is no longer needed."""
    try:
        with disk.Closing(disk.open_directory(layout.PACKAGES, top)) as packages:
            return bool(disk.list_directory(packages))
    except OSError:
        return False


def _refuse(found: Plan, chosen: Choice, every: list[Choice], room: Room) -> None:
    """Add to the plan's blockers that what is set does not fit, and what would."""
    if found.in_place or (chosen.fits and not _lacks(found)):
        return
    if not _lacks(found):
        found.extra_bytes = max(found.extra_bytes, chosen.peak_bytes)
        found.extra_inodes = max(found.extra_inodes, chosen.peak_inodes)
        inodes = "" if room.inodes is None else f" and {room.inodes} inodes"
        found.blockers.append(
            f"not enough space: up to {chosen.peak_bytes} bytes and {chosen.peak_inodes} inodes "
            f"are needed, {room.size} bytes{inodes} can be used"
        )
    ways = [
        f'ingest = "{one.ingest}" with compression = "{one.compression}"'
        for one in every
        if one.fits and one.is_possible and one is not chosen
    ]
    ways.append("keep_old_packages = false, package by package")
    found.blockers.append(f"what would fit, or needs less: {'; '.join(ways)}")


def _lacks(found: Plan) -> bool:
    return any(blocker.startswith("not enough") for blocker in found.blockers)
