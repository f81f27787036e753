"""Once around from the legacy layout and back, while six other processes use the store.

Four read and check out, one adds, one removes: nobody meets an error, nothing is missing,
mixed or wrong at any moment, and at the end all agree.
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest

from tests.command import Regrain
from tests.system.test_together import (
    START_SECONDS,
    histories,
    judge_end,
    make_items,
    tell,
    work,
    wrong_steps,
)
from tests.system.together_actors import Plan

USERS = ("read-1", "read-2", "checkout-1", "checkout-2", "add", "remove")
STEPS = ("migrate", "cutover", "cleanup", "rollback")
SECONDS_MAX = 3000
MANY_ROUNDS = 18


def go_around(workplace: Path, seed: int, rounds: int) -> Counter[str]:
    """Let all work together, then judge; return how often each operation was done."""
    place, regrain = workplace / "place", Regrain(workplace / "store")
    place.mkdir()
    regrain.store.mkdir()
    items = [item for item in make_items(place, regrain.store, seed) if not item.legacy]
    regrain("init")
    for item in items:
        if item.stays and not item.source.is_relative_to(regrain.store):
            regrain("add", item.source, "--hash", item.name)
    operations = {**dict.fromkeys(USERS, 1), "circle": rounds}
    begin = time.monotonic() + START_SECONDS
    plan = Plan(regrain.store, place, seed, begin, SECONDS_MAX, operations, items)
    steps = work(plan, "tests.system.circle_actors")
    counted = tell(seed, steps)
    found = histories(items, steps)
    wrong = list(wrong_steps(steps, found))
    assert not wrong, f"{len(wrong)} of {len(steps)}:\n" + "\n".join(wrong[:8])
    judge_end(regrain, plan, found)
    return counted


@pytest.mark.timeout(300)
def test_once_around(workplace: Path, seed: int) -> None:
    counted = go_around(workplace, seed, 1)
    assert all(counted[step] for step in STEPS), counted
    assert sum(counted.values()) > 100, counted


@pytest.mark.slow
@pytest.mark.timeout(SECONDS_MAX + 600)
def test_around_and_around(workplace: Path, seed: int) -> None:
    counted = go_around(workplace, seed + 1, MANY_ROUNDS)
    assert counted["rollback"] == MANY_ROUNDS
    assert sum(counted.values()) > 20_000, counted
