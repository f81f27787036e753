"""How long runs work is added up, what they were held left out, as long as a prediction stands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from regrain.app.foretold import FILE, WORKED_FILE, Record, Worked
from regrain.cli.predicted import in_words
from regrain.model.events import Progress, Remark
from regrain.store.root import StoreRoot
from tests.command import Regrain


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def root(store_path: Path) -> StoreRoot:
    """A store whose prediction was made at 7."""
    store_path.mkdir(exist_ok=True)
    Regrain(store_path)("init", "--no-predict")
    predicted(store_path, at=7)
    return StoreRoot(str(store_path))


def predicted(store: Path, at: int) -> None:
    """Let a store have a prediction of that time."""
    record = Record(at, 1, 1, "copy", [])
    (store / "migration" / FILE).write_bytes(msgspec.json.encode(record))


def progress(*, held: bool = False) -> Progress:
    """Return some progress; nothing of it counts but whether the run is held."""
    return Progress(9, 0, 0, 0, 100, 0, None, None, "paused" if held else "", held=held)


def run(root: StoreRoot, course: Callable[[Worked, Clock], None]) -> None:
    """Let a run take its course and end."""
    clock = Clock()
    worked = Worked(root, clock)
    course(worked, clock)
    worked.end()


def seconds(root: StoreRoot) -> float:
    """Return what the store knows."""
    found = msgspec.json.decode((Path(root.path) / "migration" / WORKED_FILE).read_bytes())
    return float(found["seconds"])


def ten_seconds(worked: Worked, clock: Clock) -> None:
    """Work for ten seconds, and be held for a hundred amid them."""
    clock.now += 1.0
    worked(progress())
    clock.now += 4.0
    worked(progress(held=True))
    worked(Remark("nothing to it"))
    clock.now += 60.0
    worked(progress(held=True))
    clock.now += 40.0
    worked(progress())
    clock.now += 5.0


def test_what_a_run_is_held_is_left_out_and_runs_add_up(root: StoreRoot) -> None:
    run(root, ten_seconds)
    assert seconds(root) == pytest.approx(10.0)
    run(root, ten_seconds)
    assert seconds(root) == pytest.approx(20.0)


def test_a_run_with_nothing_to_do_does_not_count(root: StoreRoot) -> None:
    def idle(worked: Worked, clock: Clock) -> None:
        worked(Remark("nothing to do"))
        clock.now += 30.0

    run(root, ten_seconds)
    run(root, idle)
    assert seconds(root) == pytest.approx(10.0)


def test_a_killed_run_forgets_two_seconds_at_the_most(root: StoreRoot) -> None:
    clock = Clock()
    worked = Worked(root, clock)
    for _ in range(19):
        clock.now += 0.5
        worked(progress())
    assert 9.5 - 2.0 <= seconds(root) <= 9.5
    run(root, ten_seconds)
    assert 17.5 <= seconds(root) <= 19.5


def test_another_prediction_begins_at_nothing(root: StoreRoot) -> None:
    run(root, ten_seconds)
    predicted(Path(root.path), at=8)
    run(root, ten_seconds)
    assert seconds(root) == pytest.approx(10.0)


def test_without_a_prediction_nothing_is_written(root: StoreRoot) -> None:
    (Path(root.path) / "migration" / FILE).unlink()
    run(root, ten_seconds)
    assert not (Path(root.path) / "migration" / WORKED_FILE).exists()


def test_status_tells_the_times_that_are_known() -> None:
    found: dict[str, object] = {
        "saved_bytes_low": 1024,
        "saved_bytes_high": 4096,
        "outcome_saved_bytes": 3072,
        "within_margin": True,
        "seconds": [20.0, 70.0],
        "outcome_seconds": 34.2,
    }
    savings = "1.0 KiB to 4.0 KiB saved; it is 3.0 KiB, within the margin"
    assert in_words(found) == f"{savings}; 20 s to 1 min 10 s of work; it took 34 s"
    assert in_words({**found, "seconds": None, "outcome_seconds": None}) == savings
    early = dict.fromkeys(("outcome_saved_bytes", "within_margin", "outcome_seconds"))
    assert in_words(found | early) == "1.0 KiB to 4.0 KiB saved; 20 s to 1 min 10 s of work"
