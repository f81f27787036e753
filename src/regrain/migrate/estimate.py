"""What a rehearsal with a sample says about the whole store, and how far that may be off.

Times are scaled twice, by bytes and by files: the truth of a mixture lies between. Of what the
store will take there are two ends as well: that more packages find no more to share than the
sample did, and that sharing goes on growing as it grew from half the sample to all of it.
"""

from __future__ import annotations

import math
from random import Random
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from regrain.migrate.sample import Candidate

SECONDS_MIN = 10.0
"""A migration shorter than this is mostly starting: what it says of a rate is rough."""

_HALVINGS = 20
_GROWTH_MIN = 0.3
"""However much releases share, each brings something of its own."""


class Range(NamedTuple):
    """A figure that lies between two."""

    low: float
    high: float

    @classmethod
    def between(cls, one: float, other: float) -> Range:
        """Return the range from the smaller to the larger."""
        return cls(min(one, other), max(one, other))


class Total(NamedTuple):
    """What some packages hold; see ``Candidate``."""

    packages: int
    files: int
    inodes: int
    size: int
    allocated: int

    @classmethod
    def of(cls, candidates: Collection[Candidate]) -> Total:
        """Add packages up."""
        return cls(
            len(candidates),
            sum(one.files for one in candidates),
            sum(one.inodes for one in candidates),
            sum(one.size for one in candidates),
            sum(one.allocated for one in candidates),
        )


class Taken(NamedTuple):
    """What the sample takes on disk, in bytes.

    Attributes:
        fixed: An empty store.
        before: Its legacy directories.
        after: The store without them.
        objects: What of that is objects.
    """

    fixed: int
    before: int
    after: int
    objects: int


class Estimate(NamedTuple):
    """The sample's figures, scaled to the store.

    Attributes:
        seconds: How long each step takes.
        after_bytes: What the store takes without its legacy directories.
        saved_bytes: What of its present bytes that saves.
        is_rough: Whether the sample was too small to tell a rate.
    """

    seconds: dict[str, Range]
    after_bytes: Range
    saved_bytes: Range
    is_rough: bool

    def saved_share(self, whole: Total) -> Range:
        """Return the savings as shares of what the legacy directories take."""
        allocated = whole.allocated or 1
        return Range(self.saved_bytes.low / allocated, self.saved_bytes.high / allocated)


def estimate(
    sample: Total, whole: Total, seconds: Mapping[str, float], taken: Taken, growth: float
) -> Estimate:
    """Scale what was measured to the whole store.

    Args:
        sample: What the sample holds.
        whole: What all packages hold.
        seconds: What each step took.
        taken: What the sample took on disk.
        growth: How its objects grew with its packages, see ``growth``.
    """
    by_bytes = whole.size / (sample.size or 1)
    by_files = whole.files / (sample.files or 1)
    by_space = whole.allocated / (sample.allocated or 1)
    # What grows with the packages: file lists, rows, and the objects unless they are shared.
    lists = max(0, taken.after - taken.fixed - taken.objects) * by_files
    most = taken.fixed + lists + taken.objects * by_space
    least = taken.fixed + lists + taken.objects * by_space**growth
    return Estimate(
        {name: Range.between(took * by_bytes, took * by_files) for name, took in seconds.items()},
        Range(least, most),
        Range(whole.allocated - most, whole.allocated - least),
        seconds.get("migrate", 0.0) < SECONDS_MIN and whole.packages > sample.packages,
    )


def growth(contents: Sequence[Mapping[str, int]], seed: int) -> float:
    """Return the exponent by which distinct bytes grow with all bytes; 1: nothing is shared.

    Random halves of the sample are compared with all of it: where half the packages hold all
    of the bytes, twice as many would bring nothing new.

    Args:
        contents: Of every package the digests, each with the bytes of its file.
        seed: Of the halves.
    """
    whole, gross = _distinct(contents), _gross(contents)
    random = Random(seed)  # noqa: S311 -- a sample, no secret
    # Packages differ in size, so halves are measured by bytes, not by packages.
    grown = of_grown = 0.0
    for _ in range(_HALVINGS if len(contents) > 1 and whole else 0):
        half = random.sample(list(contents), len(contents) // 2)
        if 0 < _gross(half) < gross:
            grown += math.log(_distinct(half) / whole)
            of_grown += math.log(_gross(half) / gross)
    return min(1.0, max(_GROWTH_MIN, grown / of_grown)) if of_grown else 1.0


def _gross(contents: Sequence[Mapping[str, int]]) -> int:
    return sum(sum(one.values()) for one in contents)


def _distinct(contents: Sequence[Mapping[str, int]]) -> int:
    merged: dict[str, int] = {}
    for one in contents:
        merged.update(one)
    return sum(merged.values())
