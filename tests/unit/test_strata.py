"""The estimate covers the truth about as often as it says, and reads no more than it may."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count
from random import Random

import pytest

from regrain.migrate import strata
from regrain.store.census import Held, Looked

PACKAGES = 20
FAMILIES = [f"family{number // 4}" for number in range(PACKAGES)]


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
        found = [Looked(self.made[h], 0o644, h.allocated, 4096, h.size) for h in held]
        self.files += len(found)
        return found


def ticks() -> Iterator[float]:
    """A clock."""
    return map(float, count())


def truth(made: dict[Held, bytes]) -> int:
    """What the distinct contents take."""
    return sum({(key, held.size): held.allocated for held, key in made.items()}.values())


def run(made: dict[Held, bytes], seed: int) -> tuple[strata.Kept, Reader]:
    """Estimate."""
    reader = Reader(made)
    clock = ticks()
    listed = strata.strata(made, FAMILIES)
    return strata.estimate(listed, reader.look, lambda: next(clock), seed), reader


def test_all_of_a_small_store_is_read_and_nothing_is_guessed() -> None:
    made = corpus(1, 500, 200, 300)
    kept, reader = run(made, 1)
    assert reader.files == 500
    assert kept.plain == strata.Guess(truth(made), 0.0)
    assert kept.carriers.value == len({(h.size, key) for h, key in made.items()})


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


def test_a_sample_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strata, "FILES_MAX", 1000)
    _, reader = run(corpus(3, 20_000, 9000, 300), 1)
    assert reader.files < 1000 + strata.GROUP_FILES_MAX


def test_one_size_for_all_files_still_holds_the_truth() -> None:
    made = {Held(n % PACKAGES, b"%d" % n, 4096, 4096): b"%d" % (n % 700) for n in range(9000)}
    kept, reader = run(made, 1)
    assert reader.files == strata.GROUP_FILES_MAX
    assert kept.plain.low <= 700 * 4096 <= kept.plain.high
