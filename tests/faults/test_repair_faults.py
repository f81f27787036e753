"""A repair is killed at every write, or its n-th write fails: nothing is lost, and it resumes."""

from __future__ import annotations

import errno
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from regrain.errors import RegrainError
from tests.conftest import remove
from tests.faults import repairing
from tests.faults.crash_driver import Crasher, Ended, Moment
from tests.faults.faulty import SYNCS, WRITES, Faults, injected
from tests.faults.inline import Way, migrate
from tests.faults.small import Scene, copy_of
from tests.faults.sweeping import chosen, sample
from tests.faults.test_undoing_crash import counted
from tests.faults.undoing import reading_problems
from tests.repairs import problems

pytestmark = pytest.mark.root

LEDGER = "regrain.ledger.queries:Ledger"
STATEMENTS = (
    "carriers_are",
    "clear_concerns",
    "concern",
    "legacy_mended",
    "record_objects",
    "remember",
    "restored",
    "verified",
)
TARGETS = (
    *(f"regrain.disk:{name}" for name in (*WRITES, *SYNCS)),
    *(f"{LEDGER}.{name}" for name in STATEMENTS),
)
KILLED = Ended(signal.SIGKILL, 0)
MOMENTS_MIN = 60
WAY = Way(batch=10, ingest="copy")


def few(cases: Sequence[Any], seed: int, sweep: str) -> list[Any]:
    """Return so many as every day has time for."""
    return sample(cases, seed, sweep)[::8]


@pytest.fixture(scope="module")
def damaged(template: Scene) -> Iterator[Scene]:
    """A store right before its repair."""
    whole = copy_of(template, template.path.with_name("whole"))
    migrate(whole.path, WAY)
    scene = repairing.damaged_copy(replace(whole, before=template.before))
    yield scene
    remove(whole.path)
    remove(scene.path)


def fresh(scene: Scene) -> Scene:
    made = scene.path.with_name("scene")
    remove(made)
    subprocess.run(["cp", "-a", "--", scene.path, made], check=True)
    packages = {name: replace(p, path=made / name) for name, p in scene.packages.items()}
    return Scene(made, packages, scene.before)


def test_all_of_it_is_healed(damaged: Scene) -> None:
    """The scene is what the sweeps take it for."""
    scene = fresh(damaged)
    assert problems(scene)
    inodes = repairing.damaged_inodes(scene)
    repairing.repair(scene.path)
    assert problems(scene) == []
    assert repairing.lost_inodes(scene, inodes) == []


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("choose", [few, pytest.param(chosen, marks=pytest.mark.slow)])
def test_killed_anywhere_it_is_given_again(
    damaged: Scene,
    crash: Crasher,
    seed: int,
    choose: Callable[[Sequence[Moment], int, str], list[Moment]],
) -> None:
    with counted(TARGETS) as calls:
        repairing.repair(fresh(damaged).path)
    moments = [
        Moment(target, "before", number)
        for target in TARGETS
        for number in range(1, calls[target] + 1)
    ]
    assert len(moments) >= MOMENTS_MIN, len(moments)
    wrong = []
    for moment in choose(moments, seed, "repair"):
        scene = fresh(damaged)
        inodes = repairing.damaged_inodes(scene)
        ended = crash("tests.faults.repairing:repair", scene.path, WAY, moment)
        if ended != KILLED:
            wrong.append(f"{moment}: it did not die: {ended}")
        wrong += [f"{moment}: then {line}" for line in reading_problems(scene)]
        wrong += [f"{moment}: then {line}" for line in repairing.lost_inodes(scene, inodes)]
        repairing.repair(scene.path)
        wrong += [f"{moment}: at last {line}" for line in problems(scene)]
        wrong += [f"{moment}: at last {line}" for line in repairing.lost_inodes(scene, inodes)]
    assert wrong == []


@pytest.mark.timeout(600)
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
@pytest.mark.parametrize("choose", [few, pytest.param(chosen, marks=pytest.mark.slow)])
def test_a_failing_write_loses_nothing(
    damaged: Scene,
    error: int,
    seed: int,
    choose: Callable[[Sequence[Any], int, str], list[Any]],
) -> None:
    survey = fresh(damaged)
    with injected(Faults(survey.path)) as faults:
        repairing.repair(survey.path)
    calls = [c for c in faults.calls if c.function in (*WRITES, *SYNCS)]
    wrong, fired = [], 0
    cases = choose(calls, seed, f"repair {error}")
    for call in cases:
        scene = fresh(damaged)
        inodes = repairing.damaged_inodes(scene)
        injection = Faults(scene.path, call.function, call.number, error)
        with injected(injection):
            try:
                repairing.repair(scene.path)
            except (RegrainError, AssertionError):  # what it could not heal, it says
                pass
            except Exception as raised:  # noqa: BLE001 -- finding such is what this is for
                wrong.append(f"{call}: raw {raised!r}")
        fired += injection.fired is not None
        wrong += [f"{call}: then {line}" for line in reading_problems(scene)]
        repairing.repair(scene.path)
        wrong += [f"{call}: at last {line}" for line in problems(scene)]
        wrong += [f"{call}: at last {line}" for line in repairing.lost_inodes(scene, inodes)]
    assert fired >= len(cases) * 2 // 3
    assert wrong == []
