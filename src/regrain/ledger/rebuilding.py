"""What it takes to judge a ledger, and to write a new one from what lies on disk."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import sqlalchemy as sa

from regrain.errors import CorruptionError
from regrain.ledger.checked import is_package, package_name, raw_digest
from regrain.ledger.connection import BUSY_SECONDS, SAFE_VERSION, driver, quiet_uri, reading_uri
from regrain.ledger.failures import translated
from regrain.ledger.keeping import Intent
from regrain.ledger.queries import Ledger
from regrain.ledger.recording import insert_objects, insert_owners, insert_package
from regrain.ledger.schema import create_schema, store_migration
from regrain.model import clock
from regrain.model.status import Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from regrain.ledger.rows import NewCarrier, Outcome

_WAY_TO = {
    Status.PENDING: (),
    Status.COMPLETED: (Status.IN_PROGRESS, Status.COMPLETED),
    Status.ROLLED_BACK: (Status.IN_PROGRESS, Status.COMPLETED, Status.ROLLED_BACK),
}
"""The legal moves by which a queued package gets where the disk says it is."""

_CUT = (
    "WITH RECURSIVE cut(at) AS (SELECT 1 UNION ALL SELECT at + 32 FROM cut"
    " WHERE at + 32 <= length(?1))"
)
"""Cuts the digests that go over as one value up again."""

_SUM_MODULUS = 1 << 256
_ACTIONS = frozenset(Intent)


class SqliteVersion(NamedTuple):
    """The SQLite in use.

    Attributes:
        text: Its version.
        is_safe: Whether it is free of the defect that can corrupt a write-ahead log.
        journal_mode: The mode in which a ledger is written with it.
    """

    text: str
    is_safe: bool
    journal_mode: str


def judge_sqlite(numbers: tuple[int, ...]) -> SqliteVersion:
    """Judge a version of SQLite, as ``open_ledger`` does."""
    is_safe = numbers >= SAFE_VERSION
    return SqliteVersion(".".join(map(str, numbers)), is_safe, "WAL" if is_safe else "DELETE")


def sqlite_in_use() -> SqliteVersion:
    """Return the SQLite this process works with."""
    return judge_sqlite(driver().sqlite_version_info)


class OwnerSum(NamedTuple):
    """Stands for a set of objects: how many, and the sum of their digests as numbers."""

    number: int
    total: int


NO_OWNED = OwnerSum(0, 0)


def owner_sum(digests: Iterable[bytes], before: OwnerSum = NO_OWNED) -> OwnerSum:
    """Add digests to a sum; sets of hashes with the same sum are the same set."""
    number, total = before
    for digest in digests:
        number, total = number + 1, (total + int.from_bytes(digest)) % _SUM_MODULUS
    return OwnerSum(number, total)


class Inspection:
    """A database looked into read-only, whatever its schema is.

    Rows that nobody wrote so are passed over where what is asked for is what still counts.

    Args:
        path: Its file.
        leave_log: Leave its log as it is, too; nobody else may be writing then.

    Raises:
        CorruptionError: From every method: it cannot be read.
    """

    def __init__(self, path: str, *, leave_log: bool = False) -> None:
        self._path = path
        place = quiet_uri(path) if leave_log else reading_uri(path)
        with self._translated():
            self._connection = driver().connect(place, uri=True, timeout=BUSY_SECONDS)
            self._connection.execute("PRAGMA query_only = ON")

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the database."""
        self._connection.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except UnicodeDecodeError as error:
            raise translated(error, self._path) from error
        except driver().Error as error:
            raise CorruptionError(
                "the ledger cannot be read", path=self._path, why=str(error)
            ) from error

    def _rows(self, query: str) -> Iterator[tuple[Any, ...]]:
        with self._translated():
            yield from self._connection.execute(query)

    def revision(self) -> str | None:
        """Return the revision of its schema, None where it is no ledger."""
        known = "SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'"
        if not list(self._rows(known)):
            return None
        found = list(self._rows("SELECT version_num FROM alembic_version"))
        return str(found[0][0]) if found else None

    def problems(self) -> list[str]:
        """Return what SQLite itself finds wrong; empty if nothing."""
        found = [str(row[0]) for row in self._rows("PRAGMA quick_check(20)")]
        if found != ["ok"]:
            return found
        return [
            f"a row of {row[0]} refers to a row of {row[2]} that is not there"
            for row in self._rows("PRAGMA foreign_key_check")
        ]

    def description(self) -> dict[str, object]:
        """Return what ``doctor`` tells of a ledger in a server; nothing of a file."""
        return {}

    def owner_sums(self) -> dict[str, OwnerSum]:
        """Return what each package owns; rows of a package without a name come as ``""``."""
        sums: dict[str, OwnerSum] = {}
        for name, digest in self._rows(
            "SELECT COALESCE(package_hash, ''), digest FROM object_owners"
            " JOIN objects ON objects.id = object_id"
            " LEFT JOIN packages ON packages.id = package_id"
        ):
            known = name if name == "" else package_name(name)
            sums[known] = owner_sum((raw_digest(digest),), sums.get(known, NO_OWNED))
        return sums

    def history(self) -> Iterator[tuple[int, str, str | None, str]]:
        """Yield when, which event, which package, details; oldest first."""
        query = "SELECT at, event, package_hash, detail FROM history ORDER BY id"
        for at, event, package_hash, detail in self._rows(query):
            if isinstance(at, int):
                yield (
                    at,
                    str(event),
                    None if package_hash is None else str(package_hash),
                    str(detail),
                )

    def excluded(self) -> Iterator[str]:
        """Yield the packages that are set aside."""
        for (name,) in self._rows("SELECT package_hash FROM store_migration WHERE excluded <> 0"):
            if is_package(name):
                yield name

    def intents(self) -> Iterator[tuple[str, str, int]]:
        """Yield which package, which action, when it was intended."""
        for name, action, at in self._rows(
            "SELECT package_hash, action, created_at FROM intents ORDER BY id"
        ):
            if is_package(name) and action in _ACTIONS and isinstance(at, int):
                yield name, action, at

    def integrity(self) -> Iterator[tuple[str, str, int]]:
        """Yield which package something stands against, what, since when."""
        for name, what, at in self._rows("SELECT package_hash, what, found_at FROM integrity"):
            if is_package(name) and isinstance(at, int):
                yield name, str(what), at


