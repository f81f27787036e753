"""The statements of a store on its way: what cutover asks, what cleanup and rollback record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import sqlalchemy as sa

from regrain.ledger.recording import remember
from regrain.ledger.schema import history, integrity, packages, store_migration
from regrain.model import clock
from regrain.model.status import LEGACY_CHANGED, Status

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager

    from regrain.ledger.rows import Scanned

_m = store_migration.c

VANISHED = "source vanished: its legacy directory is gone and it was not published"


class Event(NamedTuple):
    """A line of the history."""

    at: int
    event: str
    detail: str


class Concern(NamedTuple):
    """What stands against a package.

    Attributes:
        what: It.
        found_at: When, in Unix seconds.
    """

    what: str
    found_at: int


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a package with a row of the migration is in the lifecycle of its directory.

    Attributes:
        package_hash: The package.
        status: Of its migration.
        is_excluded: Whether it is set aside.
        verified_at: When its published copy was last known to equal its source; or None.
        cleaned_at: When its legacy directory was found gone, or removed; or None.
        freed_bytes: What removing that freed.
        files: Regular files in it when it was last looked at; 0 if that is not known.
    """

    package_hash: str
    status: Status
    is_excluded: bool
    verified_at: int | None
    cleaned_at: int | None
    freed_bytes: int | None
    files: int = 0


