"""Opening the ledger: which SQLite, which settings, which schema."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import stat
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import sqlalchemy as sa

from regrain import disk
from regrain.errors import CorruptionError, HaltedError, RegrainError, reason
from regrain.ledger.elsewhere import place_of
from regrain.ledger.failures import translated
from regrain.ledger.queries import Ledger
from regrain.ledger.schema import REVISION, create_schema
from regrain.model import layout

if TYPE_CHECKING:
    from types import ModuleType

BUSY_SECONDS = 60
_REBUILD = "Run 'regrain doctor --rebuild-ledger'."
SAFE_VERSION = (3, 51, 3)
"""SQLite 3.7.0 to 3.51.2 can corrupt a database when its WAL is reset."""


def driver() -> ModuleType:
    """Return the SQLite to use; only ever one in a process, or locks are lost."""
    try:
        from pysqlite3 import dbapi2
    except ImportError:
        return sqlite3
    return dbapi2  # type: ignore[no-any-return]


def open_ledger(
    store_path: str, *, create: bool = False, read_only: bool = False, place: str | None = None
) -> Ledger:
    """Open the ledger of a store; an older schema is upgraded, after a backup.

    Args:
        store_path: The store's directory.
        create: Make it if it is missing.
        read_only: Change nothing.
        place: How to open it for reading, if not as ``reading_uri`` says.

    Raises:
        ConfigurationError: The settings and the store do not agree on where it is.
        CorruptionError: It is missing (and ``create`` was not asked for), no database, none
            of ours, of another version, or damaged.
        RegrainError: This user may not use it so.
    """
    server = place_of(store_path, create=create) if place is None else None
    if server is not None:
        from regrain.ledger.postgres import open_in_server

        return open_in_server(server, create=create, read_only=read_only)
    path = os.path.join(store_path, layout.LEDGER)
    _check_file(path, create=create, read_only=read_only)
    place = place or (reading_uri(path) if read_only else _uri(path))
    engine = _engine(place, driver(), read_only=read_only)
    try:
        with engine.connect() as connection:
            if read_only:
                _check_schema(connection, path)
            else:
                _prepare(connection, store_path, create=create)
    except (sa.exc.DatabaseError, UnicodeDecodeError) as error:
        engine.dispose()
        raise translated(error, path) from error
    except BaseException:
        engine.dispose()
        raise
    return Ledger(engine)


def _check_file(path: str, *, create: bool, read_only: bool) -> None:
    """Check that there is a file that may be used; what SQLite would say is no help."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        if create:
            return
        raise CorruptionError(
            "the ledger is missing",
            path=path,
            why="the packages are not concerned; their status and history are",
            advice=_REBUILD,
        ) from None
    except OSError as error:
        raise HaltedError(
            "cannot look at the ledger",
            path=path,
            why=reason(error),
            advice="Check the disk, then run again.",
        ) from error
    if not stat.S_ISREG(status.st_mode):
        raise CorruptionError(
            "the ledger is not a regular file",
            path=path,
            advice=f"Move what is there out of the way. {_REBUILD}",
        )
    if not (status.st_size or create):
        raise CorruptionError("the ledger is empty", path=path, advice=_REBUILD)
    if not os.access(path, os.R_OK if read_only else os.R_OK | os.W_OK):
        is_read_only = os.statvfs(path).f_flag & os.ST_RDONLY
        raise RegrainError(
            f"the ledger may not be {'read' if read_only else 'written to'}",
            path=path,
            why=os.strerror(errno.EROFS if is_read_only else errno.EACCES),
            advice="Mount it for writing." if is_read_only else "Run as the store's owner.",
        )


def _engine(place: str, module: ModuleType, *, read_only: bool) -> sa.Engine:
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
            cursor.execute(f"PRAGMA synchronous = {'FULL' if _is_safe() else 'EXTRA'}")
            cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute("PRAGMA cache_size = -32768")
        cursor.execute("PRAGMA temp_store = MEMORY")
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def reading_uri(path: str) -> str:
    """Return how to open it for reading.

    Whoever may write takes part in the locking as writers do. For others: without a
    write-ahead log nobody is writing, and SQLite is told so, since a reader would else make
    files beside the database.
    """
    if all(os.access(place, os.W_OK) for place in (path, os.path.dirname(path))):
        return _uri(path)
    return quiet_uri(path)


