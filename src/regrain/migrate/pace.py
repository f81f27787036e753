"""How fast a run goes: what it was told to, and the brakes that may slow or hold it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from regrain.model.clock import monotonic
from regrain.model.events import Remark

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from regrain.migrate.readers import Readers
    from regrain.model.events import Event


MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Tempo:
    """What a run was told to; it may be told otherwise at any time.

    Attributes:
        jobs: Worker processes.
        batch: Packages committed together.
        max_read: Bytes a second read from legacy by all workers together; 0 is no limit.
        pause: Seconds between the end of a batch and the beginning of the next.
        max_files: Files a second read from legacy by all workers together; 0 is no limit.
    """

    jobs: int
    batch: int
    max_read: float = 0.0
    pause: float = 0.0
    max_files: float = 0.0

    def __str__(self) -> str:
        """Say it in words."""
        read = f"{self.max_read / MIB:g} MiB/s" if self.max_read else "no limit on reading"
        if self.max_files:
            read += f", {self.max_files:g} files/s"
        pause = f", {self.pause:g} s between them" if self.pause else ""
        return f"{self.jobs} jobs, {read}, batches of {self.batch} packages{pause}"


class Demand(NamedTuple):
    """What a brake asks for.

    Attributes:
        reason: Why, in a clause for ``status``.
        jobs_max: Workers that may go on. With 0 the run is held: packages in hand are
            finished, nothing new is begun, and the store's lock is let go of.
        at_once: With 0 jobs: workers stop after the file in hand, as they do when the run
            is stopped, and what is not complete is put back. For long holds; a brake that
            comes and goes would have large packages begun again and again.
    """

    reason: str
    jobs_max: int = 0
    at_once: bool = False


class Brake(Protocol):
    """Something that may slow or hold a run for a while."""

    def demand(self) -> Demand | None:
        """Say what is to be heeded now; None if nothing is.

        Asked several times a second: whoever has to look at something that is not there at
        once keeps what it saw last.

        Raises:
            RegrainError: The run is to end with it. Packages in hand that are complete are
                published, the others are put back.
        """


@dataclass(frozen=True, slots=True)
class Going:
    """How a run goes at a moment.

    Attributes:
        tempo: What it was told to.
        jobs: How many workers may be busy; 0: it is held.
        reason: What slows or holds it; empty if nothing does.
        at_once: Whether it is held, and workers stop after the file in hand.
    """

    tempo: Tempo
    jobs: int
    reason: str = ""
    at_once: bool = False

    @property
    def is_held(self) -> bool:
        """Whether nothing new may be begun."""
        return self.jobs == 0


class Pace:
    """What a run was told to, and all its brakes together; the strongest one counts.

    Args:
        tempo: Returns what it is told to, whenever it is asked.
        brakes: In the order of their weight: of equals the first is the one that is told.
        readers: Told what tasks took: the tempo may depend on it.
    """

    def __init__(
        self,
        tempo: Callable[[], Tempo],
        brakes: Iterable[Brake] = (),
        readers: Readers | None = None,
    ) -> None:
        self.tempo = tempo
        self.readers = readers
        self._brakes = tuple(brakes)

    def now(self) -> Going:
        """Say how the run may go now."""
        tempo = self.tempo()
        demands = [demand for brake in self._brakes if (demand := brake.demand()) is not None]
        if not demands:
            return Going(tempo, tempo.jobs)
        strongest = min(demands, key=lambda demand: (demand.jobs_max, not demand.at_once))
        jobs = min(tempo.jobs, strongest.jobs_max)
        return Going(tempo, jobs, strongest.reason, at_once=strongest.at_once and not jobs)


class Course:
    """Follows a pace, and tells when a run is held, goes on, or is told something else.

    Args:
        pace: The pace.
        emit: Told.
        clock: Says when a pause between batches is over.

    Attributes:
        going: How the run goes, by the last look.
    """

    def __init__(
        self, pace: Pace, emit: Callable[[Event], None], clock: Callable[[], float] = monotonic
    ) -> None:
        self._pace = pace
        self._emit = emit
        self._clock = clock
        self._next_batch_at = clock()
        tempo = pace.tempo()
        self.going = Going(tempo, tempo.jobs)

    def batch_ended(self) -> None:
        """Take note that a batch ended: there may be a pause before the next."""
        self._next_batch_at = self._clock() + self.going.tempo.pause

    def worked(self, computed: float, took: float) -> None:
        """Take note of what a task took, in seconds of processor time and of time."""
        tempo, readers = self.going.tempo, self._pace.readers
        if readers is not None and not (tempo.max_read or tempo.max_files):
            readers.worked(computed, took, tempo.jobs)

    @property
    def is_due(self) -> bool:
        """Whether the pause between batches is over."""
        return self._clock() >= self._next_batch_at

    def reason(self, slowed_by: str, *, is_idle: bool) -> str:
        """Say what slows or holds the run: a brake, or else what it was told to.

        Args:
            slowed_by: Rates that its workers wait for.
            is_idle: Whether there is nothing in hand.
        """
        if self.going.reason or not is_idle or self.is_due:
            return self.going.reason or slowed_by
        return f"{self.going.tempo.pause:g} s between batches (pause_ms)"

    def look(self) -> Going:
        """Look anew.

        Raises:
            RegrainError: A brake ends the run.
        """
        before, self.going = self.going, self._pace.now()
        if self.going.is_held != before.is_held:
            held_by = f"waiting: {self.going.reason}"
            self._emit(Remark(held_by if self.going.is_held else "going on"))
        if self.going.tempo != before.tempo:
            self._emit(Remark(f"from now on: {self.going.tempo}"))
        return self.going
