"""Whether a backup covers a store: the rule for all that asks for one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from regrain.app.recovery import check_owner
from regrain.errors import RegrainError, UsageError
from regrain.ledger import Ledger, open_ledger
from regrain.migrate.cutover import BACKUP_MARKED, is_fresh
from regrain.model import clock
from regrain.model.digest import is_package_hash
from regrain.store.packages import published
from regrain.store.root import StoreRoot, legacy_names

if TYPE_CHECKING:
    from collections.abc import Iterable

BACKUP_CREATED = "backup_created"
"""The event of the history by which ``backup create`` came to its end."""


class _Detail(msgspec.Struct, frozen=True):
    path: str
    store_id: str
    failed: int = 0


class Known(NamedTuple):
    """The last backup that was created.

    Attributes:
        path: Where.
        at: When, in Unix seconds.
        is_whole: Whether every package could be copied.
    """

    path: str
    at: int
    is_whole: bool


def detail_of(place: str, backup: StoreRoot, failed: Iterable[str]) -> str:
    """Return what the history keeps of a backup."""
    found = _Detail(os.path.abspath(place), backup.store_id, len(list(failed)))
    return msgspec.json.encode(found).decode()


def last_backup(ledger: Ledger) -> Known | None:
    """Return the last backup that was created; None if there was none."""
    event = ledger.last_event(BACKUP_CREATED)
    if event is None:
        return None
    try:
        detail = msgspec.json.decode(event.detail, type=_Detail)
    except msgspec.MsgspecError:
        return None
    return Known(detail.path, event.at, not detail.failed)


def seems_covered(ledger: Ledger) -> bool:
    """Tell whether a backup may be expected to cover the store, without looking at it.

    For ``status``, which must not wait for a disk that is not there; ``lacking`` decides.
    """
    marked = ledger.last_event(BACKUP_MARKED)
    if marked is not None and is_fresh(marked.at):
        return True
    known = last_backup(ledger)
    return known is not None and known.is_whole and known.at >= ledger.last_completed()


def lacking(root: StoreRoot, ledger: Ledger) -> str:
    """Say why no backup covers the store; empty if one does, or one was marked within a day.

    What is asked of a backup: it is there, it is of this store, nothing is known against its
    packages, and it names every package by the same file list. It was read back from its
    disk when it was made; what became of it since, ``backup check`` tells.
    """
    marked = ledger.last_event(BACKUP_MARKED)
    if marked is not None and is_fresh(marked.at):
        return ""
    known = last_backup(ledger)
    if known is not None:
        return _flaw(root, ledger, known.path)
    if marked is None:
        return "no backup was made or marked"
    return f"the last backup was marked {(clock.now() - marked.at) // 3600} h ago"


def mark_backup(root: StoreRoot, note: str, *, dry_run: bool = False) -> None:
    """Write down that a backup was made; the gate takes the word for a day."""
    if not note.strip():
        raise UsageError("a mark needs a note", advice="Say where the backup is, or what made it.")
    check_owner(root)
    if dry_run:
        return
    ledger = open_ledger(root.path)
    try:
        ledger.remember(BACKUP_MARKED, detail=note)
    finally:
        ledger.close()


def _flaw(root: StoreRoot, ledger: Ledger, path: str) -> str:
    try:
        backup = StoreRoot(path)
        if backup.backup_of != root.store_id:
            return f"what lies at '{path}' is no backup of this store"
        absent, concerned = not_covered(root, ledger, backup)
    except RegrainError as error:
        return f"the backup at '{path}' cannot be read: {error.what}"
    if absent:
        return (
            f"the backup at '{path}' lacks {len(absent)} "
            f"package{'' if len(absent) == 1 else 's'}, {absent[0]} among them"
        )
    return f"the backup at '{path}' is damaged: {concerned[0]}" if concerned else ""


def not_covered(root: StoreRoot, ledger: Ledger, backup: StoreRoot) -> tuple[list[str], list[str]]:
    """Return the packages of a store that a backup lacks, and those that are damaged there.

    Lists are compared by what both ledgers know of them: nothing is read but names.
    """
    theirs_ledger = open_ledger(backup.path, read_only=True)
    try:
        theirs = theirs_ledger.recorded_packages()
        concerned = sorted(theirs_ledger.concerns())
    finally:
        theirs_ledger.close()
    there = set(published(backup.packages))
    mine = ledger.recorded_packages()
    names = {*legacy_names(root.fd)[0], *published(root.packages)}
    absent = [
        name
        for name in sorted(names)
        if is_package_hash(name)
        and (name not in there or (name in mine and theirs.get(name) != mine[name]))
    ]
    return absent, concerned
