"""The states of packages and stores: the tables, and the trigger that is made from one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from regrain.ledger.connection import driver
from regrain.ledger.schema import move_triggers
from regrain.model import phase, status
from regrain.model.phase import Layout, Phase
from regrain.model.status import Status

PACKAGES = {
    ("pending", "in_progress"),
    ("in_progress", "completed"),
    ("in_progress", "failed"),
    ("in_progress", "pending"),
    ("failed", "pending"),
    ("completed", "pending"),
    ("completed", "rolled_back"),
    ("rolled_back", "completed"),
    ("rolled_back", "pending"),
}
STORES = {
    ("dual", "file_level"),
    ("file_level", "clean"),
    ("dual", "rolling_back"),
    ("file_level", "rolling_back"),
    ("clean", "rolling_back"),
    ("rolling_back", "rolled_back"),
    ("rolled_back", "dual"),
}
FILE_LEVEL_FIRST = (Layout.FILE_LEVEL, Layout.LEGACY)


def test_the_moves_of_packages_are_those_of_the_contract() -> None:
    found = {(before.value, after.value) for before in status.NEXT for after in status.NEXT[before]}
    assert found == PACKAGES
    assert set(status.NEXT) == set(Status)


def test_the_moves_of_stores_are_those_of_the_contract() -> None:
    found = {(before.value, after.value) for before in phase.NEXT for after in phase.NEXT[before]}
    assert found == STORES
    assert set(phase.NEXT) == set(Phase)


def test_where_each_phase_reads() -> None:
    assert {found: found.read_order for found in Phase} == {
        Phase.DUAL: FILE_LEVEL_FIRST,
        Phase.FILE_LEVEL: FILE_LEVEL_FIRST,
        Phase.CLEAN: FILE_LEVEL_FIRST,
        Phase.ROLLING_BACK: FILE_LEVEL_FIRST,
        Phase.ROLLED_BACK: (Layout.LEGACY,),
    }


def test_people_are_shown_words() -> None:
    assert Phase.CLEAN.label == "legacy removed"
    assert Phase.ROLLING_BACK.label == "rolling back"


@pytest.fixture
def table() -> Iterator[Any]:
    """A table with the trigger and nothing else of the ledger."""
    connection = driver().connect(":memory:", isolation_level=None)
    connection.execute("CREATE TABLE store_migration (id INTEGER PRIMARY KEY, status TEXT)")
    connection.execute(move_triggers("sqlite")[0])
    yield connection
    connection.close()


@pytest.mark.parametrize(("before", "after"), [*itertools.product(Status, Status)])
def test_the_trigger_lets_through_what_the_table_says(
    table: Any, before: Status, after: Status
) -> None:
    table.execute("INSERT INTO store_migration VALUES (1, ?)", (before.value,))
    move = ("UPDATE store_migration SET status = ? WHERE id = 1", (after.value,))
    if after is before or after in status.NEXT[before]:
        table.execute(*move)
        expected = after
    else:
        with pytest.raises(driver().IntegrityError, match="illegal move"):
            table.execute(*move)
        expected = before
    assert table.execute("SELECT status FROM store_migration").fetchall() == [(expected.value,)]


@pytest.mark.parametrize("word", ["done", "", "PENDING"])
def test_the_trigger_refuses_strange_words(table: Any, word: str) -> None:
    table.execute("INSERT INTO store_migration VALUES (1, 'pending')")
    with pytest.raises(driver().IntegrityError):
        table.execute("UPDATE store_migration SET status = ?", (word,))


def test_other_columns_may_change_in_any_state(table: Any) -> None:
    table.execute("INSERT INTO store_migration VALUES (1, 'rolled_back')")
    table.execute("UPDATE store_migration SET id = 2, status = status")
    assert table.execute("SELECT id FROM store_migration").fetchall() == [(2,)]
