"""Damage between a cut and recovery, and what lies in ``temp/``."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from regrain.model.phase import Layout
from tests.compare import differences, snapshot
from tests.faults.crash_driver import Crasher, Moment
from tests.faults.crashes import (
    COPIED,
    DISK,
    KILLED,
    NAMING,
    OBJECTS,
    ONE_BATCH,
    PACKAGES,
    assert_converges,
    layouts,
    on_disk,
    orphans,
    recover,
    survey,
)
from tests.faults.faulty import Faults, injected
from tests.faults.inline import migrate
from tests.faults.judge import (
    after_fault,
    complete_problems,
    ledger_problems,
    outcome_of,
    reading_problems,
)
from tests.faults.small import Scene
from tests.stores import statuses


def flip(path: Path) -> None:
    """Change a bit; size, mode and times stay."""
    status = path.stat()
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "flipped": flip,
    "cut": lambda path: os.truncate(path, path.stat().st_size - 1),
    "world-writable": lambda path: path.chmod(0o666),
    "set-id": lambda path: path.chmod(0o4755),
}


def victim(scene: Scene) -> Path:
    """The object of a file that only one package has."""
    digest = scene.before[scene.named("linkable").hash][b"opt/pm/live/bin/linkable"].digest
    return scene.path / "objects" / digest[:2] / digest


def quarantined(scene: Scene) -> list[str]:
    return sorted(os.listdir(scene.path / "quarantine"))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_orphan_goes_to_quarantine(crash: Crasher, scene: Scene, damage: str) -> None:
    assert crash("migrate", scene.path, COPIED, OBJECTS["objects flushed"]) == KILLED
    broken = victim(scene)
    DAMAGES[damage](broken)
    assert reading_problems(scene) == []
    (event,) = recover(scene, COPIED)
    assert event.quarantined == 1
    assert [name.partition(".")[0] for name in quarantined(scene)] == [broken.name]
    assert broken.name not in orphans(scene)
    assert orphans(scene).keys() == on_disk(scene)
    assert_converges(scene, COPIED)
    assert quarantined(scene)  # never deleted without being asked


@pytest.mark.parametrize("damage", [*DAMAGES, "gone"])
def test_a_damaged_object_of_a_published_package(crash: Crasher, scene: Scene, damage: str) -> None:
    """Its package is pending again and served from legacy; the others are recorded."""
    assert crash("migrate", scene.path, COPIED, PACKAGES["packages flushed"]) == KILLED
    broken, package = victim(scene), scene.named("linkable").hash
    if damage == "gone":
        broken.unlink()
    else:
        DAMAGES[damage](broken)
    (event,) = recover(scene, COPIED)
    assert (event.packages, event.given_up) == (3, 1)
    assert event.quarantined == (1 if damage == "gone" else 2)
    assert statuses(scene.path)[package] == "pending"
    assert layouts(scene)[package] is Layout.LEGACY
    assert reading_problems(scene) == []
    assert_converges(scene, COPIED)
    names = {name.partition(".")[0] for name in quarantined(scene)}
    assert names == ({package} if damage == "gone" else {package, broken.name})


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "gone", "another format"])
def test_a_damaged_file_list_of_a_published_package(
    crash: Crasher, scene: Scene, damage: str
) -> None:
    assert crash("migrate", scene.path, COPIED, PACKAGES["packages flushed"]) == KILLED
    package = scene.named("grouped").hash
    listed = scene.path / "packages" / package / "files.json"
    if damage == "gone":
        listed.unlink()
    elif damage == "empty":
        os.truncate(listed, 0)
    elif damage == "another format":
        listed.write_bytes(listed.read_bytes().replace(b'"format":1', b'"format":7'))
    elif damage == "cut":
        os.truncate(listed, listed.stat().st_size - 30)
    else:
        raw = listed.read_bytes()
        listed.write_bytes(raw.replace(b'"mode":"0644"', b'"mode":"0646"', 1))
        assert listed.read_bytes() != raw
    (event,) = recover(scene, COPIED)
    assert (event.packages, event.given_up, event.quarantined) == (3, 1, 1)
    assert layouts(scene)[package] is Layout.LEGACY
    assert quarantined(scene) == [f"{package}.0"]
    assert_converges(scene, COPIED)


def halted(scene: Scene) -> None:
    """A run that ended by itself right after its objects got their names."""
    last = max(
        call.number
        for call in survey(scene, COPIED)
        if (call.function, call.place) == ("fsync", "objects")
    )
    with injected(Faults(scene.path, "fsync", last, errno.EIO)) as faults:
        assert outcome_of(scene, COPIED)[0] == "H"
    assert faults.fired is not None
    assert set(statuses(scene.path).values()) == {"pending"}


def test_a_damaged_orphan_of_a_run_that_halted_is_never_served(scene: Scene) -> None:
    """It ended by itself, so nothing is in progress; what it left has no row all the same."""
    halted(scene)
    flip(victim(scene))
    outcome_of(scene, COPIED)
    assert after_fault(scene, quarantine=True) == []
    migrate(scene.path, COPIED)
    assert_converges(scene, COPIED)
    assert [name.partition(".")[0] for name in quarantined(scene)] == [victim(scene).name]


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("when", ["before", "after"])
def test_what_a_halted_run_left_is_found_though_recovery_was_cut(
    crash: Crasher, scene: Scene, when: str, number: int
) -> None:
    """Nothing is in progress; once the temporary directory is gone, nothing else tells.

    First what is in that directory is removed, a file by now, and then the directory.
    """
    halted(scene)
    left = on_disk(scene)
    assert left
    moment = Moment(f"{DISK}:remove_tree", when, number)
    assert crash("migrate", scene.path, COPIED, moment, limit=0) == KILLED
    recover(scene, COPIED)
    assert orphans(scene).keys() == left
    assert ledger_problems(scene.path) == []
    assert_converges(scene, COPIED)


# what lies in temp


@pytest.fixture
def holder(scene: Scene) -> Iterator[subprocess.Popen[str]]:
    """Another process that works in a temporary directory of its own."""
    folder = scene.path / "temp" / "0123456789abcdef"
    (folder / "objects").mkdir(parents=True)
    (folder / "objects" / "half").write_bytes(b"half a file")
    code = (
        "import fcntl, sys\n"
        "lock = open(sys.argv[1], 'w')\n"
        "fcntl.flock(lock, fcntl.LOCK_EX)\n"
        "print('locked', flush=True)\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, folder / "lock"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def test_a_directory_somebody_works_in_is_left_alone(
    scene: Scene, holder: subprocess.Popen[str]
) -> None:
    before = snapshot(scene.path / "temp")
    assert migrate(scene.path, ONE_BATCH).completed == 4
    found = snapshot(scene.path / "temp")
    del before[b""], found[b""]
    assert differences(before, found, identity=True) == []
    holder.kill()
    holder.wait()
    assert [event.directories for event in recover(scene, ONE_BATCH)] == [1]
    assert os.listdir(scene.path / "temp") == []
    assert complete_problems(scene) == []


@pytest.mark.parametrize("lock", ["free", "none"])
def test_a_directory_nobody_works_in_is_swept(scene: Scene, lock: str) -> None:
    folder = scene.path / "temp" / "ffffffffffffffff"
    (folder / "packages" / "x").mkdir(parents=True)
    (folder / "packages" / "x" / "link").symlink_to(scene.path / "store.toml")
    if lock == "free":
        (folder / "lock").touch()
    before = snapshot(scene.path)
    assert migrate(scene.path, ONE_BATCH).completed == 4
    assert os.listdir(scene.path / "temp") == []
    assert (scene.path / "store.toml").read_bytes()
    assert b"store.toml" in before
    assert_converges(scene, ONE_BATCH)


def test_killed_runs_pile_nothing_up(crash: Crasher, scene: Scene) -> None:
    for _ in range(5):
        moment = Moment(NAMING, "after", 2, "objects")
        assert crash("migrate", scene.path, ONE_BATCH, moment) == KILLED
        assert len(os.listdir(scene.path / "temp")) == 1
    assert len(on_disk(scene)) == 10
    assert_converges(scene, ONE_BATCH)
