"""The statements that add up bytes: what contents weigh, and how much was migrated."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import sqlalchemy as sa

_BEFORE = (
    "SELECT (SELECT COALESCE(SUM(allocated_bytes), 0) FROM store_migration) +"
    " (SELECT COALESCE(SUM(size), 0) FROM store_refs"
    " WHERE hash NOT IN (SELECT package_hash FROM store_migration))"
)
_FILES = (
    "SELECT COALESCE(SUM(size), 0) FROM store_refs"
    " WHERE hash IN (SELECT package_hash FROM packages)"
)
_OBJECTS = "SELECT COALESCE(SUM(size), 0) FROM objects WHERE unreferenced_since IS NULL"
_COMPRESSED = (
    "SELECT COALESCE(SUM(size), 0) FROM objects JOIN carriers ON object_id = id WHERE is_compressed"
)
_MIGRATED = (
    "SELECT COALESCE(SUM(byte_count), 0) FROM store_migration"
    " WHERE excluded = 0 AND status = 'completed'"
)
_QUERIES = (_BEFORE, _FILES, _OBJECTS, _COMPRESSED)


class Weights(NamedTuple):
    """Sums over what is published.

    Attributes:
        before: Bytes on disk of all legacy directories as they were found; of packages that
            never had one, the bytes of their files.
        files: Bytes of all files of published packages, each path counted.
        objects: Bytes of the objects these have.
        compressed: Bytes of those that have a compressed carrier.
    """

    before: int
    files: int
    objects: int
    compressed: int


class Weighing:
    """The part of the ledger that adds up bytes."""

    def _transaction(self) -> AbstractContextManager[sa.Connection]:
        raise NotImplementedError

    def weights(self) -> Weights:
        """Return the sums."""
        with self._transaction() as connection:
            return Weights(*(connection.exec_driver_sql(query).scalar_one() for query in _QUERIES))

    def bytes_migrated(self) -> int:
        """Return ``st_size`` of the files of all packages that are migrated."""
        with self._transaction() as connection:
            return int(connection.exec_driver_sql(_MIGRATED).scalar_one())
