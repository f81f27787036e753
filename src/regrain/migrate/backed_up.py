"""The rule by which a backup stands for a store: asked by the cutover gate and by whatever deletes.

A mark is somebody's word and is good for a day. A backup that regrain made is looked at: it must be
reachable, its last check must have found nothing, and it must hold every package as it is now. One
at a URL must have been checked since it was made.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from regrain.errors import CorruptionError, RegrainError, UnknownFormatError
from regrain.model import clock
from regrain.model.phase import Layout
from regrain.model.place import is_url
from regrain.store import dual
from regrain.store.compare import first_difference
from regrain.store.packages import FileLevelPackage
from regrain.store.root import StoreRoot

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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


def last_backup_at(ledger: Ledger, place: str) -> Event | None:
    """Return the last line of the history about the backup at one place."""
    kinds = (BACKUP_DAMAGED, BACKUP_CHECKED, BACKUP_CREATED)
    return next((one for one in ledger.events(*kinds) if path_in(one) == place), None)


def is_checked(made: Event) -> bool:
    """Tell whether a backup is known whole: in a directory it was read back when it was made."""
    if made.event == BACKUP_CREATED:
        return not is_url(path_in(made))
    return made.event == BACKUP_CHECKED


def why_not_backed_up(
    root: StoreRoot, ledger: Ledger, why_not_at_url: Callable[[StoreRoot, str], str]
) -> str:
    """Say why no backup stands for all packages of a store; empty where one does.

    No bytes of objects are read: file lists are compared by their hash, packages that are only in
    the legacy layout by their metadata.

    Args:
        root: The store.
        ledger: Its ledger.
        why_not_at_url: Says it of a backup at a URL.
    """
    marked = ledger.last_event(BACKUP_MARKED)
    if marked is not None and is_fresh(marked.at):
        return ""
    made = last_backup(ledger)
    if made is not None:
        return _why_not(root, made, why_not_at_url)
    if marked is not None:
        return f"the last backup was marked {(clock.now() - marked.at) // _HOUR} h ago"
    return "no backup was marked, and none was made with 'regrain backup create'"


def _why_not(root: StoreRoot, made: Event, why_not_at_url: Callable[[StoreRoot, str], str]) -> str:
    path = path_in(made)
    if made.event == BACKUP_DAMAGED:
        return f"the last check found damage in the backup at '{path}'"
    if not is_checked(made):
        return f"the backup at '{path}' was not checked since: 'regrain backup check {path}'"
    if is_url(path):
        return why_not_at_url(root, path)
    try:
        backup = StoreRoot(path)
    except RegrainError as error:
        return f"the backup at '{path}' cannot be opened: {error.what}"
    if backup.backup_of != root.store_id:
        return f"what lies at '{path}' is no backup of this store"
    names = dual.package_hashes(root)
    return why_missing(path, [name for name in names if not covers(root, backup.packages, name)])


def why_missing(path: str, missing: Sequence[str]) -> str:
    """Say which packages a backup lacks; empty where it lacks none."""
    if not missing:
        return ""
    more = "" if len(missing) <= _SHOWN_MAX else f" and {len(missing) - _SHOWN_MAX:,} more"
    names = ", ".join(missing[:_SHOWN_MAX])
    return f"the backup at '{path}' does not hold {names}{more} as they are now"


def covers(root: StoreRoot, lists: int, package_hash: str) -> bool:
    """Tell whether a backup holds a package as the store has it now; one that went needs none.

    Args:
        root: The store.
        lists: The open directory that has the backup's file lists; nothing else of it is read.
        package_hash: The package.
    """
    try:
        kept = FileLevelPackage(lists, lists, package_hash)
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