class Lifecycle:
    """The part of the ledger that reconciliation, cutover, cleanup and rollback use."""

    def _transaction(self) -> AbstractContextManager[sa.Connection]:
        raise NotImplementedError

    # A: reconciliation, integrity, cutover

    def last_event(self, *kinds: str) -> Event | None:
        """Return the latest line of the history that is of one of these kinds.

        Lines are in the order they were written in, whatever the clock said.
        """
        query = sa.select(history.c.at, history.c.event, history.c.detail)
        with self._transaction() as connection:
            row = connection.execute(
                query.where(history.c.event.in_(kinds)).order_by(history.c.id.desc()).limit(1)
            ).first()
            return None if row is None else Event(row.at, row.event, row.detail)

    def events(self, *kinds: str) -> list[Event]:
        """Return all lines of the history that are of these kinds, the latest first."""
        query = sa.select(history.c.at, history.c.event, history.c.detail)
        with self._transaction() as connection:
            rows = connection.execute(
                query.where(history.c.event.in_(kinds)).order_by(history.c.id.desc())
            )
            return [Event(row.at, row.event, row.detail) for row in rows]

    def history_of(self, package_hash: str) -> list[Event]:
        """Return the history of one package, the oldest line first."""
        query = sa.select(history.c.at, history.c.event, history.c.detail)
        with self._transaction() as connection:
            rows = connection.execute(
                query.where(history.c.package_hash == package_hash).order_by(history.c.id)
            )
            return [Event(row.at, row.event, row.detail) for row in rows]

    def standings(self) -> dict[str, Standing]:
        """Return every package that has or had a legacy directory, by hash."""
        with self._transaction() as connection:
            return {
                row.package_hash: Standing(
                    row.package_hash,
                    Status(row.status),
                    is_excluded=bool(row.excluded),
                    verified_at=row.verified_at,
                    cleaned_at=row.cleaned_at,
                    freed_bytes=row.freed_bytes,
                    files=row.file_count or 0,
                )
                for row in connection.execute(
                    sa.select(
                        _m.package_hash,
                        _m.status,
                        _m.excluded,
                        _m.verified_at,
                        _m.cleaned_at,
                        _m.freed_bytes,
                        _m.file_count,
                    ).order_by(_m.package_hash)
                )
            }

    def last_completed(self) -> int:
        """Return when a package was last completed; 0 if none was."""
        with self._transaction() as connection:
            query = sa.select(sa.func.max(_m.completed_at)).where(_m.status == Status.COMPLETED)
            return int(connection.execute(query).scalar() or 0)

    def verified(self, package_hashes: Iterable[str]) -> None:
        """Note that the published copies of these packages were compared with their source."""
        with self._transaction() as connection:
            for name in package_hashes:
                connection.execute(
                    sa.update(store_migration)
                    .where(_m.package_hash == name, _m.status == Status.COMPLETED)
                    .values(verified_at=clock.now())
                )

    def concerns(self) -> dict[str, Concern]:
        """Return what stands against packages: damage, changed legacy directories."""
        with self._transaction() as connection:
            return {
                row.package_hash: Concern(row.what, row.found_at)
                for row in connection.execute(
                    sa.select(integrity).order_by(integrity.c.package_hash)
                )
            }

    def concern(self, package_hash: str, what: str) -> None:
        """Note what stands against a package; a matter of the other kind stays beside it."""
        with self._transaction() as connection:
            query = sa.select(integrity.c.what).where(integrity.c.package_hash == package_hash)
            before = connection.execute(query).scalar()
            words = _together(before, what)
            if words == before:
                return
            connection.execute(sa.delete(integrity).where(integrity.c.package_hash == package_hash))
            connection.execute(
                sa.insert(integrity).values(
                    package_hash=package_hash, what=words, found_at=clock.now()
                )
            )
            remember(connection, "integrity", package_hash, what)

    def clear_concerns(self, package_hashes: Iterable[str], *, legacy_too: bool) -> None:
        """Take back what stood against packages that were found clean.

        Args:
            package_hashes: Them.
            legacy_too: Whether their legacy directories were compared.
        """
        condition = sa.true() if legacy_too else integrity.c.what.not_like(f"{LEGACY_CHANGED}%")
        with self._transaction() as connection:
            for name in package_hashes:
                found = connection.execute(
                    sa.delete(integrity).where(integrity.c.package_hash == name, condition)
                )
                if found.rowcount:
                    remember(connection, "integrity_cleared", name, "verified")

    def legacy_mended(self, package_hash: str, rot: str) -> None:
        """Note that a legacy directory was made anew, exactly: nothing stands against it now.

        What stands against what is published stays.

        Args:
            package_hash: The package.
            rot: What was wrong with the one it replaces; empty if there was none.
        """
        mine = integrity.c.package_hash == package_hash
        with self._transaction() as connection:
            if rot:
                remember(connection, "legacy_healed", package_hash, f"{rot}; it is in quarantine")
            what = connection.execute(sa.select(integrity.c.what).where(mine)).scalar()
            if what is None or not what.startswith(LEGACY_CHANGED):
                return
            rest = what.partition("; ")[2]
            if rest:
                connection.execute(sa.update(integrity).where(mine).values(what=rest))
            else:
                connection.execute(sa.delete(integrity).where(mine))
            remember(connection, "integrity_cleared", package_hash, "made anew")

    def vanished(self, package_hash: str, *, is_published: bool) -> bool:
        """Note that a legacy directory is gone without our doing; False if that was known.

        A published package stays what it is, and nothing is left to be migrated of it, whatever
        was to be done. One that is not published has nothing left: it fails.
        """
        with self._transaction() as connection:
            known = connection.execute(
                sa.select(_m.status, _m.cleaned_at).where(_m.package_hash == package_hash)
            ).first()
            if known is None:
                return False
            mine = _m.package_hash == package_hash
            if is_published:
                if known.cleaned_at is not None:
                    return False
                connection.execute(
                    sa.update(store_migration)
                    .where(mine)
                    .values(cleaned_at=clock.now(), freed_bytes=0)
                )
                if known.status in _TO_COMPLETED:
                    _complete(connection, package_hash, Status(known.status))
            elif known.status == Status.FAILED:
                return False
            else:
                for status in _way_to_failed(Status(known.status)):
                    connection.execute(
                        sa.update(store_migration).where(mine).values(status=status.value)
                    )
                connection.execute(
                    sa.update(store_migration)
                    .where(mine)
                    .values(completed_at=clock.now(), error_message=VANISHED, error_path=None)
                )
            detail = "published, stays" if is_published else "not published"
            remember(connection, "legacy_vanished", package_hash, detail)
            return True

    def reappeared(self, package_hash: str) -> None:
        """Note that a legacy directory that was gone is there again, as it was."""
        with self._transaction() as connection:
            connection.execute(
                sa.update(store_migration)
                .where(_m.package_hash == package_hash)
                .values(cleaned_at=None, freed_bytes=None)
            )
            remember(connection, "legacy_reappeared", package_hash, "")

    def adopt_directory(self, item: Scanned) -> None:
        """Record a legacy directory that appeared beside its published, equal package."""
        now = clock.now()
        with self._transaction() as connection:
            tree_hash = connection.execute(
                sa.select(packages.c.tree_hash).where(packages.c.package_hash == item.package_hash)
            ).scalar()
            connection.exec_driver_sql(
                "INSERT INTO store_refs(hash, ref_count, size, created_at) "
                "VALUES (?, 1, ?, ?) ON CONFLICT DO NOTHING",
                (item.package_hash, item.size, now),
            )
            connection.execute(
                sa.insert(store_migration).values(
                    package_hash=item.package_hash,
                    status=Status.COMPLETED.value,
                    completed_at=now,
                    verified_at=now,
                    name=item.name,
                    version=item.version,
                    file_count=item.files,
                    byte_count=item.size,
                    allocated_bytes=item.allocated,
                    inode_count=item.inodes,
                    cuts=b"\0".join(item.cuts) or None,
                    space_saved=item.allocated,
                    added_bytes=0,
                    deduplicated_files=item.files,
                    tree_hash=tree_hash,
                )
            )
            remember(connection, "legacy_appeared", item.package_hash, "equal to what is published")

    def accept_legacy(self, item: Scanned) -> None:
        """Queue a package whose legacy directory is to replace what is published."""
        now = clock.now()
        mine = _m.package_hash == item.package_hash
        with self._transaction() as connection:
            connection.execute(
                sa.update(store_migration)
                .where(mine, _m.status != Status.IN_PROGRESS)
                .values(
                    status=Status.PENDING.value,
                    name=item.name,
                    version=item.version,
                    file_count=item.files,
                    byte_count=item.size,
                    allocated_bytes=item.allocated,
                    inode_count=item.inodes,
                    cuts=b"\0".join(item.cuts) or None,
                    verified_at=None,
                    cleaned_at=None,
                    freed_bytes=None,
                )
            )
            connection.exec_driver_sql(
                "INSERT INTO store_refs(hash, ref_count, size, created_at) "
                "VALUES (?, 1, ?, ?) ON CONFLICT DO NOTHING",
                (item.package_hash, item.size, now),
            )
            connection.exec_driver_sql(
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
            )
            connection.execute(
                sa.delete(integrity).where(integrity.c.package_hash == item.package_hash)
            )
            remember(connection, "legacy_accepted", item.package_hash, "")

    # B: cleanup, rollback, purge


