"""Every statement the ledger runs, each method one transaction."""

from __future__ import annotations

import contextlib
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from regrain.ledger import failures
from regrain.ledger.checked import raw_digest, status_of, whole
from regrain.ledger.keeping import NOT_ON_ITS_WAY_OUT, Keeping
from regrain.ledger.lifecycle import Lifecycle
from regrain.ledger.recording import (
    NANOSECONDS,
    UnrecordedObjectsError,
    insert_objects,
    insert_owners,
    insert_package,
    mark_unreferenced,
    remember,
)
from regrain.ledger.repairing import Repairing
from regrain.ledger.rows import Claim, NewCarrier, Outcome, PackageRow, Pending, Scanned, Totals
from regrain.ledger.schema import objects, packages, store_migration
from regrain.ledger.undoing import Undoing
from regrain.ledger.weighing import Weighing
from regrain.model import clock
from regrain.model.status import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

_m = store_migration.c
_CLAIM_COLUMNS = (
    _m.id,
    _m.package_hash,
    _m.name,
    _m.version,
    _m.file_count,
    _m.byte_count,
    _m.allocated_bytes,
    _m.attempts,
    _m.cuts,
    _m.inode_count,
)
_PENDING = (
    sa.select(*_CLAIM_COLUMNS)
    .where(_m.status == Status.PENDING, _m.excluded == 0, sa.text(NOT_ON_ITS_WAY_OUT))
    .order_by(_m.byte_count, _m.id)
)
_PIECE = 5000


