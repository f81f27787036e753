"""The facade of ``verify``: packages, objects, and at ``deep`` legacy trees and the ledger."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from regrain.errors import CorruptionError, UsageError
from regrain.maintain.audit import Audit, Level, Scope, audit
from regrain.model.digest import is_package_hash
from regrain.model.layout import FILE_LIST, SHARDS
from regrain.store import dual, engines
from regrain.store.locks import RunDirectory
from regrain.store.objects import all_carriers, size_of
from regrain.store.packages import is_published, published
from regrain.store.workers import worth_starting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from regrain.maintain.books import Books
    from regrain.settings import Settings
    from regrain.store.root import StoreRoot

_BYTES_AN_ENTRY = 250
"""What an entry takes in a file list (measured)."""


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
    executor: str | None = None,
) -> Verdict:
    """Verify packages, all of them unless ``texts`` names some.

    Raises:
        EngineError: The engine that ``executor`` names does not answer, or was lost.
        UnknownPackageError: One that was named is not there.
        UsageError: ``subset`` cannot be understood.
    """
    shards = shards_of(subset)
    names = [dual.find_hash(root, text) for text in texts] or dual.package_hashes(root)
    there = [str(name) for name in names if is_published(root.packages, name)]
    if not texts:
        there += [name for name in published(root.packages) if not is_package_hash(name)]
    scope = Scope(there, shards, level, whole=not texts)
    jobs_max = settings.store.migration_parallel_files
    with _engaged(root, executor) as (office, slots):
        found = audit(
            root,
            scope,
            jobs=slots or _jobs(root, scope, jobs_max),
            on_result=on_result,
            stopping=stopping,
            office=office,
        )
    _drop_what_went(root, found)
    if level is not Level.QUICK and subset is None and not found.stopped:
        from regrain.app.integrity import keep

        keep(root, there, found, level, whole=not texts)
    books, problem = None, ""
    if level is Level.DEEP and not texts and not found.stopped:
        books, problem = _books(root)
    return Verdict(found, books, problem, len(names) - len(there))


@contextlib.contextmanager
def _engaged(root: StoreRoot, executor: str | None) -> Iterator[tuple[engines.Office | None, int]]:
    """Give where units of work go, and how many are done there at a time; None for this host."""
    with engines.connected(executor) as engine:
        if engine is None:
            yield None, 0
            return
        with RunDirectory(root, marks_errors=False) as directory:
            yield engines.Office(engine, root, directory), engine.slots


def _jobs(root: StoreRoot, scope: Scope, jobs_max: int) -> int:
    """Return how many workers there is enough to do for: entries to look up, bytes to hash."""
    files = size = 0
    for more in _work(root, scope):
        files, size = files + more[0], size + more[1]
        if worth_starting(jobs_max, files, size) == jobs_max:
            break
    return worth_starting(jobs_max, files, size)


def _work(root: StoreRoot, scope: Scope) -> Iterator[tuple[int, int]]:
    """Yield how many files, and how many bytes of them, there are to look at, piece by piece."""
    for name in scope.package_hashes:
        with contextlib.suppress(OSError):
            status = os.stat(f"{name}/{FILE_LIST}", dir_fd=root.packages)
            yield status.st_size // _BYTES_AN_ENTRY, 0
    if scope.level is not Level.QUICK:
        yield from (
            (1, max(0, size_of(root.objects, carrier))) for carrier in all_carriers(root.objects)
        )


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
