"""Figures, times and words of strangers as people read them."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime

from regrain.errors import encodable

TEXT_MAX = 300
"""Longer words of strangers, such as the name of a package, are cut."""

_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_STEP = 1024


def size(count: float) -> str:
    """Return bytes as people read them."""
    unit = 0
    while abs(count) >= _STEP and unit < len(_UNITS) - 1:
        count /= _STEP
        unit += 1
    return f"{count:.0f} {_UNITS[unit]}" if unit == 0 else f"{count:.1f} {_UNITS[unit]}"


def count(amount: int, noun: str) -> str:
    """Return how many there are of something, in words that agree: one package, two packages."""
    if amount != 1:
        noun = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{amount:,} {noun}"


def duration(seconds: float) -> str:
    """Return a time as people read it."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, whole = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {whole} s"


def visible(text: str | bytes, length_max: int = TEXT_MAX) -> str:
    """Return words of strangers so that one sees what is there, and it does nothing else.

    Control characters, marks that turn the direction of text, and whatever has no look of its own
    appear as escapes; so does what is not Unicode.

    Args:
        text: Their words.
        length_max: Longer words are cut.
    """
    found = encodable(text)
    cut = found[:length_max]
    seen = "".join(_escape(char) if unicodedata.category(char) in _UNSEEN else char for char in cut)
    return f"{seen}…" if len(found) > length_max else seen


def _escape(char: str) -> str:
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def moment(at: float | None) -> str:
    """Return a time in UTC, to the second; a hyphen for none."""
    if at is None:
        return "-"
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):  # a ledger may hold anything
        return f"{at:.0f} s"


def milliseconds(seconds: float | None) -> str:
    """Return a short time as people read it; a hyphen for none."""
    return "-" if seconds is None else f"{seconds * 1e3:.2f} ms"


def percent(part: float, whole: float) -> str:
    """Return a share; a hyphen of nothing."""
    return f"{part / whole:.1%}" if whole else "-"
