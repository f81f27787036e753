"""The report as one HTML file: nothing is loaded, nothing runs, every word is escaped."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from html import escape
from typing import TYPE_CHECKING

from regrain.cli.report import plots
from regrain.cli.report.parts import Bars
from regrain.cli.report.style import STYLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from regrain.cli.report.parts import Section, Table


def page(title: str, made: str, sections: Sequence[Section]) -> str:
    """Return the whole page.

    Args:
        title: Of the page.
        made: When and by what it was made.
        sections: What stands in it.
    """
    style = b64encode(sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'"
    contents = "".join(
        f'<li><a href="#{part.name}">{escape(part.title)}</a></li>' for part in sections
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f'<header>\n<h1>{escape(title)}</h1>\n<p class="soft">{escape(made)}</p>\n</header>\n'
        f'<nav aria-label="Contents"><ul>{contents}</ul></nav>\n<main>\n'
        f"{''.join(map(_section, sections))}</main>\n</body>\n</html>\n"
    )


def _section(part: Section) -> str:
    heading = f"{part.name}-heading"
    body = [f"<p>{escape(words)}</p>\n" for words in part.text]
    if part.facts:
        facts = "".join(
            f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
            for name, value in part.facts
        )
        body.append(f"<dl>{facts}</dl>\n")
    body += [
        f"{plots.bars(plot) if isinstance(plot, Bars) else plots.curve(plot)}\n"
        for plot in part.plots
    ]
    body += map(_table, part.tables)
    return (
        f'<section id="{part.name}" aria-labelledby="{heading}">\n'
        f'<h2 id="{heading}">{escape(part.title)}</h2>\n{"".join(body)}</section>\n'
    )


def _table(table: Table) -> str:
    """Return a table that scrolls by itself where it is too wide, also by keyboard."""
    caption = escape(table.caption)
    if not table.rows:
        return f'<p><span class="soft">{caption}:</span> {escape(table.empty)}</p>\n'
    heads = "".join(
        f'<th scope="col"{_align(table, place)}>{escape(head)}</th>'
        for place, head in enumerate(table.heads)
    )
    rows = "".join(f"<tr>{_cells(table, row)}</tr>\n" for row in table.rows)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{caption}"><table>'
        f"<caption>{caption}</caption><thead><tr>{heads}</tr></thead>\n"
        f"<tbody>\n{rows}</tbody></table></div>\n"
    )


def _cells(table: Table, row: tuple[str, ...]) -> str:
    first, *rest = row
    return f'<th scope="row"{_align(table, 0)}>{escape(first)}</th>' + "".join(
        f"<td{_align(table, place)}>{escape(cell)}</td>" for place, cell in enumerate(rest, 1)
    )


def _align(table: Table, place: int) -> str:
    if place in table.numbers:
        return ' class="number"'
    return ' class="when"' if table.heads[place].endswith("(UTC)") else ""