class NewLedger(Ledger):
    """A ledger in the making, beside the one it will replace.

    Nobody else knows it yet, so nothing is flushed; who renames it into place does that.
    """

    @classmethod
    def create(cls, path: str) -> Self:
        """Make an empty one at ``path``, where nothing may be."""
        module = driver()
        engine = sa.create_engine(
            "sqlite+pysqlite://",
            creator=lambda: module.connect(path, isolation_level=None),
            module=module,
            poolclass=sa.pool.StaticPool,
        )

        @sa.event.listens_for(engine, "connect")
        def configure(connection: Any, _: object) -> None:  # noqa: ANN401 -- the driver's own type
            cursor = connection.cursor()
            cursor.execute("PRAGMA journal_mode = MEMORY")
            cursor.execute("PRAGMA synchronous = OFF")
            cursor.execute("PRAGMA foreign_keys = ON")
            cursor.execute("PRAGMA cache_size = -32768")
            cursor.execute("PRAGMA temp_store = MEMORY")
            cursor.close()

        @sa.event.listens_for(engine, "begin")
        def begin(connection: sa.Connection) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE")

        new = cls(engine)
        with new._transaction() as connection:
            create_schema(connection)
        return new

    def finish(self) -> None:
        """See that it may be the ledger from now on."""

    def discard(self) -> None:
        """Leave nothing of it; of a file who made its directory removes it."""

    def add_carriers(self, carriers: Sequence[NewCarrier]) -> None:
        """Add carriers that were found, and their objects."""
        with self._transaction() as connection:
            insert_objects(connection, carriers, clock.now())

    def sizes_of(self, digests: Sequence[bytes]) -> dict[bytes, int]:
        """Return the sizes of those objects that have a row."""
        if not digests:
            return {}
        with self._transaction() as connection:
            rows = connection.exec_driver_sql(
                f"{_CUT} SELECT digest, size FROM cut"  # noqa: S608 -- a constant
                " JOIN objects ON digest = substr(?1, at, 32)",
                (b"".join(digests),),
            )
            return {row[0]: row[1] for row in rows}

    def publish(self, outcome: Outcome, published_at: int, status: Status) -> None:
        """Add a published package with its owners; objects without a row are left out.

        Args:
            outcome: The package; ``added`` is what its own directory takes and
                ``deduplicated`` how many files have bytes. Objects that no package before
                it owned are counted as brought in by it: added to the one, taken from the
                other.
            published_at: When it was.
            status: Where the package stands, if it was queued from a legacy directory.
        """
        name = outcome.claim.package_hash
        with self._transaction() as connection:
            connection.exec_driver_sql(
                "INSERT INTO store_refs(hash, ref_count, size, created_at)"
                " VALUES (?, 1, ?, ?) ON CONFLICT DO NOTHING",
                (name, outcome.size, clock.now()),
            )
            package_id = insert_package(connection, outcome, published_at)
            count, allocated = _brought(connection, outcome.digests)
            insert_owners(connection, package_id, outcome.digests)
            for step in _WAY_TO[status]:
                connection.exec_driver_sql(
                    "UPDATE store_migration SET status = ? WHERE package_hash = ?",
                    (step.value, name),
                )
            if status is Status.PENDING:
                return
            added = outcome.added + allocated
            connection.execute(
                sa.update(store_migration)
                .where(store_migration.c.package_hash == name)
                .values(
                    completed_at=published_at,
                    attempts=1,
                    file_count=outcome.files,
                    byte_count=outcome.size,
                    space_saved=store_migration.c.allocated_bytes - added,
                    added_bytes=added,
                    deduplicated_files=outcome.deduplicated - count,
                    tree_hash=outcome.tree_hash,
                )
            )

    def take_over(
        self,
        excluded: Sequence[str],
        intents: Sequence[tuple[str, str, int]],
        integrity: Sequence[tuple[str, str, int]],
    ) -> None:
        """Set packages aside, note what was begun and what stands against them.

        As another ledger had it: only a clean verification takes the last back. What it says
        of packages that are no more is left out.
        """
        with self._transaction() as connection:
            for name in excluded:
                connection.exec_driver_sql(
                    "UPDATE store_migration SET excluded = 1 WHERE package_hash = ?", (name,)
                )
            for row in intents:
                connection.exec_driver_sql(
                    "INSERT INTO intents(package_hash, action, created_at) VALUES (?, ?, ?)"
                    " ON CONFLICT DO NOTHING",
                    row,
                )
            for row in integrity:
                connection.exec_driver_sql(
                    "INSERT INTO integrity(package_hash, what, found_at)"
                    " SELECT hash, ?2, ?3 FROM store_refs WHERE hash = ?1",
                    row,
                )

    def without_owner(self) -> list[bytes]:
        """Return the objects no package owns."""
        with self._transaction() as connection:
            return list(
                connection.exec_driver_sql(
                    "SELECT digest FROM objects WHERE NOT EXISTS"
                    " (SELECT 1 FROM object_owners WHERE object_id = objects.id) ORDER BY digest"
                ).scalars()
            )

    def drop_objects(self, digests: Iterable[bytes]) -> None:
        """Forget objects that turned out not to be what their names say."""
        named = [(digest,) for digest in digests]
        if not named:
            return
        which = "(SELECT id FROM objects WHERE digest = ?)"
        with self._transaction() as connection:
            for table in ("object_owners", "carriers"):
                connection.exec_driver_sql(
                    f"DELETE FROM {table} WHERE object_id = {which}",  # noqa: S608 -- constants
                    named,
                )
            connection.exec_driver_sql("DELETE FROM objects WHERE digest = ?", named)

    def mark_all_unreferenced(self) -> None:
        """Let the time of grace of objects without an owner begin now."""
        with self._transaction() as connection:
            connection.exec_driver_sql(
                "UPDATE objects SET unreferenced_since = ? WHERE NOT EXISTS"
                " (SELECT 1 FROM object_owners WHERE object_id = objects.id)",
                (clock.now(),),
            )

    def add_history(self, rows: Sequence[tuple[int, str, str | None, str]]) -> None:
        """Take over the history of the ledger before."""
        if rows:
            with self._transaction() as connection:
                connection.exec_driver_sql(
                    "INSERT INTO history(at, event, package_hash, detail) VALUES (?, ?, ?, ?)",
                    list(rows),
                )


def _brought(connection: sa.Connection, digests: Sequence[bytes]) -> tuple[int, int]:
    """Return how many carriers of ``digests`` nobody owns yet, and what they take on disk."""
    if not digests:
        return 0, 0
    count, allocated = connection.exec_driver_sql(
        f"{_CUT} SELECT COUNT(*), COALESCE(SUM(allocated_bytes), 0) FROM cut"  # noqa: S608
        " JOIN objects ON digest = substr(?1, at, 32) JOIN carriers ON object_id = objects.id"
        " WHERE NOT EXISTS (SELECT 1 FROM object_owners WHERE object_id = objects.id)",
        (b"".join(digests),),
    ).one()
    return count, allocated
