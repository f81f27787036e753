"""Which cells of a table of cases are tried every day; the seed chooses, ``slow`` has the others.

For tables whose cells go the same way with another word in it. Each is tried by ``make test-all``;
``make test`` with other seeds tries others.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import product
from random import Random
from typing import Any

import pytest

DEFAULT_SEED = 20_261_122


def seed_asked() -> int:
    """Return what ``REGRAIN_TEST_SEED`` says, where fixtures are not to be had yet."""
    return int(os.environ.get("REGRAIN_TEST_SEED", DEFAULT_SEED))


def each_with_one(rows: Iterable[Any], columns: Iterable[Any]) -> list[Any]:
    """Every row with every column as parameters; each row with one of them every day.

    As often with the one as with the other: no column is left out where there are enough rows.
    """
    rows, columns = list(rows), list(columns)
    turns = list(range(len(rows)))
    Random(f"{seed_asked()}:columns:{rows}").shuffle(turns)
    return [
        _cell((row, column), slow=turn % len(columns) != place)
        for (turn, row), (place, column) in product(
            zip(turns, rows, strict=True), enumerate(columns)
        )
    ]


def few_of(cells: Iterable[Any], number: int) -> list[Any]:
    """Every cell as a parameter; so many of them every day."""
    cells = list(cells)
    everyday = Random(f"{seed_asked()}:few:{cells}").sample(range(len(cells)), number)
    return [_cell((cell,), slow=place not in everyday) for place, cell in enumerate(cells)]


def _cell(values: tuple[Any, ...], *, slow: bool) -> Any:
    name = "-".join(str(value) for value in values)
    return pytest.param(*values, id=name, marks=[pytest.mark.slow] * slow)
