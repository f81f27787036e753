"""The rule by which a backup stands for a store: asked by the cutover gate and by whatever deletes.

A mark is somebody's word and is good for a day. A backup that regrain made is looked at: it must be
reachable, its last check must have found nothing, and it must hold every package as it is now.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from regrain.errors import CorruptionError, RegrainError, UnknownFormatError
from regrain.model import clock
from regrain.model.phase import Layout
from regrain.store import dual
from regrain.store.compare import first_difference
from regrain.store.packages import FileLevelPackage
from regrain.store.root import StoreRoot

if TYPE_CHECKING:
    from regrain.ledger import Ledger
    from regrain.ledger.lifecycle import Event

BACKUP_MARKED = "backup_marked"
"""The event of the history by which somebody said that a backup was made."""

BACKUP_CREATED = "backup_created"
BACKUP_CHECKED = "backup_checked"
BACKUP_DAMAGED = "backup_damaged"
"""Events by which a backup was made, or a check of it found nothing, or damage."""

MARK_SECONDS_MAX = 24 * 3600
_SHOWN_MAX = 3
_HOUR = 3600


def is_fresh(marked_at: int) -> bool:
    """Tell whether the mark of a backup is good still; one from the future is not."""
    return 0 <= clock.now() - marked_at <= MARK_SECONDS_MAX


def detail_of(path: str, packages: int) -> str:
    """Return what the history keeps of a backup at ``path``."""
    return json.dumps({"path": path, "packages": packages})


def path_in(event: Event) -> str:
    """Return where the backup lies that a line of the history speaks of."""
    try:
        return str(json.loads(event.detail)["path"])
    except (ValueError, TypeError, KeyError):
        return ""


def last_backup(ledger: Ledger) -> Event | None:
    """Return the last line of the history about a backup that regrain made or checked."""
    return ledger.last_event(BACKUP_DAMAGED, BACKUP_CHECKED, BACKUP_CREATED)


def why_not_backed_up(root: StoreRoot, ledger: Ledger) -> str:
    """Say why no backup stands for all packages of a store; empty where one does.

    No bytes of objects are read: file lists are compared by their hash, packages that are only in
    the legacy layout by their metadata.
    """
    marked = ledger.last_event(BACKUP_MARKED)
    if marked is not None and is_fresh(marked.at):
        return ""
    made = last_backup(ledger)
    if made is not None:
        return _why_not(root, made)
    if marked is not None:
        return f"the last backup was marked {(clock.now() - marked.at) // _HOUR} h ago"
    return "no backup was marked, and none was made with 'regrain backup create'"


def _why_not(root: StoreRoot, made: Event) -> str:
    path = path_in(made)
    if made.event == BACKUP_DAMAGED:
        return f"the last check found damage in the backup at '{path}'"
    try:
        backup = StoreRoot(path)
    except RegrainError as error:
        return f"the backup at '{path}' cannot be opened: {error.what}"
    if backup.backup_of != root.store_id:
        return f"what lies at '{path}' is no backup of this store"
    missing = [name for name in dual.package_hashes(root) if not covers(root, backup, name)]
    if not missing:
        return ""
    more = "" if len(missing) <= _SHOWN_MAX else f" and {len(missing) - _SHOWN_MAX:,} more"
    names = ", ".join(missing[:_SHOWN_MAX])
    return f"the backup at '{path}' does not hold {names}{more} as they are now"


def covers(root: StoreRoot, backup: StoreRoot, package_hash: str) -> bool:
    """Tell whether a backup holds a package as the store has it now; one that went needs none."""
    try:
        kept = FileLevelPackage(backup.packages, backup.objects, package_hash)
        there = dual.open_package(root, package_hash)
        if isinstance(there, FileLevelPackage):
            return kept.list_hash() == there.list_hash()
        if there.layout is Layout.LEGACY:
            return first_difference(kept.entries(), there.tree(), content=False) is None
    except (CorruptionError, UnknownFormatError, OSError):
        pass
    except RegrainError:
        return not dual.has_package(root, package_hash)
    return not dual.has_package(root, package_hash)