def quiet_uri(path: str) -> str:
    """Return how to open it for reading so that its log stays what it is."""
    quiet = "" if os.path.exists(f"{path}-wal") else "&immutable=1"
    return f"{_uri(path)}?mode=ro{quiet}"


def watching_uri(path: str) -> str:
    """Return how to open it beside writers, for who never writes, whatever they might.

    With a log of somebody who writes, in their locking, but never into the memory they share.
    A rollback journal asks for locking, too; without either nobody is writing at the moment.
    """
    if os.path.exists(f"{path}-shm"):
        return f"{_uri(path)}?mode=ro&readonly_shm=1"
    if os.path.exists(f"{path}-wal") or os.path.exists(f"{path}-journal"):
        return f"{_uri(path)}?mode=ro"
    return f"{_uri(path)}?mode=ro&immutable=1"


def _uri(path: str) -> str:
    return f"file:{quote(os.fsencode(path))}"


def _is_safe() -> bool:
    return driver().sqlite_version_info >= SAFE_VERSION  # type: ignore[no-any-return]


def _check_schema(connection: sa.Connection, path: str) -> None:
    """Check that the schema is ours and of this version.

    Raises:
        CorruptionError: It is not; the advice says what to do about it.
    """
    found = _revision(connection)
    if found == REVISION:
        return
    if found is None:
        raise CorruptionError(
            "the ledger is a database, but no ledger of regrain", path=path, advice=_REBUILD
        )
    if found < REVISION:
        raise CorruptionError(
            "the ledger has an older schema",
            path=path,
            why=f"{found}, this version works with {REVISION}",
            advice="Run 'regrain init' to bring it up to date.",
        )
    raise _unknown_schema(found, path)


def _unknown_schema(found: str, path: str) -> CorruptionError:
    return CorruptionError(
        "the ledger has a schema this version does not know",
        path=path,
        why=f"{found}, this version works with {REVISION}",
        advice=f"Use the version of regrain that made it. {_REBUILD}",
    )


def _set_journal(connection: sa.Connection, mode: str) -> None:
    """Choose the journal; past SQLAlchemy, which would begin a transaction, where it cannot be."""
    statement = f"PRAGMA journal_mode = {mode}"
    try:
        connection.connection.cursor().execute(statement)
    except driver().Error as error:
        raise sa.exc.OperationalError(statement, None, error) from error


def _prepare(connection: sa.Connection, store_path: str, *, create: bool) -> None:
    """Bring the schema to ``REVISION``; Alembic is loaded only where that means work."""
    path = os.path.join(store_path, layout.LEDGER)
    with connection.begin():
        found = _revision(connection)
        is_empty = connection.exec_driver_sql("SELECT 1 FROM sqlite_master").first() is None
    if found is None and not (create and is_empty):
        _check_schema(connection, path)
    if found is not None and found > REVISION:
        raise _unknown_schema(found, path)
    # This writes into the file, so not before it is known to be ours.
    _set_journal(connection, "WAL" if _is_safe() else "DELETE")
    if found == REVISION:
        return
    if found is None:
        with connection.begin():
            create_schema(connection)
        return
    _back_up(connection, store_path, found)
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", os.path.dirname(__file__))
    config.attributes["connection"] = connection
    command.upgrade(config, REVISION)
    connection.commit()


def _back_up(connection: sa.Connection, store_path: str, revision: str) -> None:
    """Keep a copy of a ledger that is about to be upgraded; one that was cut off is replaced."""
    name = f"ledger-{revision}.sqlite"
    with disk.Closing(disk.open_directory(os.path.join(store_path, layout.MIGRATION))) as at:
        with contextlib.suppress(FileNotFoundError):
            disk.unlink(f"{name}.new", at)
        place = os.path.join(store_path, layout.MIGRATION, f"{name}.new")
        connection.connection.cursor().execute("VACUUM INTO ?", (place,))  # in no transaction
        with disk.Closing(disk.open_file(f"{name}.new", at)) as fd:
            os.fchmod(fd, stat.S_IMODE(os.stat(os.path.join(store_path, layout.LEDGER)).st_mode))
            disk.give_to_owner_of(at, fd)
            disk.fsync(fd)
        disk.rename_replace(f"{name}.new", at, name, at)
        disk.fsync(at)


def _revision(connection: sa.Connection) -> str | None:
    exists = connection.exec_driver_sql(
        "SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'"
    ).first()
    if exists is None:
        return None
    row = connection.exec_driver_sql("SELECT version_num FROM alembic_version").first()
    return None if row is None else str(row[0])
