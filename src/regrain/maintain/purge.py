"""Drop file lists and objects of a store that was rolled back, and is read from legacy."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from regrain import disk
from regrain.errors import RefusedError
from regrain.ledger.keeping import Intent
from regrain.maintain.collect import collect
from regrain.maintain.need import lacking
from regrain.maintain.withdraw import unpublish
from regrain.model.digest import is_package_hash
from regrain.model.layout import SHARDS
from regrain.model.phase import Phase
from regrain.model.status import Status
from regrain.store.legacy import freed_with
from regrain.store.locks import StoreLock, publish_lock
from regrain.store.objects import all_carriers, carriers_in, object_path
from regrain.store.packages import published

if TYPE_CHECKING:
    from collections.abc import Callable

    from regrain.ledger import Ledger
    from regrain.store.root import StoreRoot

PACKAGES_A_TURN = 100
"""Packages dropped before others may have the lock."""


@dataclass(slots=True)
class Purge:
    """What a purge drops, or dropped.

    Attributes:
        packages: File lists.
        objects: Files below ``objects/``.
        freed_bytes: What these take on disk, where they have no other name.
        stopped: Whether it was ended early.
    """

    packages: int = 0
    objects: int = 0
    freed_bytes: int = 0
    stopped: bool = False


def foresee(root: StoreRoot) -> Purge:
    """Say what ``purge`` would drop; change nothing.

    Raises:
        RefusedError: The store is not rolled back, or a package would be lost.
    """
    check(root)
    names = _published(root)
    found = Purge(packages=len(names), freed_bytes=sum(_list_bytes(root, name) for name in names))
    for carrier in all_carriers(root.objects):
        found.objects += 1
        if carrier.status.st_nlink == 1:
            found.freed_bytes += disk.allocated(carrier.status)
    return found


def check(root: StoreRoot) -> None:
    """See to it that nothing is lost by dropping what is published.

    Raises:
        RefusedError: The store is read from it, or a package has no legacy directory.
    """
    phase = root.phase()
    if phase is not Phase.ROLLED_BACK:
        raise RefusedError(
            "the store is not rolled back",
            path=root.path,
            why=f"its phase is '{phase.label}'",
            advice="Run 'regrain rollback' first; then nothing is read from objects any more.",
        )
    alone = lacking(root)
    if alone:
        raise RefusedError(
            f"{len(alone)} packages have no legacy directory",
            package=alone[0],
            why="what is published is all there is of them",
            advice="Run 'regrain migrate' and then 'regrain rollback', which gives them one.",
        )


def purge(
    root: StoreRoot,
    ledger: Ledger,
    *,
    on_progress: Callable[[Purge], None],
    stopping: Callable[[], bool],
) -> Purge:
    """Drop all file lists, then all objects, in turns with writers.

    Raises:
        RefusedError: The store is not rolled back, or a package would be lost.
        LockedError: Writers did not pause in time.
    """
    done = foresee(root)
    done.packages = 0
    ledger.all_rolled_back()
    while True:
        if stopping():
            done.stopped = True
            return done
        with StoreLock(root, exclusive=True), publish_lock(root):
            check(root)
            turn = _published(root)[:PACKAGES_A_TURN]
            if not turn:
                break
            unpublish(root, ledger, turn, Intent.PURGE)
        done.packages += len(turn)
        on_progress(done)
    collect(root, grace=0)
    with StoreLock(root, exclusive=True):
        if root.phase() is Phase.ROLLED_BACK and not published(root.packages):
            _drop_strangers(root)
    ledger.queue_again(ledger.in_status(Status.ROLLED_BACK))
    ledger.remember("purged", detail=f"{done.packages} packages, {done.objects} objects")
    return done


def _published(root: StoreRoot) -> list[str]:
    return [name for name in published(root.packages) if is_package_hash(name)]


def _list_bytes(root: StoreRoot, name: str) -> int:
    with disk.Closing(disk.open_directory(name, root.packages)) as fd:
        return freed_with(fd)


def _drop_strangers(root: StoreRoot) -> None:
    """Delete carriers no row names, now that no package is published that could need them."""
    for shard in SHARDS:
        for carrier in carriers_in(root.objects, shard):
            with contextlib.suppress(FileNotFoundError):
                disk.unlink(object_path(carrier.name), root.objects)
