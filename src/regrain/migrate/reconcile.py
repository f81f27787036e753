"""Bring the ledger up to date with the legacy directories that others make, change or take away.

One pass looks and changes nothing; another writes down what it found. What is absent never
deletes anything, and what changed never replaces what is published unless that is asked for.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from regrain import disk
from regrain.errors import PackageError, RefusedError
from regrain.ledger import Scanned
from regrain.migrate.parting import Change, Compared, compare, compare_all
from regrain.model import clock
from regrain.model.events import Reconciled
from regrain.model.layout import MANIFEST
from regrain.model.status import Status
from regrain.store.locks import publish_lock
from regrain.store.packages import is_published
from regrain.store.root import legacy_names
from regrain.store.scan import Usage, measure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from regrain.ledger import Ledger, Standing
    from regrain.store.root import StoreRoot

_NANOSECONDS = 10**9


@dataclass(slots=True)
class Reconciliation:
    """What a look at the legacy directories found.

    Attributes:
        settled: New ones, left alone long enough to be queued.
        equal: New ones beside a published package that is the same in everything.
        unsettled: New ones somebody may still be writing, each with the reason; they wait.
        vanished: Those that are gone without our doing, not known so far.
        returned: Those that were gone and are there again.
        changed: Those that differ from what is published.
        unreadable: Those that could not be compared, each with the reason.
        foreign: Names that are no packages; they are left alone.
    """

    settled: list[Usage] = field(default_factory=list)
    equal: list[Usage] = field(default_factory=list)
    unsettled: list[tuple[str, str]] = field(default_factory=list)
    vanished: list[str] = field(default_factory=list)
    returned: list[str] = field(default_factory=list)
    changed: list[Change] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def event(self) -> Reconciled | None:
        """Return what to tell of it; None where nothing happened."""
        matters = (self.settled, self.unsettled, self.vanished, self.changed, self.unreadable)
        if not any(matters):
            return None
        return Reconciled(
            tuple(usage.package_hash for usage in self.settled),
            tuple(self.unsettled),
            tuple(self.vanished),
            tuple((change.package_hash, change.words) for change in self.changed),
            tuple(self.unreadable),
        )


def scanned(usage: Usage) -> Scanned:
    """Return what the ledger keeps of a measurement."""
    return Scanned(
        usage.package_hash,
        usage.name,
        usage.version,
        usage.files,
        usage.inodes,
        usage.size,
        usage.allocated,
        tuple(usage.cuts),
    )


def queue_all(
    root: StoreRoot, ledger: Ledger, names: Iterable[str], on_package: Callable[[Usage], None]
) -> int:
    """Queue the named packages as they are; return how many were new."""

    def measured() -> Iterable[Scanned]:
        for name in names:
            usage = measure(root.fd, name, root.owner)
            on_package(usage)
            yield scanned(usage)

    return ledger.queue(measured())


def reconcile(
    root: StoreRoot, ledger: Ledger, settle_seconds: float, *, full: bool = False, jobs: int = 1
) -> Reconciliation:
    """Look at the legacy directories and write down what is to be done about them.

    Those that are new and settled are queued. One that vanished leaves its package as it is
    where that is published; else the package has failed. One that changed is noted as an
    integrity failure; the published list stays what counts.

    Args:
        root: The store.
        ledger: Its ledger.
        settle_seconds: How long nothing may have changed in a new one.
        full: Also compare every known one with what is published; no bytes are read.
        jobs: Worker processes for that at the most.
    """
    found = look(root, ledger, settle_seconds, full=full, jobs=jobs)
    if not (found.settled or found.equal or found.vanished or found.returned or found.changed):
        return found
    with publish_lock(root):  # one that was removed meanwhile must not come back
        _note(root, ledger, found)
    return found


def look(
    root: StoreRoot, ledger: Ledger, settle_seconds: float, *, full: bool = False, jobs: int = 1
) -> Reconciliation:
    """Say what ``reconcile`` would find; change nothing."""
    known = ledger.standings()  # before the listing: what is queued meanwhile is new in both
    names, foreign = legacy_names(root.fd)
    concerns = ledger.concerns()
    found = Reconciliation(foreign=foreign)
    to_compare: list[str] = []
    for name in names:
        if name not in known:
            if full or name not in concerns:
                _look_at_new(root, name, settle_seconds, found)
        elif known[name].cleaned_at is not None or (full and _is_comparable(known[name])):
            to_compare.append(name)
    for compared in compare_all(root, {name: known[name].files for name in to_compare}, jobs):
        _heed(known[compared.package_hash], compared, found)
    there = {*names, *ledger.intents()}  # what is on its way out did not vanish
    found.vanished = [
        name for name, standing in known.items() if name not in there and _is_missed(root, standing)
    ]
    return found


def _look_at_new(root: StoreRoot, name: str, settle: float, found: Reconciliation) -> None:
    usage = measure(root.fd, name, root.owner)
    unrest = _unrest(root, usage, settle)
    if unrest:
        found.unsettled.append((name, unrest))
    elif not is_published(root.packages, name):
        found.settled.append(usage)
    else:
        compared = compare(root, name, content=True)
        _heed(None, compared, found)
        if compared.is_equal:
            found.equal.append(usage)


def _heed(known: Standing | None, compared: Compared, found: Reconciliation) -> None:
    """Note what comparing a package with its directory gave."""
    if compared.unreadable:
        found.unreadable.append((compared.package_hash, compared.unreadable))
    elif compared.change is not None:
        found.changed.append(compared.change)
    elif known is not None and known.cleaned_at is not None:
        found.returned.append(compared.package_hash)


def _is_comparable(standing: Standing) -> bool:
    return standing.status is Status.COMPLETED and not standing.is_excluded


def _is_missed(root: StoreRoot, standing: Standing) -> bool:
    """Tell whether the absence of a directory is news."""
    if is_published(root.packages, standing.package_hash):
        return standing.cleaned_at is None
    return standing.status is not Status.FAILED


def _note(root: StoreRoot, ledger: Ledger, found: Reconciliation) -> None:
    """Write down what was found, as far as it is still so."""

    def is_there(name: str) -> bool:
        return is_published(root.fd, name)

    ledger.queue(scanned(usage) for usage in found.settled if is_there(usage.package_hash))
    recorded = ledger.recorded_packages() if found.equal else {}
    for usage in found.equal:
        if is_there(usage.package_hash) and usage.package_hash in recorded:
            ledger.adopt_directory(scanned(usage))
    for name in found.returned:
        if is_there(name):
            ledger.reappeared(name)
    found.vanished = [
        name
        for name in found.vanished
        if not is_there(name)
        and ledger.vanished(name, is_published=is_published(root.packages, name))
    ]
    found.changed = [change for change in found.changed if is_there(change.package_hash)]
    for change in found.changed:
        ledger.concern(change.package_hash, change.words)


def accept_legacy(root: StoreRoot, ledger: Ledger, name: str) -> None:
    """Queue a package whose legacy directory, as it is now, is to replace what is published.

    What is published stays, and is read, until then.

    Raises:
        RefusedError: It has no legacy directory, or is set aside.
        PackageError: The directory cannot be brought in.
    """
    with publish_lock(root):
        ledger.accept_legacy(scanned(check_acceptable(root, ledger, name)))


def check_acceptable(root: StoreRoot, ledger: Ledger, name: str) -> Usage:
    """Return the measure of a legacy directory that is to replace what is published.

    Raises:
        RefusedError: It has no legacy directory, or is set aside.
        PackageError: The directory cannot be brought in.
    """
    if not is_published(root.fd, name):
        raise RefusedError(
            "there is no legacy directory to accept",
            package=name,
            advice="What is published stays as it is.",
        )
    if name in ledger.excluded():
        raise RefusedError(
            "the package is set aside, and read from its legacy directory already",
            package=name,
            advice=f"To migrate it say 'regrain exclude {name} --undo'.",
        )
    usage = measure(root.fd, name, root.owner)
    if usage.problem:
        raise PackageError("the legacy directory cannot be accepted", why=usage.problem)
    return usage


def _unrest(root: StoreRoot, usage: Usage, seconds: float) -> str:
    """Say why a new directory cannot be taken yet; empty if its writer is done with it.

    That is: a manifest is there, nothing changed for so many seconds, two listings agree. One
    that cannot be brought in at all is taken, too: its failure then says why.
    """
    if not _has_manifest(root, usage.package_hash):
        return f"it has no {MANIFEST}"
    if seconds and clock.now() - usage.newest_ctime_ns / _NANOSECONDS < seconds:
        return f"something in it changed in the last {seconds:g} s"
    again = measure(root.fd, usage.package_hash, root.owner)
    if (scanned(again), again.problem) != (scanned(usage), usage.problem):
        return "it changed while it was looked at"
    return ""


def _has_manifest(root: StoreRoot, name: str) -> bool:
    try:
        with disk.Closing(disk.open_directory(name, root.fd)) as fd:
            return MANIFEST in os.listdir(fd)
    except OSError:  # it went, or is no directory any more
        return False
