"""How long a migration is said to take follows from what was timed, and from what is written."""

from __future__ import annotations

import pytest

from regrain.migrate.prediction import Choice, Room, Subject, choices
from regrain.migrate.strata import Guess, Kept
from regrain.store.scan import Usage

FILES, ALLOCATED = 100_000, 1 << 30
PLAIN, PACKED, CARRIERS = Guess(6e8, 1e7), Guess(2e8, 1e7), Guess(40_000.0, 100.0)


def predicted(
    walking: float = 5.0, reading: float = 20.0, packing: float = 4.0, jobs: int = 2
) -> dict[tuple[str, str], Choice]:
    """Predict for a store whose sample took so long."""
    usage = Usage("0" * 64, files=FILES, inodes=FILES, allocated=ALLOCATED)
    kept = Kept(PLAIN, PACKED, CARRIERS, reading, packing, 1000, 1 << 20, 1.0)
    room = Room(1 << 40, None)
    subject = Subject([usage], 0, kept, walking, jobs, True, False, room)
    return {(one.ingest, one.compression): one for one in choices(subject)}


@pytest.mark.parametrize("ingest", ["hardlink", "reflink"])
def test_where_nothing_is_written_the_times_are_near_each_other(ingest: str) -> None:
    low, high = predicted()[ingest, "none"].seconds
    assert low < (5.0 + 20.0) / 2 < 5.0 + 20.0 < high
    assert high < 4.1 * low
    low, high = predicted(jobs=1)[ingest, "none"].seconds
    assert high < 2.1 * low


def test_twice_the_time_for_the_sample_is_twice_the_time() -> None:
    once = predicted()["hardlink", "none"].seconds
    twice = predicted(walking=10.0, reading=40.0)["hardlink", "none"].seconds
    assert twice[0] == pytest.approx(2 * once[0])
    assert twice[1] - 1 == pytest.approx(2 * (once[1] - 1))
    alone = predicted(jobs=1)["hardlink", "none"].seconds
    assert alone == pytest.approx((2 * once[0], once[1]))


def test_what_is_written_takes_longer_the_more_the_slower_the_disk() -> None:
    found = predicted()
    linked, copied = found["hardlink", "none"].seconds, found["copy", "none"].seconds
    assert copied[0] - linked[0] == pytest.approx(CARRIERS.low * 1e-4 / 2 + PLAIN.low / 500e6)
    assert copied[1] - linked[1] == pytest.approx(CARRIERS.high * 1e-3 / 2 + PLAIN.high / 50e6)


def test_compressing_counts_only_where_it_is_done_and_writes_less() -> None:
    found, slower = predicted(), predicted(packing=8.0)
    for way in (("hardlink", "none"), ("copy", "none"), ("reflink", "none")):
        assert found[way].seconds == slower[way].seconds
    assert slower["copy", "zstd"].seconds[0] > found["copy", "zstd"].seconds[0] + 2
    without = predicted(packing=0.0)
    assert without["copy", "zstd"].seconds[1] < without["copy", "none"].seconds[1]
    assert without["hardlink", "zstd"].seconds == without["copy", "zstd"].seconds
