"""What a store's files would take, from a stratified sample of its sizes, with an error margin.

Files of one size make a group, and groups are drawn whole: only files of one size can be equal,
so of every content that is drawn all copies are seen, in whichever packages they lie, and nothing
has to be guessed of those that were not. Groups alike in size, in number of files, and in whether
one package, one family or several have such files make a stratum. In each the ratio estimator is
used, what is kept to what there is, with its variance: W. G. Cochran, Sampling Techniques, 3rd
edition (1977), sections 5A and 6.10 (separate ratio estimate). Of a group of too many files some
are drawn; then the distinct contents are known to lie between those seen and, for the rest, the
share of those seen once: I. J. Good, The Population Frequencies of Species, Biometrika 40 (1953).
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from regrain.store.census import WHOLE_BYTES_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from regrain.store.census import Held, Looked

FILES_MAX = 16_000
BYTES_MAX = 256 << 20
"""So much is read at the most, about."""

GROUP_FILES_MAX = 500
GROUPS_MIN = 4
"""Of each stratum so many groups are drawn, if it has them and the limits allow."""

_DEVIATIONS = 3.0
"""How many standard errors the margin is: about 99 %, small samples considered."""


class Group(NamedTuple):
    """All files of one size."""

    size: int
    files: list[Held]

    @property
    def allocated(self) -> int:
        """What they take on disk."""
        return sum(one.allocated for one in self.files)


class Guess(NamedTuple):
    """A figure and how far it may be off, either way."""

    value: float
    margin: float

    @property
    def low(self) -> float:
        """The least it may be."""
        return max(0.0, self.value - self.margin)

    @property
    def high(self) -> float:
        """The most it may be."""
        return self.value + self.margin


class Kept(NamedTuple):
    """What objects are expected to take.

    Attributes:
        plain: Bytes on disk.
        packed: Likewise if they are compressed.
        carriers: How many there are.
        files: How many files were looked into.
        bytes_read: How much was read of them.
        seconds: How long that took, compressing included.
    """

    plain: Guess
    packed: Guess
    carriers: Guess
    files: int
    bytes_read: int
    seconds: float


class _Seen(NamedTuple):
    """A drawn group: what is there, and what is kept of it, each with half its own spread."""

    allocated: float
    files: float
    plain: Guess
    packed: Guess
    carriers: Guess


def strata(held: Iterable[Held], families: Sequence[str]) -> list[list[Group]]:
    """Sort files into groups and these into strata.

    Args:
        held: All files.
        families: Of each package its family.
    """
    by_size: dict[int, list[Held]] = {}
    for one in held:
        by_size.setdefault(one.size, []).append(one)
    found: dict[tuple[int, int, int], list[Group]] = {}
    for size, files in sorted(by_size.items()):
        packages = {one.package for one in files}
        spread = min(2, len(packages) - 1)
        if spread and len({families[number] for number in packages}) == 1:
            spread = 1
        elif spread:
            spread = 2
        key = (size.bit_length() // 2, spread, len(files).bit_length())
        found.setdefault(key, []).append(Group(size, files))
    return [found[key] for key in sorted(found)]


def estimate(
    listed: Sequence[Sequence[Group]],
    look: Callable[[Iterable[Held]], list[Looked]],
    clock: Callable[[], float],
    seed: int = 0,
) -> Kept:
    """Draw, look, and scale.

    Args:
        listed: The strata.
        look: Looks into files of one size.
        clock: What time it is.
        seed: Of the draw.
    """
    began = clock()
    random = Random(seed)  # noqa: S311 -- a sample, no secret
    drawn = _draw(listed, random)
    plain = packed = carriers = Guess(0.0, 0.0)
    files = bytes_read = 0
    for stratum, groups in zip(listed, drawn, strict=True):
        seen = []
        for group in groups:
            looked = look(_some(group.files, random))
            files += len(looked)
            bytes_read += sum(one.bytes_read for one in looked)
            if looked:
                seen.append(_see(group, looked))
        allocated = sum(group.allocated for group in stratum)
        count = sum(len(group.files) for group in stratum)
        there = [one.allocated for one in seen]
        plain = _add(plain, _scale(allocated, len(stratum), there, [s.plain for s in seen]))
        packed = _add(packed, _scale(allocated, len(stratum), there, [s.packed for s in seen]))
        there = [one.files for one in seen]
        carriers = _add(carriers, _scale(count, len(stratum), there, [s.carriers for s in seen]))
    return Kept(plain, packed, carriers, files, bytes_read, clock() - began)


def _draw(listed: Sequence[Sequence[Group]], random: Random) -> list[list[Group]]:
    """Draw groups: a few of each stratum, then where the most bytes stand behind each drawn."""
    shuffled = [random.sample(stratum, len(stratum)) for stratum in listed]
    taken = [0] * len(listed)
    weights = [sum(group.allocated for group in stratum) for stratum in listed]
    queue = [(-math.inf, -weight, number) for number, weight in enumerate(weights)]
    heapq.heapify(queue)
    files = size = 0
    while queue and files < FILES_MAX and size < BYTES_MAX:
        _, _, number = heapq.heappop(queue)
        group = shuffled[number][taken[number]]
        taken[number] += 1
        count = min(len(group.files), GROUP_FILES_MAX)
        files += count
        size += count * min(group.size, WHOLE_BYTES_MAX)
        if taken[number] < len(shuffled[number]):
            is_due = taken[number] < GROUPS_MIN
            rank = -math.inf if is_due else -weights[number] / taken[number]
            heapq.heappush(queue, (rank, taken[number] if is_due else 0, number))
    return [groups[:count] for groups, count in zip(shuffled, taken, strict=True)]


def _some(files: list[Held], random: Random) -> list[Held]:
    return files if len(files) <= GROUP_FILES_MAX else random.sample(files, GROUP_FILES_MAX)


def _see(group: Group, looked: Sequence[Looked]) -> _Seen:
    """Say what is kept of a group."""
    modes = Counter((one.key, one.mode) for one in looked)
    contents = Counter(one.key for one in looked)
    unseen = len(group.files) - len(looked)
    plain = {(one.key, one.mode): one.plain for one in looked}
    packed = {one.key: one.packed for one in looked}
    return _Seen(
        group.allocated,
        len(group.files),
        _distinct(sum(plain.values()), modes, unseen),
        _distinct(sum(packed.values()), contents, unseen),
        _distinct(len(modes), modes, unseen),
    )


def _distinct(
    total: float, found: Counter[tuple[bytes, int]] | Counter[bytes], unseen: int
) -> Guess:
    """Return what distinct contents take, those of the files not looked into included."""
    once = sum(count == 1 for count in found.values())
    more = unseen * once / found.total() * total / len(found)
    return Guess(total + more / 2, more / 2)


def _scale(whole: float, groups: int, there: list[float], kept: list[Guess]) -> Guess:
    """Scale from the groups drawn of a stratum to all of it."""
    base, count = sum(there), len(there)
    if not base:
        return Guess(whole / 2, whole / 2)  # nothing is known but that it is not more
    ratio = sum(one.value for one in kept) / base
    own = sum(one.margin for one in kept) / base * whole
    if count >= groups:
        return Guess(ratio * whole, own)
    if count == 1:
        return Guess(ratio * whole, own + max(ratio, 1 - ratio) * (whole - base))
    errors = [one.value - ratio * part for one, part in zip(kept, there, strict=True)]
    variance = sum(error * error for error in errors) / (count - 1)
    spread = groups * math.sqrt((1 - count / groups) * variance / count)
    return Guess(ratio * whole, _DEVIATIONS * spread + own)


def _add(one: Guess, other: Guess) -> Guess:
    """Add figures whose errors have nothing to do with each other."""
    return Guess(one.value + other.value, math.hypot(one.margin, other.margin))
