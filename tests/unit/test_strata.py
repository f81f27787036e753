"""The estimate covers the truth about as often as it says, and reads no more than it may."""

from __future__ import annotations

import tracemalloc
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from random import Random

import pytest

from regrain.migrate import strata
from regrain.migrate.sizes import ONE_FAMILY, ONE_PACKAGE, SEVERAL, Sizes
from regrain.store.census import Held, Looked

PACKAGES = 20
FAMILIES = [f"family{number // 4}" for number in range(PACKAGES)]
READING, PACKING = 0.25, 0.5
"""Seconds a file takes to be read, and a byte to be compressed, for figures that are exact."""


def corpus(seed: int, files: int, contents: int, sizes: int) -> dict[Held, bytes]:
    """Files, each with the content it has: some contents are in several packages."""
    random = Random(seed)
    made = {}
    for number in range(files):
        which = min(random.randrange(contents), random.randrange(contents))
        size = 1 + Random(which).randrange(sizes) ** 2
        held = Held(random.randrange(PACKAGES), b"%d" % number, size, -(-size // 4096) * 4096)
        made[held] = b"%d" % which
    return made


class Reader:
    """Looks into files that are made up, and counts them."""

    def __init__(self, made: dict[Held, bytes]) -> None:
        self.made = made
        self.files = 0

    def look(self, held: Iterable[Held]) -> list[Looked]:
        """Say what is in them."""
        found = [
            Looked(self.made[h], 0o644, h.allocated, 4096, h.size, READING, PACKING * h.size)
            for h in held
        ]
        self.files += len(found)
        return found


def ticks() -> Iterator[float]:
    """A clock."""
    return map(float, count())


def truth(made: dict[Held, bytes]) -> int:
    """What the distinct contents take."""
    return sum({(key, held.size): held.allocated for held, key in made.items()}.values())


def sizes_of(made: Iterable[Held]) -> Sizes:
    """Count them, package by package."""
    found: list[list[int]] = [[] for _ in range(PACKAGES)]
    for held in made:
        found[held.package] += (held.size, held.allocated)
    sizes = Sizes()
    for number, pairs in enumerate(found):
        sizes.add(FAMILIES[number], pairs)
    return sizes


def run(made: dict[Held, bytes], seed: int) -> tuple[strata.Kept, Reader]:
    """Estimate."""
    reader = Reader(made)
    clock = ticks()
    found = sizes_of(made)
    kept = strata.estimate(found, lambda: made, reader.look, lambda: next(clock), seed)
    return kept, reader


def test_all_of_a_small_store_is_read_and_nothing_is_guessed() -> None:
    made = corpus(1, 500, 200, 300)
    kept, reader = run(made, 1)
    assert reader.files == 500
    assert kept.plain == strata.Guess(truth(made), 0.0)
    assert kept.carriers.value == len({(h.size, key) for h, key in made.items()})
    assert kept.reading == pytest.approx(500 * READING)
    assert kept.packing == pytest.approx(PACKING * sum(h.size for h in made))


@pytest.mark.parametrize("sizes", [30, 300])
def test_the_truth_is_within_the_margin(monkeypatch: pytest.MonkeyPatch, sizes: int) -> None:
    monkeypatch.setattr(strata, "FILES_MAX", 1200)
    monkeypatch.setattr(strata, "GROUP_FILES_MAX", 100)
    made = corpus(2, 6000, 3000, sizes)
    right = truth(made)
    found = [run(made, seed)[0].plain for seed in range(40)]
    assert sum(one.low <= right <= one.high for one in found) >= 38
    assert max(one.margin for one in found) < right
    mean = sum(one.value for one in found) / len(found)
    assert abs(mean - right) < 0.1 * right


def test_a_frame_serves_all_modes_and_what_stays_plain_is_there_in_each() -> None:
    modes = (0o644, 0o755, 0o755)
    made = {Held(0, b"%d" % n, size, 8192): b"" for n in range(3) for size in (5000, 8000)}

    def look(held: Iterable[Held]) -> list[Looked]:
        return [
            Looked(b"same", modes[int(h.path)], 8192, 4096 if h.size == 5000 else 8192, h.size)
            for h in held
        ]

    kept = strata.estimate(sizes_of(made), lambda: made, look, lambda: 0.0)
    assert kept.plain == strata.Guess(4 * 8192, 0.0)
    assert kept.packed == strata.Guess(4096 + 2 * 8192, 0.0)


def test_a_sample_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strata, "FILES_MAX", 1000)
    _, reader = run(corpus(3, 20_000, 9000, 300), 1)
    assert reader.files < 1000 + strata.GROUP_FILES_MAX


def test_one_size_for_all_files_still_holds_the_truth() -> None:
    made = {Held(n % PACKAGES, b"%d" % n, 4096, 4096): b"%d" % (n % 700) for n in range(9000)}
    kept, reader = run(made, 1)
    assert reader.files == strata.GROUP_FILES_MAX
    assert kept.plain.low <= 700 * 4096 <= kept.plain.high


def test_sizes_know_how_far_they_are_spread() -> None:
    sizes = Sizes()
    for family, found in (("a", [7, 4096, 8, 4096, 7, 8192]), ("a", [8, 1]), ("b", [9, 2, 9, 2])):
        sizes.add(family, found)
    sizes.add("c", [8, 3, 10, 4])
    assert list(sizes.size) == [7, 8, 9, 10]
    assert list(sizes.files) == [2, 3, 2, 1]
    assert list(sizes.allocated) == [12_288, 4100, 4, 4]
    assert list(sizes.spread) == [ONE_PACKAGE, SEVERAL, ONE_PACKAGE, ONE_PACKAGE]
    sizes.add("c", [10, 1])
    assert sizes.spread[3] == ONE_FAMILY


def test_which_files_of_a_size_are_looked_into_is_even() -> None:
    made = {Held(n % PACKAGES, b"%d" % n, 4096, 4096): b"" for n in range(1500)}
    drawn = Counter[bytes]()
    for seed in range(60):
        reader = Reader(made)
        strata.estimate(sizes_of(made), lambda: made, drawn_into(drawn, reader), lambda: 0.0, seed)
    counts = [drawn[held.path] for held in made]
    assert sum(counts) == 60 * strata.GROUP_FILES_MAX
    for third in range(3):  # the first ones as often as the last ones
        part = sum(counts[third * 500 : (third + 1) * 500]) / sum(counts)
        assert abs(part - 1 / 3) < 0.02


def drawn_into(drawn: Counter[bytes], reader: Reader) -> Callable[[Iterable[Held]], list[Looked]]:
    """Return a look that counts what it is asked to look into."""

    def look(held: Iterable[Held]) -> list[Looked]:
        listed = list(held)
        drawn.update(one.path for one in listed)
        return reader.look(listed)

    return look


def test_times_are_scaled_from_what_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strata, "FILES_MAX", 1200)
    monkeypatch.setattr(strata, "GROUP_FILES_MAX", 100)
    made = corpus(4, 6000, 3000, 300)
    kept, reader = run(made, 1)
    assert reader.files < 1500
    assert kept.reading == pytest.approx(6000 * READING)
    assert kept.packing == pytest.approx(PACKING * sum(h.size for h in made), rel=0.2)


def test_files_that_are_gone_again_take_no_time() -> None:
    made = corpus(5, 100, 50, 30)
    kept = strata.estimate(sizes_of(made), lambda: (), lambda _: [], lambda: 0.0)
    assert (kept.reading, kept.packing, kept.files) == (0.0, 0.0, 0)


def test_memory_does_not_grow_with_the_files() -> None:
    """Only sizes and what is drawn are held: of 100,000 files of 1,000 sizes, a few thousand."""
    count, different = 100_000, 1000

    def find() -> Iterator[Held]:
        for number in range(count):
            yield Held(number % PACKAGES, b"%0100d" % number, 1 + number % different, 4096)

    def look(held: Iterable[Held]) -> list[Looked]:
        return [Looked(one.path, 0o644, 4096, 4096, one.size) for one in held]

    sizes = Sizes()
    for package in range(PACKAGES):
        mine = (one for one in find() if one.package == package)
        sizes.add(FAMILIES[package], array("Q", (n for one in mine for n in one[2:])))
    tracemalloc.start()
    try:
        kept = strata.estimate(sizes, find, look, lambda: 0.0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert kept.files >= strata.FILES_MAX
    assert peak < 500 * strata.FILES_MAX
    assert peak < 100 * count
