"""Verbs of the migration: plan, init, migrate, status."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from regrain.cli import output
from regrain.cli.context import (
    Context,
    NotNegative,
    Stop,
    dry_run_option,
    json_option,
    pass_context,
)

if TYPE_CHECKING:
    from regrain.app.initialising import Initialised
    from regrain.migrate.plan import Plan
    from regrain.store.scan import Usage

EXIT_FAILED_SOME = 3
EXIT_REFUSED = 5
EXIT_WARNING = 6
EXIT_CRITICAL = 7
_SHOWN_MAX = 10


class _Scanning:
    """Shows how far a first look at the packages is."""

    def __init__(self, *, as_json: bool) -> None:
        from regrain.cli.progress import Bar

        self._bar = Bar(total=None, hidden=as_json)
        self._packages = self._bytes = 0

    def __call__(self, usage: Usage) -> None:
        self._packages += 1
        self._bytes += usage.size
        self._bar.update(f"looked at {self._packages:,} packages", self._bytes, None)

    def stop(self) -> None:
        self._bar.stop()


@click.command()
@json_option
@pass_context
def plan(context: Context, *, as_json: bool) -> int:
    """Say what a migration would meet and cost. Works before init; writes nothing.

    Exit code 5 if something stands in the way.

    Example: regrain --store /opt/pm/store plan
    """
    from regrain.app import migration

    scanning = _Scanning(as_json=as_json)
    try:
        found = migration.plan(context.path, context.settings, scanning)
    finally:
        scanning.stop()
    command = _next_after_plan(context, found)
    if as_json:
        _plan_document(found, command)
    else:
        _show_plan(found, command)
    return EXIT_REFUSED if found.blockers else 0


def _next_after_plan(context: Context, found: Plan) -> str:
    from regrain.errors import NotAStoreError

    if found.blockers:
        return "regrain plan"
    try:
        _ = context.store
    except NotAStoreError:
        return "regrain init"
    return "regrain migrate"


def _plan_document(found: Plan, command: str) -> None:
    output.document(
        "summary",
        packages=found.packages,
        files=found.files,
        directories=found.directories,
        symlinks=found.symlinks,
        inodes=found.inodes,
        bytes=found.size,
        allocated_bytes=found.allocated,
        extra_bytes_max=found.extra_bytes,
        extra_inodes_max=found.extra_inodes,
        free_bytes=found.free_bytes,
        free_inodes=found.free_inodes,
        copied_files=found.copied_files,
        copied_bytes=found.copied_bytes,
        linked_outside=found.linked_outside,
        problems=[{"package_hash": name, "reason": why} for name, why in found.problems],
        processes=[{"pid": pid, "path": output.shown(path)} for pid, path in found.processes],
        foreign=[output.shown(name) for name in found.foreign],
        blockers=found.blockers,
        next_command=command,
    )


def _show_plan(found: Plan, command: str) -> None:
    output.pairs(
        [
            ("packages", f"{found.packages:,}"),
            (
                "files",
                (
                    f"{found.files:,} in {found.directories:,} directories, "
                    f"{found.symlinks:,} symbolic links"
                ),
            ),
            ("bytes", f"{output.size(found.size)}; {output.size(found.allocated)} on disk"),
            ("inodes", f"{found.inodes:,}"),
            (
                "needs at most",
                (
                    f"{output.size(found.extra_bytes)} and {found.extra_inodes:,} inodes more "
                    "while both layouts exist"
                ),
            ),
            ("free", f"{output.size(found.free_bytes)} and {found.free_inodes:,} inodes"),
            (
                "copied",
                (
                    f"{found.copied_files:,} files ({output.size(found.copied_bytes)}); "
                    "all others share their bytes with the legacy tree"
                ),
            ),
            ("linked from outside", f"{found.linked_outside:,} files"),
        ]
    )
    click.echo(
        "\nWhere objects are hard links of legacy files, both share one inode: a write in place"
        "\nor a bad sector hits both, and only a backup protects."
    )
    _section("these packages will fail", [f"{name}: {why}" for name, why in found.problems])
    _section(
        "processes with legacy files open",
        [f"{pid}: {output.shown(path)}" for pid, path in found.processes],
    )
    _section("not packages, left alone", [output.shown(name) for name in found.foreign])
    _section("in the way", found.blockers)
    click.echo(f"\nNext: {command}")


def _section(title: str, lines: list[str]) -> None:
    if lines:
        click.echo(f"\n{title}:")
        for line in lines[:_SHOWN_MAX]:
            click.echo(f"  {output.shown(line)}")
        if len(lines) > _SHOWN_MAX:
            click.echo(f"  and {len(lines) - _SHOWN_MAX:,} more (--json lists all)")


@click.command()
@dry_run_option
@json_option
@pass_context
def init(context: Context, *, dry_run: bool, as_json: bool) -> None:
    """Make a store of the directory, empty or legacy, and queue every legacy package.

    No package is touched. Repeating it completes what is missing and queues what is new.

    Example: regrain --store /opt/pm/store init
    """
    from regrain.app import initialising

    _ = context.settings  # a configuration that is wrong should be known before
    scanning = _Scanning(as_json=as_json)
    try:
        done = (
            initialising.would_initialise(context.path)
            if dry_run
            else initialising.initialise(context.path, scanning)
        )
    finally:
        scanning.stop()
    if as_json:
        output.document(
            "summary",
            store=context.path,
            created=done.created,
            packages=done.packages,
            queued=done.queued,
            foreign=[output.shown(name) for name in done.foreign],
            dry_run=dry_run,
            next_command="regrain migrate",
        )
        return
    _show_init(done, dry_run=dry_run)


def _show_init(done: Initialised, *, dry_run: bool) -> None:
    if dry_run:
        click.echo(f"would queue {done.queued:,} packages; nothing was written")
    elif done.created:
        click.echo(f"initialised; {done.queued:,} packages queued")
    else:
        click.echo(f"this is a store already; {done.queued:,} new packages queued")
    _section("not packages, left alone", [output.shown(name) for name in done.foreign])
    click.echo("\nNext: regrain migrate")


@click.command()
@click.option("--jobs", type=click.IntRange(1, 256), help="Worker processes.")
@click.option("--batch", type=click.IntRange(1, 100_000), help="Packages committed together.")
@click.option("--limit", type=click.IntRange(0), help="Migrate so many packages at the most.")
@click.option("--only", metavar="GLOB", help="Only packages whose name or hash matches.")
@click.option("--retry-failed", is_flag=True, help="Try failed packages again.")
@click.option("--max-read", type=NotNegative(), metavar="MIB_S", help="Read no faster than this.")
@dry_run_option
@json_option
@pass_context
def migrate(
    context: Context,
    *,
    jobs: int | None,
    batch: int | None,
    limit: int | None,
    only: str | None,
    retry_failed: bool,
    max_read: float | None,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Migrate package by package until nothing is pending. Readers are never disturbed.

    Ctrl-C or SIGTERM finish the files in hand and stop; a second one stops at once. Run it
    again, whatever happened: it goes on where it was.

    Exit code 3: finished, but some packages failed.

    Example: regrain --store /opt/pm/store migrate --only 'django*'
    """
    from regrain.cli.progress import MigrationProgress

    migration = context.store.migration()
    if dry_run:
        return _would_migrate(migration.pending(only), limit, as_json=as_json)
    stop = Stop()
    progress = MigrationProgress(as_json=as_json, verbose=context.verbosity > 0)
    stop.listen(progress.stopping)
    with progress:
        summary = migration.run(
            progress,
            jobs=jobs,
            batch=batch,
            limit=limit,
            only=only,
            retry_failed=retry_failed,
            max_read=max_read,
            stopping=stop,
        )
    state = migration.state()
    from regrain.app.standing import next_command
    from regrain.model.status import Status

    failed = state.totals.count(Status.FAILED)
    command = next_command(state)
    if as_json:
        output.document(
            "summary",
            completed=summary.completed,
            failed=summary.failed,
            stopped=summary.stopped,
            pending_packages=state.totals.count(Status.PENDING),
            failed_packages=failed,
            migrated_packages=state.totals.count(Status.COMPLETED),
            total_packages=state.totals.packages,
            space_saved_bytes=state.totals.saved,
            next_command=command,
        )
    else:
        click.echo(
            f"{summary.completed:,} packages migrated"
            + (f", {failed:,} failed" if failed else "")
            + f"; {state.totals.count(Status.PENDING):,} pending"
            + (" (stopped)" if summary.stopped else "")
        )
        click.echo(f"\nNext: {command}")
    if summary.stopped:
        return stop.exit_code
    return EXIT_FAILED_SOME if failed else 0


