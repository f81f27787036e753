"""Where a store stands: figures for ``status``, health, and the one next command."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from regrain.app.account import Matters
from regrain.app.steering import MIGRATION, Told
from regrain.migrate.control import Control
from regrain.model.events import Progress
from regrain.model.phase import Phase
from regrain.model.status import Status

if TYPE_CHECKING:
    from regrain.ledger import Totals
    from regrain.settings import Settings
    from regrain.store.root import StoreRoot

ERROR_RATE_PACKAGES_MIN = 20
SEVERITY = ("healthy", "warning", "critical")


@dataclass(frozen=True, slots=True)
class State:
    """What ``status`` tells.

    Attributes:
        phase: Of the store.
        totals: From the ledger.
        running: Who holds the run lock, empty if nobody.
        snapshot: The last progress of that run.
        matters: What else there is to tell.
        told: What a migration was told from other terminals.
    """

    phase: Phase
    totals: Totals
    running: str
    snapshot: dict[str, object]
    matters: Matters = field(default_factory=Matters)
    told: Told = field(default_factory=lambda: Told(Control()))


@dataclass(slots=True)
class Health:
    """The worst of all rules.

    Attributes:
        status: ``healthy``, ``warning`` or ``critical``.
        issues: What each rule that fired says.
    """

    status: str = "healthy"
    issues: list[str] = field(default_factory=list)

    def add(self, severity: str, issue: str) -> None:
        """Note an issue."""
        self.issues.append(issue)
        self.status = max(self.status, severity, key=SEVERITY.index)


def health(root: StoreRoot, state: State, settings: Settings) -> Health:
    """Judge a store by its error rate, its integrity, and what its file system has left."""
    found = Health()
    limits = settings.migration
    concerns = state.matters.concerns
    if concerns:
        first = min(concerns)
        found.add(
            "critical",
            f"{len(concerns)} packages are not what was published: {first}: "
            f"{concerns[first].what} ('regrain why {first[:16]}')",
        )
    failed = state.totals.count(Status.FAILED)
    tried = failed + state.totals.count(Status.COMPLETED)
    if tried >= ERROR_RATE_PACKAGES_MIN and failed / tried > limits.error_rate_max:
        found.add(
            "warning",
            f"{failed} of {tried} packages failed ({failed / tried:.0%}, "
            f"{limits.error_rate_max:.0%} is tolerated)",
        )
    if state.told.trouble:
        found.add("warning", state.told.trouble)
    for issue in critical_issues(root, settings):
        found.add("critical", issue)
    return found


def critical_issues(root: StoreRoot, settings: Settings) -> tuple[str, ...]:
    """Say what the file system lacks, where that is critical."""
    limits = settings.migration
    space = os.fstatvfs(root.fd)
    free = space.f_bavail * space.f_frsize
    issues = []
    if free < limits.free_bytes_min:
        issues.append(f"{free} bytes are free, under {limits.free_bytes_min}")
    if space.f_files and space.f_favail < limits.free_inodes_min:
        issues.append(f"{space.f_favail} inodes are free, under {limits.free_inodes_min}")
    return tuple(issues)


def next_command(state: State) -> str:
    """Return the one command to run next."""
    command = _next_command(state)
    is_held = state.running.startswith(MIGRATION) or command.startswith(MIGRATION)
    return "regrain resume" if state.told.pause and is_held else command


def _next_command(state: State) -> str:
    if state.running:
        return "regrain status"
    if state.phase is Phase.ROLLING_BACK:
        return "regrain rollback"
    matters = state.matters
    if state.phase is Phase.ROLLED_BACK or matters.waiting or matters.unqueued:
        return "regrain migrate"
    return _once_migrated(state)


def _once_migrated(state: State) -> str:
    if state.matters.failed:
        return "regrain migrate --retry-failed"
    if state.matters.concerns:
        return "regrain verify --level deep"
    if state.phase is Phase.DUAL:
        return _before_cutover(state)
    if state.phase is Phase.FILE_LEVEL or state.matters.cleanable:
        return "regrain cleanup"
    return "regrain verify"


def _before_cutover(state: State) -> str:
    matters = state.matters
    if matters.unverified or not matters.is_proven:
        return "regrain verify --level deep"
    return "regrain cutover" if matters.is_backed_up else "regrain backup mark NOTE"


def progress(state: State) -> Progress:
    """Return how far the migration is; rate and time left are those of the run under way."""
    totals = state.totals
    is_its = state.running.endswith(f" {state.snapshot.get('pid')}")
    snapshot = state.snapshot if state.running and is_its else {}
    read = _number(snapshot, "bytes_done")
    return Progress(
        packages_total=totals.packages,
        packages_done=totals.count(Status.COMPLETED),
        packages_failed=totals.count(Status.FAILED),
        files_done=totals.files_done,
        bytes_total=totals.bytes_total,
        bytes_done=min(totals.bytes_total, max(totals.bytes_done, read)),
        rate_bytes_per_second=_rate(snapshot, "rate_bytes_per_second"),
        seconds_left=None if state.told.pause else _rate(snapshot, "seconds_left"),
        throttle_reason=state.told.pause or str(snapshot.get("throttle_reason") or ""),
    )


def figures(root: StoreRoot, state: State, settings: Settings) -> dict[str, object]:
    """Return what ``status --json`` prints beside its header."""
    totals = state.totals
    judged = health(root, state, settings)
    so_far = progress(state)
    return {
        "store": root.path,
        "phase": state.phase.value,
        "running": state.running,
        "total_packages": totals.packages,
        "migrated_packages": totals.count(Status.COMPLETED),
        "failed_packages": totals.count(Status.FAILED),
        "pending_packages": totals.count(Status.PENDING),
        "in_progress_packages": totals.count(Status.IN_PROGRESS),
        "rolled_back_packages": totals.count(Status.ROLLED_BACK),
        "excluded_packages": totals.excluded,
        "total_files": totals.files,
        "migrated_files": totals.files_done,
        "deduplicated_files": totals.deduplicated,
        "objects": totals.objects,
        "objects_allocated_bytes": totals.carriers_allocated,
        "legacy_allocated_bytes": totals.allocated,
        "space_saved_bytes": totals.saved,
        "space_freed_bytes": state.matters.freed,
        "undo_bytes": state.matters.undo_bytes,
        "undo_inodes": state.matters.undo_inodes,
        "unqueued_directories": state.matters.unqueued,
        "foreign_names": state.matters.foreign,
        "unverified_packages": state.matters.unverified,
        "backup_marked_at": state.matters.marked_at,
        "integrity": [
            {"package_hash": name, "what": concern.what, "found_at": concern.found_at}
            for name, concern in state.matters.concerns.items()
        ],
        "bytes_total": so_far.bytes_total,
        "bytes_done": so_far.bytes_done,
        "rate_bytes_per_second": so_far.rate_bytes_per_second,
        "estimated_time_remaining_seconds": so_far.seconds_left,
        "paused": bool(state.told.pause),
        "throttled": bool(so_far.throttle_reason),
        "throttle_reason": so_far.throttle_reason or None,
        "health": {"status": judged.status, "issues": judged.issues},
        "next_command": next_command(state),
    }


def _number(snapshot: dict[str, object], key: str) -> int:
    value = snapshot.get(key)
    return value if isinstance(value, int) else 0


def _rate(snapshot: dict[str, object], key: str) -> float | None:
    value = snapshot.get(key)
    return float(value) if isinstance(value, int | float) else None
