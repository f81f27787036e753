"""Verbs that prove: verify."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from regrain.cli import output
from regrain.cli.completing import package_hashes
from regrain.cli.context import (
    Context,
    Stop,
    dry_run_option,
    executor_option,
    json_option,
    pass_context,
)
from regrain.errors import UsageError

if TYPE_CHECKING:
    from regrain.app.verification import Verdict

EXIT_CHANGED = 3
EXIT_DAMAGED = 4
_SHOWN_MAX = 50


@click.command()
@click.argument("packages", metavar="[HASH]...", shell_complete=package_hashes, nargs=-1)
@click.option(
    "--level",
    type=click.Choice(["quick", "full", "deep"]),
    default="full",
    show_default=True,
    help="quick: all there, of the right size. full: hash every object. deep: also compare "
    "with the legacy trees, and the ledger with the disk.",
)
@click.option("--read-data-subset", "subset", metavar="N/T", help="Hash one of T parts only.")
@click.option(
    "--repair",
    "is_repair",
    is_flag=True,
    help="Heal what is damaged from another copy, a legacy directory or a backup; what was "
    "damaged goes to quarantine/.",
)
@click.option(
    "--from",
    "places",
    metavar="DEST",
    multiple=True,
    help="With --repair: a backup to heal from, a directory or a URL.",
)
@executor_option
@dry_run_option
@json_option
@pass_context
def verify(
    context: Context,
    packages: tuple[str, ...],
    level: str,
    subset: str | None,
    *,
    is_repair: bool,
    places: tuple[str, ...],
    executor: str | None,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Prove that what is stored is what was stored; change nothing unless --repair is given.

    Exit code 4: something is damaged, with --repair: and could not be healed. 3: a legacy tree
    changed since it was migrated.

    Example: regrain --store /opt/pm/store verify --level deep
    """
    if is_repair:
        if executor is not None:
            raise UsageError(
                "'--executor' is not for a repair",
                why="what is damaged is healed on this host",
                advice="Leave one of the two out.",
            )
        from regrain.cli.repairing import repair

        return repair(context, packages, level, subset, places, dry_run=dry_run, as_json=as_json)
    if places or dry_run:
        raise UsageError(
            f"'{'--from' if places else '--dry-run'}' is for a repair",
            why="'verify' changes nothing",
            advice="Add --repair.",
        )
    from regrain.app.verification import verify as run
    from regrain.cli.progress import AuditProgress
    from regrain.maintain.audit import Level

    stop = Stop()
    store = context.store
    progress = AuditProgress(as_json=as_json)
    stop.listen(progress.stopping)
    with progress:
        verdict = run(
            store.root,
            context.settings,
            list(packages),
            level=Level(level),
            subset=subset,
            on_result=progress,
            stopping=stop,
            executor=executor,
        )
    found = verdict.audit
    code = EXIT_DAMAGED if verdict.is_damaged else EXIT_CHANGED if found.changes else 0
    if stop():
        code = stop.exit_code
    if as_json:
        output.document("summary", level=level, **fields_of(verdict), exit_code=code)
        return code
    show_findings(verdict)
    click.echo(
        f"{level}: {output.count(found.packages, 'package')}, "
        f"{output.count(found.entries, 'entry')}, "
        f"{output.count(found.carriers, 'object')} hashed ({output.size(found.bytes_hashed)})"
        + (
            f"; {output.count(verdict.not_migrated, 'package')} not migrated yet"
            if verdict.not_migrated
            else ""
        )
    )
    if stop():
        click.echo("stopped before the end: what was not looked at is not judged")
    elif code == EXIT_DAMAGED:
        click.echo(f"damaged: {verdict.findings:,} findings\n\nNext: {repair_command(level)}")
    elif code == EXIT_CHANGED:
        click.echo(f"the store is sound; {len(found.changes):,} legacy trees changed")
    else:
        click.echo("no damage found")
    return code


def repair_command(level: str) -> str:
    """Return the command that heals what a look at this level finds."""
    return f"regrain verify {'--level deep ' if level == 'deep' else ''}--repair"


def fields_of(verdict: Verdict) -> dict[str, object]:
    """Return what JSON tells of findings."""
    found, books = verdict.audit, verdict.books
    damages = [
        {
            "object": damage.object,
            "reason": damage.reason,
            "package_hash": damage.package_hash or None,
            "path": output.shown(damage.path) if damage.package_hash else None,
        }
        for damage in found.damages
    ]
    changes = [
        {
            "package_hash": change.package_hash,
            "path": output.shown(change.path),
            "reason": change.reason,
        }
        for change in found.changes
    ]
    return {
        "packages": found.packages,
        "entries": found.entries,
        "carriers": found.carriers,
        "bytes_hashed": found.bytes_hashed,
        "not_migrated": verdict.not_migrated,
        "damages": damages,
        "changes": changes,
        "ledger_problem": verdict.ledger_problem or None,
        "unpublished": books.unpublished if books else [],
        "changed_lists": books.changed_lists if books else [],
        "unrecorded": books.unrecorded if books else [],
        "orphans": books.unknown_carriers if books else [],
        "missing": books.missing_carriers if books else [],
        "leftovers": books.leftovers if books else [],
        "quarantined": books.quarantined if books else [],
        "stopped": found.stopped,
    }


def show_findings(verdict: Verdict, *, with_quarantine: bool = True) -> None:
    """Print findings, for people."""
    found, books = verdict.audit, verdict.books
    for damage in found.damages[:_SHOWN_MAX]:
        what = f"object {damage.object}" if damage.object else "file list"
        where = f": package {damage.package_hash} '{output.shown(damage.path)}'"
        click.echo(f"damaged {what}{where if damage.package_hash else ''}: {damage.reason}")
    for change in found.changes[:_SHOWN_MAX]:
        click.echo(
            f"legacy tree changed: package {change.package_hash} "
            f"'{output.shown(change.path)}': {change.reason}"
        )
    if books:
        _show_books(books.unpublished, "recorded but not published (lost)")
        _show_books(books.changed_lists, "file list is not the one recorded (damaged)")
        _show_books(books.unrecorded, "published but not recorded")
        _show_books(books.unknown_carriers, "object without a row (orphan, no failure)")
        _show_books(books.missing_carriers, "row without its object")
        _show_books(books.leftovers, "left over by a run that was killed (no failure)")
        if with_quarantine:
            _show_books(books.quarantined, "in quarantine (no failure)")
    if verdict.ledger_problem:
        click.echo(verdict.ledger_problem)


def _show_books(names: list[str], what: str) -> None:
    for name in names[:_SHOWN_MAX]:
        click.echo(f"{what}: {name}")
