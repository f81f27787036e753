"""Verbs of the migration: plan, init, migrate."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import click

from regrain.cli import output
from regrain.cli.completing import package_hashes
from regrain.cli.context import (
    Context,
    NotNegative,
    Stop,
    dry_run_option,
    executor_option,
    json_option,
    pass_context,
)

if TYPE_CHECKING:
    from regrain.app.foresight import Foresight
    from regrain.app.initialising import Initialised
    from regrain.migrate.plan import Plan
    from regrain.store.scan import Usage

EXIT_FAILED_SOME = 3
EXIT_REFUSED = 5
_SHOWN_MAX = 10
_PREDICTED_FILES_MAX = 2_000_000
"""Up to so many ``init`` predicts unasked; a million take half a minute."""


class _Scanning:
    """Shows how far a first look at the packages is."""

    def __init__(self, *, as_json: bool) -> None:
        from regrain.cli.progress import Bar

        self._bar = Bar(total=None, hidden=as_json)
        self._packages = self._bytes = 0

    def __call__(self, usage: Usage) -> None:
        self._packages += 1
        self._bytes += usage.size
        self._bar.update(f"looked at {output.count(self._packages, 'package')}", self._bytes, None)

    def stop(self) -> None:
        self._bar.stop()


@click.command()
@json_option
@pass_context
def plan(context: Context, *, as_json: bool) -> int:
    """Say what a migration would meet, cost and save. Works before init; writes nothing.

    What it would save is predicted for each way of migrating, with an error margin: at the most
    about 16,000 files and 256 MiB are read for that.

    Exit code 5 if something stands in the way.

    Example: regrain --store /opt/pm/store plan
    """
    from regrain.app import prediction
    from regrain.cli import planned, predicted

    scanning = _Scanning(as_json=as_json)
    try:
        foretold = prediction.predict(context.path, context.settings, scanning)
    finally:
        scanning.stop()
    found = foretold.plan
    command = _next_after_plan(context, found)
    if as_json:
        planned.document(found, command, predicted.document(foretold))
    else:
        planned.show(found, command, predicted.lines(foretold))
    return EXIT_REFUSED if found.blockers else 0


def _next_after_plan(context: Context, found: Plan) -> str:
    from regrain.errors import NotAStoreError

    if found.blockers:
        return "regrain plan"
    try:
        _ = context.store
    except NotAStoreError:
        return "regrain init"
    return _migrate(context)


def _migrate(context: Context) -> str:
    """Return how a migration is called for by these settings."""
    keeps = context.settings.store.keep_old_packages
    return "regrain migrate" if keeps else "regrain migrate --delete-legacy"


def section(title: str, lines: list[str]) -> None:
    """Print a heading and the first of the lines below it; nothing where there are none."""
    if lines:
        click.echo(f"\n{title}:")
        for line in lines[:_SHOWN_MAX]:
            click.echo(f"  {output.shown(line)}")
        if len(lines) > _SHOWN_MAX:
            click.echo(f"  and {len(lines) - _SHOWN_MAX:,} more (--json lists all)")


@click.command()
@click.option(
    "--no-predict", is_flag=True, help="Keep no prediction of what plan foresees for status."
)
@dry_run_option
@json_option
@pass_context
def init(context: Context, *, no_predict: bool, dry_run: bool, as_json: bool) -> None:
    """Make a store of the directory, empty or legacy, and queue every legacy package.

    No package is touched. Repeating it completes what is missing and queues what is new. What
    plan predicts is kept, for status to show it beside the outcome, unless there are more than two
    million files.

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
        if done.queued and not (dry_run or no_predict):
            _keep_prediction(context)
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
            next_command=_migrate(context),
        )
        return
    _show_init(done, _migrate(context), dry_run=dry_run)


def _keep_prediction(context: Context) -> None:
    """Predict for ``status``, as long as nothing is migrated that would be counted twice.

    Not for stores so large that it takes minutes nobody asked for.
    """
    from regrain.app import foretold, prediction

    if context.store.migration().state().totals.files > _PREDICTED_FILES_MAX:
        return
    found = prediction.predict(context.path, context.settings)
    if not found.is_begun:
        foretold.keep(context.store.root, found)


def _show_init(done: Initialised, command: str, *, dry_run: bool) -> None:
    if dry_run:
        click.echo(f"would queue {output.count(done.queued, 'package')}; nothing was written")
    elif done.created:
        click.echo(f"initialised; {output.count(done.queued, 'package')} queued")
    else:
        click.echo(f"this is a store already; {output.count(done.queued, 'new package')} queued")
    section("not packages, left alone", [output.shown(name) for name in done.foreign])
    click.echo(f"\nNext: {command}")


