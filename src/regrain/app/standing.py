"""Where a store stands: figures for ``status``, health, and the one next command."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import msgspec

from regrain.app.account import Matters
from regrain.app.foretold import beside_outcome
from regrain.app.health import Health, gather, judge
from regrain.app.steering import MIGRATION, Told
from regrain.errors import RegrainError
from regrain.migrate.backed_up import BACKUP_CREATED, is_checked, path_in
from regrain.migrate.control import Control
from regrain.model.events import Progress
from regrain.model.phase import Phase
from regrain.model.status import Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from regrain.app.lasting import Memory
    from regrain.app.steering import Steered
    from regrain.ledger import Totals
    from regrain.model.events import Foreground
    from regrain.settings import Settings
    from regrain.store.root import StoreRoot


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
        in_place: Whether a migration is to delete legacy directories.
    """

    phase: Phase
    totals: Totals
    running: str
    snapshot: dict[str, object]
    matters: Matters = field(default_factory=Matters)
    told: Told = field(default_factory=lambda: Told(Control()))
    in_place: bool = False

    @property
    def of_the_holder(self) -> dict[str, object]:
        """The last snapshot of the command that holds the store; empty where there is none."""
        is_its = self.running.endswith(f" {self.snapshot.get('pid')}")
        return self.snapshot if self.running and is_its else {}

    @property
    def of_the_run(self) -> Progress | None:
        """The last progress of the migration under way; None where there is none."""
        try:
            return msgspec.convert(self.of_the_holder, Progress)
        except msgspec.ValidationError:  # of a command that counts nothing, or another version
            return None


def health(
    root: StoreRoot, state: State, settings: Settings, memory: Memory | None = None
) -> Health:
    """Judge a store by all rules; who looks again and again has a memory of what stands."""
    facts = gather(root, state, settings)
    return judge(facts if memory is None else memory.after(facts))


def next_command(state: State) -> str:
    """Return the one command to run next."""
    command = _next_command(state)
    is_held = state.running.startswith(MIGRATION) or command.startswith(MIGRATION)
    return "regrain resume" if state.told.pause and is_held else command


def next_after(done: Steered, look: Callable[[], State]) -> str:
    """Return what is to be done once a migration was steered.

    Args:
        done: What it was told.
        look: Tells where the store stands; it may fail: steering needs no ledger.
    """
    if done.after.is_paused:
        return "regrain resume"
    if done.running:
        return "regrain status"
    try:
        return next_command(replace(look(), told=Told(done.after)))
    except RegrainError:
        return "regrain doctor"


def _next_command(state: State) -> str:
    if state.running:
        return "regrain status"
    if state.phase is Phase.ROLLING_BACK:
        return "regrain rollback"
    matters = state.matters
    if state.phase is Phase.ROLLED_BACK or matters.waiting or matters.unqueued:
        return _migrate(state)
    return _once_migrated(state)


def _migrate(state: State, options: str = "") -> str:
    if not state.in_place:
        return f"regrain migrate{options}"
    if not state.matters.is_backed_up:
        return "regrain backup mark NOTE"
    return f"regrain migrate --delete-legacy{options}"


def _once_migrated(state: State) -> str:
    if state.matters.failed:
        return _migrate(state, " --retry-failed")
    if state.matters.concerns:
        return "regrain verify --level deep --repair"
    if state.phase is Phase.DUAL:
        return _before_cutover(state)
    if state.phase is Phase.FILE_LEVEL or state.matters.cleanable:
        return "regrain cleanup"
    return "regrain verify"


def _before_cutover(state: State) -> str:
    matters = state.matters
    if matters.unverified or not matters.is_proven:
        return "regrain verify --level deep"
    if matters.is_backed_up:
        return "regrain cutover"
    made = matters.backup
    if made is not None and made.event == BACKUP_CREATED and not is_checked(made):
        return f"regrain backup check {path_in(made)}"
    return "regrain backup create DEST"


def progress(state: State) -> Progress:
    """Return how far the migration is; rate and time left are those of the run under way."""
    totals, run = state.totals, state.of_the_run
    # The run's own count: what is recorded and what is in hand are seen at two moments, and a
    # package that moves from one to the other in between would count twice, or not at all.
    done = totals.bytes_done if run is None else run.bytes_before + run.bytes_done
    return Progress(
        packages_total=totals.packages,
        packages_done=totals.count(Status.COMPLETED),
        packages_failed=totals.count(Status.FAILED),
        files_done=totals.files_done,
        bytes_total=totals.bytes_total,
        bytes_done=min(totals.bytes_total, done),
        rate_bytes_per_second=None if run is None else run.rate_bytes_per_second,
        seconds_left=None if run is None or state.told.pause else run.seconds_left,
        throttle_reason=state.told.pause or str(state.of_the_holder.get("throttle_reason") or ""),
        foreground=None if run is None else run.foreground,
        packages_last_hour=None if run is None else run.packages_last_hour,
        held=run is not None and run.held,
        held_seconds=0.0 if run is None else run.held_seconds,
        standing=() if run is None else run.standing,
        bytes_in_hand=0 if run is None else run.bytes_in_hand,
        bytes_before=0 if run is None else run.bytes_before,
    )


def figures(
    root: StoreRoot, state: State, settings: Settings, judged: Health | None = None
) -> dict[str, object]:
    """Return what ``status --json`` prints beside its header; ``judged`` if that was done."""
    totals = state.totals
    judged = health(root, state, settings) if judged is None else judged
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
        "backup_path": state.matters.backup_path,
        "backup_event": state.matters.backup.event if state.matters.backup else None,
        "backup_at": state.matters.backup.at if state.matters.backup else None,
        "is_backed_up": state.matters.is_backed_up,
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
        "executor": state.of_the_holder.get("executor") or None,
        **_foreground(so_far.foreground),
        "packages_last_hour": so_far.packages_last_hour,
        "last_trigger": state.matters.trigger or None,
        "prediction": beside_outcome(root, totals, settings),
        "health": judged.document(),
        "next_command": next_command(state),
    }


def _foreground(found: Foreground | None) -> dict[str, float | None]:
    return {
        "foreground_baseline_seconds": None if found is None else found.baseline_seconds,
        "foreground_seconds": None if found is None else found.seconds,
        "foreground_slowdown": None if found is None else found.slowdown,
    }
