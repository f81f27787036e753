"""Which modes the files of an object have, by the file lists of all packages."""

from __future__ import annotations

import contextlib
from functools import cached_property
from typing import TYPE_CHECKING

from regrain.errors import RegrainError
from regrain.model.digest import is_package_hash
from regrain.model.entry import Kind
from regrain.model.layout import carrier_mode
from regrain.store.packages import FileLevelPackage, published

if TYPE_CHECKING:
    from regrain.store.root import StoreRoot


class WantedModes:
    """Tells of what modes an object's carriers are to be.

    All file lists are read once, when the first object is asked for. What a damaged one wants
    is not known: who reads such a package finds another carrier.
    """

    def __init__(self, root: StoreRoot) -> None:
        self._root = root

    def of(self, digest: str) -> set[int]:
        """Return the modes of carriers that files with these bytes use."""
        raw = bytes.fromhex(digest)
        first = self._found[0].get(raw)
        return set() if first is None else {first, *self._found[1].get(raw, ())}

    @cached_property
    def _found(self) -> tuple[dict[bytes, int], dict[bytes, set[int]]]:
        """The first mode of each object, and further ones, which few have."""
        first: dict[bytes, int] = {}
        further: dict[bytes, set[int]] = {}
        for name in filter(is_package_hash, published(self._root.packages)):
            with contextlib.suppress(RegrainError, OSError):
                package = FileLevelPackage(self._root.packages, self._root.objects, name)
                for entry in package.entries():
                    if entry.kind is Kind.FILE and entry.size:
                        raw, mode = bytes.fromhex(entry.digest), carrier_mode(entry.mode)
                        if first.setdefault(raw, mode) != mode:
                            further.setdefault(raw, set()).add(mode)
        return first, further
