"""What scripts may read from the ledger, from another process than regrain's."""

from __future__ import annotations

import itertools
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from regrain.ledger import Scanned, open_ledger
from tests import servers
from tests.compare import allocated_bytes, snapshot
from tests.reader import check_store
from tests.stores import Migrated, read_ledger

pytestmark = pytest.mark.both_databases
WORDS = ("pending", "in_progress", "completed", "failed", "rolled_back")
LEGAL = {
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
WAY_TO = {
    "pending": ("pending",),
    "in_progress": ("pending", "in_progress"),
    "completed": ("pending", "in_progress", "completed"),
    "failed": ("pending", "in_progress", "failed"),
    "rolled_back": ("pending", "in_progress", "completed", "rolled_back"),
}
MOVES = sorted((a, b) for a, b in itertools.product(WORDS, WORDS) if a != b)
SUMS = """SELECT COUNT(*), COUNT(CASE WHEN status='completed' THEN 1 END),
       COUNT(CASE WHEN status='failed' THEN 1 END), SUM(file_count), SUM(space_saved)
       FROM store_migration;"""


def test_the_query_of_the_contract(migrated: Migrated) -> None:
    [(count, completed, failed, files, saved)] = read_ledger(migrated.path, SUMS)
    assert (count, completed, failed) == (len(migrated.packages), len(migrated.packages), 0)
    assert files == len(migrated.files())
    status = migrated.regrain("status", "--json").document
    assert status["space_saved_bytes"] == saved
    assert status["total_files"] == files


def test_each_package_has_its_rows(migrated: Migrated) -> None:
    now = time.time()
    refs = read_ledger(migrated.path, "SELECT hash, ref_count, size, created_at FROM store_refs")
    assert {name for name, *_ in refs} == migrated.packages.keys()
    for _, references, size, created_at in refs:
        assert references == 1
        assert size > 0
        assert now - 3600 < created_at <= now
    rows = read_ledger(
        migrated.path,
        "SELECT package_hash, status, started_at, completed_at, error_message, file_count"
        " FROM store_migration",
    )
    assert {row[0] for row in rows} == migrated.packages.keys()
    for name, status, started_at, completed_at, error_message, file_count in rows:
        tree = migrated.before[name].values()
        assert (status, error_message) == ("completed", None)
        assert now - 3600 < started_at <= completed_at <= now
        assert file_count == sum(entry.kind == "file" for entry in tree)


def test_space_saved_is_what_is_left_on_balance(migrated: Migrated) -> None:
    """Legacy bytes less all that was added; the shared directories of objects may be left out."""
    [(saved,)] = read_ledger(migrated.path, "SELECT SUM(space_saved) FROM store_migration")
    legacy = sum(allocated_bytes(tree) for tree in migrated.before.values())
    objects = snapshot(migrated.path / "objects")
    packages = snapshot(migrated.path / "packages")
    files = {path: entry for path, entry in objects.items() if entry.kind == "file"}
    shared = allocated_bytes(objects) - allocated_bytes(files)
    lists = {path: entry for path, entry in packages.items() if path}
    most = legacy - allocated_bytes(files) - allocated_bytes(lists)
    least = most - shared - packages[b""].allocated
    assert least <= saved <= most


def test_ledger_and_disk_name_the_same_objects(migrated: Migrated) -> None:
    store = check_store(migrated.path, legacy=migrated.packages)
    rows = read_ledger(migrated.path, "SELECT digest, size FROM objects")
    on_disk = {
        bytes.fromhex(digest): carriers[0].status.st_size
        for digest, carriers in store.carriers.items()
    }
    assert dict(rows) == on_disk


@pytest.mark.both_databases(False)
def test_the_ledger_is_sound(migrated: Migrated) -> None:
    assert read_ledger(migrated.path, "PRAGMA integrity_check") == [("ok",)]
    assert read_ledger(migrated.path, "PRAGMA foreign_key_check") == []


NAME = "a" * 64
REFUSED = (sqlite3.IntegrityError, psycopg.IntegrityError)
Execute = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def execute(store_path: Path, database: str) -> Iterator[Execute]:
    """A ledger with one package, pending, that any script may write to."""
    (store_path / "migration").mkdir(parents=True)
    made = open_ledger(str(store_path), create=True)
    made.queue([Scanned(NAME, "name", "1", 1, 1, 1, 1)])
    made.close()
    if database == "postgresql":
        yield partial(servers.ask, store_path)
        return
    place = store_path / "state.sqlite"
    with closing(sqlite3.connect(place, isolation_level=None)) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        yield lambda query: connection.execute(query).fetchall()


def move(execute: Execute, *words: str) -> None:
    for word in words:
        execute(f"UPDATE store_migration SET status = '{word}' WHERE package_hash = '{NAME}'")


def status_in(execute: Execute) -> str:
    [(word,)] = execute(f"SELECT status FROM store_migration WHERE package_hash = '{NAME}'")
    return str(word)


@pytest.mark.both_databases(everyday=True)
def test_every_legal_move_is_taken(execute: Execute) -> None:
    for before, after in sorted(LEGAL):
        if status_in(execute) != "pending":
            move(execute, "pending")  # from wherever the last round ended
        move(execute, *WAY_TO[before][1:])
        move(execute, after)
        assert status_in(execute) == after


@pytest.mark.parametrize(("before", "after"), [m for m in MOVES if m not in LEGAL])
def test_every_illegal_move_is_refused(execute: Execute, before: str, after: str) -> None:
    move(execute, *WAY_TO[before][1:])
    with pytest.raises(REFUSED):
        move(execute, after)
    assert status_in(execute) == before


@pytest.mark.both_databases(everyday=True)
def test_other_words_and_strangers_are_refused(execute: Execute) -> None:
    with pytest.raises(REFUSED):
        move(execute, "in_progress", "done")
    for name in (NAME, "f" * 64):
        with pytest.raises(REFUSED):
            execute(
                f"INSERT INTO store_migration (package_hash, status) VALUES ('{name}', 'pending')"
            )
