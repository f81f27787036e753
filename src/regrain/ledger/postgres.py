"""The ledger in a PostgreSQL server: connections, transactions, schema.

The statements are those of SQLite; what differs in how they are written is translated on their
way out, see ``placeholders``.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from regrain.errors import ConfigurationError, CorruptionError, RegrainError
from regrain.ledger.elsewhere import check_current
from regrain.ledger.placeholders import translate
from regrain.ledger.postgres_failures import is_on_its_way, lost, translated
from regrain.ledger.queries import Ledger
from regrain.ledger.schema import REVISION, create_schema
from regrain.model.clock import monotonic

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg
    from sqlalchemy.engine.interfaces import DBAPICursor, _DBAPIAnyExecuteParams

    from regrain.ledger.elsewhere import Place

BUSY_SECONDS = 60
"""How long a transaction waits for another's."""

SERVER_SECONDS = 20.0
"""How long a server that does not answer is asked again: one that is restarted comes back."""

_TRY_SECONDS = 0.2
_REBUILD = "Run 'regrain doctor --rebuild-ledger'."
_CONNECTED = {
    "connect_timeout": 10,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""A server that vanished is noticed within half a minute, a machine that vanished by the server."""

_SESSION = (
    "SET tcp_keepalives_idle = 15",
    "SET tcp_keepalives_interval = 5",
    "SET tcp_keepalives_count = 3",
    "SET client_encoding = 'UTF8'",
    # What was acknowledged stays, whatever the server's default is.
    (
        "SELECT set_config('synchronous_commit', 'on', false)"
        " WHERE current_setting('synchronous_commit') = 'off'"
    ),
)


def arguments(place: Place) -> dict[str, Any]:
    """Return what the driver is told to connect; it may hold a password.

    Raises:
        ConfigurationError: The URL makes no sense, or the driver is not installed.
    """
    try:
        engine = sa.create_engine(place.url)  # connects to nothing, and knows the driver's words
    except ImportError:
        raise ConfigurationError(
            "the ledger is in PostgreSQL, and its driver is not installed",
            advice="Install regrain[postgres].",
        ) from None
    except (sa.exc.ArgumentError, ValueError):
        raise ConfigurationError(
            "[store] database is no URL of a database",
            advice="Write postgresql+psycopg://USER@HOST/DATABASE.",
        ) from None
    if "@" in (engine.url.host or ""):  # what follows the first is the password's, not to be shown
        raise ConfigurationError(
            "[store] database has more than one '@'",
            advice="Write '%40' for one in a user's name or a password.",
        )
    return {**_CONNECTED, **engine.dialect.create_connect_args(engine.url)[1]}


def connect(place: Place, *, who: str = "", patience: float = SERVER_SECONDS) -> psycopg.Connection:
    """Connect to a server; one that is just being restarted is waited for.

    Raises:
        RegrainError: It does not answer, or refuses.
    """
    known = {**arguments(place), "autocommit": True, "application_name": who or "regrain"}
    import psycopg

    due = monotonic() + patience
    while True:
        try:
            return _prepared(psycopg.connect(**known))
        except psycopg.Error as error:
            if not is_on_its_way(error) or monotonic() > due:
                raise lost(error, place.shown) from None
        time.sleep(_TRY_SECONDS)


def _prepared(made: psycopg.Connection) -> psycopg.Connection:
    """Set up a new session; one that cannot be is closed."""
    try:
        for statement in _SESSION:
            made.execute(statement)
    except BaseException:
        made.close()
        raise
    return made


def open_in_server(place: Place, *, create: bool, read_only: bool) -> Ledger:
    """Open a ledger in a server; an older schema is upgraded.

    Raises:
        CorruptionError: It is missing, or of another version.
        RegrainError: The server does not answer, or this user may not.
    """
    engine = engine_for(place, read_only=read_only)

    def words(error: sa.exc.DatabaseError | UnicodeDecodeError) -> RegrainError:
        return translated(error, place.shown)

    try:
        with engine.connect() as connection:
            _prepare(connection, place, create=create, read_only=read_only)
    except (sa.exc.DatabaseError, UnicodeDecodeError) as error:
        engine.dispose()
        raise words(error) from error
    except BaseException:
        engine.dispose()
        raise
    if not read_only:
        _one_at_a_time(engine, place)
    return Ledger(engine, words)


def engine_for(place: Place, *, read_only: bool = False) -> sa.Engine:
    """Return an engine of one connection, whose statements may be written as for SQLite."""

    def creator() -> psycopg.Connection:
        made = connect(place)
        try:
            for statement in _as_ledger(place.schema, read_only=read_only):
                made.execute(statement.encode())
        except BaseException:
            made.close()
            raise
        _numbers_are_whole(made)
        made.autocommit = False
        return made

    engine = sa.create_engine(
        "postgresql+psycopg://", creator=creator, poolclass=sa.pool.StaticPool
    )

    @sa.event.listens_for(engine, "before_cursor_execute", retval=True)
    def rewrite(
        _connection: sa.Connection,
        _cursor: DBAPICursor,
        statement: str,
        parameters: _DBAPIAnyExecuteParams,
        _context: object,
        _many: bool,  # noqa: FBT001 -- SQLAlchemy's
    ) -> tuple[str, Any]:
        return translate(statement, parameters)

    return engine


def _as_ledger(schema: str, *, read_only: bool) -> list[str]:
    """Return what sets a session up to work with a ledger, whatever the server's defaults are."""
    isolation = "repeatable read" if read_only else "read committed"
    return [
        f"SET search_path = {schema}",
        f"SET lock_timeout = '{BUSY_SECONDS}s'",
        f"SET default_transaction_isolation = '{isolation}'",
        *(["SET default_transaction_read_only = on"] if read_only else []),
    ]


def _numbers_are_whole(connection: psycopg.Connection) -> None:
    """Read sums as whole numbers: PostgreSQL makes decimals of them, lest they overflow."""
    from psycopg.adapt import Loader

    class Whole(Loader):
        def load(self, data: bytes | bytearray | memoryview) -> int:
            return int(bytes(data))

    connection.adapters.register_loader("numeric", Whole)


def _one_at_a_time(engine: sa.Engine, place: Place) -> None:
    """Let transactions that write take turns, as SQLite's do; none begins without its locks.

    Nor one in a ledger that was made anew meanwhile: this one is nobody's any more.
    """
    from regrain.ledger.postgres_locks import check_held

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("LOCK TABLE alembic_version IN EXCLUSIVE MODE")
        check_held(connection, place)
        check_current(place)


def _prepare(connection: sa.Connection, place: Place, *, create: bool, read_only: bool) -> None:
    """See that the schema is there and of ``REVISION``, or bring it there."""
    may_make, may_upgrade = create and not read_only, not read_only
    if _is_ready(connection, place, may_make=may_make, may_upgrade=may_upgrade):
        return
    with _only_one(connection, place):
        if _is_ready(connection, place, may_make=may_make, may_upgrade=may_upgrade):
            return  # another host was faster
        with connection.begin():
            found = revision_in(connection, place.schema)
            if found is None:
                make_schema(connection, place.schema)
        if found is not None:
            _upgrade(connection)


def _is_ready(
    connection: sa.Connection, place: Place, *, may_make: bool, may_upgrade: bool
) -> bool:
    """Tell whether the schema is as it has to be; refuse what may not be made so."""
    with connection.begin():
        found = revision_in(connection, place.schema)
    if found is None and not may_make:
        raise CorruptionError(
            "the ledger is missing",
            path=place.store_path,
            why=f"the database that is set has no schema {place.schema}",
            advice=f"See that [store] database names the right one. If it is lost: {_REBUILD}",
        )
    if found is not None and (found > REVISION or (found < REVISION and not may_upgrade)):
        raise CorruptionError(
            "the ledger has another schema",
            path=place.store_path,
            why=f"{found}, this version works with {REVISION}",
            advice="Run 'regrain init' to bring it up to date."
            if found < REVISION
            else "Use the version of regrain that made it.",
        )
    return found == REVISION


@contextlib.contextmanager
def _only_one(connection: sa.Connection, place: Place) -> Iterator[None]:
    """Let nobody else make or upgrade this schema meanwhile.

    The lock is the session's: a transaction that waited for it would look with old eyes.
    """
    from regrain.ledger.postgres_locks import key_of

    key = (key_of(place.schema, "schema") - (1 << 63),)
    with connection.begin():
        connection.exec_driver_sql("SELECT pg_advisory_lock(?)", key)
    try:
        yield
    finally:
        with contextlib.suppress(sa.exc.DatabaseError), connection.begin():
            connection.exec_driver_sql("SELECT pg_advisory_unlock(?)", key)


def _upgrade(connection: sa.Connection) -> None:
    """Bring an older schema up to date, in one transaction: no copy is kept of it."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", os.path.dirname(__file__))
    config.attributes["connection"] = connection
    command.upgrade(config, REVISION)
    connection.commit()


def make_schema(connection: sa.Connection, schema: str) -> None:
    """Make an empty ledger in a schema of its own, which ``search_path`` names already."""
    connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {schema}")
    create_schema(connection)


def revision_in(connection: sa.Connection, schema: str) -> str | None:
    """Return the revision of the ledger in a schema, None if there is none."""
    exists = connection.exec_driver_sql(
        "SELECT to_regclass(?) IS NOT NULL", (f"{schema}.alembic_version",)
    ).scalar_one()
    if not exists:
        return None
    query = f"SELECT version_num FROM {schema}.alembic_version"  # noqa: S608 -- our own name
    with contextlib.suppress(sa.exc.ProgrammingError):
        found = connection.exec_driver_sql(query).scalar()
        return None if found is None else str(found)
    return None
