"""The verb that goes back to the legacy layout: rollback."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from regrain.cli import log, output
from regrain.cli.completing import package_hashes
from regrain.cli.context import Context, dry_run_option, json_option, pass_context
from regrain.cli.telling import Teller, check_options
from regrain.errors import UsageError

if TYPE_CHECKING:
    from regrain.app.rollback import RolledBack
    from regrain.maintain.purge import Purge
    from regrain.settings import Settings
    from regrain.store.root import StoreRoot


@click.command()
@click.argument("packages", metavar="[HASH]...", shell_complete=package_hashes, nargs=-1)
@click.option("--purge", is_flag=True, help="After a rollback: drop file lists and objects.")
@click.option("--execute", is_flag=True, help="With --purge: do it; without, say what would go.")
@dry_run_option
@json_option
@pass_context
def rollback(
    context: Context,
    packages: tuple[str, ...],
    *,
    purge: bool,
    execute: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Go back to the legacy layout, from every phase: the whole store, or single packages.

    A running migration is stopped first. Packages without a legacy directory get one, exactly
    as it was; every other legacy directory is compared, byte by byte; then reads go there.
    Stopped or killed, it goes on when it is given again. Too little space: exit code 5, and
    nothing is changed. Exit code 3: a legacy directory is not what it was. 4: what is
    published of a package is damaged. In both cases the store is not switched.

    With HASH, before cutover only: these packages are read from their legacy directories
    again. The next plain migrate takes them up again, as it does a whole store; to keep one
    out, use exclude.

    \b
    Examples:
      regrain --store /opt/pm/store rollback --dry-run
      regrain --store /opt/pm/store rollback
      regrain --store /opt/pm/store rollback --purge --execute
    """  # noqa: D301 -- click reads the backspace: keep these lines as they are
    check_options(execute=execute, dry_run=dry_run)
    if packages and purge:
        raise UsageError("--purge is for the whole store", advice="Give it without a package.")
    if execute and not purge:
        raise UsageError(
            "--execute belongs to --purge", advice="A rollback needs no --execute; leave it out."
        )
    root = context.store.root
    if purge:
        return _purge(context, root, execute=execute, as_json=as_json)
    if packages:
        return _packages(root, list(packages), dry_run=dry_run, as_json=as_json)
    if dry_run:
        return _plan(root, context.settings, as_json=as_json)
    return _whole(context, root, as_json=as_json)


def _packages(root: StoreRoot, texts: list[str], *, dry_run: bool, as_json: bool) -> int:
    from regrain.app import undoing

    names = (undoing.plan_rollback_of if dry_run else undoing.rollback_packages)(root, texts)
    if as_json:
        output.document("summary", package_hashes=names, dry_run=dry_run, next_command=_MIGRATE)
        return 0
    for name in names:
        click.echo(f"{name} {'would be' if dry_run else 'is'} read from its legacy directory")
    if not names:
        click.echo("nothing of this is published: it is read from legacy already")
    click.echo(f"\nNext: {_MIGRATE}")
    return 0


_MIGRATE = "regrain migrate"


def _plan(root: StoreRoot, settings: Settings, *, as_json: bool) -> int:
    from regrain.app.rollback import plan_rollback
    from regrain.model.phase import Phase

    phase = root.phase()
    is_back = phase is Phase.ROLLED_BACK
    if is_back and not as_json:
        return _show_rolled_back(root, None, as_json=False)
    found = plan_rollback(root, settings)
    if as_json:
        output.document(
            "summary",
            dry_run=True,
            phase=phase.value,
            packages=found.packages,
            needed_bytes=found.size,
            needed_inodes=found.inodes,
            already=is_back,
            next_command=_MIGRATE if is_back else "regrain rollback",
        )
        return 0
    click.echo(
        f"would rebuild {output.count(found.packages, 'legacy directory')}, which takes "
        f"{output.size(found.size)} and {output.count(found.inodes, 'inode')}, and compare all "
        "others"
    )
    click.echo("\nNext: regrain rollback")
    return 0


def _whole(context: Context, root: StoreRoot, *, as_json: bool) -> int:
    from regrain.app.rollback import raise_failures
    from regrain.app.rollback import rollback as run

    teller = Teller(context, as_json=as_json)
    try:
        done = run(
            root,
            context.settings,
            on_event=teller.event,
            on_check=teller.check,
            on_wait=lambda who: output.note(
                f"stopping a running migration: {who}", event=log.STOPPING
            ),
            on_hold=lambda why: output.note(
                f"waiting: {why}" if why else "going on", event=log.WAITING, why=why
            ),
            stopping=teller.stop,
        )
    finally:
        teller.end()
    if done.stopped:
        _show_stopped(root, done, as_json=as_json)
        return teller.stop.exit_code
    raise_failures(done)
    return _show_rolled_back(root, done, as_json=as_json)


def _show_stopped(root: StoreRoot, done: RolledBack, *, as_json: bool) -> None:
    command = "regrain rollback"
    if as_json:
        output.document(
            "summary",
            phase=root.phase().value,
            restored=done.restored,
            stopped=True,
            next_command=command,
        )
        return
    click.echo(
        f"stopped; {output.count(done.restored, 'legacy directory')} rebuilt so far\n\nNext: "
        f"{command}"
    )


def _show_rolled_back(root: StoreRoot, done: RolledBack | None, *, as_json: bool) -> int:
    restored = done.restored if done else 0
    purged = done.purged if done else None
    already = done is None or done.already
    if as_json:
        output.document(
            "summary",
            phase=root.phase().value,
            already=already,
            restored=restored,
            stopped=False,
            purged_bytes=purged.freed_bytes if purged else None,
            next_command=_MIGRATE,
        )
        return 0
    if already:
        click.echo("the store is rolled back already; it is read from its legacy directories")
    else:
        click.echo(
            f"rolled back: {output.count(restored, 'legacy directory')} rebuilt, all others "
            "compared; "
            "the store is read from them"
        )
    if purged:
        click.echo(_purged(purged, execute=True))
    click.echo(f"\nNext: {_MIGRATE}")
    return 0


def _purge(context: Context, root: StoreRoot, *, execute: bool, as_json: bool) -> int:
    from regrain.app import undoing
    from regrain.maintain.purge import foresee

    code = 0
    if execute:
        teller = Teller(context, as_json=as_json)
        try:
            done = undoing.purge(root, stopping=teller.stop)
        finally:
            teller.end()
        code = teller.stop.exit_code if done.stopped else 0
    else:
        done = foresee(root)
    command = _MIGRATE if execute and not done.stopped else "regrain rollback --purge --execute"
    if as_json:
        output.document(
            "summary",
            executed=execute,
            packages=done.packages,
            objects=done.objects,
            freed_bytes=done.freed_bytes,
            stopped=done.stopped,
            next_command=command,
        )
        return code
    click.echo(_purged(done, execute=execute))
    click.echo(f"\nNext: {command}")
    return code


def _purged(done: Purge, *, execute: bool) -> str:
    return (
        f"{'dropped' if execute else 'would drop'} {output.count(done.packages, 'file list')} and "
        f"{output.count(done.objects, 'object')}: {output.size(done.freed_bytes)}"
        + (" (stopped)" if done.stopped else "")
    )
