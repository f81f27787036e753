"""The facade of ``verify``: packages, objects, and at ``deep`` legacy trees and the ledger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from regrain.errors import CorruptionError, UsageError
from regrain.maintain.audit import Audit, Level, Scope, audit
from regrain.model.digest import is_package_hash
from regrain.model.layout import SHARDS
from regrain.store import dual
from regrain.store.packages import is_published, published

if TYPE_CHECKING:
    from collections.abc import Callable

    from regrain.maintain.books import Books
    from regrain.settings import Settings
    from regrain.store.root import StoreRoot


@dataclass(frozen=True, slots=True)
class Verdict:
    """What ``verify`` found.

    Attributes:
        audit: Of packages and objects.
        books: Ledger against disk, at level ``deep`` of a whole store.
        ledger_problem: Why the ledger could not be compared, empty otherwise.
        not_migrated: Packages that are only in the legacy layout, and so were not looked at.
    """

    audit: Audit
    books: Books | None
    ledger_problem: str
    not_migrated: int

    @property
    def findings(self) -> int:
        """How many things that are stored are not what was stored."""
        count = len(self.audit.damages) + bool(self.ledger_problem)
        if self.books is not None:
            count += len(self.books.unpublished) + len(self.books.changed_lists)
        return count

    @property
    def is_damaged(self) -> bool:
        """Whether anything stored is not what was stored."""
        return self.findings > 0


def shards_of(subset: str | None) -> list[str]:
    """Return the shards that the N-th of T parts (``"N/T"``, from 1) of a store covers.

    Raises:
        UsageError: It is not two such numbers.
    """
    if subset is None:
        return list(SHARDS)
    first, slash, last = subset.partition("/")
    is_pair = slash and first.isdigit() and last.isdigit()
    if not (is_pair and 1 <= int(first) <= int(last) <= len(SHARDS)):
        raise UsageError(
            f"'{subset}' is no part of a store",
            why=f"N/T with 1 <= N <= T <= {len(SHARDS)} is wanted",
            advice="For the second of ten parts say 2/10.",
        )
    return [shard for number, shard in enumerate(SHARDS) if number % int(last) == int(first) - 1]


def verify(  # noqa: PLR0913 -- a facade: every option by its keyword
    root: StoreRoot,
    settings: Settings,
    texts: list[str],
    *,
    level: Level,
    subset: str | None,
    on_result: Callable[[Audit], None],
    stopping: Callable[[], bool],
) -> Verdict:
    """Verify packages, all of them unless ``texts`` names some.

    Raises:
        UnknownPackageError: One that was named is not there.
        UsageError: ``subset`` cannot be understood.
    """
    shards = shards_of(subset)
    names = [dual.find_hash(root, text) for text in texts] or dual.package_hashes(root)
    there = [str(name) for name in names if is_published(root.packages, name)]
    if not texts:
        there += [name for name in published(root.packages) if not is_package_hash(name)]
    found = audit(
        root,
        Scope(there, shards, level, whole=not texts),
        jobs=settings.store.migration_parallel_files,
        on_result=on_result,
        stopping=stopping,
    )
    _drop_what_went(root, found)
    if level is not Level.QUICK and subset is None and not found.stopped:
        from regrain.app.integrity import keep

        keep(root, there, found, level, whole=not texts)
    books, problem = None, ""
    if level is Level.DEEP and not texts and not found.stopped:
        books, problem = _books(root)
    return Verdict(found, books, problem, len(names) - len(there))


def _drop_what_went(root: StoreRoot, found: Audit) -> None:
    """Leave out what was found missing because its package was removed meanwhile."""
    found.damages = [
        damage
        for damage in found.damages
        if not damage.package_hash or is_published(root.packages, damage.package_hash)
    ]
    found.changes = [
        change for change in found.changes if is_published(root.packages, change.package_hash)
    ]


def _books(root: StoreRoot) -> tuple[Books | None, str]:
    """Compare ledger and disk."""
    from regrain.maintain.books import compare_books

    try:
        return compare_books(root), ""
    except CorruptionError as error:
        return None, str(error)
