"""How far a run is, how fast, and how long it will take."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from regrain.model.clock import monotonic
from regrain.model.events import Progress

if TYPE_CHECKING:
    from collections.abc import Callable

WINDOW_SECONDS = 20.0
KNOWN_AFTER_SECONDS = 1.0


class Tracker:
    """Counts what was done and keeps a moving average of the bytes read a second."""

    def __init__(self, packages: int, size: int, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._packages_total = packages
        self._bytes_total = size
        self._packages_done = self._packages_failed = self._files_done = self._bytes_done = 0
        self._samples: deque[tuple[float, int]] = deque([(clock(), 0)])

    def read(self, size: int) -> None:
        """Count bytes that were read."""
        self._bytes_done += size
        now = self._clock()
        self._samples.append((now, self._bytes_done))
        while self._samples[0][0] < now - WINDOW_SECONDS and len(self._samples) > 2:
            self._samples.popleft()

    def completed(self, files: int) -> None:
        """Count a package that was published."""
        self._packages_done += 1
        self._files_done += files

    def failed(self) -> None:
        """Count a package that failed."""
        self._packages_failed += 1

    def snapshot(self, held_by: str = "") -> Progress:
        """Return how far it is now, and what holds it back."""
        rate = self._rate()
        left = max(0, self._bytes_total - self._bytes_done)
        return Progress(
            packages_total=self._packages_total,
            packages_done=self._packages_done,
            packages_failed=self._packages_failed,
            files_done=self._files_done,
            bytes_total=self._bytes_total,
            bytes_done=self._bytes_done,
            rate_bytes_per_second=rate,
            seconds_left=left / rate if rate else None,
            throttle_reason=held_by,
        )

    def _rate(self) -> float | None:
        then, before = self._samples[0]
        elapsed = self._clock() - then
        done = self._bytes_done - before
        return done / elapsed if elapsed >= KNOWN_AFTER_SECONDS and done else None
