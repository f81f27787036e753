"""What ``doctor`` hands back: findings, each with what to do about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Weight(StrEnum):
    """How much a finding matters."""

    OK = "ok"
    ADVICE = "advice"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found.

    Attributes:
        check: The check that found it.
        level: How much it matters.
        message: What was found, one sentence.
        advice: What to do about it, one sentence; empty where nothing is to be done.
        figures: What was measured, by name.
        corrupt: Whether the ledger, a file list or objects are broken or missing.
    """

    check: str
    level: Weight
    message: str
    advice: str = ""
    figures: dict[str, object] = field(default_factory=dict)
    corrupt: bool = False


def several(amount: int, one: str, more: str) -> str:
    """Return how many there are, in words that agree: 1 object has, 2 objects have."""
    return f"{amount:,} {one if amount == 1 else more}"


SHOWN_MAX = 3


def some(names: list[str]) -> str:
    """Return the first few names for a sentence; figures hold more."""
    text = ", ".join(repr(name) for name in names[:SHOWN_MAX])
    return f"{text} and {len(names) - SHOWN_MAX:,} more" if len(names) > SHOWN_MAX else text


LISTED_MAX = 1000


def listed(names: list[str]) -> list[str]:
    """Return what goes into the figures: not the millions a ruined store may have."""
    return names[:LISTED_MAX]
