"""The facade of ``rehearse``: a sample, space for it, the full circle, and a verdict."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from regrain import disk
from regrain.app.circle import Cast, Circle
from regrain.app.recovery import check_owner
from regrain.app.survey import Foreseen, Wanted, is_inside, survey
from regrain.errors import RegrainError, reason
from regrain.migrate.estimate import Content, Estimate, Total, estimate, sharing
from regrain.migrate.specimen import Source
from regrain.model import layout
from regrain.store.locks import RunDirectory
from regrain.store.root import StoreRoot, open_top
from regrain.store.scan import Usage
from regrain.store.scratch import Scratch, sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from regrain.app.circle import Course, Stage
    from regrain.settings import Settings

_COPY = "store"
"""The copy's name in its scratch directory."""


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What a rehearsal found.

    Attributes:
        foreseen: What was asked of it.
        course: The steps it made.
        estimate: What they say of the whole store; None if it did not come to the end.
        problems: All that speaks against a migration.
        kept: Where the copy is, empty if it was removed.
        swept: What earlier ones that were killed had left, and this one removed.
        stopped: Whether it was ended early, and so says nothing.
    """

    foreseen: Foreseen
    course: Course
    estimate: Estimate | None
    problems: list[str]
    kept: str
    swept: list[str]
    stopped: bool

    @property
    def is_go(self) -> bool:
        """Whether nothing speaks against a migration."""
        return not (self.problems or self.stopped)


def _ignore(*_: object) -> None:
    """Take whatever comes."""


def foresee(
    path: str,
    settings: Settings,
    wanted: Wanted,
    on_package: Callable[[Usage], None] = _ignore,
) -> Foreseen:
    """Say what a rehearsal would take; write nothing.

    Raises:
        NotAStoreError: There is no directory.
        RefusedError: There is too little space for it, no package, or no place.
        RegrainError: The store belongs to another user.
    """
    with _opened(path) as source:
        return survey(source, path, settings, wanted, on_package)


def rehearse(
    path: str,
    settings: Settings,
    wanted: Wanted,
    *,
    on_package: Callable[[Usage], None] = _ignore,
    on_stage: Callable[[int, int, str | Stage], None] = _ignore,
    stopping: Callable[[], bool] = lambda: False,
) -> Rehearsal:
    """Take a sample of a store, or of legacy packages, around the full circle.

    What is in the store stays as it is; the copy lies in a directory of its own, which is
    removed at the end.

    Args:
        path: The store, or a directory of legacy packages that is none yet.
        settings: The settings in force.
        wanted: What is asked for.
        on_package: Told each package that was measured.
        on_stage: Told each step, see ``Circle``.
        stopping: Asked often; True ends it.

    Raises:
        NotAStoreError: There is no directory.
        RefusedError: There is too little space for it, no package, or no place.
        RegrainError: The store belongs to another user.
    """
    with _opened(path) as source:
        foreseen = survey(source, path, settings, wanted, on_package)
        beside = os.path.dirname(os.path.realpath(path))
        swept = [name for place in {beside, foreseen.place} for name in sweep(place)]
        with _scratch(source, foreseen.place, wanted) as scratch:
            copy = f"{scratch}/{_COPY}"
            cast = Cast(source, foreseen.sample, wanted.seed)
            course = Circle(cast, copy, settings, on_stage, stopping).go()
    problems = [*foreseen.problems, *course.problems, *against_latency(course, settings)]
    return Rehearsal(
        foreseen,
        course,
        _estimate(foreseen, course),
        problems,
        copy if wanted.keep else "",
        swept,
        stopping(),
    )


@contextlib.contextmanager
def _opened(path: str) -> Iterator[Source]:
    """Open where the packages are, and see to it that this user may write there."""
    with disk.Closing(open_top(path)) as top:
        is_store = layout.STORE_FILE in os.listdir(top)
        root = StoreRoot(os.path.abspath(path)) if is_store else None
        if root is not None:
            check_owner(root)
        elif os.geteuid() not in (0, os.fstat(top).st_uid):
            raise RegrainError(
                "the directory belongs to another user",
                path=path,
                why=f"user {os.fstat(top).st_uid}",
                advice="Run as that user, or as root.",
            )
        yield Source(top, root)


@contextlib.contextmanager
def _scratch(source: Source, place: str, wanted: Wanted) -> Iterator[str]:
    """Make a private directory, and remove it at the end."""
    try:
        made = _make_scratch(source, place, wanted)
    except OSError as error:
        raise RegrainError(
            "cannot make a directory for the copies",
            path=place,
            why=reason(error),
            advice="Mend that, or name another on the packages' file system with --scratch.",
        ) from error
    with made:
        yield made.path if isinstance(made, Scratch) else f"{place}/{made.name}"


def _make_scratch(source: Source, place: str, wanted: Wanted) -> Scratch | RunDirectory:
    if source.root is not None and is_inside(source, wanted):
        return RunDirectory(source.root, marks_errors=False)
    return Scratch(place, keep=wanted.keep)


# the verdict


def against_latency(course: Course, settings: Settings) -> list[str]:
    """Say whether readers were slowed down by more than is tolerated."""
    tolerated = settings.migration.latency_slowdown_max
    if tolerated is None or course.latency is None:
        return []
    alone, beside = course.latency
    if not alone.middle or beside.middle <= alone.middle * tolerated:
        return []
    times = beside.middle / alone.middle
    return [f"reads took {times:.1f} times as long while migrating; {tolerated:g} is tolerated"]


def _estimate(foreseen: Foreseen, course: Course) -> Estimate | None:
    if course.taken is None:
        return None
    contents = [Content(one.candidate, one.contents) for one in course.specimens]
    copied = Total.of([one.candidate for one in contents])
    seconds = {stage.name: stage.seconds for stage in course.stages if stage.name != "copy"}
    shared = sharing(contents, foreseen.known)
    return estimate(copied, foreseen.whole, seconds, course.taken, shared)
