"""What is known to stand against packages: noted where it is found, taken back where it is not."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from regrain.errors import RegrainError
from regrain.ledger import open_ledger
from regrain.maintain.audit import Audit, Level
from regrain.migrate.parting import Change
from regrain.model.digest import is_package_hash
from regrain.model.status import LEGACY_CHANGED
from regrain.store.locks import publish_lock
from regrain.store.packages import is_published

if TYPE_CHECKING:
    from collections.abc import Iterable

    from regrain.ledger import Ledger
    from regrain.store.root import StoreRoot


PROVEN = "verified"
"""The event of the history by which a deep look at the whole store found nothing."""


def keep(
    root: StoreRoot, looked_at: Iterable[str], found: Audit, level: Level, *, whole: bool
) -> None:
    """Note in the ledger what an audit found; where this user may not, nothing is noted.

    An audit must not fail because of what is only kept about it.

    Args:
        root: The store.
        looked_at: The packages that were looked at, all of each.
        found: The findings.
        level: ``full`` or ``deep``.
        whole: Whether that was the whole store.
    """
    if os.geteuid() not in (0, root.owner.uid):
        return
    try:
        if not _is_news(root, found, level):
            return
        ledger = open_ledger(root.path)
        try:
            record(root, ledger, looked_at, found, level)
            if whole and level is Level.DEEP and not found.damages and not found.changes:
                ledger.remember(PROVEN, detail=f"{found.packages} packages, deep")
        finally:
            ledger.close()
    except RegrainError:
        return


def _is_news(root: StoreRoot, found: Audit, level: Level) -> bool:
    """Tell whether there is anything to write, which may have to wait for other writers."""
    if level is Level.DEEP or found.damages or found.changes:
        return True
    ledger = open_ledger(root.path, read_only=True)
    try:
        return bool(ledger.concerns())
    finally:
        ledger.close()


def record(
    root: StoreRoot, ledger: Ledger, looked_at: Iterable[str], found: Audit, level: Level
) -> set[str]:
    """Note what an audit found, and return the packages it found nothing about."""
    said = findings(found)
    with publish_lock(root):
        for name, what in said.items():
            if is_published(root.packages, name):
                for words in what:
                    ledger.concern(name, words)
        clean = {name for name in looked_at if is_package_hash(name)} - said.keys()
        ledger.clear_concerns(sorted(clean), legacy_too=level is Level.DEEP)
        if level is Level.DEEP:
            ledger.verified(sorted(clean))
    return clean


def findings(found: Audit) -> dict[str, list[str]]:
    """Return what an audit says against each package: the first damage, the first change."""
    said: dict[str, list[str]] = {}
    for change in found.changes:
        said.setdefault(change.package_hash, [Change(*change).words])
    for damage in found.damages:
        if not is_package_hash(damage.package_hash):
            continue
        what = said.setdefault(damage.package_hash, [])
        if all(words.startswith(LEGACY_CHANGED) for words in what):
            words = f"object {damage.object}: {damage.reason}" if damage.object else damage.reason
            what.append(words)
    return said
