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

if TYPE_CHECKING:
    from regrain.store.root import StoreRoot

_SAME_NAMES_MAX = 1_000_000


def to_trash(root: StoreRoot, package_hash: str, where: Layout) -> bool:
    """Take a package's directory out of one layout, durably; False if it is not in it."""
    parent = root.packages if where is Layout.FILE_LEVEL else root.fd
    with disk.Closing(disk.open_directory(layout.TRASH, root.fd)) as trash:
        for number in range(_SAME_NAMES_MAX):
            name = f"{package_hash}.{where.value}.{number}"
            try:
                disk.rename_noreplace(package_hash.encode(), parent, name.encode(), trash)
            except FileExistsError:
                continue
            except FileNotFoundError:
                return False
            disk.fsync(parent)
            disk.fsync(trash)
            return True
    return False


def empty_trash(root: StoreRoot, package_hash: str) -> None:
    """Unlink all that lies in the trash of one package."""
    with disk.Closing(disk.open_directory(layout.TRASH, root.fd)) as trash:
        for name in os.listdir(trash):
            if name.partition(".")[0] == package_hash:
                disk.remove_tree(name, trash)
        disk.fsync(trash)
