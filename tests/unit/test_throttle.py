"""Rates of a worker: how long it waits, by a clock that moves on when it sleeps."""

from __future__ import annotations

from concurrent.futures import Executor

from regrain.migrate.crew import SLOWED_SECONDS, Crew
from regrain.migrate.pace import MIB, Tempo
from regrain.migrate.throttle import Rate, Throttle
from regrain.model.clock import monotonic
from regrain.store.workers import signals


class Timed:
    """A rate with a clock of its own."""

    def __init__(self, rate: float) -> None:
        self.now = 100.0
        self.rate = rate
        self.stops_at = float("inf")
        self.held = 0
        self.it = Rate(lambda: self.rate, self._stopping, self._hold, lambda: self.now, self._sleep)

    def _stopping(self) -> bool:
        return self.now >= self.stops_at

    def _hold(self) -> None:
        self.held += 1

    def _sleep(self, seconds: float) -> None:
        self.now += max(seconds, 1e-9)  # as a real clock, it always moves on

    def take(self, amount: float, times: int = 1) -> float:
        """Take it so many times; return the seconds that took."""
        before = self.now
        for _ in range(times):
            self.it.take(amount)
        return self.now - before


def test_what_is_taken_takes_its_time() -> None:
    timed = Timed(10)
    assert abs(timed.take(1, 100) - 10) < 1e-6
    assert timed.held > 0
    timed.rate = 1000
    assert abs(timed.take(1, 100) - 0.1) < 1e-6


def test_no_limit_is_no_wait() -> None:
    timed = Timed(0)
    assert timed.take(1e12, 100) == 0
    assert timed.held == 0


def test_of_what_was_not_used_a_second_counts() -> None:
    timed = Timed(10)
    timed.take(1)
    timed.now += 3600
    assert timed.take(1, 10) == 0
    assert timed.take(1, 10) > 0.5


def test_a_stop_and_a_new_rate_end_the_wait() -> None:
    timed = Timed(0.001)
    timed.stops_at = timed.now + 5
    assert timed.take(1) < 6
    timed.stops_at = float("inf")
    timed.rate = 10
    assert timed.take(1) < 0.2, "what was owed at the stop is owed no more"


def test_a_worker_keeps_to_both_rates_and_says_which_one_it_waits_for() -> None:
    shared = signals()
    crew = Crew(lambda _: (Executor(), shared), 2)
    throttle = Throttle(shared)
    throttle(1 << 40)
    assert not crew.slowed_by

    def slowed_by(tempo: Tempo, size: int) -> str:
        shared.rate_held_at = shared.files_rate_held_at = 0.0
        crew.allow(tempo, 2)
        for _ in range(200):  # four seconds' worth of which one may be at its credit
            throttle(size)
            if crew.slowed_by:
                break
        return crew.slowed_by

    words = "no more than 100 files/s are read (max_files)"
    assert slowed_by(Tempo(2, 1, max_files=100.0), 0) == words
    assert (shared.files_rate, shared.rate) == (50, 0), "each of two may take half of it"
    words = "no more than 1 MiB/s are read (max_read)"
    assert slowed_by(Tempo(2, 1, max_read=MIB), MIB // 100) == words
    assert (shared.files_rate, shared.rate) == (0, MIB / 2)
    shared.rate_held_at = monotonic() - 2 * SLOWED_SECONDS
    assert not crew.slowed_by
    assert not slowed_by(Tempo(2, 1, max_read=1e12, max_files=1e9), 1)
