"""What a rehearsal draws, and what it makes of its figures."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from blake3 import blake3

from regrain.app.circle import Course, for_copy
from regrain.app.rehearsal import against_latency
from regrain.migrate.estimate import Content, Range, Taken, Total, estimate, sharing
from regrain.migrate.foreground import Latency
from regrain.migrate.sample import PACKAGES_MIN, Candidate, Share, choose, size_class
from regrain.settings import Migration, Settings, Store
from regrain.store.scratch import KEPT_PREFIX, PREFIX, Scratch, left_over, sweep

MIB = 1 << 20


def candidate(name: str, version: int, size: int) -> Candidate:
    label = blake3(f"{name} {version}".encode()).hexdigest()
    return Candidate(label, name, f"1.{version:02}", 10, 12, size, size, 1000)


def store(families: int = 20, releases: int = 10) -> list[Candidate]:
    """Small packages, and of every larger size a family."""
    small = [
        candidate(f"small{family}", release, 1000 + family)
        for family in range(families)
        for release in range(releases)
    ]
    large = [candidate("large", release, 20 * MIB) for release in range(3)]
    return [*small, *large, candidate("huge", 0, 900 * MIB), candidate("middle", 0, 2 * MIB)]


# the draw


@pytest.mark.parametrize(
    ("share", "count"),
    [(Share(0.05), 11), (Share(packages=7), 7), (Share(0.001), PACKAGES_MIN), (Share(1.0), 205)],
)
def test_as_many_as_were_asked_for(share: Share, count: int) -> None:
    drawn = choose(store(), share, seed=1)
    assert len(drawn) == count == len({one.package_hash for one in drawn})


def test_no_more_than_there_are() -> None:
    few = store()[:2]
    assert choose(few, Share(packages=50), seed=1) == sorted(few, key=lambda one: one.package_hash)


def test_the_seed_decides() -> None:
    forwards = choose(store(), Share(0.1), seed=5)
    assert choose(reversed(store()), Share(0.1), seed=5) == forwards
    assert choose(store(), Share(0.1), seed=6) != forwards


@pytest.mark.parametrize("seed", range(5))
def test_every_size_is_there(seed: int) -> None:
    drawn = choose(store(), Share(packages=8), seed)
    assert {size_class(one.size) for one in drawn} == {size_class(one.size) for one in store()}


@pytest.mark.parametrize("seed", range(5))
def test_neighbours_of_several_families(seed: int) -> None:
    """Single releases would share nothing with each other; one family says little of others."""
    drawn = [one for one in choose(store(), Share(packages=20), seed) if size_class(one.size) == 0]
    families = {one.name for one in drawn}
    assert 2 < len(families) <= len(drawn) / 2 + 1
    for name in families:
        found = sorted(int(one.version[2:]) for one in drawn if one.name == name)
        gaps = [after - before for before, after in pairwise(found)]
        assert sum(gap != 1 for gap in gaps) <= 1, found  # from the last release on to the first


# the figures


def content(name: str, release: int, files: dict[str, int]) -> Content:
    return Content(candidate(name, release, sum(files.values())), files)


def family(name: str, own: int, common: int, releases: int) -> list[Content]:
    """Releases with so many bytes of their own, and so many in common."""
    return [
        content(name, release, {f"{name}-{release}": own, name: common})
        for release in range(releases)
    ]


def test_sharing_of_releases_goes_on_in_their_family() -> None:
    ten = family("shared", 10, 90, 10)
    whole = [one.candidate for one in ten]
    assert sharing(ten, whole) == Range(1.0, 1.0)
    pair = sharing(ten[4:6], whole)  # 110 of 200 bytes are distinct; of all, 190 of 1000
    assert pair.high == pytest.approx(1.0)
    assert pair.low * 0.55 == pytest.approx(0.19)
    assert sharing(ten[4:5], whole) == Range(1.0, 1.0)  # a single one says nothing of sharing


def test_the_margin_is_of_families() -> None:
    shared, alone = family("shared", 10, 90, 10), family("alone", 100, 0, 10)
    whole = [one.candidate for one in (*shared, *alone)]
    assert tuple(sharing(alone[4:6], whole)) == pytest.approx((1.0, 1.0))
    found = sharing([*shared[4:6], *alone[4:6]], whole)
    truth = (190 + 1000) / 2000 / (310 / 400)
    assert found.low < truth < 1.0 < found.high
    assert sharing([], []) == Range(1.0, 1.0)


def test_figures_are_scaled() -> None:
    sample = Total(packages=10, files=100, inodes=150, size=1000, allocated=2000)
    whole = Total(packages=100, files=500, inodes=1500, size=10_000, allocated=20_000)
    taken = Taken(50, 2000, 1250, 1000)
    found = estimate(sample, whole, {"migrate": 20.0}, taken, Range(0.5, 1.1))
    assert found.seconds == {"migrate": Range(100.0, 200.0)}  # by files five times, by bytes ten
    lists = 200 * 5
    assert tuple(found.after_bytes) == pytest.approx((50 + lists + 5000, 50 + lists + 11_000))
    assert found.saved_bytes.low == pytest.approx(20_000 - found.after_bytes.high)
    assert found.saved_share(whole).low == pytest.approx(found.saved_bytes.low / 20_000)
    assert not found.is_rough
    assert estimate(sample, whole, {"migrate": 2.0}, taken, Range(1.0, 1.0)).is_rough


def test_the_whole_store_needs_no_scaling() -> None:
    whole = Total(packages=10, files=100, inodes=150, size=1000, allocated=2000)
    found = estimate(whole, whole, {"migrate": 2.0}, Taken(50, 2000, 1250, 1000), Range(1.0, 1.0))
    assert tuple(found.after_bytes) == pytest.approx((1250, 1250))
    assert found.seconds == {"migrate": Range(2.0, 2.0)}
    assert not found.is_rough


def test_the_copy_has_the_settings_of_the_store_but_for_what_ends_early() -> None:
    given = Settings(
        Store(ingest="copy", keep_old_packages=False, migration_enabled=False, path="/pm"),
        Migration(max_read=7.0, cleanup_on_rollback=True, on_trigger="rollback"),
    )
    found = for_copy(given)
    assert (found.store.ingest, found.migration.max_read) == ("copy", 7.0)
    assert (found.store.path, found.store.keep_old_packages) == (None, True)
    assert found.store.migration_enabled
    assert (found.migration.settle, found.migration.space_wait) == (0.0, 0.0)
    assert (found.migration.on_trigger, found.migration.cleanup_on_rollback) == ("pause", False)


def test_readers_that_are_slowed_down() -> None:
    course = Course(latency=(Latency(9, 0.001, 0.002), Latency(9, 0.0021, 0.003)))
    for tolerated, count in ((None, 0), (2.2, 0), (2.0, 1)):
        settings = Settings(migration=Migration(latency_slowdown_max=tolerated))
        found = against_latency(course, settings)
        assert len(found) == count, found
        assert all("2.1 times" in one and "2 is tolerated" in one for one in found)


# the place


def test_a_scratch_directory_goes(tmp_path: Path) -> None:
    with Scratch(str(tmp_path)) as scratch:
        made = Path(scratch.path)
        assert made.parent == tmp_path
        assert made.name.startswith(PREFIX)
        assert made.stat().st_mode & 0o7777 == 0o700
        (made / "copy").mkdir()
        assert sweep(str(tmp_path)) == []  # somebody uses it
        assert (made / "copy").exists()
    assert list(tmp_path.iterdir()) == []


def test_one_that_is_kept_stays(tmp_path: Path) -> None:
    with Scratch(str(tmp_path), keep=True) as scratch:
        pass
    assert sweep(str(tmp_path)) == []
    assert [path.name for path in tmp_path.iterdir()] == [os.path.basename(scratch.path)]
    assert os.path.basename(scratch.path).startswith(KEPT_PREFIX)


def test_what_a_killed_owner_left_is_swept(tmp_path: Path) -> None:
    program = """
import sys, time
from regrain.settings import Migration, Settings, Store
from regrain.store.scratch import Scratch
scratch = Scratch(sys.argv[1])
print(scratch.path, flush=True)
time.sleep(60)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().strip())
        assert left_over(str(tmp_path)) == []
        process.send_signal(signal.SIGKILL)
        process.wait()
    (left / "copy").mkdir()
    (tmp_path / "another").mkdir()
    assert left_over(str(tmp_path)) == [left.name]
    assert sweep(str(tmp_path)) == [left.name]
    assert [path.name for path in tmp_path.iterdir()] == ["another"]
