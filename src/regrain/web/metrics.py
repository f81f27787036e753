"""What Prometheus is told of a store. ``docs/metrics.md`` lists every metric."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regrain import __version__
from regrain.app.health import SEVERITY
from regrain.app.steering import MIGRATION
from regrain.migrate.control import PAUSED
from regrain.migrate.tally import ERROR_KINDS
from regrain.model.histogram import NO_TIMES
from regrain.model.phase import Phase
from regrain.web.exposition import Family

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from regrain.app.observing import Overview

_PACKAGES = {
    "pending": "pending_packages",
    "in_progress": "in_progress_packages",
    "completed": "migrated_packages",
    "failed": "failed_packages",
    "rolled_back": "rolled_back_packages",
    "excluded": "excluded_packages",
}

_GAUGES = (
    ("files", "total_files", "Regular files of all packages."),
    ("migrated_files", "migrated_files", "Regular files of the migrated packages."),
    ("deduplicated_files", "deduplicated_files", "Migrated files whose object was there before."),
    ("content_bytes", "bytes_total", "Bytes of all files of all packages, as st_size counts."),
    ("content_done_bytes", "bytes_done", "Those of them that are migrated."),
    ("objects", "objects", "Distinct objects."),
    ("objects_allocated_bytes", "objects_allocated_bytes", "Bytes on disk of all carriers."),
    (
        "legacy_allocated_bytes",
        "legacy_allocated_bytes",
        "Bytes on disk of the legacy directories, before any was removed.",
    ),
    ("saved_bytes", "space_saved_bytes", "Bytes on disk that cleanup will free on balance."),
    ("freed_bytes", "space_freed_bytes", "Bytes on disk that cleanup has freed."),
    ("undo_bytes", "undo_bytes", "Bytes on disk that a rollback would take now, at the most."),
    ("undo_inodes", "undo_inodes", "Inodes that a rollback would take now, at the most."),
    ("unqueued_directories", "unqueued_directories", "Legacy directories not yet queued."),
    ("foreign_names", "foreign_names", "Names at the top of the store that are no packages."),
    ("unverified_packages", "unverified_packages", "Migrated packages not yet compared."),
    ("backed_up", "is_backed_up", "Whether a backup covers the store, as far as is known."),
    ("rate_bytes_per_second", "rate_bytes_per_second", "What is read a second, of late."),
    (
        "remaining_seconds",
        "estimated_time_remaining_seconds",
        "Until the migration under way is done; absent until that is known.",
    ),
    ("paused", "paused", "Whether the migration is paused."),
    ("throttled", "throttled", "Whether anything slows or holds the command under way."),
    ("packages_last_hour", "packages_last_hour", "Packages done in the last hour of work."),
    (
        "foreground_baseline_seconds",
        "foreground_baseline_seconds",
        "A small read before the run under way, the median.",
    ),
    (
        "foreground_seconds",
        "foreground_seconds",
        "A small read beside it, the median of the last window.",
    ),
    ("foreground_slowdown_ratio", "foreground_slowdown", "The latter by the former."),
)
"""Name, figure of ``status --json``, meaning."""

RULES = (
    *("integrity", "error_rate", "packages_an_hour", "foreground_reads", "held"),
    *("control", "free_bytes", "free_inodes"),
)
TRIGGERS = ("integrity", "error_rate", "slowdown")
CAUSES = (
    ("paused", (PAUSED,)),
    ("io_pressure", ("io_pressure_max",)),
    ("latency", ("latency_slowdown_max",)),
    ("rate", ("(max_read)", "(max_files)", "(pause_ms)")),
    ("ledger", ("the ledger is busy",)),
    ("space", ("space", "can be used, with")),
)
"""What may slow or hold a run, and the words by which its reason is known: the reason itself has
figures in it, and a label must not take a new value with every look."""


def families(seen: Overview | None) -> Iterator[Family]:
    """Yield every metric; of a store that could not be read, that it could not.

    Args:
        seen: What was seen; None where nothing could be.
    """
    yield _gauge("build_info", "Always 1; the version is a label.").add(1, version=__version__)
    readable = _gauge("store_readable", "Whether the store could be read at the last look.")
    yield readable.add(seen is not None)
    if seen is None:
        return
    yield from _of_the_store(seen)
    yield from _of_health(seen)
    yield from _of_the_run(seen)


def _of_the_store(seen: Overview) -> Iterator[Family]:
    figures = seen.figures
    phases = (phase.value for phase in Phase)
    yield _one_of("phase", "The phase of the store.", "phase", phases, str(figures["phase"]))
    packages = _gauge("packages", "Packages by the status of their migration.")
    for status, key in _PACKAGES.items():
        packages.add(_number(figures[key]), status=status)
    yield packages
    for name, key, meaning in _GAUGES:
        yield _gauge(name, meaning).add(_number(figures[key]))
    times = [figures["backup_at"], figures["backup_marked_at"]]
    last = max((time for time in times if isinstance(time, int)), default=None)
    yield _gauge("backup_timestamp_seconds", "When a backup was last made or marked.").add(last)
    yield _gauge("look_timestamp_seconds", "When the store was looked at.").add(seen.at)
    yield _gauge("look_seconds", "How long that took.").add(seen.seconds)


def _of_health(seen: Overview) -> Iterator[Family]:
    judged = seen.health
    yield _one_of("health", "The worst of all rules.", "status", SEVERITY, judged.status)
    fired = {issue.rule for issue in judged.details}
    rules = _gauge("health_rule_fired", "Whether a rule of health found something.")
    for rule in sorted({*RULES, *fired}):
        rules.add(rule in fired, rule=rule)
    yield rules
    concerns = _gauge("integrity_packages", "Packages that are not what was published.")
    yield concerns.add(len(seen.state.matters.concerns))
    trigger = seen.state.matters.trigger.partition(":")[0]
    meaning = "Whether the last run was ended by a trigger, and none was begun since."
    yield _one_of("trigger_ended_run", meaning, "trigger", TRIGGERS, trigger)
    room = seen.room
    yield _gauge("free_bytes", "Free in the file system of the store.").add(room.free_bytes)
    yield _gauge("free_bytes_min", "What is to stay free.").add(room.free_bytes_min)
    inodes = _gauge("free_inodes", "Free inodes; absent where they are not counted.")
    yield inodes.add(room.free_inodes)
    yield _gauge("free_inodes_min", "What is to stay free.").add(room.free_inodes_min)


def _of_the_run(seen: Overview) -> Iterator[Family]:
    running = seen.state.running
    yield _gauge("run_lock_held", "Whether a command holds the store.").add(bool(running))
    migrates = running.startswith(MIGRATION)
    yield _gauge("migration_running", "Whether that is a migration.").add(migrates)
    reason = seen.figures["throttle_reason"]
    causes = [*(name for name, _ in CAUSES), "other"]
    cause = _cause(reason) if isinstance(reason, str) and reason else ""
    yield _one_of("throttled_by", "What slows or holds it.", "cause", causes, cause)
    snapshot = _gauge("snapshot_timestamp_seconds", "When a run last told of itself.")
    yield snapshot.add(seen.snapshot_at)
    reads = NO_TIMES if seen.foreground is None else seen.foreground.reads
    meaning = "Small reads as a reader makes them, beside the last run."
    yield Family("regrain_foreground_read_seconds", "histogram", meaning).add_times(reads)
    meaning = "Publishing and recording a batch, flushes included, in the last run."
    yield Family("regrain_batch_seconds", "histogram", meaning).add_times(seen.run.batches)
    meaning = "Flushes to stable storage, in the last run."
    yield Family("regrain_sync_seconds", "histogram", meaning).add_times(seen.run.syncs)
    errors = Family("regrain_errors_total", "counter", "Errors of the last run, by kind.")
    for kind in ERROR_KINDS:
        errors.add(seen.run.errors.get(kind, 0), kind=kind)
    yield errors


def _cause(reason: str) -> str:
    """Return what a reason for going slowly is about."""
    found = (name for name, words in CAUSES if any(word in reason for word in words))
    return next(found, "other")


def _gauge(name: str, meaning: str) -> Family:
    return Family(f"regrain_{name}", "gauge", meaning)


def _one_of(name: str, meaning: str, label: str, values: Iterable[str], now: str) -> Family:
    """Return a gauge that is 1 for the value that holds, 0 for all others."""
    family = _gauge(name, meaning)
    for value in values:
        family.add(value == now, **{label: value})
    return family


def _number(value: object) -> float | None:
    return value if isinstance(value, int | float) else None
