"""The way out of a store: a rename to ``trash/``, later the unlinking.

A name in ``trash/`` is ``<package-hash>.<layout>.<number>`` for what may yet be put back; the
ledger knows what is to become of it. ``<package-hash>.removed.<number>`` never comes back: its
name alone condemns it, whatever has the package's name meanwhile.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from regrain import disk
from regrain.errors import CorruptionError, UnknownFormatError
from regrain.model import layout
from regrain.model.phase import Layout
from regrain.store.moving import move_directory, take_back
from regrain.store.packages import FileLevelPackage
from regrain.store.quarantine import quarantine

if TYPE_CHECKING:
    from regrain.store.root import StoreRoot

_SAME_NAMES_MAX = 1_000_000
_REMOVED = "removed"


def parent_of(root: StoreRoot, where: Layout) -> int:
    """Return the open directory that the packages of a layout are in."""
    return root.packages if where is Layout.FILE_LEVEL else root.fd


def to_trash(root: StoreRoot, package_hash: str, where: Layout) -> None:
    """Take a package's directory out of one layout, durably; it may be put back.

    Also where it is not in it any more: who took it out may have been killed before that
    was on the disk.
    """
    _move_out(root, package_hash, where, where.value)


def discard(root: StoreRoot, package_hash: str, where: Layout) -> None:
    """Take a package's directory out of one layout for good, durably; see ``to_trash``."""
    _move_out(root, package_hash, where, _REMOVED)


def _move_out(root: StoreRoot, package_hash: str, where: Layout, label: str) -> None:
    parent = parent_of(root, where)
    with disk.Closing(disk.open_directory(layout.TRASH, root.fd)) as trash:
        _rename_free(package_hash, parent, f"{package_hash}.{label}", trash)
        disk.fsync(parent)
        disk.fsync(trash)


def _rename_free(name: str, at: int, first: str, trash: int) -> None:
    """Move a directory, if it is there, to the first free number behind ``first``."""
    for number in range(_SAME_NAMES_MAX):
        try:
            move_directory(name.encode(), at, f"{first}.{number}".encode(), trash)
        except FileExistsError:
            continue
        except FileNotFoundError:
            pass
        return


def in_trash(root: StoreRoot, package_hash: str, where: Layout) -> list[str]:
    """Return the names in the trash of what was a package's directory in one layout."""
    wanted = f"{package_hash}.{where.value}."
    with disk.Closing(disk.open_directory(layout.TRASH, root.fd)) as trash:
        return sorted(name for name in os.listdir(trash) if name.startswith(wanted))


def put_back(root: StoreRoot, package_hash: str, where: Layout) -> bool:
    """Take a package's directory out of the trash again, durably.

    Where another directory has its place meanwhile it goes to quarantine, since nothing may
    be deleted that was not found to be superfluous.

    Returns:
        Whether it is back in its place.
    """
    parent, is_back = parent_of(root, where), False
    with disk.Closing(disk.open_directory(layout.TRASH, root.fd)) as trash:
        for name in in_trash(root, package_hash, where):
            try:
                move_directory(name.encode(), trash, package_hash.encode(), parent)
                is_back = True
            except FileExistsError:
                quarantine(root.fd, layout.TRASH, name)
        disk.fsync(parent)
        disk.fsync(trash)
    return is_back


def condemn(root: StoreRoot, package_hash: str, where: Layout) -> None:
    """Give what lies in the trash, and might be put back, names by which it never is; durably."""
    with disk.Closing(disk.open_directory(layout.TRASH, root.fd)) as trash:
        for name in in_trash(root, package_hash, where):
            _rename_free(name, trash, f"{package_hash}.{_REMOVED}", trash)
        disk.fsync(trash)


def take_back_right(root: StoreRoot, package_hash: str) -> None:
    """Give a legacy directory the mode its file list has, if a process was killed as it moved it.

    To move it, who may not write to it lends himself that right. Only where that is known to
    have been begun may this be called: else somebody else may have changed the mode.
    """
    try:
        package = FileLevelPackage(root.packages, root.objects, package_hash)
        top = package.lookup(b"")
    except (OSError, CorruptionError, UnknownFormatError):
        return  # whoever compares them says so
    if top is None:
        return
    take_back(package_hash, root.fd, top.mode)
    with disk.Closing(disk.open_directory(layout.TRASH, root.fd)) as trash:
        for name in in_trash(root, package_hash, Layout.LEGACY):
            take_back(name, trash, top.mode)


def empty_trash(root: StoreRoot, package_hash: str, where: Layout) -> None:
    """Unlink what was a package's directory in one layout."""
    with disk.Closing(disk.open_directory(layout.TRASH, root.fd)) as trash:
        for name in in_trash(root, package_hash, where):
            disk.remove_tree(name, trash)
        disk.fsync(trash)


def empty_discarded(root: StoreRoot, package_hash: str | None = None) -> None:
    """Unlink what was discarded, which needs no other lock: nobody looks at it any more.

    Args:
        root: The store.
        package_hash: Of this package; this waits for others who do the same. None: of all
            packages, unless somebody else is at it; what cannot be unlinked then stays for
            the next time, being in nobody's way.

    Raises:
        OSError: Something of this package cannot be unlinked.
    """
    with disk.Closing(disk.open_directory(layout.TRASH, root.fd)) as trash:
        if not disk.lock(trash, exclusive=True, wait=package_hash is not None):
            return
        found = [name for name in os.listdir(trash) if _is_discarded(name, package_hash)]
        for name in found:
            try:
                disk.remove_tree(name, trash)
            except OSError:
                if package_hash is not None:
                    raise
        if found:
            disk.fsync(trash)


def discarded(root: StoreRoot) -> list[str]:
    """Return the packages of which something lies in the trash that was discarded."""
    with disk.Closing(disk.open_directory(layout.TRASH, root.fd)) as trash:
        names = os.listdir(trash)
    return sorted({name.partition(".")[0] for name in names if _is_discarded(name, None)})


def _is_discarded(name: str, package_hash: str | None) -> bool:
    owner, _, rest = name.partition(".")
    return rest.startswith(f"{_REMOVED}.") and package_hash in {None, owner}
