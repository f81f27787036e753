"""Symbolic links that come and go under regrain: nothing outside is read, written or removed.

The tests with ``slow`` do the same for longer; ``REGRAIN_RACE_SECONDS`` sets how long.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from regrain import PackageStore
from regrain.errors import RegrainError
from tests.attacks import naive
from tests.attacks.swapping import (
    SECRET,
    Swapper,
    Watch,
    make_outside,
    make_package,
    pairs,
    put_right,
)
from tests.command import Regrain
from tests.compare import Snapshot, differences, snapshot
from tests.conftest import remove

SECONDS = 1.0
SECONDS_SLOW = float(os.environ.get("REGRAIN_RACE_SECONDS", "20"))
SECONDS_MAX = 30.0
SWAPS_MIN = 1000
TRIES = 3
MANY = 100
"""Directories of a package that is removed: each is a chance to be led out."""
AT_ONCE = {
    "REGRAIN_MIGRATION__SETTLE": "0",
    "REGRAIN_MIGRATION__FREE_BYTES_MIN": "1000000",
    "REGRAIN_MIGRATION__FREE_INODES_MIN": "10",
    "REGRAIN_STORE__INGEST": "copy",
}


@pytest.fixture
def outside(workplace: Path) -> Path:
    return make_outside(workplace)


def until(seconds: float) -> Iterator[int]:
    end = time.monotonic() + seconds
    number = 0
    while time.monotonic() < end or not number:
        yield number
        number += 1


def secrets(*places: Path) -> list[str]:
    """Files below some directories that hold what lay outside."""
    return [
        os.path.join(folder, name)
        for place in places
        for folder, _, names in os.walk(place)
        for name in names
        if not os.path.islink(os.path.join(folder, name))
        and SECRET in Path(folder, name).read_bytes()
    ]


# what is easily written falls for it


def test_a_reader_by_paths_is_led_out(workplace: Path, outside: Path) -> None:
    make_package(workplace / "package", "naive")
    with Swapper(*pairs(workplace / "package", outside)):
        for _ in until(SECONDS_MAX):
            found = naive.read_tree(workplace / "package")
            if any(SECRET in content for content in found.values()):
                return
    pytest.fail("the race was never won")


def test_a_remover_by_paths_is_led_out(workplace: Path, outside: Path) -> None:
    before = snapshot(outside)
    for number in until(SECONDS_MAX):
        place = workplace / f"package{number}"
        make_package(place, "naive")
        with Swapper(*pairs(place, outside)):
            naive.remove_tree(place)
        if differences(before, snapshot(outside)):
            return
    pytest.fail("the race was never won")


# regrain does not


class Scene:
    """A store, a swapped package or more, and what lies outside."""

    def __init__(self, workplace: Path, outside: Path, packages: int) -> None:
        self.place = workplace / "store"
        self.out = workplace / "out"
        self.outside = outside
        self.before: Snapshot = snapshot(outside)
        self.names = [f"{number:02x}" * 32 for number in range(packages)]
        for name in self.names:
            make_package(self.place / name, name)
        self.pairs = [pair for name in self.names for pair in pairs(self.place / name, outside)]
        self.watch = Watch(outside, outside / "deep")
        self.place.mkdir(exist_ok=True)
        self.regrain = Regrain(self.place, AT_ONCE)
        self.regrain("init")

    def run(self, *words: str) -> int:
        """Call the command; whatever it says, it must be one of its own answers."""
        said = self.regrain(*words, code=None)
        assert "unforeseen" not in said.stderr, said
        assert said.code in {0, 1, 3, 4, 5}, said
        return said.code

    def check(self) -> None:
        """Nothing of what lies outside was read, and nothing of it changed."""
        assert not self.watch.happened()
        assert differences(self.before, snapshot(self.outside), identity=True) == []
        assert self.watch.happened()  # that was the snapshot: it notices what it is to notice
        own = (self.place / name for name in ("objects", "packages", "temp", "quarantine"))
        assert secrets(*own, self.out) == []


def ingest(workplace: Path, outside: Path, seconds: float) -> int:
    scene = Scene(workplace, outside, 2)
    with Swapper(*scene.pairs) as swapper:
        for number in until(seconds):
            scene.run("migrate", "--retry-failed", *(["--jobs", "1"] if number % 2 else []))
    scene.check()
    put_right(scene.pairs)
    scene.run("migrate", "--retry-failed", "--rescan")
    scene.check()
    return swapper.swaps


def add(workplace: Path, outside: Path, seconds: float) -> int:
    scene = Scene(workplace, outside, 0)
    source = workplace / "source"
    make_package(source, "added")
    store = PackageStore.open(scene.place)
    store.add_package(source)  # what is imported on the way is imported now
    added = refused = 0
    with Swapper(*pairs(source, outside)) as swapper:
        for number in until(seconds):
            try:
                store.add_package(source, f"{number:064x}")
                added += 1
            except RegrainError:
                refused += 1
    assert refused, added
    scene.check()
    return swapper.swaps


def checkout(workplace: Path, outside: Path, seconds: float) -> int:
    """From the legacy layout, whose tree is swapped while it is read."""
    scene = Scene(workplace, outside, 1)
    package = PackageStore.open(scene.place).get_package(scene.names[0])
    with Swapper(*scene.pairs) as swapper:
        for _ in until(seconds):
            try:
                package.checkout(scene.out)
            except RegrainError:
                continue
            assert secrets(scene.out) == []
            remove(scene.out)
    scene.check()
    return swapper.swaps


def removal(workplace: Path, outside: Path, seconds: float) -> int:
    """By somebody who holds the directories, and so reaches what lies in the trash."""
    scene = Scene(workplace, outside, 0)
    source = workplace / "source"
    make_package(source, "removed", MANY)
    store = PackageStore.open(scene.place)
    swaps = 0
    for number in until(seconds):
        name = f"{number:064x}"
        shutil.copytree(source, scene.place / name, symlinks=True)
        with Swapper(*pairs(scene.place / name, outside, MANY)) as swapper:
            with suppress(RegrainError):
                store.remove_package(name)
            assert not (scene.place / name).exists()
            for _ in range(
                TRIES
            ):  # it is gone; what lies in the trash does not stay put, and waits
                with suppress(RegrainError):
                    store.collect()
        swaps += swapper.swaps
        scene.check()
    assert scene.run("migrate") == 0
    assert os.listdir(scene.place / "trash") == []
    scene.check()
    return swaps


def cleanup(workplace: Path, outside: Path, seconds: float) -> int:
    """The trash is closed to others, so that they swap until the directory is gone."""
    scene = Scene(workplace, outside, 4)
    for words in (["migrate"], ["cutover", "--no-backup"]):
        assert scene.run(*words) == 0
    with Swapper(*scene.pairs, held=False) as swapper:
        for _ in until(seconds):
            scene.run("cleanup", "--execute")
            scene.check()
    put_right(scene.pairs)
    assert scene.run("verify") == 0
    scene.check()
    return swapper.swaps


def rollback(workplace: Path, outside: Path, seconds: float) -> int:
    scene = Scene(workplace, outside, 1)
    before = [snapshot(scene.place / name) for name in scene.names]
    assert scene.run("migrate") == 0
    with Swapper(*scene.pairs, held=False) as swapper:
        for _ in until(seconds):
            scene.run("rollback")
            scene.run("migrate")
            scene.check()
    put_right(scene.pairs)  # where it was not made anew meanwhile
    scene.run("rollback")
    after = [snapshot(scene.place / name) for name in scene.names]
    assert [tree.keys() for tree in after] == [tree.keys() for tree in before]
    scene.check()
    return swapper.swaps


RACES: dict[str, Callable[[Path, Path, float], int]] = {
    race.__name__: race for race in (ingest, add, checkout, removal, cleanup, rollback)
}


@pytest.mark.root
@pytest.mark.parametrize("race", RACES)
def test_races(workplace: Path, outside: Path, race: str) -> None:
    assert RACES[race](workplace, outside, SECONDS) > SWAPS_MIN


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("race", RACES)
def test_long_races(workplace: Path, outside: Path, race: str) -> None:
    assert RACES[race](workplace, outside, SECONDS_SLOW) > SWAPS_MIN
