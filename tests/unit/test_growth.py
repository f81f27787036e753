"""``bench.growth``: its ledgers hold what they say, and its lines are those through the points."""

from __future__ import annotations

import json
import math
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from bench import growth


def test_ledgers_of_two_sizes(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert growth.main([str(workplace), "--files", "1e3,3e3"]) == 0
    kept = json.loads((workplace / "growth.json").read_text())
    assert set(kept) == {"1000", "3000"}
    assert all(value > 0 for figures in kept.values() for value in figures.values())
    with closing(sqlite3.connect(workplace / "growth" / "state.sqlite")) as ledger:
        found = {
            table: ledger.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("store_migration", "packages", "objects", "carriers", "object_owners")
        }
    owners = found.pop("object_owners")
    assert found == {"store_migration": 30, "packages": 30, "objects": 1500, "carriers": 1500}
    assert 2000 < owners <= 3000  # a package may draw a file twice
    table = capsys.readouterr().out.splitlines()
    assert "| | 1,000 files | 3,000 files | grows with files to the | at 10⁹ |" in table


def test_a_line_through_points() -> None:
    law = growth.fit([(size, 3e-9 * size**2) for size in (1e3, 1e4, 1e5)])
    assert law.exponent == pytest.approx(2)
    assert law.there == pytest.approx(3e9)
    assert law.factor == pytest.approx(1)


def test_points_that_lie_beside_a_line_make_it_less_certain() -> None:
    near = growth.fit([(1e3, 1.0), (1e4, 11.0), (1e5, 100.0)])
    far = growth.fit([(1e3, 1.0), (1e4, 20.0), (1e5, 100.0)])
    assert 1 < near.factor < far.factor
    assert growth.fit([(1e3, 1.0), (1e4, 20.0)]).factor == math.inf
