"""A backup is made or restored, and every step of it fails, or is the last one before a kill."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from regrain.app import keeping
from regrain.app.store import PackageStore
from regrain.errors import RegrainError
from regrain.migrate import replica_objects
from tests.compare import differences, snapshot
from tests.conftest import remove
from tests.faults.backing import create, faults_in, restore
from tests.faults.faulty import SYNCS, WRITES, Call, Faults, injected
from tests.faults.inline import Way, migrate
from tests.faults.keeping_scenes import killed, moment_of
from tests.faults.small import Scene, copy_of
from tests.faults.sweeping import chosen

SAMPLE = 8
"""Steps that are tried every day, each sort of them at the most once."""

STEPS = (*WRITES, *SYNCS)


@pytest.fixture(scope="module")
def half(template: Scene) -> Iterator[Scene]:
    """A store of which some packages are migrated and some are legacy only."""
    made = copy_of(template, template.path.with_name("half"))
    migrate(made.path, Way(), limit=2)
    yield made
    remove(made.path)


@pytest.fixture
def destination(half: Scene) -> Iterator[Path]:
    place = half.path.with_name("backup")
    yield place
    if place.exists():
        remove(place)


@pytest.fixture
def saved(half: Scene) -> Iterator[Path]:
    """A whole backup."""
    place = half.path.with_name("saved")
    create(half.path, place)
    yield place
    remove(place)


def steps(store: Path, work: Callable[[], object]) -> list[Call]:
    with injected(Faults(store)) as faults:
        work()
    return [call for call in faults.calls if call.function in STEPS]


def of_each_sort(calls: list[Call], random: Random) -> list[Call]:
    sorts: dict[tuple[str, str], list[Call]] = {}
    for call in calls:
        sorts.setdefault((call.function, call.caller), []).append(call)
    found = [random.choice(alike) for alike in sorts.values()]
    return random.sample(found, min(SAMPLE, len(found)))


def error_of(call: Call, random: Random) -> int:
    return random.choice(
        (errno.EIO, errno.ENOSPC)
        if call.function in SYNCS
        else (errno.EIO, errno.ENOSPC, errno.EACCES)
    )


def fails(work: Callable[[], object], about: Path, call: Call, error: int) -> list[str]:
    """Have a step fail; what is said must be one of ours, with advice."""
    faults = Faults(about, call.function, call.number, error)
    with injected(faults):
        try:
            work()
        except RegrainError as failure:
            if not failure.advice or "legacy packages" in failure.advice:
                return [f"what to do? {failure}"]
        except Exception as failure:  # noqa: BLE001 -- finding such is what this is for
            return [f"not one of ours: {failure!r}"]
    return [] if faults.fired is not None else ["it did not fire"]


def case(
    half: Scene, place: Path, call: Call, work: Callable[[], object], hit: Callable[[], list[str]]
) -> list[str]:
    """What is wrong after a fault, and after the command was run again."""
    try:
        said = hit() + faults_in(place, half, all_there=False)
        work()
        said += faults_in(place, half, all_there=True)
        return [f"{call.function} no. {call.number} in {call.caller}: {line}" for line in said]
    finally:
        if place.exists():
            remove(place)


def sweep_create(half: Scene, place: Path, calls: list[Call], random: Random) -> list[str]:
    def work() -> object:
        return create(half.path, place)

    said = []
    for call in calls:
        error = error_of(call, random)
        said += case(half, place, call, work, lambda c=call, e=error: fails(work, place, c, e))  # type: ignore[misc]
        when = random.choice(("before", "after"))
        moment = moment_of(call, when)

        def hit(moment: object = moment) -> list[str]:
            died = killed(lambda _: work(), place, moment)  # type: ignore[arg-type]
            return [] if died else ["it did not die"]

        said += case(half, place, call, work, hit)
    return said


@pytest.mark.timeout(300)
def test_a_step_of_each_sort_of_create(half: Scene, destination: Path, seed: int) -> None:
    before = snapshot(half.path)
    random = Random(f"{seed}:backup")
    calls = steps(destination, lambda: create(half.path, destination))
    assert {call.function for call in calls} >= {"rename_noreplace", "syncfs", "create", "fsync"}
    assert faults_in(destination, half, all_there=True) == []
    remove(destination)
    assert sweep_create(half, destination, of_each_sort(calls, random), random) == []
    after = snapshot(half.path)
    own = (b"migration", b"state.sqlite")
    trees = [{p: e for p, e in t.items() if p and not p.startswith(own)} for t in (before, after)]
    assert differences(*trees, identity=True) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_step_of_create(half: Scene, destination: Path, seed: int) -> None:
    calls = steps(destination, lambda: create(half.path, destination))
    remove(destination)
    random = Random(f"{seed}:every backup")
    assert sweep_create(half, destination, chosen(calls, seed, "backup"), random) == []


def sweep_restore(
    half: Scene, saved: Path, place: Path, calls: list[Call], random: Random
) -> list[str]:
    def work() -> object:
        return restore(place, saved)

    said = []
    for call in calls:
        error = error_of(call, random)
        said += case(half, place, call, work, lambda c=call, e=error: fails(work, place, c, e))  # type: ignore[misc]
        moment = moment_of(call, random.choice(("before", "after")))

        def hit(moment: object = moment) -> list[str]:
            died = killed(lambda _: work(), place, moment)  # type: ignore[arg-type]
            return [] if died else ["it did not die"]

        said += case(half, place, call, work, hit)
    return said


@pytest.mark.timeout(300)
def test_a_step_of_each_sort_of_restore(
    half: Scene, saved: Path, destination: Path, seed: int
) -> None:
    random = Random(f"{seed}:restore")
    calls = steps(destination, lambda: restore(destination, saved))
    remove(destination)
    assert sweep_restore(half, saved, destination, of_each_sort(calls, random), random) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_step_of_restore(half: Scene, saved: Path, destination: Path, seed: int) -> None:
    calls = steps(destination, lambda: restore(destination, saved))
    remove(destination)
    random = Random(f"{seed}:every restore")
    found = chosen(calls, seed, "restore")
    assert sweep_restore(half, saved, destination, found, random) == []


# what happens beside it


@contextmanager
def before_each(name: str, work: Callable[[Any], None]) -> Iterator[None]:
    """Have something done before each task of a worker."""
    original = getattr(replica_objects, name)

    def task(argument: Any) -> Any:
        work(argument)
        return original(argument)

    setattr(replica_objects, name, task)
    try:
        yield
    finally:
        setattr(replica_objects, name, original)


def test_a_disk_that_does_not_keep_what_was_written(half: Scene, destination: Path) -> None:
    """What was flushed is read back before it counts."""

    def rot(_: Any) -> None:
        for path in destination.glob("temp/*/objects/?/*"):
            content = path.read_bytes()
            path.write_bytes(bytes([content[0] ^ 1]) + content[1:])

    with before_each("publish", rot):
        done = create(half.path, destination)
    assert done.failed
    assert all("memory or disk may be failing" in why for why in done.failed.values())
    assert faults_in(destination, half, all_there=False) == []
    create(half.path, destination)
    assert faults_in(destination, half, all_there=True) == []


def test_packages_are_removed_meanwhile(half: Scene, destination: Path) -> None:
    scene = copy_of(half, half.path.with_name("removing"))
    try:
        gone = sorted(name for name in scene.packages if (scene.path / "packages" / name).exists())
        last = gone.pop()

        def take_away(_: Any) -> None:
            if gone:
                keeping.remove_package(PackageStore.open(scene.path).root, gone.pop())

        before = set(scene.packages)
        with before_each("stage", take_away):
            done = create(scene.path, destination)
        assert done.failed == {}
        left = {name for name in before if (scene.path / "packages" / name).exists()}
        left |= {name for name in before if (scene.path / name).exists()}
        assert last in left
        assert len(left) < len(before)
        assert faults_in(destination, half, all_there=False) == []
        assert left <= {path.name for path in destination.glob("packages/*")}
    finally:
        remove(scene.path)
