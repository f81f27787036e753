"""Which package a word means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regrain.maintain.remove import is_remembered
from regrain.model.digest import PackageHash, is_package_hash
from regrain.store import dual

if TYPE_CHECKING:
    from regrain.ledger import Ledger
    from regrain.store.root import StoreRoot


def known_hash(root: StoreRoot, ledger: Ledger, text: str) -> PackageHash:
    """Return the package that ``text`` names, also one that only the ledger remembers.

    Raises:
        MalformedHashError: It is neither a hash nor a prefix of one.
        UnknownPackageError: There is no such package.
        UsageError: Several begin with it.
    """
    if is_package_hash(text) and is_remembered(ledger, text):
        return PackageHash(text)
    return dual.find_hash(root, text)
