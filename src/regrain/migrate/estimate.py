"""What a rehearsal with a sample says about the whole store, and how far that may be off.

Times are scaled twice, by bytes and by files: the truth of a mixture lies between. Of what the
store will take there are two ends as well. The one: all other packages share no more than those
of the sample do. The other: every further release of a family brings as little that is new as
those of the sample did. Both ends are those of the sample without the one family that moves them
furthest, which is the margin that the choice of families leaves. What families of which none is
in the sample share with others counts in neither, so a store may well save more.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from regrain.migrate.sample import Candidate

SECONDS_MIN = 10.0
"""A migration shorter than this is mostly starting: what it says of a rate is rough."""


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


class Content(NamedTuple):
    """What a package of the sample holds.

    Attributes:
        candidate: It.
        files: The digests of its files, each with their bytes.
    """

    candidate: Candidate
    files: Mapping[str, int]


def estimate(
    sample: Total, whole: Total, seconds: Mapping[str, float], taken: Taken, shared: Range
) -> Estimate:
    """Scale what was measured to the whole store.

    Args:
        sample: What the sample holds.
        whole: What all packages hold.
        seconds: What each step took.
        taken: What the sample took on disk.
        shared: How the bytes of its objects relate to the store's, see ``sharing``.
    """
    by_bytes = whole.size / (sample.size or 1)
    by_files = whole.files / (sample.files or 1)
    by_space = whole.allocated / (sample.allocated or 1)
    # What grows with the packages: file lists, rows, and the objects unless they are shared.
    lists = max(0, taken.after - taken.fixed - taken.objects) * by_files
    least, most = (taken.fixed + lists + taken.objects * by_space * part for part in shared)
    return Estimate(
        {name: Range.between(took * by_bytes, took * by_files) for name, took in seconds.items()},
        Range(least, most),
        Range(whole.allocated - most, whole.allocated - least),
        seconds.get("migrate", 0.0) < SECONDS_MIN and whole.packages > sample.packages,
    )


def sharing(contents: Collection[Content], whole: Collection[Candidate]) -> Range:
    """Return how many distinct bytes the whole store has for each of the sample's, in proportion.

    1 means that all packages share with each other as those of the sample do. The margin is what
    it would be without this or that family of the sample.

    Args:
        contents: Of the sample.
        whole: All packages: how large families are.
    """
    seen = _distinct(contents) / (_gross(contents) or 1)
    if not seen or len(contents) == len(whole):
        return Range(1.0, 1.0)
    sizes: Counter[str] = Counter()
    for one in whole:
        sizes[one.family] += one.size
    families: dict[str, list[Content]] = {}
    for content in contents:
        families.setdefault(content.candidate.family, []).append(content)
    found = [_of_families(families, sizes)]
    for left_out in families if len(families) > 1 else ():
        others = {name: members for name, members in families.items() if name != left_out}
        found.append(_of_families(others, sizes))
    return Range(min(one.low for one in found) / seen, max(one.high for one in found) / seen)


def _of_families(families: Mapping[str, Collection[Content]], sizes: Mapping[str, int]) -> Range:
    """Return distinct bytes a byte: with all releases of these families, and with those there are.

    Each further release of a family brings as much of its own as those after the first did; one
    of which there is a single release is taken for the average of the others.
    """
    first = sum(_gross(members) / len(members) for members in families.values())
    gross = sum(_gross(members) for members in families.values())
    distinct = sum(_distinct(members) for members in families.values())
    average = (distinct - first) / (gross - first) if gross > first else 1.0
    grown = whole = 0.0
    for name, members in families.items():
        known = sum(content.candidate.size for content in members) or 1
        to_come = _gross(members) * max(0.0, sizes[name] / known - 1)
        one = _gross(members) / len(members)
        more = _gross(members) - one
        own = (_distinct(members) - one) / more if more else average
        grown += _distinct(members) + to_come * max(0.0, own)
        whole += _gross(members) + to_come
    return Range.between(grown / (whole or 1), distinct / (gross or 1))


def _gross(contents: Iterable[Content]) -> int:
    return sum(sum(content.files.values()) for content in contents)


def _distinct(contents: Iterable[Content]) -> int:
    merged: dict[str, int] = {}
    for content in contents:
        merged.update(content.files)
    return sum(merged.values())
