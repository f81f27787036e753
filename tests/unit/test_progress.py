"""How far a run is, by a clock that the test turns."""

from __future__ import annotations

import io
from dataclasses import asdict, replace

import pytest
from rich.console import Console

from regrain.app.standing import State, progress
from regrain.cli import output
from regrain.cli.drawn import make_bar
from regrain.ledger import Totals
from regrain.migrate.progress import KNOWN_AFTER_SECONDS, WINDOW_SECONDS, Tracker
from regrain.model.events import Progress
from regrain.model.phase import Phase
from regrain.model.status import Status


class Clock:
    """A clock that stands still until it is turned."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def turn(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_nothing_is_claimed_before_it_can_be_known(clock: Clock) -> None:
    tracker = Tracker(3, 1000, clock)
    assert tracker.snapshot() == Progress(3, 0, 0, 0, 1000, 0, None, None)
    tracker.read(100)
    clock.turn(KNOWN_AFTER_SECONDS / 2)
    found = tracker.snapshot()
    assert (found.bytes_done, found.rate_bytes_per_second, found.seconds_left) == (100, None, None)


def test_time_alone_gives_no_rate(clock: Clock) -> None:
    tracker = Tracker(3, 1000, clock)
    clock.turn(60)
    found = tracker.snapshot()
    assert (found.rate_bytes_per_second, found.seconds_left) == (None, None)


def test_a_tiny_package_tells_nothing_of_large_ones(clock: Clock) -> None:
    tracker = Tracker(2, 10**9, clock)
    clock.turn(2)
    tracker.read(40)
    found = tracker.snapshot()
    assert (found.rate_bytes_per_second, found.seconds_left) == (None, None)
    tracker.read(10**6)
    assert tracker.snapshot().seconds_left is not None


def test_rate_and_time_left(clock: Clock) -> None:
    tracker = Tracker(2, 1000, clock)
    for _ in range(4):
        clock.turn(1)
        tracker.read(50)
    found = tracker.snapshot()
    assert found.rate_bytes_per_second == pytest.approx(50)
    assert found.seconds_left == pytest.approx((1000 - 200) / 50)


def test_the_rate_is_that_of_late(clock: Clock) -> None:
    tracker = Tracker(2, 10**9, clock)
    for _ in range(100):
        clock.turn(1)
        tracker.read(1_000_000)
    for _ in range(round(3 * WINDOW_SECONDS)):
        clock.turn(1)
        tracker.read(10)
    rate = tracker.snapshot().rate_bytes_per_second
    assert rate == pytest.approx(10, rel=0.2)


def test_the_rate_sinks_while_nothing_comes(clock: Clock) -> None:
    tracker = Tracker(2, 10**6, clock)
    clock.turn(1)
    tracker.read(1000)
    clock.turn(1)
    early = tracker.snapshot().rate_bytes_per_second
    clock.turn(10)
    late = tracker.snapshot().rate_bytes_per_second
    assert early is not None
    assert late is not None
    assert 0 < late < early


def test_more_than_was_expected_leaves_no_negative_time(clock: Clock) -> None:
    tracker = Tracker(1, 100, clock)
    clock.turn(2)
    tracker.read(500)
    found = tracker.snapshot()
    assert (found.bytes_done, found.seconds_left) == (500, 0)


def test_an_empty_run(clock: Clock) -> None:
    tracker = Tracker(0, 0, clock)
    clock.turn(100)
    assert tracker.snapshot() == Progress(0, 0, 0, 0, 0, 0, None, None)


def test_packages_and_files_are_counted(clock: Clock) -> None:
    tracker = Tracker(3, 0, clock)
    tracker.completed(10)
    tracker.completed(5)
    tracker.failed(0)
    found = tracker.snapshot()
    assert (found.packages_done, found.packages_failed, found.files_done) == (2, 1, 15)


def test_a_package_that_failed_is_neither_done_nor_left(clock: Clock) -> None:
    tracker = Tracker(3, 1000, clock)
    clock.turn(4)
    tracker.read(100, "good")
    tracker.read(100, "bad")
    assert tracker.snapshot().bytes_in_hand == 200
    tracker.completed(1, "good")
    tracker.failed(500, "bad")
    found = tracker.snapshot()
    assert (found.bytes_done, found.bytes_in_hand, found.packages_failed) == (100, 0, 1)
    assert found.rate_bytes_per_second == pytest.approx(50)  # both were read
    assert found.seconds_left == pytest.approx((1000 - 500 - 100) / 50)


@pytest.mark.parametrize("recorded", [300, 400])
def test_of_a_store_it_does_not_depend_on_when_the_ledger_was_asked(
    clock: Clock, recorded: int
) -> None:
    """A package of 100 bytes was read; whether it is recorded by now makes no difference."""
    tracker = Tracker(2, 700, clock, bytes_before=300)
    tracker.read(100, "one")
    snapshot = {"pid": 7, **asdict(tracker.snapshot())}
    totals = Totals({Status.COMPLETED: 3, Status.PENDING: 2}, 5, 3, 0, 1000, recorded, 0, 0, 0, 0)
    state = State(Phase.DUAL, totals, "regrain migrate, process 7", snapshot)
    assert progress(state).bytes_done == 400
    assert progress(replace(state, running="")).bytes_done == recorded


def test_a_pause_makes_no_jump(clock: Clock) -> None:
    tracker = Tracker(2, 1000, clock)
    for _ in range(30):
        clock.turn(1)
        tracker.read(10)
    before = tracker.snapshot().seconds_left
    tracker.hold(is_held=True)
    clock.turn(3600)
    assert tracker.snapshot("paused").seconds_left is None
    tracker.hold(is_held=False)
    assert tracker.snapshot().seconds_left == before
    clock.turn(1)
    tracker.read(10)
    after = tracker.snapshot().seconds_left
    assert before is not None
    assert after == pytest.approx(before - 1)


def test_memory_does_not_grow_with_the_time_a_run_takes(clock: Clock) -> None:
    tracker = Tracker(1, 10**9, clock)
    for _ in range(5000):
        clock.turn(0.5)
        tracker.read(1)
    assert len(tracker._samples) <= 2 * WINDOW_SECONDS + 2


@pytest.mark.parametrize("width", [44, 80, 160])
def test_the_bar_fits_on_one_line(width: int) -> None:
    bar = make_bar()
    reason = "12/50 packages, 1 failed (small reads take too long: 9.1 ms, over 1.2 times 3.0 ms)"
    bar.add_task(reason, total=3 << 30, completed=1 << 30, pace="40.0 MiB/s, 3 min 2 s left")
    drawn = io.StringIO()
    Console(width=width, file=drawn).print(bar.get_renderable())
    (line,) = drawn.getvalue().splitlines()
    assert len(line) <= width
    assert ("3 min 2 s left" in line) or width < 80
    assert "12/50" in line or width < 80


@pytest.mark.parametrize(
    ("amount", "noun", "words"),
    [
        (0, "package", "0 packages"),
        (1, "package", "1 package"),
        (1, "legacy directory", "1 legacy directory"),
        (1_000, "legacy directory", "1,000 legacy directories"),
        (2, "entry", "2 entries"),
    ],
)
def test_counts_agree_with_their_nouns(amount: int, noun: str, words: str) -> None:
    assert output.count(amount, noun) == words
