"""How a run goes: brakes that slow, hold and end it, waiting for room, the time it was held."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from regrain.app import health, triggers
from regrain.app.store import PackageStore
from regrain.errors import LockedError, NoSpaceError, RefusedError
from regrain.migrate.pace import Course, Demand, Pace, Tempo
from regrain.migrate.progress import Tracker
from regrain.migrate.room import TRY_SECONDS_FIRST, Floors, Room
from regrain.model.clock import monotonic
from regrain.model.events import Progress, Remark
from regrain.store.locks import StoreLock
from tests.conftest import remove
from tests.faults.inline import Told, Way, inline_workers
from tests.faults.small import make_template, quick_place
from tests.stores import assert_complete, statuses

TEMPO = Tempo(4, 10)


class Asking(list[Demand | None]):
    """A brake that asks for one thing after the other, then for nothing."""

    def demand(self) -> Demand | None:
        return self.pop(0) if self else None


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Path]:
    with quick_place(tmp_path) as place:
        yield place / "store"
        remove(place / "store")


class Clock:
    """A clock that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_strongest_brake_counts() -> None:
    slow, gentle = Demand("slow", 2), Demand("gentle")
    at_once, more = Demand("at once", at_once=True), Demand("more than there are", 9)

    def going(*demands: Demand) -> tuple[int, str, bool]:
        now = Pace(lambda: TEMPO, [Asking([demand]) for demand in demands]).now()
        assert now.is_held == (now.jobs == 0)
        return now.jobs, now.reason, now.at_once

    assert going() == (4, "", False)
    assert going(more) == (4, more.reason, False)
    assert going(more, slow) == (2, "slow", False)
    assert going(gentle, slow) == (0, "gentle", False)
    assert going(slow, gentle, at_once) == (0, "at once", True)
    assert going(Demand("no hold", 1, at_once=True)) == (1, "no hold", False)


def test_changes_are_told_once() -> None:
    told: list[object] = []
    tempo = [TEMPO]
    brake = Asking([None, Demand("wait"), Demand("wait longer"), None, Demand("slow", 1)])
    course = Course(Pace(lambda: tempo[0], [brake]), told.append)
    for _ in range(4):
        course.look()
    assert told == [Remark("waiting: wait"), Remark("going on")]
    tempo[0] = Tempo(1, 10, 1 << 20, 0.5)
    course.look()
    words = "from now on: 1 jobs, 1 MiB/s, batches of 10 packages, 0.5 s between them"
    assert told[2:] == [Remark(words)]


@pytest.fixture
def room(tmp_path: Path) -> Iterator[tuple[Room, Clock]]:
    clock = Clock()
    fd = os.open(tmp_path, os.O_RDONLY)
    yield Room(fd, Floors(0, 0), 60.0, clock), clock
    os.close(fd)


@pytest.mark.parametrize("error", [NoSpaceError("full"), LockedError("busy")])
def test_it_tries_again_less_and_less_often_and_gives_up(
    room: tuple[Room, Clock], error: NoSpaceError
) -> None:
    """Nothing becomes free here, so that time alone counts."""
    it, clock = room
    begun = clock.now
    tries: list[float] = []

    def try_for_ever() -> None:
        while True:
            it.failed(error)
            it.emptied()
            while (demand := it.demand()) is not None:
                assert (demand.jobs_max, demand.at_once) == (0, True)
                clock.now += 0.5
            tries.append(clock.now - begun)

    with pytest.raises(type(error)) as raised:
        try_for_ever()
    assert raised.value is error
    assert tries == [TRY_SECONDS_FIRST, 3 * TRY_SECONDS_FIRST, 7 * TRY_SECONDS_FIRST]
    assert clock.now == begun + 60


def test_a_package_begins_the_waiting_anew(room: tuple[Room, Clock]) -> None:
    it, clock = room
    for _ in range(5):
        it.failed(NoSpaceError("full"))
        clock.now += 50
        assert it.demand() is None
        it.progressed()
    it.failed(NoSpaceError("full"))
    it.progressed()  # others of the same batch were published
    clock.now += 60
    with pytest.raises(NoSpaceError):
        it.demand()


