"""``repack --compress cold``: what something outside the store is a hard link of stays plain."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from regrain.app import keeping, repacking
from regrain.app.store import PackageStore
from regrain.maintain import represent
from regrain.maintain.repack import Choice, Kept, Repack
from tests.compare import Snapshot, differences, snapshot
from tests.faults.crash_driver import Crasher, Ended, Moment, crasher
from tests.faults.inline import Way, migrate
from tests.faults.judge import ledger_problems, package_differences, reading_problems
from tests.faults.small import Scene
from tests.packed import SHRINKING, compressed_of, make_packed, plain_of
from tests.reader import check_store
from tests.stores import legacy_changes
from tests.system.test_compression import carrier, entry, file_level

COPIED = (b"/share/wide", b"/share/marked")
"""Files of ``sharing`` whose inodes no carrier may be."""


@pytest.fixture
def linked(no_reflink: Path, seed: int) -> Scene:
    """A store whose objects are hard links of legacy files, where those allow it."""
    scene = make_packed(no_reflink / "store", seed)
    assert migrate(scene.path, Way()).failed == 0
    return scene


@pytest.fixture(scope="module")
def crash() -> Iterator[Crasher]:
    with crasher() as process:
        yield process


def repack(scene: Scene, choice: Choice, **options: Any) -> Repack:
    settings = Way().settings()
    limits = msgspec.structs.replace(settings.migration, free_bytes_min=0)
    settings = msgspec.structs.replace(settings, migration=limits)
    return repacking.repack(PackageStore.open(scene.path).root, settings, choice, **options)


def problems(scene: Scene) -> list[str]:
    return [
        *check_store(scene.path, legacy=scene.packages).problems,
        *legacy_changes(scene.before, scene.packages),
        *ledger_problems(scene.path),
        *reading_problems(scene),
    ]


def digests(scene: Scene) -> set[str]:
    """What is compressed where nothing is hot."""
    return {
        *(entry(scene, "packed", path).digest for path in SHRINKING),
        *(entry(scene, "sharing", path).digest for path in COPIED),
    }


def check_out(scene: Scene, place: Path) -> tuple[set[str], Snapshot]:
    """Check a package out, shared; say which objects that makes hot, and what is there."""
    name = scene.named("packed").hash
    PackageStore.open(scene.path).get_package(name).checkout(place, "shared")
    return {entry(scene, "packed", path).digest for path in SHRINKING}, snapshot(place)


def test_names_in_legacy_directories_make_nothing_hot(linked: Scene) -> None:
    done = repack(linked, Choice.COLD)
    assert compressed_of(linked.path) == digests(linked)
    assert Kept.SHARED not in done.kept
    assert done.freed < 0  # legacy directories still hold most of the old ones
    assert problems(linked) == []


def test_a_shared_checkout_does(linked: Scene, no_reflink: Path) -> None:
    place = no_reflink / "out"
    hot, before = check_out(linked, place)
    planned = repacking.plan_repack(
        PackageStore.open(linked.path).root, Way().settings(), Choice.COLD
    )
    assert planned.objects == len(digests(linked) - hot)
    done = repack(linked, Choice.COLD)
    assert compressed_of(linked.path) == digests(linked) - hot
    assert done.kept[Kept.SHARED] >= len(hot)
    assert hot <= plain_of(linked.path)
    assert differences(before, snapshot(place), identity=True) == []
    assert problems(linked) == []
    for path in place.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.unlink()  # nobody uses them any more
    repack(linked, Choice.COLD)
    assert compressed_of(linked.path) == digests(linked)
    repack(linked, Choice.NONE)
    assert compressed_of(linked.path) == set()
    assert problems(linked) == []


def test_it_stays_hot_without_legacy(linked: Scene, no_reflink: Path) -> None:
    hot, before = check_out(linked, no_reflink / "out")
    file_level(linked.path)
    repack(linked, Choice.COLD)
    assert not hot & compressed_of(linked.path)
    assert differences(before, snapshot(no_reflink / "out"), identity=True) == []
    assert problems(linked) == []


def test_what_becomes_hot_meanwhile_stays(
    linked: Scene, no_reflink: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at the legacy directories and the change of place somebody links it."""
    where = carrier(linked, "packed", b"/share/text").with_suffix("")
    original, done = represent.Represent._commit, list[bool]()

    def commit(self: represent.Represent) -> None:
        if not done:
            done.append(True)
            os.link(where, no_reflink / "link")
        original(self)

    monkeypatch.setattr(represent.Represent, "_commit", commit)
    assert repack(linked, Choice.COLD).kept[Kept.BUSY] == 1
    assert compressed_of(linked.path) == digests(linked) - {where.name}
    assert problems(linked) == []


def test_beside_readers_and_gc(
    linked: Scene, no_reflink: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(represent, "BATCH_OBJECTS", 1)
    hot, before = check_out(linked, no_reflink / "out")
    file_level(linked.path)
    over, said, rounds = threading.Event(), list[str](), list[int]()

    def until_over(deed: Any) -> None:
        while not over.is_set():
            try:
                deed()
            except Exception as error:  # noqa: BLE001 -- whatever it is, it must not be
                said.append(repr(error))
            rounds.append(1)

    def read() -> None:
        for name, tree in linked.before.items():
            package = PackageStore.open(linked.path).get_package(name)
            said.extend(package_differences(package, tree))

    def collect() -> None:
        keeping.collect(PackageStore.open(linked.path).root, grace=0)

    others = [threading.Thread(target=until_over, args=(deed,)) for deed in (read, collect)]
    for other in others:
        other.start()
    try:
        for choice in (Choice.COLD, Choice.NONE) * 3:
            repack(linked, choice)
            compressed = compressed_of(linked.path)
            wanted = digests(linked) - hot if choice is Choice.COLD else set()
            assert compressed == wanted
    finally:
        over.set()
        for other in others:
            other.join()
    assert said == []
    assert len(rounds) > 4
    assert differences(before, snapshot(no_reflink / "out"), identity=True) == []
    assert problems(linked) == []


@pytest.mark.parametrize(
    "moment",
    [
        Moment("regrain.disk:rename_noreplace", place="objects"),
        Moment("regrain.ledger.queries:Ledger.represented"),
        Moment("regrain.ledger.queries:Ledger.represented", "after"),
        Moment("regrain.disk:unlink", number=2, place="objects"),
    ],
    ids=str,
)
def test_killed_the_same_command_finishes(
    linked: Scene, no_reflink: Path, crash: Crasher, moment: Moment
) -> None:
    hot, before = check_out(linked, no_reflink / "out")
    ended = crash("tests.faults.repacking:cool", linked.path, Way(), moment)
    assert ended == Ended(signal.SIGKILL, 0)
    assert not hot & compressed_of(linked.path)
    assert reading_problems(linked) == []
    assert differences(before, snapshot(no_reflink / "out"), identity=True) == []
    repack(linked, Choice.COLD)
    assert compressed_of(linked.path) == digests(linked) - hot
    assert hot <= plain_of(linked.path)
    assert problems(linked) == []
    assert repack(linked, Choice.COLD).objects == 0
