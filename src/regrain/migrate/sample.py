"""Which packages a rehearsal takes: of every size, in families, chosen by a seed.

Releases of one product share most of their files, so a sample of single packages would show
next to no savings. What is drawn are therefore neighbours: a few successive releases of a
family, a family of every stretch of the list, in every class of size.
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
NEIGHBOURS_MAX = 4
"""So many releases of one family in a row."""

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
    listed = sorted(candidates, key=lambda one: one.package_hash)
    wanted = share.of(len(listed))
    classes: dict[int, list[Candidate]] = {}
    for one in listed:
        classes.setdefault(size_class(one.size), []).append(one)
    places = _places({number: len(members) for number, members in classes.items()}, wanted)
    drawn = [
        one
        for number, members in sorted(classes.items())
        for one in _draw(members, places[number], random)
    ]
    return sorted(drawn, key=lambda one: one.package_hash)


def _places(sizes: dict[int, int], wanted: int) -> dict[int, int]:
    """Share out so many places: one to every class, largest first, the others by size."""
    order = sorted(sizes, key=lambda number: (-sizes[number], number))
    places = {number: int(rank < wanted) for rank, number in enumerate(order)}
    total = sum(sizes.values())
    for _ in range(wanted - sum(places.values())):
        open_ones = [number for number in order if places[number] < sizes[number]]
        poorest = max(open_ones, key=lambda number: sizes[number] * wanted / total - places[number])
        places[poorest] += 1
    return places


def _draw(members: list[Candidate], count: int, random: Random) -> list[Candidate]:
    """Draw from one class: runs of releases, of one family after the other, in random order."""
    runs = list(_runs(members, count, random))
    random.shuffle(runs)
    # A family comes again only once every other one was asked.
    runs.sort(key=lambda run: run[0])
    drawn: list[Candidate] = []
    for _, run in runs:
        drawn += run[: count - len(drawn)]
        if len(drawn) == count:
            break
    return drawn


def _runs(
    members: list[Candidate], count: int, random: Random
) -> Iterator[tuple[int, list[Candidate]]]:
    """Yield runs of neighbouring releases, with how many of the family came before."""
    length = max(1, min(NEIGHBOURS_MAX, count // 2))
    ordered = sorted(members, key=lambda one: (one.family, one.version, one.package_hash))
    for _, found in groupby(ordered, key=lambda one: one.family):
        family = list(found)
        start = random.randrange(len(family))
        turned = family[start:] + family[:start]
        for rank, at in enumerate(range(0, len(turned), length)):
            yield rank, turned[at : at + length]