def test_a_floor_holds_gently_and_gives_up(tmp_path: Path) -> None:
    clock = Clock()
    fd = os.open(tmp_path, os.O_RDONLY)
    it = Room(fd, Floors(1 << 60, 0), 60.0, clock)
    demand = it.demand()
    assert demand is not None
    assert not demand.at_once
    assert str(1 << 60) in demand.reason
    clock.now += 60
    with pytest.raises(NoSpaceError, match="free_bytes_min"):
        it.demand()
    os.close(fd)


def test_time_held_is_no_part_of_the_rate() -> None:
    clock = Clock()
    tracker = Tracker(2, 4000, clock)
    clock.now += 10
    tracker.read(1000, "a")
    assert tracker.snapshot().rate_bytes_per_second == 100
    tracker.hold(is_held=True)
    clock.now += 10_000
    held = tracker.snapshot("paused")
    assert (held.rate_bytes_per_second, held.seconds_left) == (100, None)
    tracker.hold(is_held=False)
    clock.now += 10
    tracker.read(1000, "b")
    assert tracker.snapshot().rate_bytes_per_second == 100
    assert tracker.snapshot().seconds_left == 20
    tracker.put_back("b")  # it will be read again
    assert tracker.snapshot().bytes_done == 1000
    assert tracker.snapshot().rate_bytes_per_second == 100


def migrate_braked(
    store: Path, monkeypatch: pytest.MonkeyPatch, demand: Callable[[Room], Demand | None]
) -> Told:
    """Migrate in this process with another brake in the place of free space."""
    monkeypatch.setattr(Room, "demand", demand)
    told = Told()
    with inline_workers():
        opened = PackageStore.open(store, Way(batch=1).settings())
        opened.migration().run(told.events.append, jobs=2)
    return told


def test_a_brake_sheds_workers(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = make_template(store, 1)
    told = migrate_braked(store, monkeypatch, lambda _: Demand("the disk is busy", 1))
    assert {event.throttle_reason for event in told.of(Progress)} == {"the disk is busy"}
    assert told.of(Remark) == []
    assert_complete(store, scene.packages, scene.before)


def test_a_hold_lets_go_of_the_lock(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = make_template(store, 1)
    idle: list[str] = []

    def demand(_: Room) -> Demand | None:
        """Hold it from the first package on, until others had the store for themselves."""
        found = list(statuses(store).values())
        if "completed" not in found or len(idle) == 3:
            return None
        if "in_progress" not in found:
            idle.append(",".join(found))
        if len(idle) == 3:
            with StoreLock(PackageStore.open(store).root, exclusive=True, patience=0.0):
                assert "pending" in found, "it was not held"
        return Demand("gently")

    told = migrate_braked(store, monkeypatch, demand)
    assert len(idle) == 3
    assert len(set(idle)) == 1, "something was begun while it was held"
    assert [event.text for event in told.of(Remark)] == ["waiting: gently", "going on"]
    assert_complete(store, scene.packages, scene.before)


def test_a_hold_before_the_first_package_is_told(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triggers, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(health, "HELD_SECONDS_MAX", 0.3)
    make_template(store, 1)
    until = monotonic() + 1.0

    def demand(_: Room) -> Demand | None:
        return Demand("the disk is busy") if monotonic() < until else None

    told = migrate_braked(store, monkeypatch, demand)
    remarks = [event.text for event in told.of(Remark)]
    assert remarks[0] == "waiting: the disk is busy"
    assert remarks[1].startswith("no package was done in 0 minutes in which the run was held: the")
    assert remarks[2:] == ["going on"], "it is told once"
    standing = [[issue.rule for issue in event.standing] for event in told.of(Progress)]
    assert standing[0] == []
    assert standing[-1] == ["held"], "it stands for a while after a package was done"
    assert told.of(Progress)[-1].held_seconds == 0


def test_a_brake_ends_a_run(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = make_template(store, 1)

    def demand(_: Room) -> Demand | None:
        if "completed" in statuses(store).values():
            raise RefusedError("something is wrong")
        return None

    with pytest.raises(RefusedError, match="something is wrong"):
        migrate_braked(store, monkeypatch, demand)
    assert set(statuses(store).values()) == {"completed", "pending"}
    monkeypatch.undo()
    migrate_braked(store, monkeypatch, lambda _: None)
    assert_complete(store, scene.packages, scene.before)
