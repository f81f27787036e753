"""Rows that regrain never wrote: with the constraints off, SQLite keeps anything anywhere."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from tests.verbs import PACKAGE

_REF = "INSERT OR IGNORE INTO store_refs(hash, created_at) VALUES ('{0}', 1);"
_QUEUED = _REF + (
    "INSERT INTO store_migration(package_hash, status, file_count) VALUES ('{0}', '{1}', 1)"
)
_PUBLISHED = _REF + (
    "INSERT INTO packages(package_hash, tree_hash, list_hash, published_at)"
    " VALUES ('{0}', 'x', 'x', 1)"
)
_INTENT = "INSERT INTO intents(package_hash, action, created_at) VALUES ('{0}', '{1}', 1)"
OUT = ("../victim", "../../victim", "{victim}", "{victim}/", "../../victim/sub", "..", ".", "", "/")
"""Names that mean a place outside: seen from the store, from ``packages/``, from anywhere."""

LEADING_OUT = {
    **{f"{action} {name}": _INTENT.format(name, action)
       for name in OUT
       for action in ("remove", "cleanup", "unlink", "rollback", "purge", "exclude", "add")},
    **{f"{status} {name}": _QUEUED.format(name, status)
       for name in OUT
       for status in ("pending", "in_progress", "failed", "completed", "rolled_back")},
    **{f"published {name}": _PUBLISHED.format(name) for name in OUT},
    **{f"doubted {name}": f"INSERT INTO integrity VALUES ('{name}', 'bad', 1)" for name in OUT},
}  # fmt: skip
_MINE = f"WHERE package_hash = '{PACKAGE}'"
_PENDING = f"WHERE package_hash = '{'12' * 32}'"
SENSELESS = {
    "unknown status": f"UPDATE store_migration SET status = 'lost' {_MINE}",
    "number as status": f"UPDATE store_migration SET status = 7 {_PENDING}",
    "unknown intent": _INTENT.format(PACKAGE, "explode"),
    "raw intent": "INSERT INTO intents(package_hash, action, created_at) VALUES (x'00', x'ff', 1)",
    "raw hash": f"UPDATE store_migration SET package_hash = x'ff' {_MINE}",
    "number as hash": f"UPDATE packages SET package_hash = 12345678 {_MINE}",
    "hash with a newline": f"UPDATE packages SET package_hash = package_hash || char(10) {_MINE}",
    "long hash": "UPDATE packages SET package_hash = hex(zeroblob(2000000)) " + _MINE,
    "size in words": f"UPDATE store_migration SET byte_count = 'much' {_PENDING}",
    "huge sizes": "UPDATE store_migration SET byte_count = 9223372036854775807",
    "negative size": f"UPDATE store_migration SET byte_count = -1, file_count = -9 {_PENDING}",
    "real size": "UPDATE store_migration SET allocated_bytes = 1e300",
    "raw name": f"UPDATE store_migration SET name = x'ff', version = 5 {_PENDING}",
    "cuts as a number": f"UPDATE store_migration SET cuts = 10000000000000 {_PENDING}",
    "cuts that lead out": f"UPDATE store_migration SET cuts = x'2e2e2f2e2e002f65746300' {_PENDING}",
    "excluded in words": "UPDATE store_migration SET excluded = 'yes'",
    "attempts in words": "UPDATE store_migration SET attempts = 'many'",
    "times in words": "UPDATE store_migration SET completed_at = 'today', verified_at = 'x'",
    "times beyond the calendar": (
        "UPDATE store_migration SET completed_at = 9223372036854775807,"
        " started_at = -9223372036854775808, verified_at = 9223372036854775807"
    ),
    "broken UTF-8": f"UPDATE store_migration SET name = CAST(x'fffe' AS TEXT) {_PENDING}",
    "short digest": "UPDATE objects SET digest = x'', unreferenced_since = 0 WHERE id = 1",
    "digest as text": (
        "UPDATE objects SET digest = '../../victim', unreferenced_since = 0 WHERE id = 2;"
        "DELETE FROM object_owners WHERE object_id = 2"
    ),
    "object of no size": "UPDATE objects SET size = 'x'",
    "object of negative size": "UPDATE objects SET size = -1",
    "carrier's time in words": "UPDATE carriers SET mtime_seconds = 'a long word'",
    "carrier's mode in words": "UPDATE carriers SET mode = 'rwx' WHERE object_id < 3",
    "carrier's mode out of range": "UPDATE carriers SET mode = -5 WHERE object_id < 3",
    "carrier's bytes in words": "UPDATE carriers SET allocated_bytes = 'x'",
    "history in words": "UPDATE history SET at = 'yesterday', detail = x'ff'",
    "history beyond the calendar": "UPDATE history SET at = 9223372036854775807",
    "schema version of no text": "UPDATE alembic_version SET version_num = x'ff'",
    "no schema version": "DELETE FROM alembic_version",
    "references in words": "UPDATE store_refs SET ref_count = 'x', size = 'y', created_at = 'z'",
    "doubted since never": f"INSERT INTO integrity VALUES ('{PACKAGE}', x'ff', 'x')",
    "a table is gone": "DROP TABLE carriers",
    "a column is gone": "ALTER TABLE history RENAME COLUMN detail TO other",
}
ROWS = {**LEADING_OUT, **SENSELESS}


def write(store: Path, statement: str, victim: Path) -> None:
    """Write rows as somebody does who may, and whom nothing checks."""
    with closing(sqlite3.connect(store / "state.sqlite")) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.executescript("DROP TRIGGER IF EXISTS store_migration_moves")
        connection.executescript(statement.replace("{victim}", str(victim)))
        connection.commit()
