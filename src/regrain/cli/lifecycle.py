"""Verbs of the lifecycle: cutover and why."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from regrain.cli import log, output
from regrain.cli.completing import package_hashes
from regrain.cli.context import (
    Context,
    NotNegative,
    Stop,
    dry_run_option,
    json_option,
    pass_context,
)
from regrain.cli.telling import next_command

if TYPE_CHECKING:
    from regrain.app.account import Account
    from regrain.app.lifecycle import Cutover

EXIT_REFUSED = 5
_PACKAGES_SHOWN_MAX = 3


@click.command()
@click.option(
    "--wait",
    type=NotNegative(),
    default=0.0,
    metavar="SECONDS",
    help="Ask again for so long while the gate is closed.",
)
@click.option("--no-backup", is_flag=True, help="Do not ask for a backup.")
@dry_run_option
@json_option
@pass_context
def cutover(context: Context, wait: float, *, no_backup: bool, dry_run: bool, as_json: bool) -> int:
    """Let all reads go to the file level, if everything speaks for it.

    The gate: every package migrated and verified, nothing new, nothing changed, a backup that
    covers every package or was marked within 24 h ('regrain backup'), health not critical, and
    packages read from both layouts, side by side, equal and not slower. All that is open is
    listed at once, exit code 5. Legacy directories stay where they are; 'regrain rollback' leads
    back.

    Example: regrain --store /opt/pm/store cutover --wait 600
    """
    from regrain.app.lifecycle import cutover as run

    stop = Stop()
    if wait:
        stop.listen(lambda: output.note("stopping", event=log.STOPPING))
    done = run(
        context.store.root,
        context.settings,
        wait=wait,
        no_backup=no_backup,
        dry_run=dry_run,
        stopping=stop,
    )
    stopped = stop() and not done.switched
    code = stop.exit_code if stopped else EXIT_REFUSED if done.failures else 0
    command = next_command(context)
    if as_json:
        _cutover_document(done, code, command, dry_run=dry_run)
    else:
        _show_cutover(done, dry_run=dry_run)
        click.echo(f"\nNext: {command}")
    return code


def _cutover_document(done: Cutover, code: int, command: str, *, dry_run: bool) -> None:
    seen = done.comparison
    output.document(
        "summary",
        dry_run=dry_run,
        switched=done.switched,
        already=done.already,
        failures=[
            {
                "check": failure.check,
                "reason": output.shown(failure.reason),
                "advice": failure.advice,
                "packages": list(failure.packages),
            }
            for failure in done.failures
        ],
        comparison=None
        if seen is None
        else {
            "packages": seen.packages,
            "files": seen.files,
            "bytes": seen.size,
            "legacy_seconds": seen.legacy_seconds,
            "file_level_seconds": seen.file_level_seconds,
            "slowdown": seen.slowdown,
        },
        exit_code=code,
        next_command=command,
    )


def _show_cutover(done: Cutover, *, dry_run: bool) -> None:
    if done.already:
        click.echo("the store is at the file level already")
        return
    if done.comparison is not None and done.comparison.files:
        seen = done.comparison
        click.echo(
            f"read from both layouts: {output.count(seen.files, 'file')} of "
            f"{output.count(seen.packages, 'package')}; the "
            f"file level takes {seen.slowdown:.2f} times as long as the legacy layout"
        )
    if done.failures:
        click.echo("the gate is closed; nothing was changed:")
    for failure in done.failures:
        click.echo(f"  {failure.check}: {output.shown(failure.reason)}")
        for name in failure.packages[:_PACKAGES_SHOWN_MAX]:
            click.echo(f"    {name}")
        if len(failure.packages) > _PACKAGES_SHOWN_MAX:
            rest = len(failure.packages) - _PACKAGES_SHOWN_MAX
            click.echo(f"    and {rest:,} more (--json lists all)")
        click.echo(f"    {failure.advice}")
    if done.switched:
        click.echo("all reads go to the file level now; the legacy directories are still there")
    elif dry_run and not done.failures:
        click.echo("the gate is open; nothing was changed")


@click.command()
@click.argument("package", metavar="HASH", shell_complete=package_hashes)
@json_option
@pass_context
def why(context: Context, package: str, *, as_json: bool) -> int:
    """Say where a package is read from and why, what happened to it, and what to do.

    Example: regrain --store /opt/pm/store why 1f3a9c2e
    """
    from regrain.app.account import why as run

    account = run(context.store.root, package)
    if as_json:
        _why_document(account)
    else:
        _show_why(account)
    return 0


def _why_document(account: Account) -> None:
    row, standing, concern = account.row, account.standing, account.concern
    output.document(
        "package",
        package_hash=account.package_hash,
        phase=account.phase.value,
        read_from=account.read_from,
        because=account.because,
        layouts=[where.value for where in account.layouts],
        name=row.name if row else "",
        version=row.version if row else "",
        status=row.status.value if row else None,
        attempts=row.attempts if row else 0,
        started_at=row.started_at if row else None,
        completed_at=row.completed_at if row else None,
        verified_at=standing.verified_at if standing else None,
        cleaned_at=standing.cleaned_at if standing else None,
        freed_bytes=standing.freed_bytes if standing else None,
        excluded=bool(standing and standing.is_excluded),
        error=row.error_message if row else None,
        error_path=output.shown(row.error_path) if row and row.error_path else None,
        integrity={"what": output.shown(concern.what), "found_at": concern.found_at}
        if concern
        else None,
        history=[_event_fields(event) for event in account.events],
        todo=account.todo,
    )


def _event_fields(event: tuple[int, str, str]) -> dict[str, object]:
    """Return a line of the history for JSON."""
    at, name, detail = event
    return {"at": at, "event": name, "detail": output.shown(detail)}


def _show_why(account: Account) -> None:
    row, standing = account.row, account.standing
    lines = [("package", account.package_hash)]
    if row is not None and row.name:
        lines.append(("name", output.shown(f"{row.name} {row.version}")))
    lines += [
        ("phase", account.phase.label),
        ("read from", account.read_from.value.replace("_", " ") if account.read_from else "-"),
        ("because", account.because),
        ("lies in", ", ".join(w.value.replace("_", " ") for w in account.layouts) or "nowhere"),
    ]
    if row is None:
        lines.append(("migration", "none: it never had a legacy directory"))
    else:
        attempts = f"{row.attempts} attempt{'' if row.attempts == 1 else 's'}"
        lines.append(("migration", f"{row.status.value.replace('_', ' ')}, {attempts}"))
        if row.error_message:
            lines.append(("error", output.shown(row.error_message)))
    if standing is not None:
        if standing.is_excluded:
            lines.append(("set aside", "yes"))
        lines.append(("verified", _moment(standing.verified_at)))
        if standing.cleaned_at is not None:
            lines.append(("legacy gone", _moment(standing.cleaned_at)))
    if account.concern is not None:
        lines.append(("integrity", output.shown(account.concern.what)))
    output.pairs(lines)
    if account.events:
        click.echo("\nhistory:")
    for event in account.events:
        detail = f": {output.shown(event.detail)}" if event.detail else ""
        click.echo(f"  {_moment(event.at)}  {event.event}{detail}")
    click.echo(f"\n{account.todo}")


def _moment(seconds: int | None) -> str:
    if seconds is None:
        return "never"
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
