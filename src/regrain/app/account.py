"""What is known: of a store beside its totals, and of one package, with what to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from regrain.app.health import last_trigger
from regrain.app.integrity import PROVEN
from regrain.app.naming import known_hash
from regrain.errors import UnknownPackageError
from regrain.ledger import Concern, Event, Ledger, PackageRow, Standing, open_ledger
from regrain.maintain.need import cost_of_undoing
from regrain.migrate.backed_up import (
    BACKUP_MARKED,
    is_checked,
    is_fresh,
    last_backup,
    path_in,
)
from regrain.model.phase import Layout, Phase
from regrain.model.status import LEGACY_CHANGED, Status
from regrain.store import dual
from regrain.store.root import legacy_names

if TYPE_CHECKING:
    from regrain.store.root import StoreRoot


_WAITING = (Status.PENDING, Status.IN_PROGRESS, Status.ROLLED_BACK)


@dataclass(frozen=True, slots=True)
class Matters:
    """What ``status`` tells beside totals, none of it by looking into packages.

    Attributes:
        concerns: What stands against packages.
        excluded: Packages that are set aside.
        unqueued: Legacy directories the ledger does not know yet.
        foreign: Names at the top that are no packages.
        freed: Bytes on disk that removing legacy directories freed.
        waiting: Packages that a migration would take.
        cleanable: Packages whose legacy directory a cleanup would look at.
        failed: Packages that failed, those set aside left out.
        unverified: Completed packages that were never compared with their source.
        is_proven: Whether a deep verification of the whole store found nothing after the
            last package was completed.
        marked_at: When a backup was last marked; None if never.
        backup: The last line of the history about a backup that regrain made; None if never.
        completed_at: When a package was last completed; 0 if never.
        undo_bytes: What a rollback would take on disk now, at the most.
        undo_inodes: Likewise inodes.
        trigger: Why the last run was ended, if a trigger did that and none was begun since.
    """

    concerns: dict[str, Concern] = field(default_factory=dict)
    excluded: int = 0
    unqueued: int = 0
    foreign: int = 0
    freed: int = 0
    waiting: int = 0
    cleanable: int = 0
    failed: int = 0
    unverified: int = 0
    is_proven: bool = False
    marked_at: int | None = None
    backup: Event | None = None
    completed_at: int = 0
    undo_bytes: int = 0
    undo_inodes: int = 0
    trigger: str = ""

    @property
    def is_backed_up(self) -> bool:
        """Whether a cutover may be expected to take the last mark or backup; it looks closer."""
        if self.marked_at is not None and is_fresh(self.marked_at):
            return True
        made = self.backup
        return made is not None and is_checked(made) and made.at >= self.completed_at

    @property
    def backup_path(self) -> str | None:
        """Where the last backup lies that regrain made."""
        return None if self.backup is None else path_in(self.backup)


def matters(root: StoreRoot, ledger: Ledger) -> Matters:
    """Gather them."""
    standings = ledger.standings()
    names, foreign = legacy_names(root.fd)
    there = set(names)
    marked, proven = ledger.last_event(BACKUP_MARKED), ledger.last_event(PROVEN)
    undo_bytes, undo_inodes = cost_of_undoing(root, ledger)
    mine = [s for s in standings.values() if not s.is_excluded]
    concerns, completed_at = ledger.concerns(), ledger.last_completed()
    return Matters(
        concerns,
        excluded=sum(s.is_excluded for s in standings.values()),
        unqueued=sum(name not in standings and name not in concerns for name in names),
        foreign=len(foreign),
        freed=sum(s.freed_bytes or 0 for s in standings.values()),
        waiting=sum(s.status in _WAITING for s in mine),
        cleanable=sum(s.status is Status.COMPLETED and s.package_hash in there for s in mine),
        failed=sum(s.status is Status.FAILED for s in mine),
        unverified=sum(s.status is Status.COMPLETED and s.verified_at is None for s in mine),
        is_proven=proven is not None and proven.at >= completed_at,
        marked_at=None if marked is None else marked.at,
        backup=last_backup(ledger),
        completed_at=completed_at,
        undo_bytes=undo_bytes,
        undo_inodes=undo_inodes,
        trigger=last_trigger(ledger),
    )


@dataclass(frozen=True, slots=True)
class Account:
    """All that is known of one package.

    Attributes:
        package_hash: It.
        phase: Of the store.
        read_from: The layout it is read from; None where it cannot be read.
        because: Why from there.
        layouts: Where it lies.
        row: Its migration; None if it never had a legacy directory.
        standing: Likewise.
        concern: What stands against it.
        events: Its history.
    """

    package_hash: str
    phase: Phase
    read_from: Layout | None
    because: str
    layouts: list[Layout]
    row: PackageRow | None
    standing: Standing | None
    concern: Concern | None
    events: list[Event]

    @property
    def todo(self) -> str:
        """What to do."""
        return _todo(self)


def why(root: StoreRoot, text: str) -> Account:
    """Say where a package is read from and why, what happened to it, and what to do.

    Raises:
        UnknownPackageError: Nothing is known of it.
    """
    ledger = open_ledger(root.path, read_only=True)
    try:
        return account_of(root, ledger, text)
    finally:
        ledger.close()


def account_of(root: StoreRoot, ledger: Ledger, text: str) -> Account:
    """Say the same, from an open ledger.

    Raises:
        UnknownPackageError: Nothing is known of it.
    """
    name = known_hash(root, ledger, text)
    layouts = dual.layouts_of(root, name)
    row = ledger.package_row(name)
    standing = ledger.standings().get(name)
    concern = ledger.concerns().get(name)
    events = ledger.history_of(name)
    phase = root.phase()
    read_from = next((where for where in phase.read_order if where in layouts), None)
    if read_from is None and row is None:
        raise UnknownPackageError(
            "no such package", package=name, advice="'regrain list' shows what there is."
        )
    because = _because(phase, read_from, layouts, standing)
    return Account(name, phase, read_from, because, layouts, row, standing, concern, events)


_PLACES = {Layout.FILE_LEVEL: "at the file level", Layout.LEGACY: "in its legacy directory"}


def _because(
    phase: Phase, read_from: Layout | None, layouts: list[Layout], standing: Standing | None
) -> str:
    """Say why a package is read from where it is."""
    first = phase.read_order[0]
    if read_from is None:
        return (
            "it is in neither layout"
            if not layouts
            else (f"the phase '{phase.label}' reads legacy directories only, and it has none")
        )
    if standing is not None and standing.is_excluded:
        return "it is set aside, and so served from its legacy directory in every phase"
    if phase is Phase.ROLLED_BACK:
        return f"the phase '{phase.label}' reads legacy directories only"
    if read_from is first:
        return f"it is published, and the phase '{phase.label}' looks there first"
    return f"it is not published, and the phase '{phase.label}' then takes its legacy directory"


def _todo(account: Account) -> str:
    """Say what to do about a package."""
    name, concern = account.package_hash, account.concern
    if account.read_from is None:
        return _todo_unreadable(name, account.layouts)
    if concern is not None:
        return _todo_about(name, concern, account.layouts)
    if account.standing is not None and account.standing.is_excluded:
        return f"Nothing; to migrate it, say 'regrain exclude {name} --undo'."
    status = None if account.row is None else account.row.status
    if status in (Status.PENDING, Status.IN_PROGRESS, Status.ROLLED_BACK):
        return "Run 'regrain migrate'."
    if status is Status.FAILED:
        return f"Mend the cause, then 'regrain migrate --retry-failed --only {name}'."
    return "Nothing."


def _todo_unreadable(name: str, layouts: list[Layout]) -> str:
    """Say what to do about a package that no reader is given."""
    if layouts:
        return "Run 'regrain migrate': then it is read from what is published."
    return f"Get it back from a backup, or give it up: 'regrain remove {name}'."


def _todo_about(name: str, concern: Concern, layouts: list[Layout]) -> str:
    if concern.what.startswith(LEGACY_CHANGED):
        return (
            f"If it rotted, 'regrain verify {name} --level deep --repair' makes it anew. Else put "
            f"the legacy directory right ('regrain checkout {name}' gives what was migrated) "
            f"and run 'regrain verify {name} --level deep'; or, if what it holds now is what "
            f"should be served, run 'regrain migrate --accept-legacy {name}'."
        )
    heal = f"'regrain verify {name} --level deep --repair' heals it"
    if Layout.LEGACY in layouts:
        return (
            f"{heal}; or, if its legacy directory is sound, 'regrain migrate --accept-legacy "
            f"{name}' takes the package again from there."
        )
    return f"{heal} from what else holds its files, with '--from DEST' from a backup."
