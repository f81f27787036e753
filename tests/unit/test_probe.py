"""How long readers wait beside a run: windows, steps, and what a probe costs."""

from __future__ import annotations

from pathlib import Path
from threading import Event as Flag

import pytest

from regrain import PackageStore
from regrain.errors import RefusedError
from regrain.migrate import probe
from regrain.migrate.pace import Demand
from regrain.migrate.probe import READS_A_WINDOW, WINDOWS, Probe, SlowReaders, Windows, time_read
from regrain.model.events import READ_NOISE_SECONDS, Foreground
from regrain.store.root import StoreRoot
from tests import awkward
from tests.faults.inline import initialise, migrate

BASELINE = 0.010


def window(windows: Windows, seconds: float) -> None:
    """Take a window of reads, two of which are much slower, as it happens."""
    for number in range(READS_A_WINDOW):
        windows.take(10.0 if number in (1, 4) else seconds)


def test_a_window_is_judged_by_its_median() -> None:
    windows = Windows(BASELINE)
    assert windows.found == Foreground(BASELINE)
    window(windows, 0.02)
    assert windows.found == Foreground(BASELINE, 0.02)
    assert windows.found.slowdown == pytest.approx(2)
    assert windows.found.words.startswith("a small read takes 20.0 ms, 2.0 times the 10.0 ms")


def test_only_what_lasts_over_several_windows_is_steady() -> None:
    windows = Windows(BASELINE)
    for seconds in (0.05, 0.04, 0.01, 0.06, 0.07, 0.08):
        window(windows, seconds)
        assert windows.found.is_slower(1.2) is (seconds > 0.013)
        assert windows.found.is_steadily_slower(1.2) is (seconds == 0.08)
    assert windows.found.steady_seconds == pytest.approx(0.06)


def test_a_difference_too_small_to_feel_is_none() -> None:
    fast = Foreground(0.0001, 0.0001 + READ_NOISE_SECONDS, 0.0001 + READ_NOISE_SECONDS)
    assert fast.slowdown == pytest.approx(11)
    assert not fast.is_slower(1.2)
    assert not fast.is_steadily_slower(1.2)


@pytest.fixture
def root(store_path: Path, seed: int) -> StoreRoot:
    awkward.add_ordinary(store_path, "jq", "1.6", seed)
    awkward.add_ordinary(store_path, "jq", "1.7", seed)
    initialise(store_path)
    return PackageStore.open(store_path).root


def demands(root: StoreRoot, windows: list[float], *, goes_on: bool) -> list[int | None]:
    """How many workers may go on after each window; None is all of them."""
    measured = Probe(root, lambda _, __: BASELINE)
    slow = SlowReaders(measured, 2.0, goes_on=goes_on)
    found: list[Demand | None] = []
    for seconds in windows:
        assert measured.windows is not None
        window(measured.windows, seconds)
        slow.demand()
        found.append(slow.demand())  # asked again, it is the same window still
    assert slow.is_lasting == (windows[-1] > 0.02)
    return [None if demand is None else demand.jobs_max for demand in found]


def test_load_is_taken_away_step_by_step(root: StoreRoot) -> None:
    assert demands(root, [0.01, 0.02, 0.03, 0.03, 0.03], goes_on=False) == [None, None, 1, 0, 0]
    assert demands(root, [0.03, 0.03, 0.01, 0.01, 0.01], goes_on=False) == [1, 0, 1, None, None]
    assert demands(root, [0.03, 0.03, 0.03, 0.03], goes_on=True) == [1, 1, 1, 1]


def test_reads_are_timed_in_either_layout(root: StoreRoot, store_path: Path) -> None:
    name = PackageStore.open(store_path).packages().__next__().hash
    before = time_read(root, name)
    migrate(store_path)
    after = time_read(root, name)
    assert before is not None
    assert after is not None
    assert min(before, after) > 0
    assert time_read(root, "0" * 64) is None


def test_what_cannot_be_read_counts_for_nothing_and_keeps_no_limit(root: StoreRoot) -> None:
    """Who asked for a limit wants no run without one."""
    with Probe(root, lambda _, __: None) as silent:
        assert silent.found is None
        for goes_on, jobs in ((False, 0), (True, 1)):
            slow = SlowReaders(silent, 2.0, goes_on=goes_on)
            with pytest.raises(RefusedError, match="latency_slowdown_max cannot be kept"):
                slow.check()
            demand = slow.demand()
            assert demand is not None
            assert demand.jobs_max == jobs
            assert "cannot be measured" in demand.reason
    with Probe(root, lambda _, __: None, measures=False) as unasked:
        SlowReaders(unasked, 2.0).check()
        assert SlowReaders(unasked, 2.0).demand() is None


def test_readers_that_can_be_timed_no_more_hold_a_run_until_they_can(root: StoreRoot) -> None:
    waits: list[float | None] = [0.01]
    measured = Probe(root, lambda _, __: waits[0])
    slow = SlowReaders(measured, 2.0)
    slow.check()
    waits[0] = None
    for _ in range(max(READS_A_WINDOW, len(measured._names)) - 1):
        measured._read_next()
    assert slow.demand() is None, "a few may be removed, or damaged"
    measured._read_next()
    held = slow.demand()
    assert held is not None
    assert held.jobs_max == 0
    waits[0] = 0.01
    measured._read_next()
    assert slow.demand() is None


def test_a_probe_reads_a_hundredth_of_the_time(
    root: StoreRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    class Counted(Flag):
        """Waits no time, and ends the probe after some rounds."""

        def wait(self, timeout: float | None = None) -> bool:
            pauses.append(timeout or 0.0)
            return len(pauses) > probe.BASELINE_READS + 2 * READS_A_WINDOW * WINDOWS

    monkeypatch.setattr(probe, "Flag", Counted)
    with Probe(root, lambda _, __: 0.02) as measured:
        assert measured._thread is not None
        measured._thread.join()
    assert measured.found == Foreground(0.02, 0.02, 0.02)
    beside = pauses[probe.BASELINE_READS :]
    assert set(pauses[: probe.BASELINE_READS]) == {probe.BASELINE_PAUSE_SECONDS}
    assert beside[0] == probe.PAUSE_SECONDS
    assert set(beside[1:]) == {0.02 / probe.SHARE_MAX}
