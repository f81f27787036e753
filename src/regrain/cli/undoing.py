"""Verbs that take a layout away, or bring it back: cleanup, rollback."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from regrain.cli import output
from regrain.cli.context import Context, Stop, dry_run_option, json_option, pass_context
from regrain.cli.keeping import duration, execute_option
from regrain.errors import UsageError

if TYPE_CHECKING:
    from regrain.app.rollback import RolledBack
    from regrain.app.undoing import UndoingEvent
    from regrain.maintain.audit import Audit
    from regrain.maintain.cleanup import Cleaning, Cleanup
    from regrain.maintain.purge import Purge
    from regrain.settings import Settings
    from regrain.store.root import StoreRoot

EXIT_SOME_KEPT = 3
_SHOWN_MAX = 10


class _Teller:
    """Tells what becomes of each package, and how far a comparison is."""

    def __init__(self, context: Context, *, as_json: bool) -> None:
        from regrain.cli.progress import Bar

        self.as_json = as_json
        self._verbose = context.verbosity > 0
        self._bar = Bar(total=None, hidden=as_json)
        self.stop = Stop()
        self.stop.listen(lambda: output.note("stopping after the package in hand"))

    def event(self, event: UndoingEvent) -> None:
        """Take what became of a package."""
        from regrain.maintain.cleanup import Cleaned, Staying
        from regrain.maintain.restore import Failure

        name = event.package_hash
        if isinstance(event, Cleaned):
            self._say("removed", name, freed_bytes=event.freed_bytes)
        elif isinstance(event, Staying):
            self._say("kept", name, event.why, path=output.shown(event.path))
        elif isinstance(event, Failure):
            self._say("failed", name, event.why, damaged=event.is_damage)
        else:
            self._say("restored", name)

    def _say(self, status: str, name: str, why: str = "", **fields: object) -> None:
        if self.as_json:
            fields = {"reason": why, **fields} if why else fields
            output.document("package", package_hash=name, status=status, **fields)
        elif why or self._verbose:
            self._bar.say(f"{status} {name}{f': {why}' if why else ''}")

    def check(self, audit: Audit) -> None:
        """Take how far the comparison of legacy directories is."""
        self._bar.update(f"compared {audit.packages:,} packages", audit.bytes_hashed, None)

    def end(self) -> None:
        """Take the bar away."""
        self._bar.stop()


def _check_options(*, execute: bool, dry_run: bool) -> None:
    if execute and dry_run:
        raise UsageError(
            "--execute and --dry-run contradict each other", advice="Give one of them."
        )


# cleanup


@click.command()
@execute_option
@click.option("--older-than", metavar="AGE", help="Only packages migrated so long ago: 7d, 12h.")
@click.option("--limit", type=click.IntRange(0), help="Remove so many directories at the most.")
@dry_run_option
@json_option
@pass_context
def cleanup(
    context: Context,
    older_than: str | None,
    *,
    limit: int | None,
    execute: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Remove legacy directories after cutover; without --execute, say which and what that frees.

    Right before it goes each package is verified again, on both sides. Where anything is off
    both stay, and the exit code is 3. Ctrl-C stops after the package in hand; the same command
    goes on. With the last directory the phase becomes "legacy removed".

    Exit code 5: before cutover, or a process has files of a legacy package open.

    Example: regrain --store /opt/pm/store cleanup --older-than 7d --execute
    """
    from regrain.app import undoing

    _check_options(execute=execute, dry_run=dry_run)
    root = context.store.root
    age = None if older_than is None else duration(older_than)
    if not execute:
        found = undoing.plan_cleanup(root, older_than=age, limit=limit)
        _show_cleaning(root, found, as_json=as_json)
        return 0
    teller = _Teller(context, as_json=as_json)
    try:
        done = undoing.cleanup(
            root, older_than=age, limit=limit, on_event=teller.event, stopping=teller.stop
        )
    finally:
        teller.end()
    _show_cleanup(root, done, as_json=as_json)
    if done.stopped:
        return teller.stop.exit_code
    return EXIT_SOME_KEPT if done.kept else 0


def _next_after_cleanup(root: StoreRoot, *, in_doubt: bool) -> str:
    from regrain.model.phase import Phase

    if in_doubt:
        return "regrain verify --level deep"
    return "regrain verify" if root.phase() is Phase.CLEAN else "regrain cleanup --execute"


