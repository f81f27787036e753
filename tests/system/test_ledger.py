"""What scripts may read from the ledger, from another process than regrain's."""

from __future__ import annotations

import itertools
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.compare import allocated_bytes, snapshot
from tests.reader import check_store
from tests.stores import Migrated, read_ledger

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
    rows = read_ledger(migrated.path, "SELECT lower(hex(digest)), size FROM objects")
    on_disk = {digest: carriers[0].status.st_size for digest, carriers in store.carriers.items()}
    assert dict(rows) == on_disk


def test_the_ledger_is_sound(migrated: Migrated) -> None:
    assert read_ledger(migrated.path, "PRAGMA integrity_check") == [("ok",)]
    assert read_ledger(migrated.path, "PRAGMA foreign_key_check") == []


@pytest.fixture
def ledger(migrated: Migrated, workplace: Path) -> Iterator[sqlite3.Connection]:
    """A copy of the ledger to write to."""
    for path in migrated.path.glob("state.sqlite*"):
        shutil.copy(path, workplace)
    with closing(sqlite3.connect(workplace / "state.sqlite", isolation_level=None)) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        yield connection


def move(ledger: sqlite3.Connection, name: str, *words: str) -> None:
    for word in words:
        ledger.execute("UPDATE store_migration SET status=? WHERE package_hash=?", (word, name))


def test_every_legal_move_is_taken(ledger: sqlite3.Connection, migrated: Migrated) -> None:
    name = next(iter(migrated.packages))
    for before, after in sorted(LEGAL):
        if status_of(ledger, name) != "pending":
            move(ledger, name, "pending")  # from wherever the last round ended
        move(ledger, name, *WAY_TO[before][1:])
        move(ledger, name, after)
        assert status_of(ledger, name) == after


def status_of(ledger: sqlite3.Connection, name: str) -> str:
    [(word,)] = ledger.execute("SELECT status FROM store_migration WHERE package_hash=?", (name,))
    return str(word)


@pytest.mark.parametrize(("before", "after"), [m for m in MOVES if m not in LEGAL])
def test_every_illegal_move_is_refused(
    ledger: sqlite3.Connection, migrated: Migrated, before: str, after: str
) -> None:
    name = next(iter(migrated.packages))
    move(ledger, name, *WAY_TO[before])
    with pytest.raises(sqlite3.IntegrityError):
        move(ledger, name, after)
    assert status_of(ledger, name) == before


def test_other_words_and_strangers_are_refused(
    ledger: sqlite3.Connection, migrated: Migrated
) -> None:
    name = next(iter(migrated.packages))
    with pytest.raises(sqlite3.IntegrityError):
        move(ledger, name, "pending", "in_progress", "done")
    insert = "INSERT INTO store_migration (package_hash, status) VALUES (?, 'pending')"
    with pytest.raises(sqlite3.IntegrityError):
        ledger.execute(insert, (name,))
    with pytest.raises(sqlite3.IntegrityError):
        ledger.execute(insert, ("f" * 64,))
