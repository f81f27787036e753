"""Once around from the legacy layout and back, while six other processes use the store.

Four read and check out, one adds, one removes: nobody meets an error, nothing is missing,
mixed or wrong at any moment, and at the end all agree.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.system.test_together import run_together

pytestmark = pytest.mark.both_databases

ACTORS = "tests.system.circle_actors"
USERS = ("read-1", "read-2", "checkout-1", "checkout-2", "add", "remove")
STEPS = ("migrate", "cutover", "cleanup", "rollback")
SECONDS_MAX = 3000
MANY_ROUNDS = 18


def go_around(workplace: Path, seed: int, rounds: int) -> Counter[str]:
    """Let all work together, then judge; return how often each operation was done."""
    operations = {**dict.fromkeys(USERS, 1), "circle": rounds}
    return run_together(workplace, seed, SECONDS_MAX, operations, legacy_comes=False, actors=ACTORS)


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