class Ledger(Keeping, Lifecycle, Undoing, Repairing, Weighing):
    """An open ledger. One connection; use it from one thread."""

    def __init__(self, engine: sa.Engine, words: failures.Words = failures.translated) -> None:
        self._engine, self._words = engine, words

    def close(self) -> None:
        """Close the database."""
        self._engine.dispose()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        """One ``BEGIN IMMEDIATE`` … ``COMMIT``; the database's errors in our words."""
        try:
            with self._engine.begin() as connection:
                yield connection
        except (sa.exc.DatabaseError, UnicodeDecodeError) as error:
            raise self._words(error) from error

    # queueing and claiming

    def queue(self, scanned: Iterable[Scanned]) -> int:
        """Add packages as pending; those already known keep their state.

        Returns:
            How many were new.
        """
        now = clock.now()
        added = 0
        with self._transaction() as connection:
            for item in scanned:
                connection.exec_driver_sql(
                    "INSERT INTO store_refs(hash, ref_count, size, created_at) "
                    "VALUES (?, 1, ?, ?) ON CONFLICT DO NOTHING",
                    (item.package_hash, item.size, now),
                )
                added += connection.exec_driver_sql(
                    "INSERT INTO store_migration(package_hash, status, name, version, file_count,"
                    " byte_count, allocated_bytes, inode_count, cuts)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                    (
                        item.package_hash,
                        Status.PENDING.value,
                        item.name,
                        item.version,
                        item.files,
                        item.size,
                        item.allocated,
                        item.inodes,
                        b"\0".join(item.cuts) or None,
                    ),
                ).rowcount
        return added

    def known_packages(self) -> set[str]:
        """Return the hashes of all packages that have or had a legacy directory."""
        with self._transaction() as connection:
            return set(connection.scalars(sa.select(_m.package_hash)))

    def claim(
        self,
        limit: int,
        *,
        only: str | None = None,
        files_max: int | None = None,
        fits: Callable[[Claim], bool] | None = None,
    ) -> list[Claim]:
        """Take up to ``limit`` pending packages, the smallest first, and mark them.

        Args:
            limit: How many.
            only: A glob that a package's name or hash must match.
            files_max: How many files they may have together; one package is always taken.
            fits: Asked of each in turn; what does not fit is passed over.
        """
        if limit < 1:
            return []
        with self._transaction() as connection:
            query = _PENDING.limit(limit) if only is None and fits is None else _PENDING
            chosen: list[Claim] = []
            files = 0
            for row in connection.execute(query):
                is_wanted = only is None or matches(row.package_hash, row.name, only)
                claim = _claim(row)
                if is_wanted and (fits is None or fits(claim)):
                    files += claim.files
                    if chosen and files_max is not None and files > files_max:
                        break
                    chosen.append(claim)
                if len(chosen) == limit:
                    break
            connection.exec_driver_sql(
                "UPDATE store_migration SET status = 'in_progress', started_at = ?,"
                " attempts = attempts + 1, error_message = NULL, error_path = NULL WHERE id = ?",
                [(clock.now(), claim.package_id) for claim in chosen],
            ) if chosen else None
        return chosen

    def pending(self, *, only: str | None = None, limit: int | None = None) -> Pending:
        """Return what ``claim`` would take, one call after another."""
        count = files = size = allocated = 0
        with self._transaction() as connection:
            for row in connection.execute(_PENDING):
                if count == limit:
                    break
                if only is None or matches(row.package_hash, row.name, only):
                    count, files, size = count + 1, files + row.file_count, size + row.byte_count
                    allocated += row.allocated_bytes
        return Pending(count, files, size, allocated)

    def in_progress(self) -> list[Claim]:
        """Return the packages a run left claimed."""
        with self._transaction() as connection:
            query = sa.select(*_CLAIM_COLUMNS).where(_m.status == Status.IN_PROGRESS)
            return [_claim(row) for row in connection.execute(query)]

    def give_up(self, package_hashes: Iterable[str]) -> None:
        """Put claimed packages back to pending."""
        with self._transaction() as connection:
            for name in package_hashes:
                connection.execute(
                    sa.update(store_migration)
                    .where(_m.package_hash == name, _m.status == Status.IN_PROGRESS)
                    .values(status=Status.PENDING.value)
                )

    def fail(self, package_hash: str, message: str, path: bytes | None) -> bool:
        """Mark a claimed package as failed; False if it is claimed no more, or about to go."""
        with self._transaction() as connection:
            changed = connection.execute(
                sa.update(store_migration)
                .where(
                    _m.package_hash == package_hash,
                    _m.status == Status.IN_PROGRESS,
                    _m.excluded == 0,
                    sa.text(NOT_ON_ITS_WAY_OUT),
                )
                .values(
                    status=Status.FAILED.value,
                    completed_at=clock.now(),
                    error_message=message,
                    error_path=path,
                )
            ).rowcount
            if changed:
                remember(connection, "package_failed", package_hash, message)
            return bool(changed)

    def retry_failed(self, *, only: str | None = None) -> int:
        """Put failed packages (that match ``only``) back to pending; return how many."""
        count = 0
        query = sa.select(_m.id, _m.package_hash, _m.name).where(_m.status == Status.FAILED)
        with self._transaction() as connection:
            for row in connection.execute(query).all():
                if only is None or matches(row.package_hash, row.name, only):
                    connection.execute(
                        sa.update(store_migration)
                        .where(_m.id == row.id)
                        .values(status=Status.PENDING.value)
                    )
                    count += 1
        return count

    # recording what was published

    def record(self, outcomes: Sequence[Outcome], carriers: Sequence[NewCarrier]) -> None:
        """Record a published batch: objects, carriers, owners, status, in one transaction.

        Raises:
            UnrecordedObjectsError: Packages name objects without a row; nothing was recorded.
        """
        now = clock.now()
        without_row: list[bytes] = []
        with self._transaction() as connection:
            insert_objects(connection, carriers, now)
            for outcome in outcomes:
                package_id = insert_package(connection, outcome, now)
                without_row += insert_owners(connection, package_id, outcome.digests)
                connection.execute(
                    sa.update(store_migration)
                    .where(_m.package_hash == outcome.claim.package_hash)
                    .values(
                        status=Status.COMPLETED.value,
                        completed_at=now,
                        file_count=outcome.files,
                        byte_count=outcome.size,
                        space_saved=outcome.claim.allocated - outcome.added,
                        added_bytes=outcome.added,
                        deduplicated_files=outcome.deduplicated,
                        tree_hash=outcome.tree_hash,
                        verified_at=now if outcome.verified else None,
                    )
                )
            owned = {digest for outcome in outcomes for digest in outcome.digests}
            mark_unreferenced(
                connection, [c.digest for c in carriers if c.digest not in owned], now
            )
            if without_row:
                raise UnrecordedObjectsError(sorted(set(without_row)))

    def record_objects(self, carriers: Sequence[NewCarrier]) -> None:
        """Record objects that were found on disk without a row; no package owns them yet."""
        now = clock.now()
        with self._transaction() as connection:
            insert_objects(connection, carriers, now)
            connection.exec_driver_sql(
                "UPDATE objects SET unreferenced_since = ? WHERE unreferenced_since IS NULL"
                " AND NOT EXISTS (SELECT 1 FROM object_owners WHERE object_id = objects.id)",
                (now,),
            )

    def carriers_in(self, shard: str) -> dict[tuple[bytes, int, bool], tuple[int, int]]:
        """Return the recorded carriers in one shard of ``objects/``.

        By raw digest, mode, and whether it is compressed: the object's size, and the
        modification time in ns.
        """
        first = bytes.fromhex(shard)
        with self._transaction() as connection:
            rows = connection.exec_driver_sql(
                "SELECT digest, mode, is_compressed, size, mtime_seconds, mtime_nanoseconds"
                " FROM objects JOIN carriers ON object_id = id WHERE digest >= ? AND digest <= ?",
                (first, first + b"\xff" * 32),
            )
            return {
                (raw_digest(row[0]), whole(row[1]), bool(row[2])): (
                    whole(row[3]),
                    whole(row[4]) * NANOSECONDS + whole(row[5]),
                )
                for row in rows
            }

    # asking

    def totals(self) -> Totals:
        """Return sums over all packages."""
        with self._transaction() as connection:
            rows = connection.exec_driver_sql(
                "SELECT status, COUNT(*), SUM(file_count), SUM(byte_count), SUM(allocated_bytes),"
                " SUM(deduplicated_files), SUM(space_saved) FROM store_migration"
                " WHERE excluded = 0 GROUP BY status"
            ).all()
            excluded = connection.exec_driver_sql(
                "SELECT COUNT(*), COALESCE(SUM(allocated_bytes), 0) FROM store_migration"
                " WHERE excluded <> 0"
            ).one()
            objects_count = connection.exec_driver_sql("SELECT COUNT(*) FROM objects").scalar_one()
            carried = connection.exec_driver_sql(
                "SELECT COALESCE(SUM(allocated_bytes), 0) FROM carriers"
            ).scalar_one()
        done = [row for row in rows if row[0] == Status.COMPLETED]
        return Totals(
            by_status={status_of(row[0]): row[1] for row in rows},
            files=_total(rows, 2),
            files_done=_total(done, 2),
            deduplicated=_total(done, 5),
            bytes_total=_total(rows, 3),
            bytes_done=_total(done, 3),
            allocated=_total(rows, 4) + whole(excluded[1]),
            saved=_total(done, 6),
            objects=objects_count,
            carriers_allocated=whole(carried),
            excluded=excluded[0],
        )

    def package_rows(self, status: Status | None = None) -> Iterator[PackageRow]:
        """Yield the packages (in ``status``), by hash."""
        query = sa.select(store_migration).order_by(_m.package_hash)
        if status is not None:
            query = query.where(_m.status == status)
        with self._transaction() as connection:
            for row in connection.execute(query):
                yield _package_row(row)

    def package_row(self, package_hash: str) -> PackageRow | None:
        """Return one package, None if it never had a legacy directory."""
        with self._transaction() as connection:
            row = connection.execute(
                sa.select(store_migration).where(_m.package_hash == package_hash)
            ).first()
            return None if row is None else _package_row(row)

    def recorded_packages(self) -> dict[str, str]:
        """Return the hash of every recorded package's file list, by package."""
        with self._transaction() as connection:
            query = sa.select(packages.c.package_hash, packages.c.list_hash)
            return {row.package_hash: row.list_hash for row in connection.execute(query)}

    def object_sizes(self) -> Iterator[tuple[bytes, int]]:
        """Yield (raw digest, size) of every recorded object, by digest."""
        with self._transaction() as connection:
            query = sa.select(objects.c.digest, objects.c.size).order_by(objects.c.digest)
            for row in connection.execution_options(yield_per=_PIECE).execute(query):
                yield row.digest, row.size

    # history

    def remember(self, event: str, package_hash: str | None = None, detail: str = "") -> None:
        """Add a line to the history."""
        with self._transaction() as connection:
            remember(connection, event, package_hash, detail)


