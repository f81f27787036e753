"""How many workers pay: as many as there are processors, and more while they wait for a disk."""

from __future__ import annotations

from regrain.store.workers import processors

WINDOW_SECONDS = 2.0
"""How long a worker has to have worked, on average, before its waiting counts."""

BUSY = 0.7
"""Who computes for such a share of the time cannot be helped by a further worker.

Measured on two processors: with the files in memory four workers take a sixth more processor time
than two (each finds out by itself what the others know already, and they evict each other's data
from the caches); with the files on disk they bring them in 15 to 20 % sooner.
"""


class Readers:
    """The number of workers of a run that was not told one.

    It only grows, once: those who wait for a disk do so for most of a run, and a change of the
    crew has to wait until everybody has ended what he is doing.

    Attributes:
        few: With how many it begins.
    """

    def __init__(self) -> None:
        self.few = processors()
        self._waits = False
        self._computed = self._took = 0.0

    def of(self, jobs_max: int) -> int:
        """Return how many there are to be now, of so many at the most."""
        return jobs_max if self._waits else min(jobs_max, self.few)

    def worked(self, computed: float, took: float, jobs: int) -> None:
        """Take note of a task.

        Args:
            computed: Seconds of processor time.
            took: Seconds from its beginning to its end.
            jobs: How many workers there were.
        """
        self._computed += computed
        self._took += took
        if self._took >= WINDOW_SECONDS * jobs:
            self._waits = self._waits or self._computed < BUSY * self._took
            self._computed = self._took = 0.0
