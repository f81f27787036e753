"""What the ledger gets to know of a package that was added, also by a process that was killed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regrain import disk
from regrain.errors import CorruptionError, UnknownFormatError
from regrain.ledger import Claim, NewCarrier, Outcome, UnrecordedObjectsError
from regrain.ledger.keeping import Intent
from regrain.migrate.reconcile import queue_all
from regrain.migrate.recover import adopt, whole
from regrain.model import layout
from regrain.store.locks import publish_lock
from regrain.store.packages import is_published
from regrain.store.quarantine import quarantine

if TYPE_CHECKING:
    from regrain.ledger import Ledger
    from regrain.store.root import StoreRoot
    from regrain.store.scan import Usage


def no_claim(package_hash: str) -> Claim:
    """Return what stands for the claim of a package that was never claimed."""
    return Claim(0, package_hash, "", "", 0, 0, 0, 0)


def record(root: StoreRoot, ledger: Ledger, outcome: Outcome, new: list[NewCarrier]) -> None:
    """Record an added package; objects of its list that have no row yet are proven first."""
    try:
        ledger.record_added(outcome, new)
    except UnrecordedObjectsError as error:
        adopt(root, ledger, error.digests)
        ledger.record_added(outcome, new)


def queue(root: StoreRoot, ledger: Ledger, package_hash: str) -> Usage:
    """Queue a legacy package that was added."""
    measured: list[Usage] = []
    queue_all(root, ledger, [package_hash], measured.append)
    ledger.remember("package_added", package_hash, "legacy")
    ledger.fulfilled(package_hash, Intent.ADD)
    return measured[0]


def finish_adds(root: StoreRoot, ledger: Ledger) -> None:
    """Record what a killed process published and did not come to record.

    One that is not whole goes to quarantine: nobody was told that it was added.
    """
    if Intent.ADD not in ledger.intents().values():
        return
    with publish_lock(root):
        for package_hash, action in ledger.intents().items():
            if action is Intent.ADD:
                finish_add(root, ledger, package_hash)


def finish_add(root: StoreRoot, ledger: Ledger, package_hash: str) -> None:
    """Record one of these; the caller holds ``publish_lock``.

    Who published it did not come to flush its name, perhaps: a row must not be on the disk
    before what it names.
    """
    if is_published(root.packages, package_hash):
        disk.fsync(root.packages)
        try:
            outcome, _ = whole(root, no_claim(package_hash), verified=True)
            record(root, ledger, outcome, [])
        except (CorruptionError, UnknownFormatError):
            quarantine(root.fd, layout.PACKAGES, package_hash)
    elif is_published(root.fd, package_hash):
        disk.fsync(root.fd)
        queue(root, ledger, package_hash)
    ledger.fulfilled(package_hash, Intent.ADD)
