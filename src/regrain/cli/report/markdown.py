"""The report as Markdown: the same words and tables; a plot is told in a sentence."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from regrain.cli.report.parts import Bars

if TYPE_CHECKING:
    from collections.abc import Sequence

    from regrain.cli.report.parts import Section, Table

_MEANT = re.compile(r"([\\`*_\[\]|~$])")
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;"})
_LINK = re.compile(r":(?=//)|(?<=\bwww)\.", re.IGNORECASE)


def markdown(title: str, made: str, sections: Sequence[Section]) -> str:
    """Return the whole text; see ``page.page``."""
    parts = [f"# {quoted(title)}\n", f"{quoted(made)}\n"]
    for part in sections:
        parts.append(f"## {quoted(part.title)}\n")
        parts += [f"{quoted(words)}\n" for words in part.text]
        if part.facts:
            facts = (f"- {quoted(name)}: **{quoted(value)}**" for name, value in part.facts)
            parts.append("\n".join(facts) + "\n")
        parts += [
            f"{quoted(plot.title)}: {quoted(plot.summary)}\n"
            for plot in part.plots
            if not isinstance(plot, Bars)  # whose rows stand in a table, too
        ]
        parts += map(_table, part.tables)
    return "\n".join(parts)


def quoted(text: str) -> str:
    """Return words so that no Markdown and no HTML is seen in them, nor a link made of them."""
    escaped = _MEANT.sub(r"\\\1", text).translate(_ENTITIES)
    return _LINK.sub(lambda found: f"&#{ord(found[0])};", escaped)


def _table(table: Table) -> str:
    if not table.rows:
        return f"**{quoted(table.caption)}**: {quoted(table.empty)}\n"
    rule = ("---:" if place in table.numbers else "---" for place in range(len(table.heads)))
    rows = [table.heads, *table.rows]
    head, *body = ("| " + " | ".join(quoted(cell) for cell in row) + " |" for row in rows)
    lines = [f"**{quoted(table.caption)}**\n", head, f"|{'|'.join(rule)}|", *body]
    return "\n".join(lines) + "\n"
