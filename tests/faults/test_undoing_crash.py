"""SIGKILL at every write of cleanup, rollback, purge and the way forward; then the same again."""

from __future__ import annotations

import importlib
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from tests.faults import undoing
from tests.faults.crash_driver import Crasher, Ended, Moment
from tests.faults.faulty import SYNCS, WRITES
from tests.faults.small import Scene
from tests.faults.sweeping import chosen, sample

LEDGER = "regrain.ledger.queries:Ledger"
STATEMENTS = (
    "intend",
    "intend_all",
    "condemn",
    "cleaned",
    "fulfilled",
    "fulfilled_all",
    "restored",
    "all_rolled_back",
    "taken_up",
    "queue_again",
    "unpublished",
    "forget_objects",
    "remember",
)
TARGETS = (
    *(f"regrain.disk:{name}" for name in (*WRITES, *SYNCS, "_remove_file")),
    *(f"{LEDGER}.{name}" for name in STATEMENTS),
)
KILLED = Ended(signal.SIGKILL, 0)
MOMENTS_MIN = {
    "cleanup": 60,
    "rollback": 40,
    "purge": 40,
    "forward": 5,
    "roll_one_back": 8,
    "in_place": 150,
}


@contextmanager
def counted(targets: Sequence[str] = TARGETS) -> Iterator[Counter[str]]:
    """Count the calls of every target."""
    calls: Counter[str] = Counter()
    originals = []
    for target in targets:
        module, _, path = target.partition(":")
        owner: Any = importlib.import_module(module)
        *classes, name = path.split(".")
        for part in classes:
            owner = getattr(owner, part)
        original = getattr(owner, name)
        originals.append((owner, name, original))
        setattr(owner, name, _counting(original, target, calls))
    try:
        yield calls
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)


def _counting(original: Callable[..., Any], target: str, calls: Counter[str]) -> Any:
    def call(*arguments: Any, **named: Any) -> Any:
        calls[target] += 1
        return original(*arguments, **named)

    return call


@pytest.mark.timeout(400)
@pytest.mark.parametrize("choose", [sample, pytest.param(chosen, marks=pytest.mark.slow)])
def test_killed_anywhere_the_same_command_finishes(
    stage: tuple[str, Scene],
    crash: Crasher,
    seed: int,
    choose: Callable[[Sequence[Moment], int, str], list[Moment]],
) -> None:
    step, before = stage
    survey = undoing.fresh(before)
    with counted() as calls:
        undoing.run(step, survey)
    assert undoing.state_problems(step, survey) == []
    moments = [
        Moment(target, when, number)
        for target in TARGETS
        for number in range(1, calls[target] + 1)
        for when in (("before", "after") if target.startswith(LEDGER) else ("before",))
    ]
    assert len(moments) >= MOMENTS_MIN[step]
    if step == "in_place" and choose is sample:  # a whole migration: every day a part of it
        moments = moments[seed % 4 :: 4]
    wrong = []
    for moment in choose(moments, seed, step):
        scene = undoing.fresh(before)
        options = {"name": scene.named("grouped").hash} if step == "roll_one_back" else {}
        ended = crash(f"tests.faults.undoing:{step}", scene.path, undoing.WAY, moment, **options)
        if ended != KILLED:
            wrong.append(f"{moment}: it did not die: {ended}")
        wrong += [f"{moment}: then {line}" for line in undoing.reading_problems(scene)]
        undoing.run(step, scene)
        wrong += [f"{moment}: at last {line}" for line in undoing.state_problems(step, scene)]
        wrong += [f"{moment}: read at last {line}" for line in undoing.reading_problems(scene)]
        undoing.run(step, scene)
        wrong += [f"{moment}: once more {line}" for line in undoing.state_problems(step, scene)]
    assert wrong == []
