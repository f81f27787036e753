"""A disk that is full, or too full: refused before the start, waited for in the middle."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests import awkward, mounts
from tests.command import Regrain
from tests.compare import differences, snapshot
from tests.stores import assert_complete, read_ledger, record, statuses
from tests.trees import LegacyPackage
from tests.waiting import until, until_status

pytestmark = pytest.mark.root

Packages = dict[str, LegacyPackage]
COPY = {"REGRAIN_STORE__INGEST": "copy"}
MIB = 1 << 20
FIGURES = re.compile(
    r"4 packages need up to (\d+) bytes and \d+ inodes; (\d+) bytes and \d+ inodes are free, "
    r"of which \d+ bytes and \d+ inodes are to stay so"
)
SLOWLY = ("--max-read", "4", "--jobs", "1", "--batch", "1")


def build(store: Path, seed: int, count: int = 6, size: int = 3 * MIB) -> Packages:
    """Packages of a file each."""
    made = [awkward.add_large(store, seed + number, size) for number in range(count)]
    return {package.hash: package for package in made}


@contextmanager
def filled(point: Path) -> Iterator[Path]:
    """Take every byte there is but two MiB, in which no package has room.

    On a btrfs without a single block SQLite cannot even write to the memory it maps: the
    process gets a SIGBUS, and the next run recovers.
    """
    ballast = point / "ballast"
    with ballast.open("wb") as stream:
        for size in (MIB, 4096):
            try:
                while True:
                    os.write(stream.fileno(), b"\1" * size)
                    os.fsync(stream.fileno())
            except OSError:
                pass
        stream.truncate(os.fstat(stream.fileno()).st_size - 2 * MIB)
        os.fsync(stream.fileno())
    yield ballast


def give_back(ballast: Path) -> None:
    """Free what a ballast takes, at once."""
    ballast.unlink()
    subprocess.run(["sync", "--file-system", ballast.parent], check=True)


def take_inodes(folder: Path) -> list[Path]:
    """Take every inode there is."""
    folder.mkdir()
    taken: list[Path] = []
    with suppress(OSError):
        while True:
            (folder / str(len(taken))).touch()
            taken.append(folder / str(len(taken)))
    return taken


def completed(regrain: Regrain) -> int:
    return list(statuses(regrain.store).values()).count("completed")


SLOW = pytest.mark.slow
KINDS = ["ext4", pytest.param("xfs", marks=SLOW), pytest.param("btrfs", marks=SLOW)]


def waits_for_room(found: dict[str, Any]) -> bool:
    """Tell whether a run is held by more than its own rate."""
    return found["throttled"] and "(max_read)" not in found["throttle_reason"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_waits_for_room_and_goes_on(workplace: Path, seed: int, kind: str) -> None:
    options = ["-m", "0"] if kind == "ext4" else []
    with mounts.mounted(kind, workplace, *options) as point:
        regrain = Regrain(point / "store", COPY)
        packages = build(regrain.store, seed)
        before = record(packages)
        regrain("init")
        with regrain.running("migrate", *SLOWLY) as process:
            until_status(regrain, process, lambda _: completed(regrain) > 0, "a package is done")
            with filled(point) as ballast:
                said = until_status(regrain, process, waits_for_room, "it waits for room")
                assert said["throttled"], said
                assert said["running"], said
                staged = sum(path.is_file() for path in (regrain.store / "temp").rglob("*"))
                assert staged == 1, "what was staged takes space"  # the run's own lock
                regrain("gc")  # it is not kept out
                give_back(ballast)
            regrain("set", "max-read=0")
            assert process.wait(60) == 0
        assert_complete(regrain.store, packages, before, orphans=True)
        assert regrain("status", "--json").document["throttled"] is False
        attempts = read_ledger(regrain.store, "SELECT max(attempts) FROM store_migration")
        assert attempts[0][0] > 1, "nothing was ever put back: the disk was not full"
        regrain("verify", "--level", "deep")


@SLOW
def test_a_run_gives_up_when_there_is_no_room_for_long(workplace: Path, seed: int) -> None:
    with mounts.mounted("ext4", workplace, "-m", "0") as point:
        regrain = Regrain(point / "store", {**COPY, "REGRAIN_MIGRATION__SPACE_WAIT": "2"})
        packages = build(regrain.store, seed)
        before = record(packages)
        regrain("init")
        with (
            (workplace / "said").open("wb") as said,
            regrain.running("migrate", "--json", *SLOWLY, stdout=said) as process,
        ):
            until_status(regrain, process, lambda _: completed(regrain) > 0, "one is done")
            with filled(point) as ballast:
                assert process.wait(60) == 1
        assert "no space left" in (workplace / "said").read_text()
        # a ledger without a block to write to still has claims: the next run puts them back
        assert set(statuses(regrain.store).values()) <= {"completed", "pending", "in_progress"}
        give_back(ballast)
        regrain("migrate")
        assert_complete(regrain.store, packages, before, orphans=True)


@SLOW
def test_inodes_that_run_out_are_waited_for(workplace: Path, seed: int) -> None:
    with mounts.mounted("ext4", workplace, "-N", "1024") as point:
        regrain = Regrain(point / "store", COPY)
        packages = build(regrain.store, seed)
        before = record(packages)
        regrain("init")
        with regrain.running("migrate", *SLOWLY) as process:
            until_status(regrain, process, lambda _: completed(regrain) > 0, "a package is done")
            taken = take_inodes(point / "ballast")
            said = until_status(regrain, process, waits_for_room, "it waits")
            assert " inodes are free" in said["throttle_reason"], said
            for file in taken:
                file.unlink()
            regrain("set", "max-read=0")
            assert process.wait(60) == 0
        assert_complete(regrain.store, packages, before, orphans=True)


@SLOW
def test_a_floor_holds_a_run_before_the_disk_is_full(workplace: Path, seed: int) -> None:
    with mounts.mounted("ext4", workplace, "-m", "0") as point:
        floor = {"REGRAIN_MIGRATION__FREE_BYTES_MIN": str(10 * MIB)}
        regrain = Regrain(point / "store", {**COPY, **floor})
        packages = build(regrain.store, seed)
        before = record(packages)
        regrain("init")
        with regrain.running("migrate", *SLOWLY) as process:
            until_status(regrain, process, lambda _: completed(regrain) > 0, "a package is done")
            ballast = point / "ballast"
            with ballast.open("wb") as stream:
                space = os.statvfs(point)
                rest = space.f_bavail * space.f_frsize - 5 * MIB
                os.posix_fallocate(stream.fileno(), 0, rest)
            said = until_status(regrain, process, waits_for_room, "it waits")
            assert "are to stay so" in said["throttle_reason"], said
            assert str(10 * MIB) in said["throttle_reason"], said
            give_back(ballast)
            regrain("set", "max-read=0")
            assert process.wait(60) == 0
        assert_complete(regrain.store, packages, before)


@pytest.mark.parametrize("json", [False, True])
def test_what_cannot_fit_is_refused_before_the_start(
    workplace: Path, seed: int, json: bool
) -> None:
    with mounts.mounted("ext4", workplace, "-m", "0") as point:
        regrain = Regrain(point / "store", COPY)
        packages = build(regrain.store, seed, 4, 16 * MIB)
        before = record(packages)
        regrain("init")
        result = regrain("migrate", *(["--json"] if json else []), code=5)
        assert "too little space to migrate" in result.stderr
        assert regrain("migrate", "-n", code=5).stderr[:50] == result.stderr[:50]
        found = FIGURES.search(result.stderr)
        assert found, result
        needed, free = int(found[1]), int(found[2])
        space = os.statvfs(point)
        assert abs(free - space.f_bavail * space.f_frsize) < MIB
        assert free < 4 * 16 * MIB < needed
        assert "--limit" in result.stderr
        assert set(statuses(regrain.store).values()) == {"pending"}
        regrain("migrate", "--limit", "1")  # the way round it
        assert completed(regrain) == 1
        linking = Regrain(regrain.store)  # links take no bytes
        linking("migrate")
        assert_complete(regrain.store, packages, before)
        high = {"REGRAIN_MIGRATION__FREE_BYTES_MIN": str(1 << 40)}
        linking("migrate", env=high)  # nothing is pending: nothing to refuse


@SLOW
@pytest.mark.parametrize("gives_up", [False, True])
def test_a_rollback_waits_for_room_and_goes_on(workplace: Path, seed: int, gives_up: bool) -> None:
    with mounts.mounted("ext4", workplace, "-m", "0") as point:
        wait = {"REGRAIN_MIGRATION__SPACE_WAIT": "2" if gives_up else "600"}
        regrain = Regrain(point / "store", {**COPY, **wait})
        packages = build(regrain.store, seed)
        before = record(packages)
        regrain("init")
        regrain("migrate")
        regrain("cutover", "--no-backup", env={"REGRAIN_MIGRATION__FREE_BYTES_MIN": "0"})
        regrain("cleanup", "--execute")
        with regrain.running("rollback") as process:
            until(lambda: any(regrain.store.glob("temp/*/packages/*")), "it builds")
            os.killpg(process.pid, signal.SIGSTOP)
            with filled(point) as ballast:
                os.killpg(process.pid, signal.SIGCONT)
                if gives_up:
                    assert process.wait(60) == 1
                else:
                    said = until_status(regrain, process, waits_for_room, "it waits for room")
                    assert "no space left" in said["throttle_reason"], said
                    assert said["phase"] == "rolling_back"
                    assert not any(regrain.store.glob("temp/*/packages/*"))
                give_back(ballast)
            if not gives_up:
                assert process.wait(60) == 0
        if gives_up:
            assert regrain("status", "--json").document["phase"] == "rolling_back"
            regrain("rollback")
        assert regrain("status", "--json").document["phase"] == "rolled_back"
        for name, tree in before.items():
            assert differences(tree, snapshot(packages[name].path)) == []
