"""Rates that a worker keeps to: bytes and files a second, as its run allows it at a moment."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from regrain.model.clock import monotonic

if TYPE_CHECKING:
    from collections.abc import Callable

SLEEP_SECONDS_MAX = 0.2
CREDIT_SECONDS = 1.0
"""What a worker did not use for so long it may use at once; what is older is forgotten."""


class Rate:
    """One rate of one worker.

    Args:
        allowed: Tells how much a second it may take now; 0 is no limit.
        stopping: Tells whether not to wait any more.
        held: Called whenever it has to wait.
        clock: Says how late it is.
        sleep: Waits.
    """

    def __init__(
        self,
        allowed: Callable[[], float],
        stopping: Callable[[], bool],
        held: Callable[[], None],
        clock: Callable[[], float] = monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._allowed = allowed
        self._stopping = stopping
        self._held = held
        self._clock = clock
        self._sleep = sleep
        self._owed = 0.0
        self._paid_at = clock()

    def take(self, amount: float) -> None:
        """Take an amount; wait as long as that is ahead of the rate, which may change meanwhile."""
        if not self._allowed():
            return
        self._owed += amount
        while (rate := self._allowed()) and not self._stopping():
            now = self._clock()
            paid = (now - self._paid_at) * rate
            self._owed, self._paid_at = max(self._owed - paid, -rate * CREDIT_SECONDS), now
            if self._owed <= 0:
                return
            self._held()
            self._sleep(min(self._owed / rate, SLEEP_SECONDS_MAX))
        self._owed = 0.0


class Throttle:
    """Keeps one worker to both of its rates.

    Args:
        signals: What it shares with its run (``regrain.store.workers.signals``).
    """

    def __init__(self, signals: Any) -> None:  # noqa: ANN401 -- its type is private to ctypes
        self._signals = signals
        self._read = Rate(lambda: float(signals.rate), self._stopping, self._read_held)
        self._files = Rate(lambda: float(signals.files_rate), self._stopping, self._files_held)

    def __call__(self, size: int) -> None:
        """Wait, if need be, before a file of ``size`` bytes is read."""
        if self._signals.files_rate:  # asked for every file: most runs have no such limit
            self._files.take(1)
        if self._signals.rate:
            self._read.take(size)

    def _stopping(self) -> bool:
        return bool(self._signals.value)

    def _read_held(self) -> None:
        self._signals.rate_held_at = monotonic()

    def _files_held(self) -> None:
        self._signals.files_rate_held_at = monotonic()
