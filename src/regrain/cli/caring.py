"""Verbs that look after a store: doctor."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from regrain.cli import output
from regrain.cli.context import Context, dry_run_option, json_option, pass_context
from regrain.cli.keeping import execute_option
from regrain.errors import ConfigurationError, UsageError

if TYPE_CHECKING:
    from regrain.app.care import Source
    from regrain.maintain.doctor_findings import Finding
    from regrain.maintain.quarantined import Thing
    from regrain.maintain.rebuild import Rebuilt
    from regrain.settings import Settings
    from regrain.store.scan import Usage

EXIT_DAMAGED = 4
_SHARDS = 256
_SHOWN_MAX = 50


@click.command()
@click.option(
    "--rebuild-ledger",
    is_flag=True,
    help="Make the ledger anew from what lies on disk; the old one goes to quarantine/.",
)
@click.option(
    "--empty-quarantine",
    "empty_it",
    is_flag=True,
    help="List what lies in quarantine/; with --execute remove it, for good.",
)
@execute_option
@dry_run_option
@json_option
@pass_context
def doctor(
    context: Context,
    *,
    rebuild_ledger: bool,
    empty_it: bool,
    execute: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Examine the store and what it lies on, and say what to do. Changes nothing.

    What the file system can do is tried in temp/, unless --dry-run is given. No file is read
    to its end: that is the work of 'regrain verify'.

    Exit code 4: the ledger or objects are broken or missing. 1: other warnings or errors.

    Example: regrain --store /opt/pm/store doctor
    """
    _check_options(rebuild=rebuild_ledger, empty_it=empty_it, execute=execute, dry_run=dry_run)
    if empty_it:
        return _empty(context, execute=execute, as_json=as_json)
    if rebuild_ledger:
        return _rebuild(context, dry_run=dry_run, as_json=as_json)
    from regrain.app import care
    from regrain.cli.progress import Bar

    path, settings, source = _configured(context)
    bar = Bar(total=_SHARDS, hidden=as_json)
    try:
        found = care.doctor(
            path,
            settings,
            source,
            may_try=not dry_run,
            on_shard=lambda number: bar.update("looking at objects", number, _SHARDS),
        )
    finally:
        bar.stop()
    code = care.exit_code(found)
    if as_json:
        output.document("doctor", findings=[_finding(finding) for finding in found], exit_code=code)
    else:
        _show(found)
    return code


def _check_options(*, rebuild: bool, empty_it: bool, execute: bool, dry_run: bool) -> None:
    if rebuild and empty_it:
        raise UsageError(
            "--rebuild-ledger and --empty-quarantine are two commands", advice="Give one of them."
        )
    if execute and not empty_it:
        raise UsageError(
            "'--execute' is for emptying the quarantine", advice="Add --empty-quarantine."
        )
    if execute and dry_run:
        raise UsageError(
            "--execute and --dry-run contradict each other", advice="Give one of them."
        )


def _configured(context: Context) -> tuple[str, Settings, Source]:
    """Return store, settings and their source; a bad configuration is a finding, no end."""
    from regrain.app.care import source_of
    from regrain.settings import Settings

    top = click.get_current_context().find_root().params
    try:
        settings = context.settings
    except ConfigurationError as error:
        if not top.get("path"):
            raise
        return str(top["path"]), Settings(), source_of(top.get("config"), os.environ, str(error))
    return context.path, settings, source_of(top.get("config"), os.environ)


def _finding(finding: Finding) -> dict[str, object]:
    return {
        **finding.figures,
        "check": finding.check,
        "level": finding.level.value,
        "message": output.shown(finding.message),
        "advice": finding.advice,
    }


def _show(found: list[Finding]) -> None:
    width = max(len(finding.level) for finding in found)
    for finding in found:
        words = output.shown(f"{finding.check}: {finding.message}.")
        click.echo(f"{finding.level.value:<{width}}  {words}")
        if finding.advice:
            click.echo(f"{'':<{width}}  {finding.advice}")


class _Measuring:
    """Shows how far the look at legacy packages is."""

    def __init__(self, *, as_json: bool) -> None:
        from regrain.cli.progress import Bar

        self.bar = Bar(total=None, hidden=as_json)
        self._packages = self._bytes = 0

    def __call__(self, usage: Usage) -> None:
        self._packages += 1
        self._bytes += usage.size
        self.bar.update(f"looked at {output.count(self._packages, 'package')}", self._bytes, None)