def matches(package_hash: str, name: str, glob: str) -> bool:
    """Tell whether a glob names a package, by its hash or its name."""
    return fnmatchcase(package_hash, glob) or fnmatchcase(name, glob)


def _claim(row: sa.Row[*tuple[Any, ...]]) -> Claim:
    return Claim(
        package_id=row.id,
        package_hash=row.package_hash,
        name=row.name,
        version=row.version,
        files=row.file_count,
        size=row.byte_count,
        allocated=row.allocated_bytes,
        attempts=row.attempts,
        cuts=tuple(row.cuts.split(b"\0")) if row.cuts else (),
        inodes=row.inode_count,
    )


def _total(rows: Sequence[sa.Row[tuple[object, ...]]], column: int) -> int:
    return sum(whole(row[column] or 0) for row in rows)


def _package_row(row: sa.Row[tuple[object, ...]]) -> PackageRow:
    m = row._mapping  # noqa: SLF001 -- SQLAlchemy's public name for it
    return PackageRow(
        package_hash=m["package_hash"],
        status=Status(m["status"]),
        name=m["name"],
        version=m["version"],
        files=m["file_count"] or 0,
        size=m["byte_count"],
        allocated=m["allocated_bytes"],
        space_saved=m["space_saved"],
        attempts=m["attempts"],
        started_at=m["started_at"],
        completed_at=m["completed_at"],
        error_message=m["error_message"],
        error_path=m["error_path"],
    )
