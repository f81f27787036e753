"""The verb that changes how objects lie on disk: repack."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from regrain.cli import log, output
from regrain.cli.context import (
    Context,
    Stop,
    dry_run_option,
    executor_option,
    json_option,
    pass_context,
)
from regrain.cli.keeping import execute_option
from regrain.cli.progress import JSON_SECONDS, LINE_SECONDS, Bar
from regrain.cli.telling import check_options
from regrain.errors import CorruptionError
from regrain.model.clock import monotonic

if TYPE_CHECKING:
    from regrain.maintain.repack import Repack

_SHOWN_MAX = 10


@click.command()
@click.option(
    "--compress",
    "choice",
    type=click.Choice(["all", "cold", "none"]),
    required=True,
    help="What is to be compressed; 'cold': only what no file outside the store is a link of.",
)
@execute_option
@executor_option
@dry_run_option
@json_option
@pass_context
def repack(
    context: Context,
    choice: str,
    *,
    execute: bool,
    executor: str | None,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Compress objects, or make them plain again; without --execute, say which.

    Packages stay what they are. An object is compressed where it shrinks by a block on disk and
    by [store] compression_min_saving; objects with holes, or with carriers of several modes, stay
    plain. Readers go on; writers pause for moments. Ctrl-C stops after the objects in hand, and
    the same command goes on. An object that shares its inode with a shared checkout frees nothing
    as long as that is there: 'cold' leaves such out. What shares its inode with a legacy directory
    is freed when that goes.

    Exit code 4: some objects are damaged; they were left alone. 5: too little space to make
    objects plain; nothing was changed.

    Example: regrain --store /opt/pm/store repack --compress all --execute
    """
    from regrain.app import repacking
    from regrain.maintain.repack import Choice

    check_options(execute=execute, dry_run=dry_run)
    root, settings, wanted = context.store.root, context.settings, Choice(choice)
    if not execute:
        _show(repacking.plan_repack(root, settings, wanted), choice, as_json=as_json)
        return 0
    stop = Stop()
    teller = _Teller(as_json=as_json)
    stop.listen(lambda: teller.bar.say("stopping after the objects in hand", event=log.STOPPING))
    try:
        done = repacking.repack(
            root, settings, wanted, on_progress=teller, stopping=stop, executor=executor
        )
    finally:
        teller.bar.stop()
    _show(done, choice, as_json=as_json, executed=True)
    if done.damaged:
        return output.exit_error(_damage(done), as_json=as_json)
    return stop.exit_code if done.stopped else 0


class _Teller:
    """Tells now and then how far it is."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self.bar = Bar(total=None, hidden=as_json)
        self._last = monotonic()

    def __call__(self, done: Repack) -> None:
        now = monotonic()
        if self.bar.is_shown:
            self.bar.update(f"{done.objects:,} objects", done.size, None)
        elif now - self._last >= (JSON_SECONDS if self._as_json else LINE_SECONDS):
            self._last = now
            if self._as_json:
                output.document("status", **_figures(done))
            else:
                words = f"{output.count(done.objects, 'object')}, {output.size(done.size)}"
                output.note(words, "info", "RepackProgress", **_figures(done))


def _figures(done: Repack) -> dict[str, object]:
    return {
        "objects": done.objects,
        "bytes": done.size,
        "allocated_before_bytes": done.before,
        "allocated_after_bytes": done.after,
        "freed_bytes": done.freed,
    }


def _show(done: Repack, choice: str, *, as_json: bool, executed: bool = False) -> None:
    if as_json:
        output.document(
            "summary",
            executed=executed,
            compress=choice,
            **_figures(done),
            kept={reason.name.lower(): count for reason, count in sorted(done.kept.items())},
            damaged=[{"object": name, "reason": why} for name, why in done.damaged],
            stopped=done.stopped,
        )
        return
    verb = "make plain" if choice == "none" else "compress"
    if executed:
        click.echo(
            f"{verb}: {done.objects:,} objects of {output.size(done.size)} took "
            f"{output.size(done.before)} on disk and take {output.size(done.after)}; "
            f"{_balance(done)}{' (stopped)' if done.stopped else ''}"
        )
    elif not done.objects:
        click.echo(f"nothing to {verb}")
    else:
        click.echo(
            f"would {verb} up to {done.objects:,} objects of {output.size(done.size)}, which "
            f"take {output.size(done.before)} on disk"
        )
        click.echo(
            f"{output.size(done.after)} are expected instead, {_balance(done)}"
            + ("" if choice == "none" else " (from a sample)")
        )
    for reason, count in sorted(done.kept.items()):
        click.echo(f"  {count:,} stay: {reason.value}")
    if done.freed < 0 and choice != "none":
        click.echo("  what they share with legacy directories or links is freed when these go")
    if done.objects and not executed:
        click.echo(f"Next: regrain repack --compress {choice} --execute")


def _balance(done: Repack) -> str:
    return f"{output.size(abs(done.freed))} {'freed' if done.freed >= 0 else 'more in use'}"


def _damage(done: Repack) -> CorruptionError:
    name, why = done.damaged[0]
    return CorruptionError(
        f"{len(done.damaged)} objects are damaged and were left alone",
        path=f"objects/{name[:2]}/{name}",
        why=why,
        advice="Run 'regrain verify', which tells what packages they concern.",
    )
