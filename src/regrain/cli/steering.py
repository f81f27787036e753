"""Verbs that steer a migration from another terminal: pause, resume, set."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from regrain.cli import output
from regrain.cli.completing import settings_of_a_run
from regrain.cli.context import Context, dry_run_option, json_option, pass_context

if TYPE_CHECKING:
    from regrain.app.steering import Steered


@click.command()
@dry_run_option
@json_option
@pass_context
def pause(context: Context, *, dry_run: bool, as_json: bool) -> None:
    """Hold the migration until 'regrain resume': the one that runs, and any to come.

    A running one finishes the files in hand, publishes the packages that are complete, puts the
    others back and waits; 'migrate' on a paused store says so and does nothing.

    Example: regrain --store /opt/pm/store pause
    """
    from regrain.app import steering

    done = steering.pause(context.store.root, dry_run=dry_run)
    if done.before.is_paused:
        words = "the migration is paused already"
    elif done.running:
        words = f"paused: {done.running}, finishes the files in hand and waits"
    else:
        words = "paused: no migration runs, and none will begin"
    _tell(context, done, words, dry_run=dry_run, as_json=as_json)


@click.command()
@dry_run_option
@json_option
@pass_context
def resume(context: Context, *, dry_run: bool, as_json: bool) -> None:
    """Let a paused migration go on. Nothing is started.

    Example: regrain --store /opt/pm/store resume
    """
    from regrain.app import steering

    done = steering.resume(context.store.root, dry_run=dry_run)
    if not done.before.is_paused:
        words = "the migration was not paused"
    elif done.running:
        words = f"resumed: {done.running}, goes on"
    else:
        words = "resumed: no migration runs; one may begin"
    _tell(context, done, words, dry_run=dry_run, as_json=as_json)


@click.command("set")
@click.argument(
    "words",
    metavar="KEY=VALUE...",
    nargs=-1,
    required=True,
    shell_complete=settings_of_a_run,
)
@dry_run_option
@json_option
@pass_context
def set_(context: Context, *, words: tuple[str, ...], dry_run: bool, as_json: bool) -> None:
    """Change how a migration works, while it does: jobs, batch, max-read, max-files, pause-ms.

    What is set counts within a second, wins over the options of the migration that runs and over
    the configuration, and stays set for the next ones, until KEY= takes it back. An option of a
    later 'migrate' wins over what was set before it.

    Example: regrain --store /opt/pm/store set jobs=1 max-read=20
    """
    from regrain.app import steering
    from regrain.errors import UsageError

    pairs = [word.partition("=") for word in words]
    for key, sign, _ in pairs:
        if not sign:
            raise UsageError(
                "not a key with a value", why=f"'{key}'", advice="Say KEY=VALUE, or KEY=."
            )
    told = {key.strip(): value.strip() for key, _, value in pairs}
    done = steering.set_values(context.store.root, told, dry_run=dry_run)
    said = ", ".join(f"{key}: {value or 'as configured'}" for key, value in told.items())
    _tell(context, done, f"set {said}", dry_run=dry_run, as_json=as_json)


def _tell(context: Context, done: Steered, words: str, *, dry_run: bool, as_json: bool) -> None:
    from regrain.app.standing import next_after
    from regrain.migrate.control import KEYS

    command = next_after(done, lambda: context.store.migration().state())
    if as_json:
        output.document(
            "summary",
            paused=done.after.is_paused,
            was_paused=done.before.is_paused,
            paused_at=done.after.paused_at,
            settings={key: getattr(done.after.values, key) for key in KEYS},
            running=done.running,
            dry_run=dry_run,
            next_command=command,
        )
        return
    click.echo(f"would say: {words}; nothing was changed" if dry_run else words)
    click.echo(f"\nNext: {command}")