def _show_cleaning(root: StoreRoot, found: Cleaning, *, as_json: bool) -> None:
    in_doubt = any(one.in_doubt for one in found.staying)
    command = _next_after_cleanup(root, in_doubt=in_doubt and not found.going)
    phase = root.phase()
    if as_json:
        output.document(
            "summary",
            executed=False,
            phase=phase.value,
            packages=len(found.going),
            freed_bytes=found.freed_bytes,
            going=found.going,
            staying=[
                {
                    "package_hash": one.package_hash,
                    "reason": one.why,
                    "in_doubt": one.in_doubt,
                }
                for one in found.staying
            ],
            processes=[{"pid": pid, "path": output.shown(path)} for pid, path in found.processes],
            next_command=command,
        )
        return
    if not found.going and not found.staying:
        click.echo(f"no legacy directory is left; the phase is '{phase.label}'")
    else:
        click.echo(
            f"would remove {len(found.going):,} legacy directories: "
            f"{output.size(found.freed_bytes)}; {len(found.staying):,} stay"
        )
    _section("these stay", [f"{one.package_hash}: {one.why}" for one in found.staying])
    _section(
        "in the way: processes with files open there",
        [f"{pid}: {output.shown(path)}" for pid, path in found.processes],
    )
    click.echo(f"\nNext: {command}")


def _show_cleanup(root: StoreRoot, done: Cleanup, *, as_json: bool) -> None:
    command = _next_after_cleanup(root, in_doubt=bool(done.kept))
    phase = root.phase()
    if as_json:
        output.document(
            "summary",
            executed=True,
            phase=phase.value,
            packages=done.packages,
            freed_bytes=done.freed_bytes,
            kept=[one.package_hash for one in done.kept],
            stopped=done.stopped,
            next_command=command,
        )
        return
    click.echo(
        f"removed {done.packages:,} legacy directories: {output.size(done.freed_bytes)}"
        + (f"; {len(done.kept):,} are kept, since something is off" if done.kept else "")
        + (" (stopped)" if done.stopped else "")
    )
    click.echo(f"the phase is '{phase.label}'")
    click.echo(f"\nNext: {command}")


def _section(title: str, lines: list[str]) -> None:
    if lines:
        click.echo(f"\n{title}:")
        for line in lines[:_SHOWN_MAX]:
            click.echo(f"  {line}")
        if len(lines) > _SHOWN_MAX:
            click.echo(f"  and {len(lines) - _SHOWN_MAX:,} more (--json lists all)")


# rollback


@click.command()
@click.argument("packages", metavar="[HASH]...", nargs=-1)
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

    Examples:
    \b
      regrain --store /opt/pm/store rollback --dry-run
      regrain --store /opt/pm/store rollback
      regrain --store /opt/pm/store rollback --purge --execute
    """  # noqa: D301 -- click reads the backspace: keep these lines as they are
    _check_options(execute=execute, dry_run=dry_run)
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
    if phase is Phase.ROLLED_BACK:
        return _show_rolled_back(root, None, as_json=as_json)
    found = plan_rollback(root, settings)
    if as_json:
        output.document(
            "summary",
            dry_run=True,
            phase=phase.value,
            packages=found.packages,
            needed_bytes=found.size,
            needed_inodes=found.inodes,
            next_command="regrain rollback",
        )
        return 0
    click.echo(
        f"would rebuild {found.packages:,} legacy directories, which takes "
        f"{output.size(found.size)} and {found.inodes:,} inodes, and compare all others"
    )
    click.echo("\nNext: regrain rollback")
    return 0


def _whole(context: Context, root: StoreRoot, *, as_json: bool) -> int:
    from regrain.app.rollback import raise_failures
    from regrain.app.rollback import rollback as run

    teller = _Teller(context, as_json=as_json)
    try:
        done = run(
            root,
            context.settings,
            on_event=teller.event,
            on_check=teller.check,
            on_wait=lambda who: output.note(f"stopping a running migration: {who}"),
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
    click.echo(f"stopped; {done.restored:,} legacy directories rebuilt so far\n\nNext: {command}")


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
            f"rolled back: {restored:,} legacy directories rebuilt, all others compared; "
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
        teller = _Teller(context, as_json=as_json)
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
        f"{'dropped' if execute else 'would drop'} {done.packages:,} file lists and "
        f"{done.objects:,} objects: {output.size(done.freed_bytes)}"
        + (" (stopped)" if done.stopped else "")
    )
