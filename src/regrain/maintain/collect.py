"""Collect objects that no package holds: purely by references, after a time of grace."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from regrain import disk
from regrain.errors import RefusedError
from regrain.ledger import open_ledger
from regrain.model import clock
from regrain.model.digest import is_package_hash
from regrain.model.layout import compressed_carrier, further_carrier
from regrain.store.locks import PATIENCE_SECONDS, StoreLock
from regrain.store.objects import object_path
from regrain.store.packages import published

if TYPE_CHECKING:
    from collections.abc import Callable

    from regrain.ledger import Ledger, Unreferenced
    from regrain.store.root import StoreRoot

AT_ONCE = 1000
"""Objects deleted before others may have the lock."""


@dataclass(slots=True)
class Collection:
    """What a collection takes, or took.

    Attributes:
        objects: Objects.
        allocated: Their bytes on disk.
        waiting: Objects nobody holds whose grace is not over, or that may stay.
        waiting_bytes: Their bytes on disk.
        digests: The objects, raw.
    """

    objects: int = 0
    allocated: int = 0
    waiting: int = 0
    waiting_bytes: int = 0
    digests: list[bytes] = field(default_factory=list, repr=False)


def foresee(ledger: Ledger, *, grace: float, size_max: int | None = None) -> Collection:
    """Say what ``collect`` would take; change nothing.

    Args:
        ledger: The ledger.
        grace: Seconds an object must have been without a package.
        size_max: Take the longest unreferenced ones only until all objects together take
            no more bytes on disk than this; None takes all.
    """
    now = clock.now()
    found = Collection()
    excess = None if size_max is None else ledger.objects_allocated() - size_max
    for item in ledger.unreferenced(now):
        is_due = item.since <= now - grace and (excess is None or excess > 0)
        if is_due:
            found.objects += 1
            found.allocated += item.allocated
            found.digests.append(item.digest)
            excess = None if excess is None else excess - item.allocated
        else:
            found.waiting += 1
            found.waiting_bytes += item.allocated
    return found


def collect(
    root: StoreRoot,
    *,
    grace: float,
    finish: Callable[[Ledger], object] = lambda _: None,
    size_max: int | None = None,
    on_progress: Callable[[int], None] = lambda _: None,
    patience: float = PATIENCE_SECONDS,
) -> Collection:
    """Delete objects nobody has held for the time of grace.

    The lock is held alone, for some objects at a time: no writer is then between finding
    an object there and recording that it holds it. Each time the ledger is opened anew: it
    may have been replaced by one that was rebuilt.

    Args:
        root: The store.
        grace: Seconds.
        finish: Records, among others, what killed additions published: each time again,
            since one may have been killed while this waited for the lock.
        size_max: See ``foresee``.
        on_progress: Told how many objects are deleted.
        patience: Seconds to wait for writers to pause, each time.

    Raises:
        RefusedError: Packages are published that the ledger does not know: what they hold
            cannot be told.
        LockedError: Writers did not pause in time.
    """
    done = Collection()
    while True:
        with (
            StoreLock(root, exclusive=True, patience=patience),
            contextlib.closing(open_ledger(root.path)) as ledger,
        ):
            finish(ledger)
            _check_known(root, ledger)
            _finish(root, ledger)
            due = foresee(ledger, grace=grace, size_max=size_max)
            wanted = set(due.digests[:AT_ONCE])
            batch = [item for item in ledger.unreferenced(clock.now()) if item.digest in wanted]
            _delete(root, batch)
            ledger.forget_objects([item.id for item in batch])
            done.objects += len(batch)
            done.allocated += sum(item.allocated for item in batch)
            done.digests += [item.digest for item in batch]
            is_last = len(due.digests) <= AT_ONCE
            if is_last:
                words = f"{done.objects} objects, {done.allocated} bytes on disk"
                ledger.remember("collected", detail=words)
        on_progress(done.objects)
        if is_last:
            done.waiting, done.waiting_bytes = due.waiting, due.waiting_bytes
            return done


def _check_known(root: StoreRoot, ledger: Ledger) -> None:
    there = {name for name in published(root.packages) if is_package_hash(name)}
    unknown = sorted(there - ledger.recorded_packages().keys())
    if unknown:
        raise RefusedError(
            f"{len(unknown)} published packages are not in the ledger",
            package=unknown[0],
            why="what they hold cannot be told, so nothing may be collected",
            advice="Run 'regrain migrate', which records what a killed run published, "
            "or 'regrain doctor --rebuild-ledger'.",
        )


def _finish(root: StoreRoot, ledger: Ledger) -> None:
    """Carry out what a killed collection had begun: rows are left whose carriers are gone."""
    begun = [
        item
        for item in ledger.unreferenced(clock.now())
        if sum(_is_there(root, name) for name in _names(item)) < len(item.modes)
    ]
    if begun:
        _delete(root, begun)
        ledger.forget_objects([item.id for item in begun])


def _names(item: Unreferenced) -> list[str]:
    """Return the names that carriers of an object may have."""
    digest = item.digest.hex()
    further = {further_carrier(digest, mode) for mode in item.modes}
    return [digest, compressed_carrier(digest), *sorted(further)]


def _is_there(root: StoreRoot, name: str) -> bool:
    try:
        os.stat(object_path(name), dir_fd=root.objects, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _delete(root: StoreRoot, batch: list[Unreferenced]) -> None:
    """Unlink the carriers of some objects; that is on the disk before the rows go.

    In this order, since a full disk has no room for rows before something was unlinked.
    """
    for item in batch:
        for name in _names(item):
            with contextlib.suppress(FileNotFoundError):
                disk.unlink(object_path(name), root.objects)
    for shard in sorted({item.digest[:1].hex() for item in batch}):
        with disk.Closing(disk.open_directory(shard, root.objects)) as fd:
            disk.fsync(fd)
