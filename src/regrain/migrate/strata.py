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
from array import array
from collections import Counter
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from regrain.store.census import WHOLE_BYTES_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from regrain.migrate.sizes import Sizes
    from regrain.store.census import Held, Looked

FILES_MAX = 16_000
BYTES_MAX = 256 << 20
"""So much is read at the most, about."""

GROUP_FILES_MAX = 500
GROUPS_MIN = 4
"""Of each stratum so many groups are drawn, if it has them and the limits allow."""

_DEVIATIONS = 3.0
"""How many standard errors the margin is: about 99 %, small samples considered."""


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
        reading: Seconds that one process would take to open, read and hash all files.
        packing: Likewise to compress each content once.
        files: How many files were looked into.
        bytes_read: How much was read of them.
        seconds: How long that took, compressing included.
    """

    plain: Guess
    packed: Guess
    carriers: Guess
    reading: float
    packing: float
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
    reading: float
    packing: float


def strata(sizes: Sizes) -> list[array[int]]:
    """Sort the numbers of sizes into strata."""
    found: dict[tuple[int, int, int], array[int]] = {}
    for number in range(len(sizes)):
        key = (
            sizes.size[number].bit_length() // 2,
            sizes.spread[number],
            sizes.files[number].bit_length(),
        )
        found.setdefault(key, array("Q")).append(number)
    return [found[key] for key in sorted(found)]


def estimate(
    sizes: Sizes,
    find: Callable[[], Iterable[Held]],
    look: Callable[[Iterable[Held]], list[Looked]],
    clock: Callable[[], float],
    seed: int = 0,
) -> Kept:
    """Draw, look, and scale.

    Args:
        sizes: Of all files.
        find: Yields all files; only those of the sizes that are drawn are kept in memory.
        look: Looks into files of one size.
        clock: What time it is.
        seed: Of the draw.
    """
    random = Random(seed)  # noqa: S311 -- a sample, no secret
    listed = strata(sizes)
    drawn = _draw(listed, sizes, random)
    chosen = _choose(find(), {sizes.size[number] for one in drawn for number in one}, random)
    began = clock()
    plain = packed = carriers = Guess(0.0, 0.0)
    reading = packing = 0.0
    files = bytes_read = 0
    for stratum, numbers in zip(listed, drawn, strict=True):
        seen = []
        for number in numbers:
            looked = look(chosen.pop(sizes.size[number]))
            files += len(looked)
            bytes_read += sum(one.bytes_read for one in looked)
            if looked:
                seen.append(_see(sizes.allocated[number], sizes.files[number], looked))
        space = sum(sizes.allocated[number] for number in stratum)
        count = sum(sizes.files[number] for number in stratum)
        there = [one.allocated for one in seen]
        plain = _add(plain, _scale(space, len(stratum), there, [s.plain for s in seen]))
        packed = _add(packed, _scale(space, len(stratum), there, [s.packed for s in seen]))
        there = [one.files for one in seen]
        carriers = _add(carriers, _scale(count, len(stratum), there, [s.carriers for s in seen]))
        a_file = count / (sum(there) or 1)
        reading += a_file * sum(one.reading for one in seen)
        packing += a_file * sum(one.packing for one in seen)
    took = clock() - began
    return Kept(plain, packed, carriers, reading, packing, files, bytes_read, took)


def _draw(listed: list[array[int]], sizes: Sizes, random: Random) -> list[Sequence[int]]:
    """Draw sizes: a few of each stratum, then where the most bytes stand behind each drawn.

    What is drawn comes to stand at the beginning of its stratum.
    """
    taken = [0] * len(listed)
    weights = [sum(sizes.allocated[number] for number in stratum) for stratum in listed]
    queue = [(-math.inf, -weight, number) for number, weight in enumerate(weights)]
    heapq.heapify(queue)
    files = size = 0
    while queue and files < FILES_MAX and size < BYTES_MAX:
        _, _, which = heapq.heappop(queue)
        stratum, place = listed[which], taken[which]
        other = random.randrange(place, len(stratum))
        stratum[place], stratum[other] = stratum[other], stratum[place]
        taken[which] += 1
        count = min(sizes.files[stratum[place]], GROUP_FILES_MAX)
        files += count
        size += count * min(sizes.size[stratum[place]], WHOLE_BYTES_MAX)
        if taken[which] < len(stratum):
            is_due = taken[which] < GROUPS_MIN
            rank = -math.inf if is_due else -weights[which] / taken[which]
            heapq.heappush(queue, (rank, taken[which] if is_due else 0, which))
    return [stratum[:count] for stratum, count in zip(listed, taken, strict=True)]


def _choose(held: Iterable[Held], wanted: set[int], random: Random) -> dict[int, list[Held]]:
    """Return the files of each size that is wanted; where there are too many, some by chance.

    It is not known how many are to come, so each takes the place of another with the chance that
    leaves all of them the same: A. G. Waterman's reservoir.
    """
    chosen: dict[int, list[Held]] = {size: [] for size in wanted}
    met = dict.fromkeys(wanted, 0)
    for one in held:
        if one.size not in wanted:
            continue
        met[one.size] += 1
        files = chosen[one.size]
        if len(files) < GROUP_FILES_MAX:
            files.append(one)
        elif (place := random.randrange(met[one.size])) < GROUP_FILES_MAX:
            files[place] = one
    return chosen


def _see(allocated: int, files: int, looked: Sequence[Looked]) -> _Seen:
    """Say what is kept of all files of one size, of which some were looked into."""
    modes = Counter((one.key, one.mode) for one in looked)
    contents = Counter(one.key for one in looked)
    frames = Counter((one.key, _packed_mode(one)) for one in looked)
    unseen = max(0, files - len(looked))
    plain = {(one.key, one.mode): one.plain for one in looked}
    packed = {(one.key, _packed_mode(one)): one.packed for one in looked}
    return _Seen(
        allocated,
        files,
        _distinct(sum(plain.values()), modes, unseen),
        _distinct(sum(packed.values()), frames, unseen),
        _distinct(len(modes), modes, unseen),
        sum(one.reading for one in looked) * files / len(looked),
        _distinct(sum(one.packing for one in looked), contents, unseen).value,
    )


def _packed_mode(one: Looked) -> int:
    """Return what tells carriers of one content apart: a frame serves files of all modes."""
    return 0 if one.packed < one.plain else one.mode


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
    variance *= (count - 1) / max(1, count - 3)  # of so few, as Student's distribution says
    spread = groups * math.sqrt((1 - count / groups) * variance / count)
    return Guess(ratio * whole, _DEVIATIONS * spread + own)


def _add(one: Guess, other: Guess) -> Guess:
    """Add figures whose errors have nothing to do with each other."""
    return Guess(one.value + other.value, math.hypot(one.margin, other.margin))
