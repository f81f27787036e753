"""Which objects are hot: in use outside the store, as hard links of their carriers."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from regrain.store.occupancy import Occupancy
from regrain.store.root import legacy_names

if TYPE_CHECKING:
    from regrain.store.objects import Carrier
    from regrain.store.root import StoreRoot


class Heat:
    """Tells hot objects from cold ones.

    A name in a legacy directory does not make an object hot: it goes with the directory. Where
    these cannot be looked at, what they share counts as hot, and stays as it is.
    """

    def __init__(self, root: StoreRoot) -> None:
        self._root = root

    def is_hot(self, carrier: Carrier) -> bool:
        """Tell whether the inode has names neither in ``objects/`` nor in legacy directories."""
        status = carrier.status
        if status.st_nlink == 1:
            return False
        link = self._legacy.links.get((status.st_dev, status.st_ino))
        return status.st_nlink > 1 + (0 if link is None else link.met)

    @cached_property
    def _legacy(self) -> Occupancy:
        """All legacy directories, looked through once, when the first object asks for it."""
        occupied = Occupancy()
        for name in legacy_names(self._root.fd)[0]:
            occupied.add_tree(name, self._root.fd)
        return occupied
