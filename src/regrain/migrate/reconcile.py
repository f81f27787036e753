"""Find legacy directories that appeared since the store was made, and queue them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from regrain import disk
from regrain.ledger import Scanned
from regrain.model import clock
from regrain.model.layout import MANIFEST
from regrain.store.locks import publish_lock
from regrain.store.packages import is_published
from regrain.store.root import legacy_names
from regrain.store.scan import Usage, measure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from regrain.ledger import Ledger
    from regrain.store.root import StoreRoot

_NANOSECONDS = 10**9


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


def queue_new(root: StoreRoot, ledger: Ledger, settle_seconds: float) -> int:
    """Queue directories that appeared, once their writer has left them alone.

    Settled is: a manifest is there, nothing changed for ``settle_seconds``, and two
    listings agree. Others wait for the next run.

    Returns:
        How many were queued.
    """
    names = set(legacy_names(root.fd)[0]) - ledger.known_packages()
    settled = [usage for name in sorted(names) if (usage := _settled(root, name, settle_seconds))]
    if not settled:
        return 0
    with publish_lock(root):  # one that was removed meanwhile must not come back
        return ledger.queue(
            scanned(usage) for usage in settled if is_published(root.fd, usage.package_hash)
        )


def _settled(root: StoreRoot, name: str, seconds: float) -> Usage | None:
    first = measure(root.fd, name, root.owner)
    age = clock.now() - first.newest_ctime_ns / _NANOSECONDS
    if first.problem or age < seconds or not _has_manifest(root, name):
        return None
    second = measure(root.fd, name, root.owner)
    return second if scanned(first) == scanned(second) else None


def _has_manifest(root: StoreRoot, name: str) -> bool:
    with disk.Closing(disk.open_directory(name, root.fd)) as fd:
        return MANIFEST in os.listdir(fd)
