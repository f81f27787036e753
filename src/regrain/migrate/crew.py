"""The workers of a run: as many as it is told to have, stopped and let go on together."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from regrain.migrate.pace import MIB, Tempo
from regrain.model.clock import monotonic
from regrain.store.engines import Dispatcher, check_workers

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor, Future

TASKS_AHEAD = 6
"""Tasks are handed out ahead for each worker, enough to outlast a commit."""

SLOWED_SECONDS = 1.0
"""Who waited for his rate so short a time ago is still slowed by it."""


class Done(NamedTuple):
    """What a task returned, and what it took: processor time and time, in seconds."""

    result: Any
    computed: float
    took: float


def timed(task: Callable[..., Any], *arguments: object) -> Done:
    """Do a task, in a worker, and say what it took."""
    computed, began = time.process_time(), time.perf_counter()
    result = task(*arguments)
    return Done(result, time.process_time() - computed, time.perf_counter() - began)


class Crew:
    """An executor that can be made anew, and what its workers share with the run.

    Args:
        make: Returns an executor of so many workers, and what they share with the run
            (``regrain.store.workers.signals``).
        jobs: Workers to begin with.

    Attributes:
        jobs: How many there are.
    """

    def __init__(self, make: Callable[[int], tuple[Executor, Any]], jobs: int) -> None:
        self._make = make
        self.jobs = jobs
        self._tempo = Tempo(jobs, 1)
        self._executor, self._signals = make(jobs)

    def submit(self, task: Callable[..., Any], arguments: tuple[Any, ...]) -> Future[Done]:
        """Hand out a task."""
        return self._executor.submit(timed, task, *arguments)

    @property
    def is_elastic(self) -> bool:
        """Whether an engine has the workers: ``jobs`` is then how many units it is handed."""
        return isinstance(self._executor, Dispatcher)

    def ahead(self, jobs: int) -> int:
        """Return how many tasks may be handed out while so many workers may be busy."""
        return jobs if jobs < self.jobs or self.is_elastic else TASKS_AHEAD * jobs

    def check(self, *, is_ending: bool) -> None:
        """See that somebody can end what is in hand.

        Raises:
            EngineError: The run is to end, and its engine has no workers left.
        """
        check_workers(self._executor, is_ending=is_ending)

    def stop_files(self) -> None:
        """Have every worker stop after the file in hand, until ``go_on``."""
        self._signals.value = 1

    def go_on(self) -> None:
        """Take back ``stop_files``; only when nobody works."""
        self._signals.value = 0

    def forget(self) -> None:
        """Have every worker forget what it knows of the store: others may have changed it."""
        self._signals.turn += 1

    def allow(self, tempo: Tempo, busy: int) -> None:
        """Share the rates (0: no limit) among so many workers that are busy."""
        self._tempo = tempo
        among = max(1, min(busy, self.jobs))
        if isinstance(self._executor, Dispatcher):
            among = min(among, self._executor.engine.slots)
        rates = (tempo.max_read / among, tempo.max_files / among)
        if (self._signals.rate, self._signals.files_rate) != rates:
            self._signals.rate, self._signals.files_rate = rates

    @property
    def slowed_by(self) -> str:
        """The rates that workers had to wait for just now, in a clause; empty if they did not."""
        since = monotonic() - SLOWED_SECONDS
        tempo, signals = self._tempo, self._signals
        reasons = []
        if tempo.max_read and signals.rate_held_at > since:
            reasons.append(f"no more than {tempo.max_read / MIB:g} MiB/s are read (max_read)")
        if tempo.max_files and signals.files_rate_held_at > since:
            reasons.append(f"no more than {tempo.max_files:g} files/s are read (max_files)")
        return "; ".join(reasons)

    def renew(self, jobs: int) -> None:
        """Have ``jobs`` workers from now on; only when nobody works, unless an engine has them."""
        if self.is_elastic:
            self.jobs = jobs
            return
        self.close()
        self.jobs = jobs
        self._executor, self._signals = self._make(jobs)

    def replace_dead(self) -> None:
        """Start workers anew after one died; the others are not waited for."""
        self.stop_files()
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._executor, self._signals = self._make(self.jobs)

    def close(self) -> None:
        """End all workers, each after what it is doing."""
        self._executor.shutdown(wait=True, cancel_futures=True)
