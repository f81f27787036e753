"""How long something took, counted in classes: what a monitoring system asks for."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

BOUNDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
"""The longest time of each class, in seconds; a last class takes all that is longer. One set of
bounds for small reads, flushes and batches: from a cached read to a disk that is overwhelmed."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """How often something took how long.

    Attributes:
        counts: How often it fell into each class, in the order of ``BOUNDS``, then the rest.
        seconds: All times together.
    """

    counts: tuple[int, ...] = (0,) * (len(BOUNDS) + 1)
    seconds: float = 0.0

    @property
    def is_sound(self) -> bool:
        """Whether it has the classes of this version: it may have been written by another."""
        return len(self.counts) == len(BOUNDS) + 1

    def plus(self, times: Iterable[float]) -> Histogram:
        """Return this with more times, in seconds."""
        counts, total = list(self.counts), self.seconds
        for seconds in times:
            counts[bisect_left(BOUNDS, seconds)] += 1
            total += seconds
        return Histogram(tuple(counts), total)


NO_TIMES = Histogram()
