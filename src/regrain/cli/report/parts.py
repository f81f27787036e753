"""What a report is made of: sections with words, plots and tables, not yet of any format."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under heads.

    Attributes:
        caption: What it tells.
        heads: Of its columns; the first column names what a row is about.
        rows: Each as many words as there are heads.
        numbers: Columns to be aligned at their right.
        empty: What to say where there are no rows.
    """

    caption: str
    heads: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    numbers: frozenset[int] = frozenset()
    empty: str = "None."


class Bar(NamedTuple):
    """A bar: its name, its length, how much of that is left after, and the same in words."""

    name: str
    value: float
    left: float
    words: str


@dataclass(frozen=True, slots=True)
class Bars:
    """Bars below each other, all of one scale.

    Attributes:
        title: What they show.
        rows: Them.
        whole: What the whole length stands for.
        rest: What the darker part stands for.
    """

    title: str
    rows: list[Bar]
    whole: str
    rest: str


@dataclass(frozen=True, slots=True)
class Curve:
    """A value over time.

    Attributes:
        title: What it shows.
        summary: The same in a sentence, for who does not see it.
        points: Unix seconds and values, in order.
        unit: How a value is said.
        level: A value to compare with; None without one.
        level_name: What that is.
        shaded: Stretches of time that stand out.
        shaded_name: What these are.
        marks: Moments, each with what happened.
        is_step: Whether a value holds until the next.
    """

    title: str
    summary: str
    points: list[tuple[float, float]]
    unit: str
    level: float | None = None
    level_name: str = ""
    shaded: list[tuple[float, float]] = field(default_factory=list)
    shaded_name: str = ""
    marks: list[tuple[float, str]] = field(default_factory=list)
    is_step: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the report.

    Attributes:
        name: Of its anchor.
        title: Its heading.
        text: Paragraphs.
        facts: Names with short values, to stand out.
        plots: Them.
        tables: Them.
    """

    name: str
    title: str
    text: list[str] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)
    plots: Sequence[Bars | Curve] = ()
    tables: list[Table] = field(default_factory=list)
