"""Adding, removing, setting aside and collecting are cut, or fail, at every step."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from regrain.errors import RegrainError
from tests.conftest import remove
from tests.faults.faulty import READS, SYNCS, Call, Faults
from tests.faults.inline import Way, migrate
from tests.faults.keeping_scenes import (
    CHANGES,
    COMMITS,
    Change,
    arrives,
    converges,
    killed,
    moment_of,
    observed,
    problems,
)
from tests.faults.small import Scene, copy_of
from tests.faults.sweeping import chosen

SAMPLE = 7
"""Steps of each change that are tried every day."""


@pytest.fixture(scope="module")
def in_use(template: Scene) -> Iterator[Scene]:
    """A store whose packages are published, their legacy directories still there."""
    made = copy_of(template, template.path.with_name("in-use"))
    migrate(made.path, Way(batch=10))
    yield made
    remove(made.path)


def prepared(in_use: Scene, change: Change) -> Scene:
    scene = copy_of(in_use, in_use.path.with_name("changed"))
    change.before(scene.path)
    return scene


def steps(in_use: Scene, change: Change) -> list[Call]:
    """Every step of a change in which nothing fails; those at the ledger are commits."""
    scene = prepared(in_use, change)
    try:
        with observed(Faults(scene.path)) as faults:
            change.make(scene.path)
        assert problems(scene, change) == []
        return faults.calls
    finally:
        remove(scene.path)


def one_of_each_place(calls: list[Call], random: Random) -> list[Call]:
    places: dict[tuple[str, str, str], list[Call]] = {}
    for call in calls:
        places.setdefault((call.function, call.caller.partition(" ")[0], call.place), []).append(
            call
        )
    found = [random.choice(alike) for alike in places.values()]
    commits = [call for call in found if call.function in COMMITS]
    others = [call for call in found if call.function not in COMMITS]
    return commits + random.sample(others, min(SAMPLE, len(others)))


def cut(in_use: Scene, change: Change, call: Call, when: str) -> list[str]:
    moment = moment_of(call, when)
    scene = prepared(in_use, change)
    try:
        if not killed(change.make, scene.path, moment):
            return [f"{moment}: it did not die"]
        said = problems(scene, change) + converges(scene, change) + arrives(scene, change)
        return [f"{moment} ({call.caller}): {line}" for line in said]
    finally:
        remove(scene.path)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", CHANGES)
def test_killed_at_a_step_of_each_sort(in_use: Scene, seed: int, name: str) -> None:
    change, random = CHANGES[name], Random(f"{seed}:{name}")
    said = []
    for call in one_of_each_place(steps(in_use, change), random):
        whens = ("before", "after") if call.function in COMMITS else (random.choice(WHENS),)
        for when in whens:
            said += cut(in_use, change, call, when)
    assert said == []


WHENS = ("before", "after")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("when", WHENS)
@pytest.mark.parametrize("name", CHANGES)
def test_killed_at_every_step(in_use: Scene, seed: int, name: str, when: str) -> None:
    change = CHANGES[name]
    calls = chosen(steps(in_use, change), seed, f"keeping {name} {when}")
    assert [line for call in calls for line in cut(in_use, change, call, when)] == []


def test_a_migration_recovers_what_an_addition_left(in_use: Scene) -> None:
    """Whatever the next command is: here it is the one that sweeps ``temp/`` first."""
    for name in ("add", "add to legacy"):
        change = CHANGES[name]
        commit = next(c for c in steps(in_use, change) if c.function in {"record_added", "queue"})
        scene = prepared(in_use, change)
        try:
            assert killed(change.make, scene.path, moment_of(commit, "before"))
            migrate(scene.path, Way())
            assert problems(scene, change) == []
            assert converges(scene, change) == []
            if name == "add":  # the other was migrated meanwhile, as it should be
                assert arrives(scene, change) == []
        finally:
            remove(scene.path)


# failures


def errors_of(function: str) -> tuple[int, ...]:
    if function in READS:
        return (errno.EIO, errno.EACCES, errno.EMFILE)
    if function in SYNCS:
        return (errno.EIO, errno.ENOSPC)
    return (errno.EIO, errno.ENOSPC, errno.EACCES)


def fail(in_use: Scene, change: Change, call: Call, error: int) -> list[str]:
    scene = prepared(in_use, change)
    case = f"{call.function} no. {call.number} in {call.caller}: {errno.errorcode[error]}"
    try:
        faults = Faults(scene.path, call.function, call.number, error)
        said = []
        with observed(faults):
            try:
                change.make(scene.path)
            except RegrainError as failure:
                said += unclear(failure)
            except Exception as failure:  # noqa: BLE001 -- finding such is what this is for
                said.append(f"not one of ours: {failure!r}")
        assert faults.fired is not None, f"{case}: it did not fire"
        said += problems(scene, change) + converges(scene, change) + arrives(scene, change)
        return [f"{case}: {line}" for line in said]
    finally:
        remove(scene.path)


def unclear(failure: RegrainError) -> list[str]:
    """What a message lacks."""
    if not failure.advice or "regrain migrate" in failure.advice:
        return [f"what to do? {failure}"]
    return []


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", CHANGES)
def test_a_step_of_each_sort_fails(in_use: Scene, seed: int, name: str) -> None:
    change, random = CHANGES[name], Random(f"{seed}:fail:{name}")
    calls = [c for c in steps(in_use, change) if c.function not in COMMITS]
    said = []
    for call in one_of_each_place(calls, random):
        said += fail(in_use, change, call, random.choice(errors_of(call.function)))
    assert said == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", CHANGES)
def test_every_step_fails(in_use: Scene, seed: int, name: str) -> None:
    change = CHANGES[name]
    calls = [c for c in steps(in_use, change) if c.function not in COMMITS]
    cases = [(call, error) for call in calls for error in errors_of(call.function)]
    found = chosen(cases, seed, f"keeping fails {name}")
    assert [line for case in found for line in fail(in_use, change, *case)] == []


def test_the_survey_sees_every_change(in_use: Scene) -> None:
    """What a sweep does not see it cannot cut."""
    found = {name: {c.function for c in steps(in_use, CHANGES[name])} for name in CHANGES}
    assert found["add"] >= {"intend", "record_added", "rename_noreplace", "syncfs", "create"}
    assert found["add, flushed one by one"] >= {"fsync", "record_added"}
    assert found["add to legacy"] >= {"intend", "queue", "rename_noreplace", "syncfs"}
    assert found["remove"] >= {"intend", "forget_package", "rename_noreplace", "fsync"}
    assert found["exclude"] >= {"intend", "exclude", "rename_noreplace", "fsync"}
    assert found["collect"] >= {"unlink", "forget_objects", "fsync"}


def test_the_driver_needs_no_place(tmp_path: Path) -> None:
    """A change that does not reach the moment is told from one that died."""
    call = Call("link", 10**6, "", "", "")
    assert not killed(lambda _: None, tmp_path, moment_of(call, "before"))
