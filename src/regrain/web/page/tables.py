"""Tables of the page, which stay tables for who hears them however they are laid out."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from regrain.web.page.markup import Html, tag

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Head(NamedTuple):
    """The head of a column, and how its cells look.

    Attributes:
        name: What stands there.
        look: Classes of its cells; None for none.
        is_heard: Whether it is there for who hears the page alone.
    """

    name: str
    look: str | None = None
    is_heard: bool = False


def table(
    caption: str,
    heads: Sequence[Head],
    rows: Iterable[Sequence[str]],
    look: str | None = None,
) -> Html:
    """Return a table whose first column names what a row is about.

    Roles are written out: browsers forget them where a small screen has rows laid out as blocks.

    Args:
        caption: What it tells.
        heads: Of its columns.
        rows: Markup, or words, for each.
        look: Classes of it.
    """
    named = (
        tag(
            "th",
            tag("span", head.name, class_="hidden") if head.is_heard else head.name,
            scope="col",
            role="columnheader",
            class_=head.look,
        )
        for head in heads
    )
    return tag(
        "table",
        tag("caption", caption),
        tag("thead", tag("tr", *named, role="row"), role="rowgroup"),
        tag("tbody", *(_row(heads, row) for row in rows), role="rowgroup"),
        class_=look,
        role="table",
    )


def scrolled(name: str, inside: Html, look: str = "scroll") -> Html:
    """Return what scrolls by itself where it is too wide or too long, also by keyboard."""
    return tag("div", inside, class_=look, tabindex="0", role="region", aria_label=name)


def _row(heads: Sequence[Head], row: Sequence[str]) -> Html:
    first, *rest = row
    return tag(
        "tr",
        tag("th", first, scope="row", role="rowheader", class_=heads[0].look),
        *(
            tag("td", cell, role="cell", class_=head.look)
            for head, cell in zip(heads[1:], rest, strict=True)
        ),
        role="row",
    )
