"""Drop file lists and objects of a store that was rolled back, and is read from legacy."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from regrain import disk
from regrain.errors import CorruptionError, PackageError, RefusedError, UnknownFormatError
from regrain.ledger.keeping import Intent
from regrain.maintain.collect import collect
from regrain.maintain.need import lacking
from regrain.maintain.withdraw import unpublish
from regrain.model.digest import is_package_hash
from regrain.model.layout import SHARDS
from regrain.model.phase import Phase
from regrain.model.status import Status
from regrain.store.compare import first_difference
from regrain.store.legacy import LegacyPackage, freed_with
from regrain.store.locks import StoreLock, publish_lock
from regrain.store.objects import all_carriers, carriers_in, object_path
from regrain.store.packages import FileLevelPackage, is_published, published

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
    compared: bool = False,
) -> Purge:
    """Drop all file lists, then all objects, in turns with writers.

    Args:
        root: The store.
        ledger: Its ledger.
        on_progress: Told what was dropped so far.
        stopping: Tells whether to stop.
        compared: Whether all legacy directories were just compared with what is published.

    Raises:
        RefusedError: The store is not rolled back, or a package would be lost.
        LockedError: Writers did not pause in time.
    """
    done = foresee(root)
    done.packages = 0
    if not compared:
        _check_equal(root, stopping)
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


def _check_equal(root: StoreRoot, stopping: Callable[[], bool]) -> None:
    """See to it that what is to be dropped is not the only whole copy of a package.

    Raises:
        RefusedError: A legacy directory is not what is published.
    """
    changed = [
        name
        for name in _published(root)
        if not stopping() and _differs(root, name) and _differs_indeed(root, name)
    ]
    if changed:
        raise RefusedError(
            f"{len(changed)} legacy directories are not what is published",
            package=changed[0],
            why="they rotted or were changed, so what is published may be all that is whole",
            advice="'regrain verify --level deep' tells what is wrong, with --repair it makes anew "
            "what rotted; 'regrain migrate' takes in what was changed.",
        )


def _differs_indeed(root: StoreRoot, name: str) -> bool:
    """Look again while nothing comes or goes: somebody may have removed it under the first look."""
    with publish_lock(root):
        return is_published(root.packages, name) and _differs(root, name)


def _differs(root: StoreRoot, name: str) -> bool:
    try:
        listed = FileLevelPackage(root.packages, root.objects, name).entries()
        legacy = LegacyPackage(root.fd, name).entries()
        return first_difference(listed, legacy) is not None
    except (CorruptionError, UnknownFormatError):
        return False  # nothing good goes with a file list that cannot be read
    except (OSError, PackageError):
        return True  # the legacy directory cannot be


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
