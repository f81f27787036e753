"""The verb that shows where a store stands: status."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from regrain.cli import output
from regrain.cli.context import Context, json_option, pass_context
from regrain.cli.migrating import section
from regrain.cli.predicted import in_words
from regrain.cli.space import lines_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

EXIT_WARNING = 6
EXIT_CRITICAL = 7


@click.command()
@click.option("--failed", is_flag=True, help="List the packages that failed, and why.")
@click.option("--check", is_flag=True, help="Exit 0 if healthy, 6 on a warning, 7 if critical.")
@click.option("--watch", is_flag=True, help="Go on showing it, until Ctrl-C.")
@click.option("--space", "weigh", is_flag=True, help="Measure what a large store takes, too.")
@json_option
@pass_context
def status(
    context: Context, *, failed: bool, check: bool, watch: bool, weigh: bool, as_json: bool
) -> int:
    """Show where the migration stands.

    What the store takes on disk is measured by looking at every file; of a store of more than
    300,000, and with --check, only if asked for.

    With --watch it is looked at once a second: drawn anew in place on a terminal, elsewhere a
    line, or with --json a document, whenever something changed. It outlasts runs.

    Example: regrain --store /opt/pm/store status --json
    """
    from regrain.app import space, standing
    from regrain.cli import watching
    from regrain.errors import UsageError
    from regrain.model.status import Status

    if watch:
        if failed or check or weigh:
            raise UsageError(
                "--watch goes with no other option of status but --json",
                advice="Give the others without it.",
            )
        watching.watch(context, as_json=as_json)
        return 0
    migration = context.store.migration()
    state = migration.state()
    figures = standing.figures(context.store.root, state, context.settings)
    judged = standing.health(context.store.root, state, context.settings)
    rows = migration.rows(Status.FAILED) if failed else []
    is_wanted = weigh or (not check and space.is_quick(state.totals))
    measured = space.measure(context.store.root) if is_wanted else None
    if as_json:
        extra = {
            "failures": [
                {**asdict(row), "error_path": output.shown(row.error_path or b"")} for row in rows
            ]
        }
        on_disk = None if measured is None else measured.document()
        output.document("status", **figures, space=on_disk, **(extra if failed else {}))
    else:
        output.pairs(lines(figures, state.phase.label, [] if check else lines_of(measured)))
        section(
            "failed",
            [f"{row.package_hash} {row.name} {row.version}: {row.error_message}" for row in rows],
        )
        click.echo(f"\nNext: {figures['next_command']}")
    codes = {"healthy": 0, "warning": EXIT_WARNING, "critical": EXIT_CRITICAL}
    return codes[judged.status] if check else 0


_ASIDE = {
    "excluded_packages": ("set aside", "package", ", read from the legacy layout"),
    "unqueued_directories": ("new", "legacy directory", ", for the next migrate to look at"),
    "unverified_packages": ("unverified", "package", ", to be verified by cutover"),
    "foreign_names": ("foreign", "name", " at the top, left alone"),
}
"""What ``status`` tells only where there is something to tell."""


def lines(
    figures: dict[str, object], phase: str, on_disk: Iterable[tuple[str, str]] = ()
) -> list[tuple[str, str]]:
    """Return what people are told, as names and values."""

    def count(key: str) -> int:
        value = figures[key]
        return value if isinstance(value, int) else 0

    health = figures["health"]
    issues = health["issues"] if isinstance(health, dict) else []
    state = health["status"] if isinstance(health, dict) else ""
    rate, left = figures["rate_bytes_per_second"], figures["estimated_time_remaining_seconds"]
    done, total = count("bytes_done"), count("bytes_total")
    undone, claimed = count("rolled_back_packages"), count("in_progress_packages")
    told = [
        ("phase", phase),
        ("running", str(figures["running"] or "nothing")),
        *([("waiting", str(figures["throttle_reason"]))] if figures["throttled"] else []),
        *([("workers", f"those of {figures['executor']}")] if figures["executor"] else []),
        (
            "packages",
            (
                f"{count('migrated_packages'):,} of {count('total_packages'):,} migrated, "
                f"{count('failed_packages'):,} failed, "
                f"{count('pending_packages'):,} pending"
                + (f", {count('in_progress_packages'):,} in progress" * bool(claimed))
                + (f", {count('rolled_back_packages'):,} rolled back" * bool(undone))
            ),
        ),
        ("files", f"{count('migrated_files'):,} of {count('total_files'):,}"),
        (
            "bytes",
            f"{output.size(done)} of {output.size(total)}"
            + (f" ({100 * done // total}%)" if total else "")  # not 100 before it is all done
            + (f", {output.size(rate)}/s" if isinstance(rate, float) else "")
            + (f", {output.duration(left)} left" if isinstance(left, float) else ""),
        ),
        ("shared", f"{count('deduplicated_files'):,} files share an object that was there"),
        (
            "space",
            (
                f"{output.size(count('legacy_allocated_bytes'))} in legacy directories, before any "
                f"was removed; that saves {output.size(count('space_saved_bytes'))} on balance"
            ),
        ),
        ("freed", output.size(count("space_freed_bytes"))),
        (
            "undoing",
            (
                f"would take {output.size(count('undo_bytes'))} and "
                f"{count('undo_inodes'):,} inodes at the most"
            ),
        ),
        ("health", ", ".join([str(state), *map(str, issues)])),
        *_beside(figures),
        *on_disk,
    ]
    for key, words in _ASIDE.items():
        if count(key):
            told.append((words[0], output.count(count(key), words[1]) + words[2]))
    return told


def _beside(figures: dict[str, object]) -> Iterator[tuple[str, str]]:
    """Say what readers wait beside the run, where a backup is, and what ended the last run."""
    now, before = figures["foreground_seconds"], figures["foreground_baseline_seconds"]
    if isinstance(now, float) and isinstance(before, float):
        yield "readers", f"a small read takes {now * 1e3:.1f} ms; {before * 1e3:.1f} before the run"
    if figures["backup_path"]:
        covers = "covers all packages" if figures["is_backed_up"] else "does not cover all packages"
        yield "backup", f"{figures['backup_path']}, {covers} as far as is known"
    if isinstance(figures["prediction"], dict):
        yield "predicted", in_words(figures["prediction"])
    if figures["last_trigger"]:
        yield "trigger", f"it ended the last run: {figures['last_trigger']}"
