"""Which packages a rehearsal takes: of every size, in families, chosen by a seed.

Releases of one product share most of their files, so a sample of single packages would show
next to no savings. What is drawn are therefore neighbours: two or more successive releases of a
family, then of another, in every class of size.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from itertools import groupby
from random import Random
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PACKAGES_MIN = 3
NEIGHBOURS_MIN, NEIGHBOURS_MAX = 2, 4
"""So many releases of one family in a row, the more the larger the sample is."""

_CLASSES = (1 << 20, 16 << 20, 256 << 20)
"""Where one class of size ends and the next begins, in bytes."""


class Candidate(NamedTuple):
    """A package that may be drawn, and what it holds.

    Attributes:
        package_hash: The package.
        name: From its manifest; releases of one name are a family.
        version: Likewise.
        files: Its regular files, every path counted.
        inodes: Each once.
        size: ``st_size`` of its files.
        allocated: Bytes on disk, each inode once.
        further: What its file list and its rows in the ledger take at the most.
    """

    package_hash: str
    name: str
    version: str
    files: int
    inodes: int
    size: int
    allocated: int
    further: int

    @property
    def family(self) -> str:
        """What it has in common with its other releases."""
        return self.name or self.package_hash


class Share(NamedTuple):
    """How much of a store is wanted: a share of its packages, or so many of them."""

    part: float = 0.05
    packages: int = 0

    def of(self, total: int) -> int:
        """Return how many packages that is, of ``total``; at least a few."""
        wanted = self.packages or math.ceil(self.part * total)
        return min(total, max(PACKAGES_MIN, wanted))


def size_class(size: int) -> int:
    """Return the number of a size's class."""
    return bisect_right(_CLASSES, size)


def choose(candidates: Iterable[Candidate], share: Share, seed: int) -> list[Candidate]:
    """Draw a sample; the same seed draws the same one from the same packages.

    Args:
        candidates: All packages.
        share: How many.
        seed: Of the draw.

    Returns:
        The sample, sorted by hash. Every class of size is in it, if there are so many places.
    """
    random = Random(seed)  # noqa: S311 -- a sample, no secret
    listed = sorted(candidates, key=lambda one: (one.family, one.version, one.package_hash))
    wanted = share.of(len(listed))
    length = min(NEIGHBOURS_MAX, max(NEIGHBOURS_MIN, wanted // 8))
    classes: dict[int, list[_Run]] = {}
    for run in _runs(listed, length, random):
        mean = sum(one.size for one in run.members) // len(run.members)
        classes.setdefault(size_class(mean), []).append(run)
    sizes = {
        number: sum(len(run.members) for run in runs) for number, runs in sorted(classes.items())
    }
    places = _places(sizes, wanted, length)
    drawn = [one for number in sizes for one in _draw(classes[number], places[number], random)]
    return sorted(drawn, key=lambda one: one.package_hash)


class _Run(NamedTuple):
    """Successive releases of a family; ``rank`` of its runs came before this one."""

    rank: int
    members: list[Candidate]


def _runs(listed: list[Candidate], length: int, random: Random) -> Iterator[_Run]:
    """Cut every family into runs, beginning anywhere in it."""
    for _, found in groupby(listed, key=lambda one: one.family):
        family = list(found)
        start = random.randrange(len(family))
        turned = family[start:] + family[:start]
        for rank, at in enumerate(range(0, len(turned), length)):
            yield _Run(rank, turned[at : at + length])


def _places(sizes: dict[int, int], wanted: int, length: int) -> dict[int, int]:
    """Share out so many places: a run to every class, the largest first, the others by size."""
    places = dict.fromkeys(sizes, 0)
    left = wanted
    for number in sorted(sizes, key=lambda number: -sizes[number]):
        places[number] = min(length, sizes[number], left)
        left -= places[number]
    total = sum(sizes.values())
    for _ in range(left):
        open_ones = [number for number in sizes if places[number] < sizes[number]]
        poorest = max(open_ones, key=lambda number: sizes[number] * wanted / total - places[number])
        places[poorest] += 1
    return places


def _draw(runs: list[_Run], count: int, random: Random) -> list[Candidate]:
    """Draw from one class: of one family after the other, in random order."""
    shuffled = random.sample(runs, len(runs))
    # A family comes again only once every other one was asked.
    shuffled.sort(key=lambda run: run.rank)
    drawn: list[Candidate] = []
    for run in shuffled:
        drawn += run.members[: count - len(drawn)]
    return drawn