def _rebuild(context: Context, *, dry_run: bool, as_json: bool) -> int:
    from regrain.app import care

    measuring = _Measuring(as_json=as_json)
    try:
        done = care.rebuild_ledger(context.path, dry_run=dry_run, on_package=measuring)
    finally:
        measuring.bar.stop()
    code = EXIT_DAMAGED if done.problems else 0
    command = "regrain migrate" if done.pending else "regrain verify --level deep"
    if as_json:
        output.document(
            "summary",
            dry_run=dry_run,
            published_packages=done.published,
            migrated_packages=done.completed,
            pending_packages=done.pending,
            objects=done.carriers,
            orphans=done.orphans,
            history=done.history,
            moved_aside=done.aside,
            old_schema=done.old_schema or None,
            not_taken_over=done.lost or None,
            problems=[
                {
                    "package_hash": problem.package_hash or None,
                    "object": problem.object or None,
                    "reason": problem.reason,
                }
                for problem in done.problems
            ],
            exit_code=code,
            next_command=command,
        )
    else:
        _show_rebuilt(done, command, dry_run=dry_run)
    return code


def _show_rebuilt(done: Rebuilt, command: str, *, dry_run: bool) -> None:
    if dry_run:
        click.echo(
            f"would record {done.published:,} published packages, {done.pending:,} pending ones "
            f"and {output.count(done.carriers, 'object')}; would move to quarantine/: "
            f"{', '.join(done.aside) or 'nothing'}"
        )
        if done.old_schema:
            click.echo(f"would leave the old one in the database: schema {done.old_schema}")
        return
    for problem in done.problems[:_SHOWN_MAX]:
        names = (("package", problem.package_hash), ("object", problem.object))
        what = ", ".join(f"{kind} {output.shown(name)}" for kind, name in names if name)
        click.echo(f"damaged: {what}: {problem.reason}")
    if len(done.problems) > _SHOWN_MAX:
        click.echo(f"and {len(done.problems) - _SHOWN_MAX:,} more (--json lists all)")
    click.echo(
        f"the ledger was rebuilt: {done.published:,} published packages, {done.pending:,} "
        f"pending, {output.count(done.carriers, 'object')} ({done.orphans:,} named by no package), "
        f"{done.history:,} lines of history kept"
    )
    if done.aside:
        click.echo(f"the old one is in quarantine/: {', '.join(done.aside)}")
    if done.old_schema:
        click.echo(
            f"the old one is in the database still: schema {done.old_schema}; when nobody needs "
            f"it any more: DROP SCHEMA {done.old_schema} CASCADE"
        )
    if done.lost:
        click.echo(
            "what only the old one knew (history, packages set aside, what stands against "
            f"packages) was not taken over, or not all of it: {output.shown(done.lost)}"
        )
    click.echo(f"\nNext: {command}")


def _empty(context: Context, *, execute: bool, as_json: bool) -> int:
    """List what lies in quarantine, or remove it; return the exit code."""
    from regrain.app.care import empty_quarantine, plan_emptying

    root = context.store.root
    if execute:
        done = empty_quarantine(root)
        found, kept = done.gone, done.kept
    else:
        found, kept = plan_emptying(root), []
    command = "regrain status" if execute or not found else _EMPTY
    size = sum(thing.size for thing in found)
    if as_json:
        output.document(
            "summary",
            executed=execute,
            things=[thing._asdict() for thing in found],
            freed_bytes=size,
            kept=[{"name": thing.name, "reason": why} for thing, why in kept],
            next_command=command,
        )
    else:
        _show_things(found, kept, size, execute=execute)
        click.echo(f"\nNext: {command}")
    return int(bool(kept))


_EMPTY = "regrain doctor --empty-quarantine --execute"
_WHAT = {
    "object": "object {of}",
    "published": "what was published of package {of}",
    "legacy": "legacy directory of package {of}",
    "ledger": "a ledger",
    "other": "something else",
}


def _show_things(
    found: list[Thing], kept: list[tuple[Thing, str]], size: int, *, execute: bool
) -> None:
    from regrain.model.clock import day_name

    for thing in found:
        what = _WHAT[thing.what].format(of=thing.of)
        taken = f"{output.size(thing.size)}, since {day_name(thing.since)}"
        click.echo(output.shown(f"{thing.name}: {what}, {taken}"))
    for thing, why in kept:
        click.echo(output.shown(f"stays: {thing.name}: {why}"))
    verb = "removed" if execute else "would remove"
    click.echo(f"{verb} {output.count(len(found), 'thing')} from quarantine/: {output.size(size)}")
