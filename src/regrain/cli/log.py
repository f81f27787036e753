"""What commands tell on standard error: sentences for people, JSON Lines for programs.

Every line has the name of an event, which does not change; docs/events.md lists them.
"""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from regrain.model.events import Event

FORMATS = ("auto", "text", "json")
VARIABLE = "REGRAIN_LOG_FORMAT"
NOTE, ERROR, STOPPING, WAITING = "Note", "Error", "Stopping", "Waiting"
LOUD = ("warning", "error")
"""Levels that are told in any case."""


class _Manner:
    """How it is told, as the options before the command say."""

    form: str | None = None
    quiet = False


def use(form: str, *, quiet: bool) -> None:
    """Tell it so from now on.

    Args:
        form: ``text``, ``json``, or ``auto``: text on a terminal, JSON elsewhere.
        quiet: Leave out what is no warning and no error.
    """
    _Manner.form, _Manner.quiet = form, quiet


def is_json() -> bool:
    """Tell whether programs are told."""
    form = _Manner.form or os.environ.get(VARIABLE) or "auto"
    return form == "json" or (form == "auto" and not sys.stderr.isatty())


def is_quiet() -> bool:
    """Tell whether only warnings and errors are wanted."""
    return _Manner.quiet


def fields_of(event: Event) -> dict[str, object]:
    """Return the fields of an event, without those that have a place of their own in a line.

    What an event calls its message is its words, of which the message is more.
    """
    found = asdict(event)
    if "message" in found:
        found["error"] = found.pop("message")
    return found


def note(text: str, /, level: str = "info", event: str = NOTE, **fields: object) -> None:
    """Tell something, where somebody listens.

    Args:
        text: What, in words.
        level: ``info``, ``warning`` or ``error``.
        event: What happened, by its name.
        fields: What programs are told of it beside the words.
    """
    if _Manner.quiet and level not in LOUD:
        return
    if is_json():
        from regrain.model import clock
        from regrain.model.document import line

        head = {"level": level, "message": text, "event": event, "at": clock.now()}
        text = line({**head, **fields}).decode()
    with contextlib.suppress(OSError):
        click.echo(text, err=True)
