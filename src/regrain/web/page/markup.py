"""HTML that is escaped by construction: words become markup here alone."""

from __future__ import annotations

from html import escape

from regrain.errors import encodable
from regrain.model.wording import visible

WORDS_MAX = 4000
"""Longer words are cut. What is told of a store may be long; names are cut earlier."""

_VOID = frozenset({"input", "link", "meta"})


class Html(str):
    """Markup. Any other text is words, and is escaped where it meets markup."""

    __slots__ = ()


def words(text: str | bytes) -> Html:
    """Return words of anybody: what has no look of its own, or turns directions, is spelt out."""
    return Html(escape(visible(text, WORDS_MAX)))


def join(*parts: str | None) -> Html:
    """Return parts one after the other; what is no markup is escaped, None is nothing."""
    return Html("".join(_one(part) for part in parts if part is not None))


def tag(name: str, /, *parts: str | None, **attributes: str | bool | float | None) -> Html:
    """Return an element.

    Args:
        name: Of the element.
        parts: What is in it.
        attributes: A trailing ``_`` of their names is dropped, others are hyphens. True is an
            attribute without a value; False and None are none.
    """
    shown = "".join(
        f" {key.removesuffix('_').replace('_', '-')}"
        + ("" if value is True else f'="{escape(encodable(str(value)))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _VOID:
        return Html(f"<{name}{shown}>")
    return Html(f"<{name}{shown}>{join(*parts)}</{name}>")


def _one(part: str) -> str:
    return part if isinstance(part, Html) else words(part)
