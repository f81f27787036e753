"""Stores whose ledgers are in a server although the test does not say so.

So that one test runs on both databases. A store is a directory of which the name begins with
``store``; backups and all else keep their ledgers in files, as they do.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from msgspec.structs import replace

from regrain.app import store as facade
from regrain.app.database import use_database
from regrain.ledger import open_ledger
from regrain.ledger.schema import metadata
from regrain.model import layout, whereabouts
from regrain.settings import Settings
from tests import servers

_TOLD = "REGRAIN_TEST_DATABASE"
"""Tells processes that tests start, and that are not the command."""


class _Servers(dict[str, str]):
    """What ``whereabouts`` knows, with one server for every store that nobody named.

    But for one that was made before, whose ledger is a file.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url

    def get(self, path: str, default: object = None) -> str | None:  # type: ignore[override]
        is_ours = os.path.basename(path).startswith("store")
        is_file = os.path.lexists(os.path.join(path, layout.LEDGER))
        return super().get(path, self._url if is_ours and not is_file else None)


def use_server(url: str) -> pytest.MonkeyPatch:
    """Keep the ledgers of this process's stores in a server, until what is returned is undone."""
    patch = pytest.MonkeyPatch()
    patch.setattr(whereabouts, "_servers", _Servers(url))
    patch.setattr(facade, "use_database", _told)
    patch.setenv(_TOLD, url)
    return patch


def _told(path: str, settings: Settings) -> None:
    """Let settings that name no database name the server."""
    chosen = settings.store.database or whereabouts.server_of(path) or ""
    use_database(path, replace(settings, store=replace(settings.store, database=chosen)))


@contextmanager
def in_server(url: str) -> Iterator[None]:
    """Keep the ledgers of all stores of a test in a server."""
    patch = use_server(url)
    try:
        yield
    finally:
        patch.undo()


def follow(store: Path) -> None:
    """Bring the ledger of a store's copy, a file, to the server of this test, row by row."""
    file = store / layout.LEDGER
    if _TOLD not in os.environ or not file.exists():
        return
    with closing(sqlite3.connect(file)) as old:
        tables = {
            table: old.execute(f"SELECT {', '.join(table.columns.keys())} FROM {table}").fetchall()
            for table in metadata.sorted_tables
        }
    for piece in store.glob(f"{layout.LEDGER}*"):
        piece.unlink()
    open_ledger(str(store), create=True).close()
    with servers.running_now[-1].connected() as new, new.cursor() as cursor:
        cursor.execute(f"SET search_path = {servers.schema_of(store)}".encode())
        for table, rows in tables.items():
            _fill(cursor, table, rows)


def _fill(cursor: psycopg.Cursor[Any], table: sa.Table, rows: list[tuple[Any, ...]]) -> None:
    columns = list(table.columns)
    is_bool = [isinstance(column.type, sa.Boolean) for column in columns]
    names = ", ".join(column.name for column in columns)
    cursor.execute("SET session_replication_role = replica")  # no trigger refuses a first status
    with cursor.copy(f"COPY {table} ({names}) FROM STDIN".encode()) as copy:
        for row in rows:
            copy.write_row([bool(v) if b else v for v, b in zip(row, is_bool, strict=True)])
    if any(column.name == "id" for column in columns):
        cursor.execute(
            f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), COALESCE(MAX(id), 0) + 1,"
            f" false) FROM {table}".encode()
        )


def as_told() -> None:
    """Do in this process as in the test that started it."""
    if _TOLD in os.environ:
        use_server(os.environ[_TOLD])
