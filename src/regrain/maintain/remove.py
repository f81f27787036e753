"""Remove packages, or set them aside: by intent, so that a crash leaves nothing half done."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from regrain import disk
from regrain.errors import RefusedError, UnknownPackageError
from regrain.ledger.keeping import Intent
from regrain.maintain.withdraw import WITHDRAWALS, withdraw
from regrain.model.phase import Layout
from regrain.store import dual
from regrain.store.legacy import freed_with
from regrain.store.locks import publish_lock
from regrain.store.packages import is_published
from regrain.store.trash import empty_trash, to_trash

if TYPE_CHECKING:
    from collections.abc import Callable

    from regrain.ledger import Ledger
    from regrain.store.root import StoreRoot


@dataclass(frozen=True, slots=True)
class Removal:
    """What removing a package does, or did.

    Attributes:
        package_hash: The package.
        layouts: Where it lies.
        directory_bytes: What goes with its directories, at once: bytes on disk of inodes
            that have no other name.
        objects: Objects only this package holds; ``gc`` takes them, after its grace.
        object_bytes: What their carriers take on disk.
    """

    package_hash: str
    layouts: list[Layout] = field(default_factory=list)
    directory_bytes: int = 0
    objects: int = 0
    object_bytes: int = 0


def foresee(root: StoreRoot, ledger: Ledger, package_hash: str) -> Removal:
    """Say what ``remove`` would do; change nothing.

    A package whose legacy directory vanished before it was published is in no layout any
    more, but the ledger knows it, as failed; that, too, can be removed.

    Raises:
        UnknownPackageError: No layout has the package, and the ledger does not know it.
    """
    layouts = dual.layouts_of(root, package_hash)
    if not layouts and ledger.package_row(package_hash) is None:
        raise UnknownPackageError(
            "no such package", package=package_hash, advice="'regrain list' shows what there is."
        )
    size = 0
    for where in layouts:
        parent = root.packages if where is Layout.FILE_LEVEL else root.fd
        with disk.Closing(disk.open_directory(package_hash, parent)) as fd:
            size += freed_with(fd)
    objects, allocated = ledger.exclusive(package_hash)
    return Removal(package_hash, layouts, size, objects, allocated)


def remove(root: StoreRoot, ledger: Ledger, package_hash: str) -> Removal:
    """Remove a package from both layouts; its objects are left to ``gc``.

    The layout that is not being read goes first: until the last rename the package is
    whole for readers, then it is gone. A running migration cannot bring it back.

    Raises:
        UnknownPackageError: No layout has the package, and the ledger does not know it.
    """
    with publish_lock(root):
        removal = foresee(root, ledger, package_hash)
        ledger.intend(package_hash, Intent.REMOVE)
        try:
            _carry_out(root, ledger, package_hash, Intent.REMOVE)
        except OSError:
            if dual.layouts_of(root, package_hash) == removal.layouts:  # nothing was done
                ledger.fulfilled(package_hash, Intent.REMOVE)
            raise
    return removal


def check_excludable(root: StoreRoot, package_hash: str) -> None:
    """Check that a package can be served from legacy.

    Raises:
        RefusedError: It has no legacy directory.
    """
    if not is_published(root.fd, package_hash):
        raise RefusedError(
            "the package has no legacy directory to be served from",
            package=package_hash,
            advice="Only packages that still have one can be set aside.",
        )


def exclude(
    root: StoreRoot, ledger: Ledger, package_hash: str, queue: Callable[[], object]
) -> bool:
    """Set a package aside: served from legacy in every phase; False if it was already.

    Args:
        root: The store.
        ledger: Its ledger.
        package_hash: The package.
        queue: Gives the package its row, if it appeared since the last run.

    Raises:
        RefusedError: It has no legacy directory to be served from.
    """
    with publish_lock(root):
        check_excludable(root, package_hash)
        if package_hash in ledger.excluded():
            return False
        if ledger.package_row(package_hash) is None:
            queue()
        ledger.intend(package_hash, Intent.EXCLUDE)
        _carry_out(root, ledger, package_hash, Intent.EXCLUDE)
        return True


def include(root: StoreRoot, ledger: Ledger, package_hash: str) -> bool:
    """Undo ``exclude``; False if the package was not set aside."""
    with publish_lock(root):
        if package_hash not in ledger.excluded():
            return False
        ledger.include(package_hash)
        return True


def finish(root: StoreRoot, ledger: Ledger) -> int:
    """Carry out what a killed process had begun; return how many packages that concerned.

    Trash that cannot be emptied stays for the next time: it is in nobody's way.
    """
    if not any(action is not Intent.ADD for action in ledger.intents().values()):
        return 0
    done = 0
    with publish_lock(root):
        for package_hash, action in ledger.intents().items():
            if action is Intent.ADD:  # for who added it to finish
                continue
            try:
                _carry_out(root, ledger, package_hash, action)
            except OSError:
                if ledger.intents().get(package_hash) is not Intent.DISCARD:
                    raise
            done += 1
    return done


def _carry_out(root: StoreRoot, ledger: Ledger, package_hash: str, action: Intent) -> None:
    """Do what was intended, from wherever it stands: every step may be repeated."""
    if action in WITHDRAWALS:
        withdraw(root, ledger, package_hash, action)
        return
    if action is Intent.REMOVE:
        read = root.phase().read_order
        for where in (*(other for other in Layout if other not in read), *reversed(read)):
            to_trash(root, package_hash, where)
        ledger.forget_package(package_hash)
    elif action is Intent.EXCLUDE:
        to_trash(root, package_hash, Layout.FILE_LEVEL)
        ledger.exclude(package_hash)
    empty_trash(root, package_hash)
    ledger.fulfilled(package_hash, Intent.DISCARD)
