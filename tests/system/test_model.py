"""Random lives of a store, held against a plain model after every step."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as seeded
from hypothesis.stateful import run_state_machine_as_test

from tests.faults.crash_driver import crasher
from tests.faults.small import quick_place
from tests.model.life import Life
from tests.model.trees import Sources

pytestmark = pytest.mark.both_databases

FEW, MANY = {"sqlite": 3, "postgresql": 2}, {"sqlite": 1000, "postgresql": 50}
STEPS_MAX = 25


@pytest.fixture
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[type[Life]]:
    with quick_place(tmp_path_factory.mktemp("model")) as place, crasher() as crash:

        class Lived(Life):
            """In this place."""

        Lived.place, Lived.crash = place, crash
        Lived.sources, Lived.counted = Sources(place / "sources"), Counter()
        yield Lived


def live(life: type[Life], seed: int, examples: int, *, shrink: bool = False) -> None:
    """Let so many stores live, each so many steps long; after a failure seek a shorter one."""
    how = settings(
        max_examples=examples,
        stateful_step_count=STEPS_MAX,
        deadline=None,
        database=None,
        phases=[Phase.generate, *[Phase.shrink] * shrink],
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_state_machine_as_test(seeded(seed)(life), settings=how)
    finally:
        lines = (f"{number:6}  {' '.join(what)}" for what, number in sorted(life.counted.items()))
        print("\n".join(lines))  # noqa: T201 -- what a life was made of tells what it proves


def test_lives(life: type[Life], seed: int, database: str) -> None:
    live(life, seed, FEW[database])


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_many_lives(life: type[Life], seed: int, database: str) -> None:
    live(
        life,
        seed + 1,
        int(os.environ.get("REGRAIN_TEST_LIVES", MANY[database])),
        shrink="REGRAIN_TEST_SHRINK" in os.environ,
    )
