"""The statements of cleanup, rollback and purge."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from regrain.ledger.checked import package_name, whole
from regrain.ledger.keeping import Intent
from regrain.ledger.recording import forget_owners, remember
from regrain.ledger.schema import intents, packages, store_migration
from regrain.model import clock
from regrain.model.status import Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from contextlib import AbstractContextManager

    from regrain.ledger.rows import Scanned

_m = store_migration.c


class Undoing:
    """The part of the ledger that cleanup, rollback and purge use."""

    def _transaction(self) -> AbstractContextManager[sa.Connection]:
        raise NotImplementedError

    # cleanup

    def condemn(self, package_hash: str, freed_bytes: int) -> None:
        """Note that a legacy directory in the trash was compared, and what it frees.

        From here on it is unlinked; before, a killed cleanup may still put it back.
        """
        with self._transaction() as connection:
            connection.execute(
                sa.update(intents)
                .where(intents.c.package_hash == package_hash)
                .values(action=Intent.UNLINK.value)
            )
            connection.execute(
                sa.update(store_migration)
                .where(_m.package_hash == package_hash)
                .values(freed_bytes=freed_bytes)
            )

    def cleaned(self, package_hash: str) -> None:
        """Note that a legacy directory is gone; its intent is fulfilled."""
        mine = _m.package_hash == package_hash
        with self._transaction() as connection:
            freed = connection.execute(sa.select(_m.freed_bytes).where(mine)).scalar()
            connection.execute(
                sa.update(store_migration).where(mine).values(cleaned_at=clock.now())
            )
            connection.execute(sa.delete(intents).where(intents.c.package_hash == package_hash))
            remember(connection, "legacy_removed", package_hash, f"{freed or 0} bytes freed")

    def freed_by(self, package_hash: str) -> int:
        """Return what removing the legacy directory of a package freed."""
        query = sa.select(_m.freed_bytes).where(_m.package_hash == package_hash)
        with self._transaction() as connection:
            return int(connection.execute(query).scalar() or 0)

    # rollback

    def restored(self, items: Iterable[Scanned]) -> None:
        """Record packages that have a legacy directory again, or for the first time."""
        now = clock.now()
        with self._transaction() as connection:
            for item in items:
                measured = {
                    "file_count": item.files,
                    "byte_count": item.size,
                    "allocated_bytes": item.allocated,
                    "inode_count": item.inodes,
                    "cuts": b"\0".join(item.cuts) or None,
                    "cleaned_at": None,
                    "freed_bytes": None,
                }
                known = connection.execute(
                    sa.update(store_migration)
                    .where(_m.package_hash == item.package_hash)
                    .values(measured)
                )
                if not known.rowcount:
                    connection.exec_driver_sql(
                        "INSERT INTO store_refs(hash, ref_count, size, created_at) "
                        "VALUES (?, 1, ?, ?) ON CONFLICT DO NOTHING",
                        (item.package_hash, item.size, now),
                    )
                    tree_hash = connection.execute(
                        sa.select(packages.c.tree_hash).where(
                            packages.c.package_hash == item.package_hash
                        )
                    ).scalar()
                    connection.execute(
                        sa.insert(store_migration).values(
                            package_hash=item.package_hash,
                            status=Status.COMPLETED.value,
                            name=item.name,
                            version=item.version,
                            completed_at=now,
                            verified_at=now,
                            space_saved=item.allocated,
                            tree_hash=tree_hash,
                            **measured,
                        )
                    )
                remember(connection, "legacy_restored", item.package_hash, "")

    def legacy_sizes(self) -> dict[str, tuple[int, int]]:
        """Return what the legacy directory of every published package takes, or took.

        Returns:
            Bytes on disk and inodes, by package; of one that never had such a directory its
            files' bytes, and no inodes.
        """
        with self._transaction() as connection:
            rows = connection.exec_driver_sql(
                "SELECT packages.package_hash, COALESCE(allocated_bytes, size), inode_count"
                " FROM packages JOIN store_refs ON hash = packages.package_hash"
                " LEFT JOIN store_migration ON"
                "  store_migration.package_hash = packages.package_hash"
            )
            return {package_name(row[0]): (whole(row[1]), whole(row[2] or 0)) for row in rows}

    def all_rolled_back(self) -> int:
        """Note of all completed packages that they are undone; return how many."""
        with self._transaction() as connection:
            return connection.execute(
                sa.update(store_migration)
                .where(_m.status == Status.COMPLETED)
                .values(status=Status.ROLLED_BACK.value)
            ).rowcount

    def in_status(self, status: Status) -> list[str]:
        """Return the packages in one state that are not set aside, by hash."""
        query = sa.select(_m.package_hash).where(_m.status == status, _m.excluded == 0)
        with self._transaction() as connection:
            return list(connection.scalars(query.order_by(_m.package_hash)))

    def taken_up(self, package_hashes: Iterable[str], *, equal: bool = True) -> None:
        """Note that undone packages are completed again, since what is published is good.

        Args:
            package_hashes: Them.
            equal: Whether their legacy directories hold the same.
        """
        now = clock.now()
        detail = "equal to what is published" if equal else "as published"
        with self._transaction() as connection:
            for name in package_hashes:
                connection.execute(
                    sa.update(store_migration)
                    .where(_m.package_hash == name, _m.status == Status.ROLLED_BACK)
                    .values(status=Status.COMPLETED.value, verified_at=now)
                )
                remember(connection, "package_taken_up", name, detail)

    def queue_again(self, package_hashes: Sequence[str]) -> None:
        """Put undone packages, of which nothing is published, back to pending."""
        with self._transaction() as connection:
            for name in package_hashes:
                connection.execute(
                    sa.update(store_migration)
                    .where(_m.package_hash == name, _m.status == Status.ROLLED_BACK)
                    .values(status=Status.PENDING.value)
                )

    # what is published goes, the legacy directory stays

    def intend_all(self, package_hashes: Sequence[str], action: Intent) -> None:
        """Write down what will be done to packages, in one transaction."""
        now = clock.now()
        with self._transaction() as connection:
            connection.exec_driver_sql(
                "INSERT INTO intents(package_hash, action, created_at) VALUES (?, ?, ?)"
                " ON CONFLICT(package_hash) DO UPDATE SET action = excluded.action",
                [(name, action, now) for name in package_hashes],
            )

    def unpublished(self, package_hashes: Sequence[str], status: Status) -> None:
        """Delete what is recorded of published packages; they are in ``status`` from now on.

        Their legacy directories are there, also those that were known to be gone.
        Their intents stay until their file lists are gone from the trash, too.
        """
        now = clock.now()
        with self._transaction() as connection:
            ids = [
                row.id
                for name in package_hashes
                for row in connection.execute(
                    sa.select(packages.c.id).where(packages.c.package_hash == name)
                )
            ]
            forget_owners(connection, ids, now)
            for package_id in ids:
                connection.execute(sa.delete(packages).where(packages.c.id == package_id))
            for name in package_hashes:
                mine = _m.package_hash == name
                connection.execute(
                    sa.update(store_migration).where(mine).values(cleaned_at=None, freed_bytes=None)
                )
                connection.execute(
                    sa.update(store_migration)
                    .where(
                        mine,
                        _m.status.in_((Status.COMPLETED.value, Status.ROLLED_BACK.value)),
                    )
                    .values(status=status.value)
                )
                remember(connection, "package_unpublished", name, status.value)

    def fulfilled_all(self, package_hashes: Sequence[str]) -> None:
        """Forget intents that were carried out."""
        with self._transaction() as connection:
            for name in package_hashes:
                connection.execute(sa.delete(intents).where(intents.c.package_hash == name))
