"""The drill's arithmetic, and what it shows of a command. The drill itself is `make drill`."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.drill.console import Console, DrillError
from bench.drill.pairs import Pair, interval_rank, ratio

# From tables of the sign test: the 6th least and the 6th greatest of 20 values, and so on.
RANKS = {6: 1, 10: 2, 15: 4, 20: 6, 30: 10, 50: 18}


@pytest.mark.parametrize(("count", "rank"), RANKS.items())
def test_the_interval_is_that_of_the_sign_test(count: int, rank: int) -> None:
    assert interval_rank(count) == rank


def test_a_ratio_is_taken_pair_by_pair() -> None:
    # Windows become slower and slower; within a pair the busy one takes 1.5 times as long.
    pairs = [Pair(number, 1.5 * number) for number in range(1, 21)]
    assert ratio(pairs) == (1.5, 1.5, 1.5)
    pairs[:5] = [Pair(1.0, 100.0)] * 5  # some windows were disturbed by others
    assert ratio(pairs) == (1.5, 1.5, 1.5)
    pairs[:6] = [Pair(1.0, 100.0)] * 6
    assert ratio(pairs) == (1.5, 1.5, 100.0)


def test_a_command_that_ends_otherwise_ends_the_drill(tmp_path: Path) -> None:
    console = Console(tmp_path)
    with pytest.raises(DrillError, match="plan ended with 10, not 0"):
        console.regrain("plan")
    assert "$ regrain --store store plan" in console.pages[-1]
    assert "(exit 10)" in console.pages[-1]
    assert str(tmp_path) not in console.pages[-1]
    with pytest.raises(DrillError, match="not so: all is well: 3"):
        console.check("all is well", holds=False, found=3)
    with pytest.raises(DrillError, match="in vain: never"):
        console.until(lambda: False, "never", seconds=0)


def test_who_used_the_store_must_have_lasted(tmp_path: Path) -> None:
    console = Console(tmp_path)
    with console.acting("read", "nowhere", "none", "1") as actor:
        console.until(lambda: actor.poll() is not None, "it ends")
        with pytest.raises(DrillError, match="ended with 1"):
            console.ended(actor)
