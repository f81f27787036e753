"""How far a run is, how fast, and how long it will take."""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING

from regrain.model.clock import monotonic
from regrain.model.events import Progress

if TYPE_CHECKING:
    from collections.abc import Callable

WINDOW_SECONDS = 20.0
KNOWN_AFTER_SECONDS = 1.0
KNOWN_AFTER_SHARE, KNOWN_AFTER_BYTES = 0.001, 64 << 20
"""No rate is told before so much was read, the lesser of both: the first package may be tiny, while
the others, of which nothing is heard until a part of them is read, are large."""


class Tracker:
    """Counts what was done and keeps a moving average of the bytes read a second."""

    def __init__(
        self,
        packages: int,
        size: int,
        clock: Callable[[], float] = monotonic,
        *,
        bytes_before: int = 0,
    ) -> None:
        self._clock = clock
        self._bytes_before = bytes_before
        self._packages_total = packages
        self._bytes_total = size
        self._packages_done = self._packages_failed = self._files_done = self._bytes_done = 0
        self._bytes_read = self._bytes_failed = 0
        self._in_hand: Counter[str] = Counter()
        self._held_since: float | None = None
        self._held_seconds = 0.0
        self._samples: deque[tuple[float, int]] = deque([(clock(), 0)])

    def read(self, size: int, package_hash: str = "") -> None:
        """Count bytes that were read of a package."""
        self._in_hand[package_hash] += size
        self._bytes_done += size
        self._bytes_read += size
        now = self._now()
        self._samples.append((now, self._bytes_read))
        while self._samples[0][0] < now - WINDOW_SECONDS and len(self._samples) > 2:
            self._samples.popleft()

    def put_back(self, package_hash: str) -> None:
        """Count what was read of a package as not read: it will be read again."""
        self._bytes_done -= self._in_hand.pop(package_hash, 0)

    def completed(self, files: int, package_hash: str = "") -> None:
        """Count a package that was published."""
        self._in_hand.pop(package_hash, None)
        self._packages_done += 1
        self._files_done += files

    def failed(self, size: int, package_hash: str = "") -> None:
        """Count a package of ``size`` bytes that failed: they are not done, nor left to do."""
        self.put_back(package_hash)
        self._bytes_failed += size
        self._packages_failed += 1

    def hold(self, *, is_held: bool) -> None:
        """Let the time stand still while the run is held: that is no part of its rate."""
        if is_held and self._held_since is None:
            self._held_since = self._clock()
        elif not is_held and self._held_since is not None:
            self._held_seconds += self._clock() - self._held_since
            self._held_since = None

    def _now(self) -> float:
        return (self._clock() if self._held_since is None else self._held_since) - (
            self._held_seconds
        )

    def snapshot(self, throttled_by: str = "") -> Progress:
        """Return how far it is now, and what slows or holds it."""
        rate = self._rate()
        is_held = self._held_since is not None
        left = max(0, self._bytes_total - self._bytes_failed - self._bytes_done)
        return Progress(
            packages_total=self._packages_total,
            packages_done=self._packages_done,
            packages_failed=self._packages_failed,
            files_done=self._files_done,
            bytes_total=self._bytes_total,
            bytes_done=self._bytes_done,
            rate_bytes_per_second=rate,
            seconds_left=left / rate if rate and not is_held else None,
            throttle_reason=throttled_by,
            held=is_held,
            bytes_in_hand=self._in_hand.total(),
            bytes_before=self._bytes_before,
        )

    def _rate(self) -> float | None:
        then, before = self._samples[0]
        elapsed = self._now() - then
        done = self._bytes_read - before
        enough = min(self._bytes_total * KNOWN_AFTER_SHARE, KNOWN_AFTER_BYTES)
        is_known = elapsed >= KNOWN_AFTER_SECONDS and done and self._bytes_read >= enough
        return done / elapsed if is_known else None
