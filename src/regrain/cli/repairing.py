"""``verify --repair``: what was damaged, what became of it, what is left to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from regrain.cli import output
from regrain.cli.context import Context, Stop

if TYPE_CHECKING:
    from regrain.app.repairing import Repaired
    from regrain.maintain.repaired import Repair

EXIT_CHANGED = 3
EXIT_DAMAGED = 4
_CONCERNS_SHOWN_MAX = 3
_WHAT = {
    "object": "object {name}",
    "file_list": "file list of package {name}",
    "copies": "copies beside the file list of package {name}",
    "legacy": "legacy directory {name}",
    "ledger": "ledger",
}


def repair(
    context: Context,
    packages: tuple[str, ...],
    level: str,
    subset: str | None,
    places: tuple[str, ...],
    *,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Heal what is damaged; return the exit code."""
    from regrain.app.repairing import Order
    from regrain.app.repairing import repair as run
    from regrain.cli.progress import AuditProgress
    from regrain.maintain.audit import Level

    stop = Stop()
    progress = AuditProgress(as_json=as_json)
    stop.listen(progress.stopping)
    order = Order(list(packages), Level(level), subset, places, dry_run)
    with progress:
        done = run(
            context.store.root,
            context.settings,
            order,
            on_result=progress,
            on_repair=lambda one: _show(one, dry_run=dry_run, as_json=as_json),
            stopping=stop,
        )
    if dry_run:
        for one in done.report.repairs:
            _show(one, dry_run=True, as_json=as_json)
    code = _exit_code(done)
    if stop():
        code = stop.exit_code
    _end(done, level, code, dry_run=dry_run, as_json=as_json)
    return code


def _exit_code(done: Repaired) -> int:
    if done.is_damaged:
        return EXIT_DAMAGED
    return EXIT_CHANGED if done.last.audit.changes else 0


def _show(one: Repair, *, dry_run: bool, as_json: bool) -> None:
    """Tell what became of one damaged thing: to programs once for every package concerned."""
    if as_json:
        for name in sorted({name for name, _ in one.concerns}) or [""]:
            output.document("package", **_fields(one, name), dry_run=dry_run)
        return
    what = _WHAT[one.subject.value].format(name=one.name)
    click.echo(output.shown(f"{_word(one, dry_run=dry_run)}: {what}: {one.why}{_ending(one)}"))
    paths = [f"package {name} '{output.shown(path)}'" for name, path in one.concerns if path]
    for words in paths[:_CONCERNS_SHOWN_MAX]:
        click.echo(f"    needed by {words}")
    if len(paths) > _CONCERNS_SHOWN_MAX:
        click.echo(f"    and {len(paths) - _CONCERNS_SHOWN_MAX:,} more (--json lists all)")
    for name, path in one.shared:
        click.echo(f"    the legacy file {name}/{output.shown(path)} is the same inode")


def _word(one: Repair, *, dry_run: bool) -> str:
    words = {"healed": "heal", "pending": "migrate anew", "moved_aside": "move aside"}
    if dry_run and one.outcome.value in words:
        return f"would {words[one.outcome.value]}"
    return {"moved_aside": "moved aside", "pending": "to be migrated anew"}.get(
        one.outcome.value, one.outcome.value
    )


def _ending(one: Repair) -> str:
    source = f"; from {one.source}" if one.source else ""
    aside = f"; what was damaged is quarantine/{one.aside}" if one.aside else ""
    return source + aside


def _fields(one: Repair, name: str) -> dict[str, object]:
    def paths(pairs: tuple[tuple[str, bytes], ...]) -> list[str]:
        return [output.shown(path) for package, path in pairs if package == name and path]

    return {
        "package_hash": name or None,
        "status": one.outcome.value,
        "damaged": one.subject.value,
        "object": one.name if one.subject.value == "object" else None,
        "reason": one.why,
        "source": one.source or None,
        "quarantined": one.aside or None,
        "paths": paths(one.concerns),
        "legacy_paths_damaged": paths(one.shared),
    }


def _end(done: Repaired, level: str, code: int, *, dry_run: bool, as_json: bool) -> None:
    from regrain.cli.integrity import fields_of, show_findings

    counts = {
        outcome: sum(one.outcome.value == outcome for one in done.report.repairs)
        for outcome in ("healed", "pending", "moved_aside", "lost")
    }
    command = _next(done, level, code, dry_run=dry_run)
    if as_json:
        output.document(
            "summary",
            level=level,
            dry_run=dry_run,
            **counts,
            found=len(done.first.audit.damages),
            concerned=done.report.packages,
            **{**fields_of(done.last), "stopped": done.report.stopped},
            exit_code=code,
            next_command=command,
        )
        return
    if not dry_run:
        show_findings(done.last, with_quarantine=False)
    words = [f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items() if count]
    verb = "would be " if dry_run and words else ""
    click.echo(f"{level}: {verb}{', '.join(words) or 'no damage found'}")
    if done.report.stopped:
        click.echo("stopped before the end: run it again")
    if counts["lost"]:
        click.echo(
            "what is lost was found neither beside it, nor in a legacy directory, nor in a backup: "
            "name a backup with --from, put the file back, or 'regrain remove' the package"
        )
    click.echo(f"\nNext: {command}")


def _next(done: Repaired, level: str, code: int, *, dry_run: bool) -> str:
    from regrain.cli.integrity import repair_command

    if dry_run and done.report.repairs:
        return repair_command(level)
    if done.is_pending:
        return "regrain migrate"
    return f"{repair_command(level)} --from DEST" if code == EXIT_DAMAGED else "regrain status"
