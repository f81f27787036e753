"""The last lines of the log, as people read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from regrain.model.wording import moment
from regrain.web.page.markup import Html, tag, words

if TYPE_CHECKING:
    from collections.abc import Sequence

_HEADER = frozenset({"at", "event", "pid", "level", "schema"})
_decode = msgspec.json.Decoder(dict[str, object]).decode


def log(lines: Sequence[bytes]) -> Html:
    """Return them, the newest first."""
    if not lines:
        return tag("p", "There are no logs yet.", class_="soft")
    return tag("ol", *map(_line, reversed(lines)), class_="log")


def _line(raw: bytes) -> Html:
    try:
        found = _decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return tag("li", tag("span", words(raw[:300]), class_="note"))
    at = found.get("at")
    said = ", ".join(
        f"{name.replace('_', ' ')} {_short(value)}"
        for name, value in found.items()
        if name not in _HEADER and value not in (None, "", [], ())
    )
    return tag(
        "li",
        tag("time", moment(at)) if isinstance(at, int | float) else None,
        " ",
        tag("b", str(found.get("event", ""))),
        " ",
        tag("span", said, class_="note"),
    )


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)
