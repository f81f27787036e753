"""The statements of a store in use: packages that come and go, objects nobody holds."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

import sqlalchemy as sa

from regrain.ledger.checked import impossible, package_name, raw_digest, whole
from regrain.ledger.recording import (
    UnrecordedObjectsError,
    forget_published,
    insert_objects,
    insert_owners,
    insert_package,
    mark_unreferenced,
    remember,
)
from regrain.ledger.schema import integrity, intents, store_migration, store_refs
from regrain.model import clock
from regrain.model.status import Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from contextlib import AbstractContextManager

    from regrain.ledger.rows import NewCarrier, Outcome


class Intent(StrEnum):
    """What is being done to a package, written down before anything of it is.

    ``unlink``: its legacy directory was compared in the trash, and may be unlinked.
    """

    ADD = "add"
    REMOVE = "remove"
    EXCLUDE = "exclude"
    CLEANUP = "cleanup"
    UNLINK = "unlink"
    ROLLBACK = "rollback"
    PURGE = "purge"


_m = store_migration.c
NOT_ON_ITS_WAY_OUT = (
    "NOT EXISTS (SELECT 1 FROM intents WHERE intents.package_hash = store_migration.package_hash"
    " AND action IN ('remove', 'exclude'))"
)
_OWNED_BY_NONE = "NOT EXISTS (SELECT 1 FROM object_owners WHERE object_id = objects.id)"


class Unreferenced(NamedTuple):
    """An object that no package holds.

    Attributes:
        id: Of its row.
        digest: Raw.
        size: Its bytes.
        allocated: What its carriers take on disk.
        since: When its last package went, in Unix seconds.
        modes: Of its carriers.
    """

    id: int
    digest: bytes
    size: int
    allocated: int
    since: int
    modes: tuple[int, ...]


class Keeping:
    """The part of the ledger that adding, removing and collecting use."""

    def _transaction(self) -> AbstractContextManager[sa.Connection]:
        raise NotImplementedError

    # packages that come

    def record_added(self, outcome: Outcome, carriers: Sequence[NewCarrier]) -> None:
        """Record a package that was published without ever having had a legacy directory.

        Raises:
            UnrecordedObjectsError: It names objects without a row; nothing was recorded.
        """
        now = clock.now()
        name = outcome.claim.package_hash
        with self._transaction() as connection:
            insert_objects(connection, carriers, now)
            connection.exec_driver_sql(
                "INSERT INTO store_refs(hash, ref_count, size, created_at) "
                "VALUES (?, 1, ?, ?) ON CONFLICT DO NOTHING",
                (name, outcome.size, now),
            )
            package_id = insert_package(connection, outcome, now)
            without_row = insert_owners(connection, package_id, outcome.digests)
            if without_row:
                raise UnrecordedObjectsError(without_row)
            owned = set(outcome.digests)
            mark_unreferenced(
                connection, [c.digest for c in carriers if c.digest not in owned], now
            )
            _fulfil(connection, name, Intent.ADD)
            remember(connection, "package_added", name, f"{outcome.files} files")

    def still_claimed(self, package_hashes: Iterable[str]) -> set[str]:
        """Return those that may be published: claimed, and neither removed nor excluded since."""
        query = (
            "SELECT 1 FROM store_migration WHERE package_hash = ? AND status = 'in_progress'"  # noqa: S608 -- constants
            f" AND excluded = 0 AND {NOT_ON_ITS_WAY_OUT}"
        )
        with self._transaction() as connection:
            return {
                name
                for name in package_hashes
                if connection.exec_driver_sql(query, (name,)).first()
            }

    # packages that go

    def intend(self, package_hash: str, action: Intent) -> None:
        """Write down what will be done to a package, before anything of it is.

        Whoever may do that has finished what was intended before.
        """
        with self._transaction() as connection:
            connection.exec_driver_sql(
                "INSERT INTO intents(package_hash, action, created_at) VALUES (?, ?, ?)"
                " ON CONFLICT(package_hash) DO UPDATE SET action = excluded.action",
                (package_hash, action.value, clock.now()),
            )

    def intents(self) -> dict[str, Intent]:
        """Return what was to be done and is not known to have been: action by package."""
        with self._transaction() as connection:
            query = sa.select(intents.c.package_hash, intents.c.action).order_by(intents.c.id)
            return {row.package_hash: _intent(row.action) for row in connection.execute(query)}

    def fulfilled(self, package_hash: str, action: Intent) -> None:
        """Forget an intent that was carried out, or given up."""
        with self._transaction() as connection:
            _fulfil(connection, package_hash, action)

    def forget_package(self, package_hash: str) -> None:
        """Delete all rows of a package but its history; its objects lose an owner.

        That fulfils the intent to remove it: from now on the name is free.
        """
        with self._transaction() as connection:
            _fulfil(connection, package_hash, Intent.REMOVE)
            self._unpublish(connection, package_hash)
            connection.execute(sa.delete(store_migration).where(_m.package_hash == package_hash))
            connection.execute(sa.delete(store_refs).where(store_refs.c.hash == package_hash))
            remember(connection, "package_removed", package_hash, "")

    def _unpublish(self, connection: sa.Connection, package_hash: str) -> None:
        forget_published(connection, package_hash)
        connection.execute(sa.delete(integrity).where(integrity.c.package_hash == package_hash))

    # packages set aside

    def exclude(self, package_hash: str) -> None:
        """Set a package aside: not published any more, not taken by a migration.

        Its legacy directory is there, whatever was known of it before.
        """
        with self._transaction() as connection:
            _fulfil(connection, package_hash, Intent.EXCLUDE)
            self._unpublish(connection, package_hash)
            connection.execute(
                sa.update(store_migration)
                .where(_m.package_hash == package_hash)
                .values(excluded=1, cleaned_at=None, freed_bytes=None)
            )
            connection.execute(
                sa.update(store_migration)
                .where(
                    _m.package_hash == package_hash,
                    _m.status.not_in((Status.PENDING.value, Status.IN_PROGRESS.value)),
                )
                .values(status=Status.PENDING.value)
            )
            remember(connection, "package_excluded", package_hash, "")

    def include(self, package_hash: str) -> None:
        """Undo ``exclude``: the next migration takes the package."""
        with self._transaction() as connection:
            connection.execute(
                sa.update(store_migration).where(_m.package_hash == package_hash).values(excluded=0)
            )
            remember(connection, "package_included", package_hash, "")

    def excluded(self) -> set[str]:
        """Return the packages that are set aside."""
        with self._transaction() as connection:
            return set(connection.scalars(sa.select(_m.package_hash).where(_m.excluded == 1)))

    # objects

    def exclusive(self, package_hash: str) -> tuple[int, int]:
        """Return how many objects only this package holds, and the bytes they take on disk."""
        with self._transaction() as connection:
            row = connection.exec_driver_sql(
                "SELECT COUNT(DISTINCT held.object_id), COALESCE(SUM(allocated_bytes), 0)"
                " FROM object_owners AS held"
                " JOIN packages ON packages.id = held.package_id"
                " LEFT JOIN carriers ON carriers.object_id = held.object_id"
                " WHERE package_hash = ? AND NOT EXISTS (SELECT 1 FROM object_owners AS other"
                "  WHERE other.object_id = held.object_id"
                "  AND other.package_id <> held.package_id)",
                (package_hash,),
            ).one()
            return int(row[0]), int(row[1])

    def owners(self, digest: bytes) -> list[str]:
        """Return the hashes of the packages that hold an object."""
        with self._transaction() as connection:
            rows = connection.exec_driver_sql(
                "SELECT package_hash FROM packages"
                " JOIN object_owners ON package_id = packages.id"
                " JOIN objects ON objects.id = object_id WHERE digest = ? ORDER BY 1",
                (digest,),
            )
            return [package_name(name) for name in rows.scalars()]

    def object_size(self, digest: bytes) -> int | None:
        """Return the size of a recorded object, None if there is no such row."""
        with self._transaction() as connection:
            query = "SELECT size FROM objects WHERE digest = ?"
            found = connection.exec_driver_sql(query, (digest,)).scalar()
            return None if found is None else whole(found)

    def unreferenced(self, before: int) -> list[Unreferenced]:
        """Return objects that nobody has held since ``before`` or longer, the longest first.

        References decide: an object that has an owner is none of them, whatever else its
        row says.
        """
        with self._transaction() as connection:
            rows = connection.exec_driver_sql(
                "SELECT id, digest, size, COALESCE(SUM(allocated_bytes), 0), unreferenced_since,"  # noqa: S608 -- constants
                f" COALESCE({_joined(connection)}, '')"
                " FROM objects LEFT JOIN carriers ON object_id = id"
                f" WHERE unreferenced_since <= ? AND {_OWNED_BY_NONE}"
                " GROUP BY id ORDER BY unreferenced_since, id",
                (before,),
            )
            return [
                Unreferenced(
                    row[0],
                    digest=raw_digest(row[1]),
                    size=whole(row[2]),
                    allocated=whole(row[3]),
                    since=whole(row[4]),
                    modes=_modes(row[5]),
                )
                for row in rows
            ]

    def forget_objects(self, ids: Sequence[int]) -> None:
        """Delete the rows of objects that nobody holds and that are gone."""
        with self._transaction() as connection:
            rows = [(number,) for number in ids]
            if rows:
                connection.exec_driver_sql("DELETE FROM carriers WHERE object_id = ?", rows)
                connection.exec_driver_sql(
                    f"DELETE FROM objects WHERE id = ? AND {_OWNED_BY_NONE}",  # noqa: S608
                    rows,
                )

    def represented(
        self, new: Sequence[NewCarrier], gone: Sequence[tuple[bytes, int, bool]]
    ) -> None:
        """Record carriers that take the place of others, before those go from the disk.

        What that saves counts for the first package that holds the object, which brought it.

        Args:
            new: What there is now.
            gone: What it replaces, by raw digest, mode, and whether it is compressed.
        """
        which = "(SELECT id FROM objects WHERE digest = ?)"
        one = f"object_id = {which} AND mode = ? AND is_compressed = ?"
        with self._transaction() as connection:
            now = clock.now()
            before = {digest: _allocated(connection, digest) for digest, *_ in gone}
            insert_objects(connection, new, now)
            mark_unreferenced(connection, [carrier.digest for carrier in new], now)
            if gone:
                connection.exec_driver_sql(f"DELETE FROM carriers WHERE {one}", list(gone))  # noqa: S608 -- constants
            for digest, allocated in before.items():
                saved = allocated - _allocated(connection, digest)
                connection.exec_driver_sql(
                    "UPDATE store_migration SET space_saved = space_saved + ?1,"
                    " added_bytes = added_bytes - ?1 WHERE package_hash ="
                    " (SELECT package_hash FROM packages JOIN object_owners"
                    "  ON package_id = packages.id JOIN objects ON objects.id = object_id"
                    "  WHERE digest = ?2 ORDER BY packages.id LIMIT 1)",
                    (saved, digest),
                )

    def objects_allocated(self) -> int:
        """Return the bytes on disk of all recorded carriers."""
        with self._transaction() as connection:
            query = "SELECT COALESCE(SUM(allocated_bytes), 0) FROM carriers"
            return int(connection.exec_driver_sql(query).scalar_one())


def _joined(connection: sa.Connection) -> str:
    """Return the aggregate that joins modes with commas: its name differs."""
    words = sa.func.aggregate_strings(sa.cast(sa.column("mode"), sa.Text), ",")
    return str(words.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True}))


def _modes(listed: str) -> tuple[int, ...]:
    words = [word for word in listed.split(",") if word]
    return tuple(int(word) if word.isdecimal() else impossible("mode", word) for word in words)


def _allocated(connection: sa.Connection, digest: bytes) -> int:
    """Return what the recorded carriers of an object take on disk."""
    found = connection.exec_driver_sql(
        "SELECT COALESCE(SUM(allocated_bytes), 0) FROM carriers"
        " JOIN objects ON id = object_id WHERE digest = ?",
        (digest,),
    ).scalar_one()
    return int(found)


def _intent(word: object) -> Intent:
    try:
        return Intent(word)  # type: ignore[arg-type]
    except ValueError:
        impossible("intent", word)


def _fulfil(connection: sa.Connection, package_hash: str, action: Intent) -> None:
    done = (intents.c.package_hash == package_hash) & (intents.c.action == action.value)
    connection.execute(sa.delete(intents).where(done))
