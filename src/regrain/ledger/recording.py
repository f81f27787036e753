"""The statements that record what was published; each runs inside a caller's transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from regrain.errors import RegrainError
from regrain.ledger.schema import history, packages, store_refs
from regrain.model import clock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from regrain.ledger.rows import NewCarrier, Outcome

NANOSECONDS = 10**9


class UnrecordedObjectsError(RegrainError):
    """A package names objects that have no row: another program's, or a killed run's.

    Args:
        digests: Them, raw.
    """

    def __init__(self, digests: list[bytes]) -> None:
        super().__init__(f"{len(digests)} objects have no row in the ledger")
        self.digests = digests


def _without_row(connection: sa.Connection, digests: list[bytes]) -> list[bytes]:
    query = "SELECT 1 FROM objects WHERE digest = ?"
    return [
        digest for digest in digests if connection.exec_driver_sql(query, (digest,)).first() is None
    ]


def remember(connection: sa.Connection, event: str, package_hash: str | None, detail: str) -> None:
    """Add a line to the history."""
    connection.execute(
        sa.insert(history).values(
            at=clock.now(), event=event, package_hash=package_hash, detail=detail
        )
    )


def insert_objects(connection: sa.Connection, carriers: Sequence[NewCarrier], now: int) -> None:
    """Add rows for carriers, and for their objects where they are new."""
    if not carriers:
        return
    rows = [
        (
            c.mode,
            c.is_compressed,
            c.is_bare,
            *divmod(c.mtime_ns, NANOSECONDS),
            c.allocated,
            c.digest,
            c.size,
        )
        for c in carriers
    ]
    if connection.dialect.name == "postgresql":
        from regrain.ledger.postgres_rows import copy_objects

        copy_objects(connection, rows, now)
        return
    connection.exec_driver_sql(
        "INSERT INTO objects(digest, size, created_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        [(digest, size, now) for *_, digest, size in rows],
    )
    connection.exec_driver_sql(
        "INSERT INTO carriers(object_id, mode, is_compressed, is_bare, mtime_seconds,"
        " mtime_nanoseconds, allocated_bytes) SELECT id, ?, ?, ?, ?, ?, ? FROM objects"
        " WHERE digest = ? ON CONFLICT(object_id, mode, is_compressed) DO UPDATE"
        " SET is_bare = excluded.is_bare, mtime_seconds = excluded.mtime_seconds,"
        " mtime_nanoseconds = excluded.mtime_nanoseconds,"
        " allocated_bytes = excluded.allocated_bytes",
        [row[:-1] for row in rows],
    )


def insert_package(connection: sa.Connection, outcome: Outcome, now: int) -> int:
    """Add or renew the row of a published package, without owners yet; return its id."""
    package_hash = outcome.claim.package_hash
    known = connection.execute(
        sa.select(packages.c.id).where(packages.c.package_hash == package_hash)
    ).scalar()
    if known is not None:
        forget_owners(connection, [known], now)
    connection.exec_driver_sql(
        "INSERT INTO packages(package_hash, tree_hash, list_hash, published_at)"
        " VALUES (?, ?, ?, ?) ON CONFLICT(package_hash) DO UPDATE SET"
        " tree_hash = excluded.tree_hash, list_hash = excluded.list_hash,"
        " published_at = excluded.published_at",
        (package_hash, outcome.tree_hash, outcome.list_hash, now),
    )
    connection.execute(
        sa.update(store_refs).where(store_refs.c.hash == package_hash).values(size=outcome.size)
    )
    query = sa.select(packages.c.id).where(packages.c.package_hash == package_hash)
    return int(connection.execute(query).scalar_one())


def forget_owners(connection: sa.Connection, package_ids: Sequence[int], now: int) -> None:
    """Let go of all objects of packages; who is nobody's then is unreferenced from now on.

    No index finds the objects of one package, since the other way round is asked for far
    more often: this looks at them all, once for all these packages.
    """
    theirs = f"package_id IN ({', '.join(str(int(number)) for number in package_ids)})"
    held = connection.exec_driver_sql(
        f"SELECT DISTINCT digest FROM object_owners JOIN objects ON id = object_id WHERE {theirs}"  # noqa: S608 -- numbers
    )
    digests = [row[0] for row in held]
    connection.exec_driver_sql(f"DELETE FROM object_owners WHERE {theirs}")  # noqa: S608
    mark_unreferenced(connection, digests, now)


def forget_published(connection: sa.Connection, package_hash: str) -> None:
    """Delete the row of a package's published copy, if there is one; its objects lose an owner."""
    package_id = connection.execute(
        sa.select(packages.c.id).where(packages.c.package_hash == package_hash)
    ).scalar()
    if package_id is not None:
        forget_owners(connection, [package_id], clock.now())
        connection.execute(sa.delete(packages).where(packages.c.id == package_id))


def mark_unreferenced(connection: sa.Connection, digests: list[bytes], now: int) -> None:
    """Note since when objects belong to nobody, those of ``digests`` that do."""
    if digests:
        connection.exec_driver_sql(
            "UPDATE objects SET unreferenced_since = ? WHERE digest = ?"
            " AND unreferenced_since IS NULL"
            " AND NOT EXISTS (SELECT 1 FROM object_owners WHERE object_id = objects.id)",
            [(now, digest) for digest in digests],
        )


def insert_owners(connection: sa.Connection, package_id: int, digests: list[bytes]) -> list[bytes]:
    """Note which objects a package holds; they are referenced from now on.

    Returns:
        Those that have no row, and so could not be noted.
    """
    if not digests:
        return []
    # The digests go over as one value and are cut up in the database: a third of the time
    # that one statement a digest takes.
    inserted = connection.exec_driver_sql(
        "WITH RECURSIVE cut(at) AS (SELECT 1 UNION ALL SELECT at + 32 FROM cut WHERE at + 32 < ?1)"
        " INSERT INTO object_owners(object_id, package_id)"
        " SELECT id, ?2 FROM cut JOIN objects ON digest = substr(?3, at, 32)",
        (32 * len(digests), package_id, b"".join(digests)),
    ).rowcount
    if inserted != len(digests):
        return _without_row(connection, digests)
    connection.exec_driver_sql(
        "UPDATE objects SET unreferenced_since = NULL WHERE unreferenced_since IS NOT NULL"
        " AND EXISTS (SELECT 1 FROM object_owners WHERE object_id = objects.id)"
    )
    return []
