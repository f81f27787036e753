"""What is tried every day is part of what is tried at all, and other seeds try the rest."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sampling import each_with_one, few_of

ROWS, COLUMNS = "abcde", ("left", "right")


def everyday(cells: list[Any]) -> list[Any]:
    return [cell.values for cell in cells if not cell.marks]


@pytest.mark.parametrize("seed", range(5))
def test_each_row_has_one_column_and_every_column_is_there(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setenv("REGRAIN_TEST_SEED", str(seed))
    cells = each_with_one(ROWS, COLUMNS)
    assert [cell.values for cell in cells] == [(row, column) for row in ROWS for column in COLUMNS]
    found = everyday(cells)
    assert [row for row, _ in found] == list(ROWS)
    assert {column for _, column in found} == set(COLUMNS)


def test_other_seeds_try_other_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs: set[Any] = set()
    singles: set[Any] = set()
    for seed in range(40):
        monkeypatch.setenv("REGRAIN_TEST_SEED", str(seed))
        pairs.update(everyday(each_with_one(ROWS, COLUMNS)))
        few = everyday(few_of(ROWS, 2))
        assert len(few) == 2
        singles.update(few)
    assert len(pairs) == len(ROWS) * len(COLUMNS)
    assert len(singles) == len(ROWS)