def _would_migrate(pending: tuple[int, int, int], limit: int | None, *, as_json: bool) -> int:
    packages, files, size = pending
    if limit is not None:
        packages = min(packages, limit)
    if as_json:
        output.document(
            "summary",
            dry_run=True,
            pending_packages=packages,
            files=files,
            bytes=size,
            next_command="regrain migrate",
        )
    else:
        click.echo(f"would migrate {packages:,} packages; {output.size(size)} are pending")
    return 0


@click.command()
@click.option("--failed", is_flag=True, help="List the packages that failed, and why.")
@click.option("--check", is_flag=True, help="Exit 0 if healthy, 6 on a warning, 7 if critical.")
@json_option
@pass_context
def status(context: Context, *, failed: bool, check: bool, as_json: bool) -> int:
    """Show where the migration stands.

    Example: regrain --store /opt/pm/store status --json
    """
    from regrain.app import standing
    from regrain.model.status import Status

    migration = context.store.migration()
    state = migration.state()
    figures = standing.figures(context.store.root, state, context.settings)
    judged = standing.health(context.store.root, state, context.settings)
    rows = migration.rows(Status.FAILED) if failed else []
    if as_json:
        extra = {
            "failures": [
                {**asdict(row), "error_path": output.shown(row.error_path or b"")} for row in rows
            ]
        }
        output.document("status", **figures, **(extra if failed else {}))
    else:
        _show_status(figures, state.phase.label)
        _section(
            "failed",
            [f"{row.package_hash} {row.name} {row.version}: {row.error_message}" for row in rows],
        )
        click.echo(f"\nNext: {figures['next_command']}")
    codes = {"healthy": 0, "warning": EXIT_WARNING, "critical": EXIT_CRITICAL}
    return codes[judged.status] if check else 0


