"""The brake of I/O pressure, by a real file that the test writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from regrain.errors import RefusedError
from regrain.migrate.pressure import LOOK_SECONDS, SHED_SECONDS, IoPressure

FULL = "full avg10=99.00 avg60=99.00 avg300=99.00 total=2\n"


class Pressure:
    """A file as the kernel's, and a clock that moves on at every look."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = 0.0
        self.looks_at(0)

    def looks_at(self, percent: float) -> None:
        self.path.write_text(f"some avg10={percent:.2f} avg60=0.00 avg300=0.00 total=1\n{FULL}")

    def clock(self) -> float:
        self.now += LOOK_SECONDS
        return self.now


@pytest.fixture
def pressure(tmp_path: Path) -> Pressure:
    return Pressure(tmp_path / "io")


def test_it_slows_above_the_limit_and_lets_go_well_below(pressure: Pressure) -> None:
    brake = IoPressure(20, str(pressure.path), pressure.clock)
    slowed = []
    for percent in (0, 20, 20.01, 19, 16.01, 16, 19, 21, 0):
        pressure.looks_at(percent)
        slowed.append(brake.demand() is not None)
    assert slowed == [False, False, True, True, True, False, False, True, False]


def test_it_sheds_workers_before_it_holds(pressure: Pressure) -> None:
    brake = IoPressure(20, str(pressure.path), pressure.clock)

    def jobs(percent: float, seconds: float = LOOK_SECONDS) -> int | None:
        pressure.looks_at(percent)
        pressure.now += seconds - LOOK_SECONDS
        demand = brake.demand()
        return None if demand is None else demand.jobs_max

    assert jobs(50) == 1
    assert jobs(50, SHED_SECONDS - LOOK_SECONDS) == 1
    assert jobs(17) == 0, "it is over the limit still, for so long"
    assert jobs(50, 1000) == 0
    assert jobs(16) is None
    assert jobs(21) == 1, "it begins anew, with one worker"
    assert jobs(10) is None


def test_it_says_figure_and_limit(pressure: Pressure) -> None:
    pressure.looks_at(43.21)
    brake = IoPressure(20, str(pressure.path), pressure.clock)
    demand = brake.demand()
    assert demand == ("I/O pressure 43.2 %, over 20 % (io_pressure_max)", 1, False)
    pressure.now += SHED_SECONDS
    assert brake.demand() == ("I/O pressure 43.2 %, over 16 % (io_pressure_max)", 0, False)


def test_it_looks_once_a_second(pressure: Pressure) -> None:
    brake = IoPressure(20, str(pressure.path), lambda: 7.0)
    assert brake.demand() is None
    pressure.looks_at(90)
    assert brake.demand() is None


@pytest.mark.parametrize("content", [None, "", "some avg10=high", FULL])
def test_what_cannot_be_read_holds_the_run(pressure: Pressure, content: str | None) -> None:
    brake = IoPressure(20, str(pressure.path), pressure.clock)
    brake.check()
    if content is None:
        pressure.path.unlink()
    else:
        pressure.path.write_text(content)
    demand = brake.demand()
    assert demand is not None
    assert demand.jobs_max == 0, "at once, since nobody knows"
    assert str(pressure.path) in demand.reason
    assert "io_pressure_max = 0" in demand.reason
    with pytest.raises(RefusedError, match="io_pressure_max") as refused:
        brake.check()
    assert refused.value.path == str(pressure.path)
    pressure.looks_at(0)
    assert brake.demand() is None
