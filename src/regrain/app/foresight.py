"""What `migrate` would do: the same looks, and nothing is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from regrain.ledger import matches, open_ledger
from regrain.migrate.reconcile import Reconciliation, check_acceptable, look
from regrain.model.status import Status
from regrain.store import dual
from regrain.store.locks import is_running

if TYPE_CHECKING:
    from regrain.ledger import Ledger
    from regrain.settings import Settings
    from regrain.store.root import StoreRoot


@dataclass(frozen=True, slots=True)
class Foresight:
    """What a run would find and take.

    Attributes:
        packages: Packages it would bring in.
        files: Their files.
        size: Their bytes.
        rolled_back: Packages it would compare first, and bring in only if they are not equal.
        found: What others did to the legacy directories.
        paused: Whether it would do nothing, because the store is paused.
    """

    packages: int
    files: int
    size: int
    rolled_back: int
    found: Reconciliation
    paused: bool = False


class _Item(NamedTuple):
    """A package to bring in, in the order in which they are taken."""

    size: int
    package_hash: str
    files: int


def foresee(  # noqa: PLR0913 -- a facade: every option by its keyword
    root: StoreRoot,
    settings: Settings,
    *,
    only: str | None = None,
    limit: int | None = None,
    retry_failed: bool = False,
    rescan: bool = False,
    accept: str | None = None,
) -> Foresight:
    """Say what a run with these options would do; change nothing.

    Raises:
        RefusedError: The package to accept cannot be.
        PackageError: Likewise.
    """
    ledger = open_ledger(root.path, read_only=True)
    try:
        accepted = None
        if accept is not None:
            name = dual.find_hash(root, accept)
            accepted = check_acceptable(root, ledger, name)
        found = look(
            root,
            ledger,
            settings.migration.settle,
            full=rescan,
            jobs=settings.store.migration_parallel_files,
        )
        items = {} if accepted is None else {accepted.package_hash: accepted}
        items = {usage.package_hash: usage for usage in found.settled} | items
        wanted = [
            _Item(usage.size, usage.package_hash, usage.files)
            for usage in items.values()
            if only is None or matches(usage.package_hash, usage.name, only)
        ]
        statuses = _statuses(root, retry_failed=retry_failed)
        known = _waiting(ledger, statuses, only, {*found.vanished, *items})
        chosen = sorted([*wanted, *known])[:limit]
        return Foresight(
            len(chosen),
            sum(item.files for item in chosen),
            sum(item.size for item in chosen),
            len(ledger.in_status(Status.ROLLED_BACK)),
            found,
        )
    finally:
        ledger.close()


def _statuses(root: StoreRoot, *, retry_failed: bool) -> list[Status]:
    """Return the states of packages that a run would take."""
    statuses = [Status.PENDING]
    if not is_running(root):  # else that run has them in hand
        statuses.append(Status.IN_PROGRESS)
    if retry_failed:
        statuses.append(Status.FAILED)
    return statuses


def _waiting(
    ledger: Ledger, statuses: list[Status], only: str | None, but: set[str]
) -> list[_Item]:
    excluded = ledger.excluded()
    return [
        _Item(row.size, row.package_hash, row.files)
        for status in statuses
        for row in ledger.package_rows(status)
        if row.package_hash not in excluded
        and row.package_hash not in but
        and (only is None or matches(row.package_hash, row.name, only))
    ]
