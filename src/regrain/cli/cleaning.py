"""The verb that removes legacy directories: cleanup."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from regrain.cli import output
from regrain.cli.context import Context, dry_run_option, json_option, pass_context
from regrain.cli.keeping import duration, execute_option
from regrain.cli.telling import Teller, check_options, next_command

if TYPE_CHECKING:
    from regrain.maintain.cleanup import Cleaning, Cleanup
    from regrain.store.root import StoreRoot

EXIT_SOME_KEPT = 3
_SHOWN_MAX = 10


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
    from regrain.app.logs import limits_of
    from regrain.model.phase import Phase

    check_options(execute=execute, dry_run=dry_run)
    root = context.store.root
    age = None if older_than is None else duration(older_than)
    if not execute:
        found = undoing.plan_cleanup(root, older_than=age, limit=limit)
        is_last = root.phase() is Phase.FILE_LEVEL and not found.staying  # only the phase is left
        planned = bool(found.going) or is_last
        _show_cleaning(root, found, _next(context, planned=planned), as_json=as_json)
        return 0
    teller = Teller(context, as_json=as_json)
    try:
        done = undoing.cleanup(
            root,
            older_than=age,
            limit=limit,
            on_event=teller.event,
            stopping=teller.stop,
            logs=limits_of(context.settings),
        )
    finally:
        teller.end()
    _show_cleanup(root, done, _next(context, planned=False), as_json=as_json)
    if done.stopped:
        return teller.stop.exit_code
    return EXIT_SOME_KEPT if done.kept else 0


def _next(context: Context, *, planned: bool) -> str:
    return "regrain cleanup --execute" if planned else next_command(context)


def _show_cleaning(root: StoreRoot, found: Cleaning, command: str, *, as_json: bool) -> None:
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
            f"would remove {output.count(len(found.going), 'legacy directory')}: "
            f"{output.size(found.freed_bytes)}; {len(found.staying):,} stay"
        )
    _section("these stay", [f"{one.package_hash}: {one.why}" for one in found.staying])
    _section(
        "in the way: processes with files open there",
        [f"{pid}: {output.shown(path)}" for pid, path in found.processes],
    )
    click.echo(f"\nNext: {command}")


def _show_cleanup(root: StoreRoot, done: Cleanup, command: str, *, as_json: bool) -> None:
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
        f"removed {output.count(done.packages, 'legacy directory')}: "
        f"{output.size(done.freed_bytes)}"
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