@click.command()
@click.option("--jobs", type=click.IntRange(1, 256), help="Worker processes.")
@click.option("--batch", type=click.IntRange(1, 100_000), help="Packages committed together.")
@click.option("--limit", type=click.IntRange(0), help="Migrate so many packages at the most.")
@click.option("--only", metavar="GLOB", help="Only packages whose name or hash matches.")
@click.option("--retry-failed", is_flag=True, help="Try failed packages again.")
@click.option(
    "--rescan",
    is_flag=True,
    help="First compare every legacy directory with what is published; no bytes are read.",
)
@click.option(
    "--accept-legacy",
    "accept",
    metavar="HASH",
    shell_complete=package_hashes,
    help="Let the legacy directory of this package, as it is now, replace what is published.",
)
@click.option("--max-read", type=NotNegative(), metavar="MIB_S", help="Read no faster than this.")
@click.option(
    "--delete-legacy",
    is_flag=True,
    help="Migrate in place: delete each legacy directory as soon as its package is verified. "
    "With [store] keep_old_packages = false, and a backup or --no-backup.",
)
@click.option("--no-backup", is_flag=True, help="Delete them without asking for a backup.")
@executor_option
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
    rescan: bool,
    accept: str | None,
    max_read: float | None,
    delete_legacy: bool,
    no_backup: bool,
    executor: str | None,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Migrate package by package until nothing is pending. Readers are never disturbed.

    Legacy directories are not touched, with one exception: keep_old_packages = false together
    with --delete-legacy. Then each goes once its package is verified, with all that cleanup
    checks; one that is in use, or not what was migrated, is kept.

    Ctrl-C or SIGTERM finish the files in hand and stop; a second one stops at once. Run it
    again, whatever happened: it goes on where it was.

    Exit code 3: finished, but some packages failed, or some directories were kept that should
    have gone. 5: refused, or ended by a trigger, as [migration] on_trigger says: new damage, too
    many failures, readers that became slow.

    Example: regrain --store /opt/pm/store migrate --only 'django*'
    """
    from regrain.cli.progress import MigrationProgress

    migration = context.store.migration()
    if dry_run:
        found = migration.foresee(
            limit=limit,
            only=only,
            retry_failed=retry_failed,
            rescan=rescan,
            accept=accept,
            delete_legacy=delete_legacy,
            no_backup=no_backup,
        )
        return _would_migrate(found, _migrate(context), as_json=as_json)
    stop = Stop()
    progress = MigrationProgress(as_json=as_json, verbose=context.verbosity > 0)
    stop.listen(progress.stopping)
    gc.freeze()  # the libraries stay: looking through them again and again is for nothing
    with progress:
        summary = migration.run(
            progress,
            jobs=jobs,
            batch=batch,
            limit=limit,
            only=only,
            retry_failed=retry_failed,
            rescan=rescan,
            accept=accept,
            max_read=max_read,
            delete_legacy=delete_legacy,
            no_backup=no_backup,
            executor=executor,
            stopping=stop,
        )
    state = migration.state()
    from regrain.app.standing import next_command
    from regrain.model.status import Status

    failed = state.totals.count(Status.FAILED)
    command = "regrain resume" if summary.paused else next_command(state)
    if as_json:
        output.document(
            "summary",
            completed=summary.completed,
            failed=summary.failed,
            stopped=summary.stopped,
            paused=summary.paused,
            pending_packages=state.totals.count(Status.PENDING),
            failed_packages=failed,
            migrated_packages=state.totals.count(Status.COMPLETED),
            total_packages=state.totals.packages,
            space_saved_bytes=state.totals.saved,
            removed_directories=summary.removed,
            freed_bytes=summary.freed_bytes,
            kept_directories=summary.kept,
            next_command=command,
        )
    elif summary.paused:
        click.echo(f"the migration is paused, nothing was done\n\nNext: {command}")
    else:
        click.echo(
            f"{output.count(summary.completed, 'package')} migrated"
            + (f", {failed:,} failed" if failed else "")
            + f"; {state.totals.count(Status.PENDING):,} pending"
            + (" (stopped)" if summary.stopped else "")
        )
        if delete_legacy:
            click.echo(
                f"removed {summary.removed:,} legacy directories: "
                f"{output.size(summary.freed_bytes)}"
                + (f"; {summary.kept:,} are kept" if summary.kept else "")
            )
        click.echo(f"\nNext: {command}")
    if summary.stopped:
        return stop.exit_code
    if summary.paused:
        return 0
    return EXIT_FAILED_SOME if failed or summary.kept else 0


def _would_migrate(found: Foresight, command: str, *, as_json: bool) -> int:
    from regrain.cli.progress import MigrationProgress

    event = found.found.event()
    if event is not None:
        with MigrationProgress(as_json=as_json, verbose=False) as telling:
            telling(event)
    command = "regrain resume" if found.paused else command
    if as_json:
        output.document(
            "summary",
            dry_run=True,
            pending_packages=found.packages,
            files=found.files,
            bytes=found.size,
            rolled_back_packages=found.rolled_back,
            paused=found.paused,
            next_command=command,
        )
        return 0
    if found.rolled_back:
        click.echo(f"would compare {output.count(found.rolled_back, 'package')} rolled back before")
    click.echo(
        f"would migrate {output.count(found.packages, 'package')}, "
        f"{output.count(found.files, 'file')}: "
        f"{output.size(found.size)}" + (", once it is resumed" if found.paused else "")
    )
    click.echo(f"\nNext: {command}")
    return 0
