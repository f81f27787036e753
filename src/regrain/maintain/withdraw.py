"""Take one layout of a package away, the other stays: by intent, from wherever it stands.

``cleanup`` takes the legacy directory, ``rollback`` and ``purge`` what is published. All hold
``publish_lock`` from the intent to its fulfilment, so that an intent somebody else finds was
left by a process that was killed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from regrain import disk
from regrain.errors import PackageError, path_of, reason, shown
from regrain.ledger.keeping import Intent
from regrain.model import layout
from regrain.model.phase import Layout
from regrain.model.status import LEGACY_CHANGED, Status
from regrain.store.legacy import freed_with
from regrain.store.packages import is_published
from regrain.store.trash import (
    condemn,
    discarded,
    empty_discarded,
    empty_trash,
    in_trash,
    put_back,
    take_back_right,
    to_trash,
)
from regrain.store.twins import Doubt, Twins, mark

if TYPE_CHECKING:
    from collections.abc import Sequence

    from regrain.ledger import Ledger
    from regrain.store.root import StoreRoot

WITHDRAWALS = frozenset({Intent.CLEANUP, Intent.UNLINK, Intent.ROLLBACK, Intent.PURGE})
_BECOMES = {Intent.ROLLBACK: Status.ROLLED_BACK, Intent.PURGE: Status.PENDING}


def withdraw(root: StoreRoot, ledger: Ledger, package_hash: str, action: Intent) -> None:
    """Finish what a killed process had begun, or undo it where that is in doubt."""
    if action is Intent.CLEANUP:
        take_back_right(root, package_hash)
        list_hash = ledger.recorded_packages().get(package_hash)
        finish_cleanup(root, ledger, Twins(root), package_hash, list_hash)
    elif action is Intent.UNLINK:
        _let_go(root, ledger, package_hash)
    else:
        _unpublish_all(root, ledger, [package_hash], action)


# cleanup


def clean(
    root: StoreRoot,
    ledger: Ledger,
    twins: Twins,
    package_hash: str,
    list_hash: str | None,
    proved: str,
) -> Doubt | None:
    """Take a legacy directory that was compared out for good; the caller holds ``publish_lock``.

    Its bytes are freed by ``empty_discarded``, for which nobody needs to wait.

    Args:
        root: The store.
        ledger: Its ledger.
        twins: Who compared.
        package_hash: The package.
        list_hash: What the ledger knows its file list by.
        proved: The mark of the tree that was compared.

    Returns:
        Why it was put back; None if it is gone.
    """
    ledger.intend(package_hash, Intent.CLEANUP)
    to_trash(root, package_hash, Layout.LEGACY)
    return finish_cleanup(root, ledger, twins, package_hash, list_hash, proved)


def finish_cleanup(
    root: StoreRoot,
    ledger: Ledger,
    twins: Twins,
    package_hash: str,
    list_hash: str | None,
    proved: str = "",
) -> Doubt | None:
    """Compare what lies in the trash once more; condemn it, or put it back."""
    freed = 0
    names = in_trash(root, package_hash, Layout.LEGACY)
    for name in names:
        doubt, freed = _look_again(root, twins, package_hash, list_hash, name, proved)
        if doubt is not None:
            put_back(root, package_hash, Layout.LEGACY)
            note(ledger, package_hash, doubt)
            ledger.fulfilled(package_hash, Intent.CLEANUP)
            return doubt
    if not names:  # it had not gone yet: the next cleanup begins with it
        ledger.fulfilled(package_hash, Intent.CLEANUP)
        return None
    ledger.condemn(package_hash, freed)
    _let_go(root, ledger, package_hash)
    return None


def _look_again(
    root: StoreRoot,
    twins: Twins,
    package_hash: str,
    list_hash: str | None,
    name: str,
    proved: str,
) -> tuple[Doubt | None, int]:
    """Return what speaks against unlinking, and what that would free in bytes on disk."""
    with (
        disk.Closing(disk.open_directory(layout.TRASH, root.fd)) as trash,
        disk.Closing(disk.open_directory(name, trash)) as legacy,
    ):
        if not proved or not _is_still(legacy, proved):
            doubt = twins.doubt(package_hash, legacy, list_hash)
            if doubt is not None:
                return doubt, 0
        return None, freed_with(legacy)


def _is_still(legacy: int, proved: str) -> bool:
    """Tell whether a tree is what was compared; where it is not, its bytes are to be read."""
    try:
        return mark(legacy) == proved
    except PackageError:
        return False


def _let_go(root: StoreRoot, ledger: Ledger, package_hash: str) -> None:
    """Record that a directory is gone: from now on its name in the trash alone condemns it."""
    condemn(root, package_hash, Layout.LEGACY)
    if is_published(root.fd, package_hash):  # another one, made since this was condemned
        ledger.fulfilled(package_hash, Intent.UNLINK)
    else:
        ledger.cleaned(package_hash)


def condemned(root: StoreRoot, ledger: Ledger) -> list[str]:
    """Return the packages whose legacy directory lies in the trash, not all unlinked yet."""
    waiting = discarded(root)
    known = ledger.standings() if waiting else {}
    return [name for name in waiting if name in known]


def unlink_rest(root: StoreRoot, ledger: Ledger) -> dict[str, str]:
    """Try once more to unlink what lies condemned in the trash; say of the rest why it cannot be.

    An immutable file, or something that is mounted there: that is for the operator.
    """
    rest = {}
    for package_hash in condemned(root, ledger):
        try:
            empty_discarded(root, package_hash)
        except OSError as error:
            where = f"'{shown(path_of(error))}': " * bool(error.filename)
            rest[package_hash] = (
                f"it lies in {layout.TRASH}/, half unlinked: {where}{reason(error)}"
            )
    return rest


def note(ledger: Ledger, package_hash: str, doubt: Doubt) -> None:
    """Write down what was found, so that nothing is deleted before it was looked into."""
    ledger.concern(package_hash, f"{LEGACY_CHANGED if doubt.in_legacy else ''}{doubt}")


# rollback of single packages, and purge


def unpublish(
    root: StoreRoot, ledger: Ledger, package_hashes: Sequence[str], action: Intent
) -> list[str]:
    """Take published packages back to their legacy directories; the caller holds the lock.

    Args:
        root: The store.
        ledger: Its ledger.
        package_hashes: Packages.
        action: ``Intent.ROLLBACK`` or ``Intent.PURGE``: what their status says afterwards.

    Returns:
        Those whose legacy directory is not there, and which were left alone.
    """
    if not package_hashes:
        return []
    ledger.intend_all(package_hashes, action)
    return _unpublish_all(root, ledger, package_hashes, action)


def _unpublish_all(
    root: StoreRoot, ledger: Ledger, package_hashes: Sequence[str], action: Intent
) -> list[str]:
    """Go on from wherever it stands; nothing goes that is the only one left."""
    alone = [name for name in package_hashes if not is_published(root.fd, name)]
    there = [name for name in package_hashes if name not in set(alone)]
    for name in alone:
        put_back(root, name, Layout.FILE_LEVEL)
    for name in there:
        to_trash(root, name, Layout.FILE_LEVEL)
    ledger.unpublished(there, _BECOMES[action])
    for name in there:
        empty_trash(root, name, Layout.FILE_LEVEL)
    ledger.fulfilled_all(package_hashes)
    return alone
