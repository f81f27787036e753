"""Printing: tables and sentences for people, JSON for programs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from regrain.cli import log
from regrain.cli.log import note
from regrain.errors import RegrainError, shown
from regrain.model.wording import count, duration, size

if TYPE_CHECKING:
    from collections.abc import Iterable


def document(message_type: str, **fields: object) -> None:
    """Print one JSON document on one line."""
    from regrain.model.document import encode

    sys.stdout.buffer.write(encode(message_type, fields) + b"\n")
    sys.stdout.buffer.flush()


def exit_error(error: RegrainError, *, as_json: bool, trace: str = "") -> int:
    """Print an error; return the exit code it asks for.

    Args:
        error: It.
        as_json: Whether a document is wanted, too.
        trace: Where in the program it happened, for who asked for that.
    """
    if as_json:
        document("exit_error", **error.document())
    tell_error(error, trace)
    return error.exit_code


def tell_error(error: RegrainError, trace: str = "") -> None:
    """Print an error where remarks go."""
    if trace and not log.is_json():
        click.echo(trace, nl=False, err=True)
    fields = error.document() | ({"traceback": trace} if trace else {})
    fields.pop("message", None)
    note(f"regrain: {error}", "error", log.ERROR, **fields)


def failed_package(error: RegrainError, **fields: object) -> None:
    """Print the document of a package that a command failed with, beside others that it did."""
    document(
        "package",
        **fields,
        package_hash=error.package,
        status="failed",
        error=error.what,
        message=str(error),
        reason=error.why,
        advice=error.advice,
    )


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
    "tell_error",
]
