"""Which package a word means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regrain.app.recovery import storage_error
from regrain.ledger import open_ledger
from regrain.ledger.keeping import Intent
from regrain.maintain.remove import is_remembered
from regrain.model.digest import PackageHash, is_package_hash, is_prefix
from regrain.store import dual
from regrain.store.trash import discarded

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


def being_removed(root: StoreRoot, text: str) -> str | None:
    """Return the package that ``text`` names among those whose removal a killed process began.

    None where there is none, or several.
    """
    ledger = open_ledger(root.path, read_only=True)
    try:
        begun = {name for name, action in ledger.intents().items() if action is Intent.REMOVE}
    finally:
        ledger.close()
    try:
        begun |= set(discarded(root))
    except OSError as error:
        raise storage_error(error, root) from error
    if text in begun:
        return text
    found = [name for name in begun if is_prefix(text) and name.startswith(text)]
    return found[0] if len(found) == 1 else None
