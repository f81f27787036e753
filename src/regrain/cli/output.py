"""Printing: tables and sentences for people, JSON for programs."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

import click

from regrain.errors import RegrainError, shown
from regrain.model.wording import count, duration, size

if TYPE_CHECKING:
    from collections.abc import Iterable


def document(message_type: str, **fields: object) -> None:
    """Print one JSON document on one line."""
    from regrain.model.document import encode

    sys.stdout.buffer.write(encode(message_type, fields) + b"\n")
    sys.stdout.buffer.flush()


def exit_error(error: RegrainError, *, as_json: bool) -> int:
    """Print an error; return the exit code it asks for."""
    if as_json:
        document("exit_error", **error.document())
    note(f"regrain: {error}", "error")
    return error.exit_code


def number(count: int) -> str:
    """Return a count with its thousands apart."""
    return f"{count:,}"


def pairs(rows: Iterable[tuple[str, str]]) -> None:
    """Print names and values in two columns."""
    for line in columns(rows):
        click.echo(line)


def columns(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Return names and values as lines of two columns."""
    listed = list(rows)
    width = max(len(name) for name, _ in listed)
    return [f"{name:<{width}}  {shown(value)}" for name, value in listed]


def table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    """Print columns, the last one unpadded."""
    listed = [heads, *(tuple(map(shown, row)) for row in rows)]
    widths = [max(len(row[column]) for row in listed) for column in range(len(heads))]
    for row in listed:
        cells = [f"{cell:<{width}}" for cell, width in zip(row[:-1], widths[:-1], strict=True)]
        click.echo("  ".join([*cells, row[-1]]).rstrip())


class _Log:
    """How remarks are written to stderr."""

    as_json = False


def use_json_log() -> None:
    """Write remarks as JSON Lines from now on."""
    _Log.as_json = True


def note(text: str, level: str = "info") -> None:
    """Print a remark to stderr, where somebody listens."""
    if _Log.as_json:
        import msgspec

        text = msgspec.json.encode({"level": level, "message": text}).decode()
    with contextlib.suppress(OSError):
        click.echo(text, err=True)


__all__ = [
    "columns",
    "count",
    "document",
    "duration",
    "exit_error",
    "note",
    "number",
    "pairs",
    "shown",
    "size",
    "table",
]
