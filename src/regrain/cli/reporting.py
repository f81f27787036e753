"""The verb that tells the whole story in a file: report."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import click

from regrain.cli import output
from regrain.cli.context import Context, json_option, pass_context
from regrain.errors import RegrainError, UsageError, reason

if TYPE_CHECKING:
    from regrain.app.reporting import Report

_FORMATS = (".html", ".md")


@click.command()
@click.option(
    "-o", "--output", "target", metavar="FILE", help="Write it there: FILE.html or FILE.md."
)
@json_option
@pass_context
def report(context: Context, *, target: str | None, as_json: bool) -> None:
    """Tell the whole story of the migration in a file, or with --json to stdout.

    What was done when, savings by package and by kind of file, the slowest packages, failures,
    what held runs back, how long readers waited, checks and their results. The page is one file
    that loads nothing. An existing FILE is replaced.

    Example: regrain --store /opt/pm/store report -o report.html
    """
    from regrain.app.reporting import gather

    _check(target, as_json=as_json)
    store = context.store
    if target is not None:
        _check_place(store.root.path, target)
    found = gather(store.root, context.settings, store.migration())
    if target is not None:
        _write(target, _rendered(found, target))
    if as_json:
        output.document("summary", **found.document(), output=target)
    else:
        click.echo(f"{output.shown(target or '')} written")
        click.echo(f"\nNext: {found.figures['next_command']}")


def _check(target: str | None, *, as_json: bool) -> None:
    """See that it is clear what is wanted.

    Raises:
        UsageError: It is not.
    """
    if target is None and not as_json:
        raise UsageError(
            "nothing says where the report is to go",
            advice="Use -o FILE.html, -o FILE.md, or --json.",
        )
    if target is not None and not target.lower().endswith(_FORMATS):
        raise UsageError(
            "a report of an unknown format",
            path=target,
            why="its name ends neither in .html nor in .md",
            advice="Use -o FILE.html, -o FILE.md, or --json.",
        )


def _rendered(found: Report, target: str) -> bytes:
    from regrain.cli.report import content

    if target.lower().endswith(".md"):
        from regrain.cli.report.markdown import markdown as render
    else:
        from regrain.cli.report.page import page as render
    text = render(content.title(found), content.made(found), content.sections(found))
    return text.encode()


def _check_place(store: str, target: str) -> None:
    """See that the file would not lie in the store.

    Raises:
        UsageError: It would.
    """
    place, inside = os.path.realpath(os.path.dirname(target) or "."), os.path.realpath(store)
    if os.path.commonpath((place, inside)) == inside:
        raise UsageError(
            "a report inside the store",
            path=target,
            why="nothing else may appear there",
            advice="Name a file outside the store.",
        )


def _write(target: str, content: bytes) -> None:
    """Replace the file as a whole.

    Raises:
        RegrainError: It cannot be written.
    """
    from regrain import disk

    place, name = os.path.split(target)
    try:
        if os.path.isdir(target):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with disk.Closing(disk.open_directory(os.path.realpath(place or "."))) as at:
            disk.write_atomic(name, content, at)
    except OSError as error:
        raise RegrainError(
            "the report cannot be written",
            path=target,
            why=reason(error),
            advice="Name a file that can be.",
        ) from error
