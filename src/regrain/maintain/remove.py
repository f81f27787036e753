"""Remove packages, or set them aside: by intent, so that a crash leaves nothing half done."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from regrain import disk
from regrain.errors import RefusedError, RegrainError, UnknownPackageError, path_of, reason
from regrain.ledger.keeping import Intent
from regrain.maintain.withdraw import WITHDRAWALS, withdraw
from regrain.model.phase import Layout
from regrain.store import dual
from regrain.store.legacy import freed_with
from regrain.store.locks import publish_lock
from regrain.store.packages import is_published
from regrain.store.trash import discard, empty_discarded, parent_of

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
        was_begun: Whether a process that was killed had begun it, and there was only its rest
            to do; of what that was the figures tell nothing.
    """

    package_hash: str
    layouts: list[Layout] = field(default_factory=list)
    directory_bytes: int = 0
    objects: int = 0
    object_bytes: int = 0
    was_begun: bool = False


def foresee(root: StoreRoot, ledger: Ledger, package_hash: str) -> Removal:
    """Say what ``remove`` would do; change nothing.

    A package whose legacy directory vanished before it was published is in no layout any
    more, but the ledger knows it, as failed; that, too, can be removed.

    Raises:
        UnknownPackageError: No layout has the package, and the ledger knows nothing of it.
        RegrainError: This user may not look into it.
    """
    layouts = _layouts(root, ledger, package_hash)
    try:
        size = sum(_freed(root, package_hash, where) for where in layouts)
    except PermissionError as error:
        raise RegrainError(
            "cannot measure the package",
            package=package_hash,
            path=path_of(error) or None,
            why=reason(error),
            advice="Run as the store's owner, or as root.",
        ) from error
    objects, allocated = ledger.exclusive(package_hash)
    return Removal(package_hash, layouts, size, objects, allocated)


def _layouts(root: StoreRoot, ledger: Ledger, package_hash: str) -> list[Layout]:
    layouts = dual.layouts_of(root, package_hash)
    if not layouts and not is_remembered(ledger, package_hash):
        raise UnknownPackageError(
            "no such package", package=package_hash, advice="'regrain list' shows what there is."
        )
    return layouts


def _freed(root: StoreRoot, package_hash: str, where: Layout) -> int:
    with (
        # Somebody removes or changes it at this moment, which is no reason to keep it.
        contextlib.suppress(FileNotFoundError, NotADirectoryError),
        disk.Closing(disk.open_directory(package_hash, parent_of(root, where))) as fd,
    ):
        return freed_with(fd)
    return 0


def is_remembered(ledger: Ledger, package_hash: str) -> bool:
    """Tell whether the ledger has rows of a package, which may have vanished from the disk."""
    is_migrating = ledger.package_row(package_hash) is not None
    return is_migrating or package_hash in ledger.recorded_packages()


def remove(root: StoreRoot, ledger: Ledger, package_hash: str) -> Removal:
    """Remove a package from both layouts; its objects are left to ``gc``.

    The layout that is not being read goes first: until the last rename the package is
    whole for readers, then it is gone. A running migration cannot bring it back. One whose
    directories vanished is only forgotten. What takes long on a large package, measuring and
    unlinking, keeps no other writer waiting.

    Raises:
        UnknownPackageError: No layout has the package, and the ledger knows nothing of it.
    """
    removal = foresee(root, ledger, package_hash)
    with publish_lock(root):
        finish_one(root, ledger, package_hash)
        removal = replace(removal, layouts=_layouts(root, ledger, package_hash))
        ledger.intend(package_hash, Intent.REMOVE)
        try:
            _carry_out(root, ledger, package_hash, Intent.REMOVE)
        except OSError:
            if dual.layouts_of(root, package_hash) == removal.layouts:  # nothing was done
                ledger.fulfilled(package_hash, Intent.REMOVE)
            raise
    empty_discarded(root, package_hash)
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
        finish_one(root, ledger, package_hash)
        check_excludable(root, package_hash)
        if package_hash in ledger.excluded():
            return False
        if ledger.package_row(package_hash) is None:
            queue()
        ledger.intend(package_hash, Intent.EXCLUDE)
        _carry_out(root, ledger, package_hash, Intent.EXCLUDE)
    empty_discarded(root, package_hash)
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
    done = 0
    if any(action is not Intent.ADD for action in ledger.intents().values()):
        with publish_lock(root):
            done = sum(finish_one(root, ledger, name) for name in ledger.intents())
    with contextlib.suppress(OSError):
        empty_discarded(root)
    return done


def finish_one(root: StoreRoot, ledger: Ledger, package_hash: str) -> bool:
    """Carry out what a killed process had begun with one package, additions aside.

    The caller holds ``publish_lock``, without which nobody who lives intends anything.

    Returns:
        Whether there was something.
    """
    action = ledger.intents().get(package_hash, Intent.ADD)
    if action is Intent.ADD:  # for who adds packages to finish
        return False
    try:
        _carry_out(root, ledger, package_hash, action)
    except OSError:
        if ledger.intents().get(package_hash) is not Intent.UNLINK:
            raise
    return True


def _carry_out(root: StoreRoot, ledger: Ledger, package_hash: str, action: Intent) -> None:
    """Do what was intended, from wherever it stands: every step may be repeated."""
    if action in WITHDRAWALS:
        withdraw(root, ledger, package_hash, action)
    elif action is Intent.REMOVE:
        read = root.phase().read_order
        for where in (*(other for other in Layout if other not in read), *reversed(read)):
            discard(root, package_hash, where)
        ledger.forget_package(package_hash)
    elif action is Intent.EXCLUDE:
        discard(root, package_hash, Layout.FILE_LEVEL)
        ledger.exclude(package_hash)
