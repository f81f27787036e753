"""The way out of a store: a rename to ``trash/``, later the unlinking.

A name in ``trash/`` is ``<package-hash>.<layout>.<number>``; the ledger knows for each
package there what is to become of it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from regrain import disk
from regrain.model import layout
from regrain.model.phase import Layout
from regrain.store.moving import move_directory
from regrain.store.quarantine import quarantine

if TYPE_CHECKING:
    from regrain.store.root import StoreRoot

_SAME_NAMES_MAX = 1_000_000


def parent_of(root: StoreRoot, where: Layout) -> int:
    """Return the open directory that the packages of a layout are in."""
    return root.packages if where is Layout.FILE_LEVEL else root.fd


def to_trash(root: StoreRoot, package_hash: str, where: Layout) -> None:
    """Take a package's directory out of one layout, durably.

    Also where it is not in it any more: who took it out may have been killed before that
    was on the disk.
    """
    parent = parent_of(root, where)
    with disk.Closing(disk.open_directory(layout.TRASH, root.fd)) as trash:
        for number in range(_SAME_NAMES_MAX):
            name = f"{package_hash}.{where.value}.{number}"
            try:
                move_directory(package_hash.encode(), parent, name.encode(), trash)
            except FileExistsError:
                continue
            except FileNotFoundError:
                pass
            break
        disk.fsync(parent)
        disk.fsync(trash)


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


def empty_trash(root: StoreRoot, package_hash: str) -> None:
    """Unlink all that lies in the trash of one package."""
    with disk.Closing(disk.open_directory(layout.TRASH, root.fd)) as trash:
        for name in os.listdir(trash):
            if name.partition(".")[0] == package_hash:
                disk.remove_tree(name, trash)
        disk.fsync(trash)
