"""A killed migration leaves nothing behind that the next one does not put right."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from tests import awkward
from tests.command import Regrain
from tests.compare import Snapshot
from tests.reader import check_store, object_bytes_problem
from tests.stores import (
    assert_complete,
    checkout_differences,
    legacy_changes,
    new_layout_differences,
    read_ledger,
    record,
    statuses,
)
from tests.trees import LegacyPackage

MARK = "KILL_TEST_MARK"
DEATH_SECONDS_MAX = 15.0
PACKAGES, FILES = 30, 120
FEW = 15
"""Packages enough for one moment in the midst of a run."""


@dataclass(slots=True)
class Scene:
    """A store under fire."""

    regrain: Regrain
    random: Random
    packages: dict[str, LegacyPackage]
    before: dict[str, Snapshot]
    checked: set[str] = field(default_factory=set)

    @property
    def path(self) -> Path:
        return self.regrain.store

    def published(self) -> set[str]:
        return set(os.listdir(self.path / "packages")) & self.packages.keys()

    def pending(self) -> int:
        return len(self.packages) - len(self.published())


@dataclass(slots=True)
class Count:
    """What really happened, so that a test cannot pass by missing."""

    fired: dict[str, int] = field(default_factory=lambda: {"group": 0, "parent": 0})
    with_workers: int = 0
    in_staging: int = 0
    missed: int = 0

    @property
    def total(self) -> int:
        return sum(self.fired.values())


def make_scene(place: Path, seed: int, number: int, count: int = PACKAGES) -> Scene:
    random = Random(f"{seed}:kill:{number}")
    store = place / f"store{number}"
    packages = awkward.make_plain_store(store, seed + number, count, FILES)
    regrain = Regrain(store)
    before = record(packages)
    regrain("init")
    return Scene(regrain, random, packages, before)


def marked(mark: str) -> dict[int, str]:
    """The processes that carry a mark in their environment: id and command line."""
    wanted = f"{MARK}={mark}".encode()
    found = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            environment = Path(f"/proc/{name}/environ").read_bytes()
            state = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[0]
            command = Path(f"/proc/{name}/cmdline").read_bytes().decode(errors="replace")
        except OSError:  # it ended while we looked
            continue
        if wanted in environment.split(b"\0") and state != "Z":
            found[int(name)] = command.replace("\0", " ")
    return found


def moments(scene: Scene, old: set[str]) -> Iterator[bool]:
    """Yield until the moment that chance chose for the kill has come."""
    goal = len(scene.published()) + scene.random.choice((0, 0, 0, 1, 2, 3))
    while not staging(scene.path, old) or len(scene.published()) < goal:
        yield False
    until = time.monotonic() + scene.random.choice((0.0, 0.3)) * scene.random.random()
    while time.monotonic() < until:
        yield False
    yield True


def staging(store: Path, old: set[str]) -> bool:
    """Whether a run has begun to stage: there is more than what killed runs left."""
    return bool(set(os.listdir(store / "temp")) - old)


def kill_once(scene: Scene, whom: str, count: Count) -> None:
    """Start a run, kill it at a random moment, look at what it left."""
    mark = uuid.uuid4().hex
    jobs = str(scene.random.choice((1, 2, 3)))
    batch = str(scene.random.choice((1, 2, 5)))
    old = set(os.listdir(scene.path / "temp"))
    options = ("--jobs", jobs, "--batch", batch)
    with scene.regrain.running("migrate", *options, env={MARK: mark}) as run:
        for now in moments(scene, old):
            if now or run.poll() is not None:
                break
        if run.poll() is not None:
            assert run.returncode == 0
            count.missed += 1
            return
        workers = marked(mark).keys() - {run.pid}
        if whom == "group":
            os.killpg(run.pid, signal.SIGKILL)
        else:
            os.kill(run.pid, signal.SIGKILL)
        killed = run.wait(30) == -signal.SIGKILL
        assert_all_die(mark)
    if killed and scene.pending():
        count.fired[whom] += 1
        count.with_workers += bool(workers)
        count.in_staging += staging(scene.path, old)
    else:
        count.missed += 1
    assert_nothing_lost(scene)


def assert_all_die(mark: str) -> None:
    """No process of a killed run lives on; those that a parent left die by themselves."""
    deadline = time.monotonic() + DEATH_SECONDS_MAX
    while left := marked(mark):
        assert time.monotonic() < deadline, f"left behind: {left}"
        time.sleep(0.005)


def assert_nothing_lost(scene: Scene) -> None:
    """Every package can be read at once, and whatever is published is right."""
    store = check_store(scene.path, legacy=scene.packages, orphans=True)
    serious = [p for p in store.problems if not p.startswith("temp/ is not empty")]
    assert serious == []
    fresh = store.packages.keys() - scene.checked
    assert new_layout_differences(store, scene.before, fresh) == []
    scene.checked |= fresh


def assert_recovers(scene: Scene, place: Path) -> None:
    """One run to the end makes everything whole; one more changes nothing."""
    scene.regrain("migrate")
    store = assert_complete(scene.path, scene.packages, scene.before, orphans=True)
    assert legacy_changes(scene.before, scene.packages) == []
    rows = read_ledger(scene.path, "SELECT lower(hex(digest)), size FROM objects")
    assert len(rows) >= len(store.digests())
    for digest, size in rows:
        carriers = store.carriers[digest]
        assert [object_bytes_problem(c) for c in carriers] == [""] * len(carriers)
        assert {c.status.st_size for c in carriers} == {size}
    assert {digest for digest, _ in rows} >= store.digests()
    assert read_ledger(scene.path, "PRAGMA integrity_check") == [("ok",)]
    assert "in_progress" not in statuses(scene.path).values()
    scene.regrain("verify", "--level", "deep")
    for number, name in enumerate(sorted(scene.packages)[:3]):
        out = place / f"out-{scene.path.name}-{number}"
        assert checkout_differences(scene.regrain, name, scene.before[name], out) == []
    objects = sorted(p.name for p in (scene.path / "objects").rglob("*"))
    scene.regrain("migrate")
    assert objects == sorted(p.name for p in (scene.path / "objects").rglob("*"))


def sweep(place: Path, seed: int, kills: int) -> Count:
    """Kill until it has hit often enough, by turns the whole group and the parent alone."""
    count = Count()
    scenes_max = kills  # a scene takes several kills; as many scenes means that nothing hits
    for number in range(scenes_max):
        scene = make_scene(place, seed, number)
        while count.total < kills and scene.pending() > PACKAGES // 4:
            kill_once(scene, min(count.fired, key=lambda whom: count.fired[whom]), count)
        assert_recovers(scene, place)
        if count.total >= kills:
            break
    return count


def assert_hit(count: Count, kills: int) -> None:
    assert count.total == kills, count
    assert count.fired["group"] == count.fired["parent"] == kills // 2, count
    # How many of them met workers alive is a matter of the machine's pace: some must.
    assert count.with_workers >= kills // 6, count
    assert count.in_staging >= kills // 4, count


@pytest.mark.timeout(300)
def test_six_kills(workplace: Path, seed: int) -> None:
    assert_hit(sweep(workplace, seed, 6), 6)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_sixty_kills(workplace: Path, seed: int) -> None:
    assert_hit(sweep(workplace, seed + 1000, 60), 60)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_in_good_order(
    workplace: Path, seed: int, number: signal.Signals, code: int
) -> None:
    scene = make_scene(workplace, seed, 90 + number, FEW)
    mark = uuid.uuid4().hex
    with scene.regrain.running("migrate", "--batch", "1", env={MARK: mark}) as run:
        while not scene.published():
            assert run.poll() is None, "the run ended before the signal"
        os.kill(run.pid, number)
        assert run.wait(60) == code
        assert_all_die(mark)
    assert scene.pending(), "the run ended before the signal"
    assert "in_progress" not in statuses(scene.path).values()
    assert check_store(scene.path, legacy=scene.packages, orphans=True).problems == []
    assert_recovers(scene, workplace)


def test_the_marks_find_processes(workplace: Path, seed: int) -> None:
    """The search for what is left behind would find it."""
    scene = make_scene(workplace, seed, 80, FEW)
    mark = uuid.uuid4().hex
    with scene.regrain.running("migrate", "--jobs", "2", env={MARK: mark}) as run:
        while not staging(scene.path, set()):
            assert run.poll() is None, "the run ended before it was seen"
        os.killpg(run.pid, signal.SIGSTOP)
        assert run.pid in marked(mark)
        os.killpg(run.pid, signal.SIGCONT)
        assert run.wait(100) == 0