def _together(before: str | None, now: str) -> str:
    """Join what is known with what is new; a change of the legacy directory comes first."""
    if before is None or before.startswith(LEGACY_CHANGED) == now.startswith(LEGACY_CHANGED):
        kept = before.partition("; ")[2] if before and before.startswith(LEGACY_CHANGED) else ""
        return f"{now}; {kept}" if kept else now
    first, second = (now, before) if now.startswith(LEGACY_CHANGED) else (before, now)
    return f"{first.partition('; ')[0]}; {second}"


_TO_COMPLETED = {
    Status.PENDING: (Status.IN_PROGRESS, Status.COMPLETED),
    Status.FAILED: (Status.PENDING, Status.IN_PROGRESS, Status.COMPLETED),
}
"""The legal moves by which a package that is published all the same is done with."""


def _complete(connection: sa.Connection, package_hash: str, status: Status) -> None:
    mine = sa.update(store_migration).where(_m.package_hash == package_hash)
    for move in _TO_COMPLETED[status]:
        connection.execute(mine.values(status=move.value))
    connection.execute(mine.values(completed_at=clock.now(), error_message=None, error_path=None))


def _way_to_failed(status: Status) -> list[Status]:
    """Return the legal moves that lead from ``status`` to failed."""
    way = [Status.IN_PROGRESS, Status.FAILED]
    return way if status is Status.PENDING else [Status.PENDING, *way]
