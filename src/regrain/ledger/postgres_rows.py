"""Many rows at once into PostgreSQL: copied into a table of the session's, then taken over."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import sqlalchemy as sa

if TYPE_CHECKING:
    from collections.abc import Iterable

CarrierValues = tuple[int, bool, bool, int, int, int, bytes, int]
"""Mode, compressed, bare, seconds, nanoseconds, bytes on disk; digest and size of the object."""

_INCOMING = (
    "CREATE TEMPORARY TABLE IF NOT EXISTS incoming (number BIGINT, mode INTEGER,"
    " is_compressed BOOLEAN, is_bare BOOLEAN, mtime_seconds BIGINT, mtime_nanoseconds INTEGER,"
    " allocated_bytes BIGINT, digest BYTEA, size BIGINT) ON COMMIT DELETE ROWS"
)
_COPY = (
    "COPY incoming (mode, is_compressed, is_bare, mtime_seconds, mtime_nanoseconds,"
    " allocated_bytes, digest, size, number) FROM STDIN (FORMAT BINARY)"
)
_TYPES = ("int4", "bool", "bool", "int8", "int4", "int8", "bytea", "int8", "int8")
_OBJECTS = (
    "INSERT INTO objects(digest, size, created_at) SELECT DISTINCT ON (digest) digest, size, ?"
    " FROM incoming ORDER BY digest, number ON CONFLICT DO NOTHING"
)
_CARRIERS = (
    "INSERT INTO carriers(object_id, mode, is_compressed, is_bare, mtime_seconds,"
    " mtime_nanoseconds, allocated_bytes) SELECT DISTINCT ON (id, mode, is_compressed)"
    " id, mode, is_compressed, is_bare, mtime_seconds, mtime_nanoseconds, allocated_bytes"
    " FROM incoming JOIN objects USING (digest) ORDER BY id, mode, is_compressed, number DESC"
    " ON CONFLICT(object_id, mode, is_compressed) DO UPDATE"
    " SET is_bare = excluded.is_bare, mtime_seconds = excluded.mtime_seconds,"
    " mtime_nanoseconds = excluded.mtime_nanoseconds,"
    " allocated_bytes = excluded.allocated_bytes"
)


def copy_objects(connection: sa.Connection, rows: Iterable[CarrierValues], now: int) -> None:
    """Add rows for carriers, and for their objects where they are new; the last of equals counts.

    Args:
        connection: In a transaction.
        rows: The carriers.
        now: When the objects came.
    """
    import psycopg

    connection.exec_driver_sql("SET LOCAL client_min_messages = warning")
    connection.exec_driver_sql(_INCOMING)
    connection.exec_driver_sql("DELETE FROM incoming")
    try:
        driver = cast("psycopg.Connection", connection.connection.driver_connection)
        with driver.cursor() as cursor, cursor.copy(_COPY) as copy:
            copy.set_types(_TYPES)
            for number, row in enumerate(rows):
                copy.write_row((*row, number))
    except psycopg.Error as error:  # as SQLAlchemy does with whatever it runs itself
        raise sa.exc.DatabaseError(_COPY, None, error) from error
    connection.exec_driver_sql(_OBJECTS, (now,))
    connection.exec_driver_sql(_CARRIERS)
