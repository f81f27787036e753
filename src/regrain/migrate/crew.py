"""The workers of a run: as many as it is told to have, stopped and let go on together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor, Future


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
        self._executor, self._signals = make(jobs)

    def submit(self, task: Callable[..., Any], arguments: tuple[Any, ...]) -> Future[Any]:
        """Hand out a task."""
        return self._executor.submit(task, *arguments)

    def stop_files(self) -> None:
        """Have every worker stop after the file in hand, until ``go_on``."""
        self._signals.value = 1

    def go_on(self) -> None:
        """Take back ``stop_files``; only when nobody works."""
        self._signals.value = 0

    def forget(self) -> None:
        """Have every worker forget what it knows of the store: others may have changed it."""
        self._signals.turn += 1

    def allow(self, bytes_per_second: float, busy: int) -> None:
        """Share a read rate (0: no limit) among so many workers that are busy."""
        share = bytes_per_second / max(1, min(busy, self.jobs))
        if self._signals.rate != share:
            self._signals.rate = share

    def renew(self, jobs: int) -> None:
        """Have ``jobs`` workers from now on; only when nobody works."""
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