def _show_status(figures: dict[str, object], phase: str) -> None:
    def count(key: str) -> int:
        value = figures[key]
        return value if isinstance(value, int) else 0

    health = figures["health"]
    issues = health["issues"] if isinstance(health, dict) else []
    state = health["status"] if isinstance(health, dict) else ""
    rate, left = figures["rate_bytes_per_second"], figures["estimated_time_remaining_seconds"]
    done, total = count("bytes_done"), count("bytes_total")
    excluded = count("excluded_packages")
    lines = [
        ("phase", phase),
        ("running", str(figures["running"] or "nothing")),
        (
            "packages",
            (
                f"{count('migrated_packages'):,} of {count('total_packages'):,} migrated, "
                f"{count('failed_packages'):,} failed, "
                f"{count('pending_packages') + count('in_progress_packages'):,} pending"
                + (f", {excluded:,} set aside" if excluded else "")
            ),
        ),
        ("files", f"{count('migrated_files'):,} of {count('total_files'):,}"),
        (
            "bytes",
            f"{output.size(done)} of {output.size(total)}"
            + (f" ({done / total:.0%})" if total else "")
            + (f", {output.size(rate)}/s" if isinstance(rate, float) else "")
            + (f", {output.duration(left)} left" if isinstance(left, float) else ""),
        ),
        ("shared", f"{count('deduplicated_files'):,} files share an object that was there"),
        (
            "space",
            (
                f"{output.size(count('legacy_allocated_bytes'))} in legacy directories; removing "
                f"them will free {output.size(count('space_saved_bytes'))} on balance"
            ),
        ),
        ("health", ", ".join([str(state), *map(str, issues)])),
    ]
    output.pairs(lines)
