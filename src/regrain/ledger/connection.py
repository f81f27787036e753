"""Opening the ledger: which SQLite, which settings, which schema."""

from __future__ import annotations

import os
import sqlite3
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import sqlalchemy as sa

from regrain.errors import CorruptionError
from regrain.ledger.queries import Ledger
from regrain.ledger.schema import REVISION, create_schema
from regrain.model import layout

if TYPE_CHECKING:
    from types import ModuleType

BUSY_SECONDS = 60
SAFE_VERSION = (3, 51, 3)
"""SQLite 3.7.0 to 3.51.2 can corrupt a database when its WAL is reset."""


def driver() -> ModuleType:
    """Return the SQLite to use; only ever one in a process, or locks are lost."""
    try:
        from pysqlite3 import dbapi2
    except ImportError:
        return sqlite3
    return dbapi2  # type: ignore[no-any-return]


def open_ledger(store_path: str, *, create: bool = False, read_only: bool = False) -> Ledger:
    """Open the ledger of a store; an older schema is upgraded, after a backup.

    Args:
        store_path: The store's directory.
        create: Make it if it is missing.
        read_only: Change nothing.

    Raises:
        CorruptionError: It is missing (and ``create`` was not asked for), no database, or
            damaged.
    """
    path = os.path.join(store_path, layout.LEDGER)
    if not create and not os.path.exists(path):
        raise CorruptionError(
            "the ledger is missing",
            path=path,
            why="the packages are not concerned; their status and history are",
            advice="Run 'regrain doctor --rebuild-ledger'.",
        )
    module = driver()
    engine = _engine(path, module, read_only=read_only)
    try:
        with engine.connect() as connection:
            if not read_only:
                _prepare(connection, store_path)
            elif _revision(connection) != REVISION:
                raise CorruptionError(
                    "the ledger has another schema",
                    path=path,
                    advice="Run 'regrain init' to bring it up to date.",
                )
    except sa.exc.DatabaseError as error:
        engine.dispose()
        raise _not_a_ledger(path, error) from error
    return Ledger(engine)


def _not_a_ledger(path: str, error: sa.exc.DatabaseError) -> CorruptionError:
    return CorruptionError(
        "the ledger cannot be used",
        path=path,
        why=str(error.orig),
        advice="Readers are not concerned. Run 'regrain doctor --rebuild-ledger'.",
    )


def _engine(path: str, module: ModuleType, *, read_only: bool) -> sa.Engine:
    # Whoever may write takes part in the locking as writers do; others read what is there.
    may_write = all(os.access(p, os.W_OK) for p in (path, os.path.dirname(path)))
    place = read_only_uri(path) if read_only and not may_write else f"file:{quote(path)}"
    engine = sa.create_engine(
        "sqlite+pysqlite://",
        creator=lambda: module.connect(place, uri=True, timeout=BUSY_SECONDS, isolation_level=None),
        module=module,
        poolclass=sa.pool.StaticPool,
    )

    @sa.event.listens_for(engine, "connect")
    def configure(connection: Any, _: object) -> None:  # noqa: ANN401 -- the driver's own type
        cursor = connection.cursor()
        if read_only:
            cursor.execute("PRAGMA query_only = ON")
        else:
            safe = module.sqlite_version_info >= SAFE_VERSION
            cursor.execute(f"PRAGMA journal_mode = {'WAL' if safe else 'DELETE'}")
            cursor.execute(f"PRAGMA synchronous = {'FULL' if safe else 'EXTRA'}")
            cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute("PRAGMA cache_size = -32768")
        cursor.execute("PRAGMA temp_store = MEMORY")
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def read_only_uri(path: str) -> str:
    """Return how to open it for reading.

    Without a write-ahead log nobody is writing: SQLite is told so, since a reader would
    else make files beside the database, which may not be allowed.
    """
    quiet = "" if os.path.exists(f"{path}-wal") else "&immutable=1"
    return f"file:{quote(path)}?mode=ro{quiet}"


def _prepare(connection: sa.Connection, store_path: str) -> None:
    """Bring the schema to ``REVISION``; Alembic is loaded only where that means work."""
    with connection.begin():
        found = _revision(connection)
    if found == REVISION:
        return
    if found is None:
        with connection.begin():
            create_schema(connection)
        return
    backup = os.path.join(store_path, layout.MIGRATION, f"ledger-{found}.sqlite")
    connection.exec_driver_sql("VACUUM INTO ?", (backup,))
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", os.path.dirname(__file__))
    config.attributes["connection"] = connection
    command.upgrade(config, REVISION)
    connection.commit()


def _revision(connection: sa.Connection) -> str | None:
    exists = connection.exec_driver_sql(
        "SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'"
    ).first()
    if exists is None:
        return None
    row = connection.exec_driver_sql("SELECT version_num FROM alembic_version").first()
    return None if row is None else str(row[0])
