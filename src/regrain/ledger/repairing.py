"""The statements of ``verify --repair``."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import sqlalchemy as sa

from regrain.ledger.checked import whole
from regrain.ledger.recording import NANOSECONDS, forget_published, insert_objects, remember
from regrain.ledger.schema import packages, store_migration
from regrain.model import clock
from regrain.model.status import Status

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from regrain.ledger.rows import NewCarrier


class RecordedList(NamedTuple):
    """What the ledger knows of a published package.

    Attributes:
        tree_hash: Of its tree.
        list_hash: Of the bytes of its file list.
    """

    tree_hash: str
    list_hash: str


class CarrierRow(NamedTuple):
    """A recorded carrier.

    Attributes:
        mode: Its mode.
        is_bare: Whether it has the bare name.
        mtime_ns: Its modification time.
    """

    mode: int
    is_bare: bool
    mtime_ns: int


class Repairing:
    """The part of the ledger that a repair uses."""

    def _transaction(self) -> AbstractContextManager[sa.Connection]:
        raise NotImplementedError

    def recorded_lists(self) -> dict[str, RecordedList]:
        """Return what is known of every published package, by hash."""
        query = sa.select(packages.c.package_hash, packages.c.tree_hash, packages.c.list_hash)
        with self._transaction() as connection:
            return {
                row.package_hash: RecordedList(row.tree_hash, row.list_hash)
                for row in connection.execute(query)
            }

    def carriers_of(self, digest: bytes) -> tuple[list[CarrierRow], bool]:
        """Return the recorded plain carriers of an object, and whether a package holds it."""
        with self._transaction() as connection:
            rows = connection.exec_driver_sql(
                "SELECT mode, is_bare, mtime_seconds, mtime_nanoseconds FROM carriers"
                " JOIN objects ON id = object_id WHERE digest = ? AND NOT is_compressed"
                " ORDER BY mode",
                (digest,),
            ).all()
            held = connection.exec_driver_sql(
                "SELECT 1 FROM object_owners JOIN objects ON id = object_id WHERE digest = ?",
                (digest,),
            ).first()
            found = [
                CarrierRow(whole(r[0]), bool(r[1]), whole(r[2]) * NANOSECONDS + whole(r[3]))
                for r in rows
            ]
            return found, held is not None

    def carriers_are(
        self, digest: bytes, found: Sequence[NewCarrier], *, keep_others: bool
    ) -> None:
        """Record the carriers that an object has now.

        Args:
            digest: The object.
            found: They.
            keep_others: Whether rows of others stay, since those should be there, too.
        """
        with self._transaction() as connection:
            if not keep_others:
                connection.exec_driver_sql(
                    "DELETE FROM carriers WHERE object_id ="
                    " (SELECT id FROM objects WHERE digest = ?)",
                    (digest,),
                )
            now = clock.now()
            insert_objects(connection, found, now)
            connection.exec_driver_sql(
                "UPDATE objects SET unreferenced_since = ? WHERE digest = ?"
                " AND unreferenced_since IS NULL AND NOT EXISTS"
                " (SELECT 1 FROM object_owners WHERE object_id = objects.id)",
                (now, digest),
            )

    def published_copy_lost(self, package_hash: str, why: str) -> None:
        """Note that nothing of a package is published any more: it is to be migrated again."""
        mine = store_migration.c.package_hash == package_hash
        with self._transaction() as connection:
            forget_published(connection, package_hash)
            connection.execute(
                sa.update(store_migration)
                .where(mine, store_migration.c.status != Status.IN_PROGRESS)
                .values(status=Status.PENDING.value, cleaned_at=None, freed_bytes=None)
            )
            remember(connection, "package_unpublished", package_hash, why)
