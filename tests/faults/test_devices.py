"""Real disks that fail: on write, on read, on flush, for good or once; full; read-only.

The errors come from a block device below a real file system, so what the kernel makes of them (a
journal that aborts, pages marked clean that were never written) is what the program meets.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import remove
from tests.faults import tally
from tests.faults.commands import COMMANDS, Arena, arena, outcome_of
from tests.faults.disks import DiedError, Disk, at_home, in_child, make_disk
from tests.faults.power import Promise, copy_image, ledger_at, promises
from tests.faults.sweeping import chosen
from tests.faults.undoing import overseen

pytestmark = pytest.mark.root

KINDS = ("ext4", "xfs", "btrfs")
EVER = 1 << 30
FAULTS = {
    "flush fails": ("flush", errno.EIO, EVER),
    "flush fails once": ("flush", errno.EIO, 1),
    "write fails": ("write", errno.EIO, EVER),
    "write fails once": ("write", errno.EIO, 1),
    "thin pool is full": ("write", errno.ENOSPC, EVER),
    "read fails": ("read", errno.EIO, EVER),
    "read fails once": ("read", errno.EIO, 1),
}
AFTER = (0, 1, 2, 3, 5, 8, 13, 21, 34)
"""So many operations of the sort go well before."""


@pytest.fixture
def room(place: Path) -> Iterator[Path]:
    folder = place / "disk"
    yield folder
    remove(folder)


def prepared(name: str, disk: Disk, seed: int) -> Arena:
    """Prepare a command on a disk; its image is kept as it was."""
    with disk.plain() as point:
        at = arena(name, point, seed)
        at = replace(at, before=at.fresh())
        subprocess.run(["sync", "-f", point], check=True)
    copy_image(disk.image, kept(disk))
    return at


def kept(disk: Disk) -> Path:
    return disk.image.with_name("kept.img")


def run(at: Arena) -> tuple[str, list[Promise]]:
    """Run the command, in a process of its own; its letter, and what the ledger promised."""
    promised: list[Promise] = []
    with promises(lambda: 0, lambda _, promise: promised.append(promise)):
        try:
            letter, _ = outcome_of(at.command, at.before)
        except OSError:  # the command says "the system refused", exit 1
            letter = "E"
    return letter, promised[-1:]


def run_apart(at: Arena) -> tuple[str, list[Promise]]:
    """Run the command in a process of its own.

    SQLite maps a file of shared memory that lies on that disk: where a page of it can be neither
    read nor given room (on btrfs each write needs some), the kernel sends a SIGBUS.
    """
    try:
        letter, promised = in_child(lambda: run(at))
    except DiedError as death:
        assert death.signal == signal.SIGBUS, death  # noqa: PT017 -- any other is a failure
        return "killed", []
    return letter, [Promise(*one) for one in promised]


def looked_at(at: Arena, promised: list[Promise], *, complete: bool) -> list[str]:
    """What is wrong with the store on a disk that is well again."""
    scene = at_home(at.before)
    try:
        said = [f"then {line}" for line in at.command.any_time(scene)]
        if complete and promised and ledger_at(Path(promised[0].ledger)) != promised[0].held:
            said.append("the ledger forgot what it had acknowledged")
        if at.name != "repair":  # until it has ended, its store is as damaged as it was
            said += overseen(scene)
        return said + [f"at last {line}" for line in at.command.at_last(scene)]
    except Exception as error:  # noqa: BLE001 -- it must not raise, whatever it is
        return [f"the next run: {error!r}"]


def fail(at: Arena, disk: Disk, fault: str, after: int) -> list[str] | None:
    """Run the command on a disk that fails; None if that did not come to it."""
    operation, error, times = FAULTS[fault]
    copy_image(kept(disk), disk.image)
    with disk.served() as control:
        at = replace(at, before=at_home(at.before))
        control.fail(operation, error, after=after, times=times)
        letter, promised = run_apart(at)
        fired = control.fired(operation)
        control.heal()
    if not fired:
        return None
    with disk.plain():
        said: list[str] = in_child(lambda: looked_at(at, promised, complete=letter == "ok"))
    tally.count(at.name, f"disk: {fault}", letter)
    return [f"{at.name}, {disk.kind}, {fault} after {after}, {letter}: {line}" for line in said]


def sweep(at: Arena, disk: Disk, cases: list[tuple[str, int]]) -> tuple[int, list[str]]:
    """Try each; how many fired, and what was wrong."""
    found = [fail(at, disk, *case) for case in cases]
    fired = [lines for lines in found if lines is not None]
    return len(fired), [line for lines in fired for line in lines]


def test_a_disk_that_fails_under_a_migration(room: Path, seed: int) -> None:
    disk = make_disk("ext4", room)
    at = prepared("migrate", disk, seed)
    cases = [("flush fails once", 0), ("thin pool is full", 3), ("write fails", 0)]
    assert sweep(at, disk, cases) == (len(cases), [])


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_disk_that_fails(room: Path, seed: int, kind: str, name: str) -> None:
    disk = make_disk(kind, room)
    at = prepared(name, disk, seed)
    cases = chosen([(f, n) for f in FAULTS for n in AFTER], seed, f"device, {name}, {kind}", 24)
    fired, said = sweep(at, disk, cases)
    assert fired or len(cases) < len(FAULTS)  # of a sample none may come to be met
    assert said == []


# full, read-only


def fill(point: Path, leave: int) -> None:
    """Leave so many bytes on a file system."""
    subprocess.run(["sync", "-f", point], check=True)
    free = os.statvfs(point)
    size = free.f_bavail * free.f_frsize - leave
    fd = os.open(point / "filler", os.O_WRONLY | os.O_CREAT)
    os.lseek(fd, max(1, size), os.SEEK_SET)
    with suppress(OSError):  # not all that is said to be there is to be had
        os.posix_fallocate(fd, 0, max(1, size))
    for piece in (1 << 20, 4096) if leave == 0 else ():
        with suppress(OSError):
            while os.write(fd, bytes(piece)):
                pass
    with suppress(OSError):
        os.fsync(fd)
    os.close(fd)


def use_up_inodes(point: Path, leave: int) -> None:
    """Leave so many inodes on a file system."""
    (point / "filler").mkdir()
    for number in range(os.statvfs(point).f_favail - leave):
        (point / "filler" / str(number)).touch()


WITHOUT_ROOM = {"ok", "P", "K", "F", "T", "killed"}
"""How a command may end on a full disk; a repair also with what it could not heal."""


def on_a_full_one(at: Arena, disk: Disk, fill_up: Callable[[Path], None], fault: str) -> list[str]:
    """Run the command where there is no room, then again where there is."""
    copy_image(kept(disk), disk.image)
    with disk.plain() as point:
        at = replace(at, before=at_home(at.before))
        fill_up(point)
        letter, _ = run_apart(at)
        can_end = letter in WITHOUT_ROOM or at.name == "repair"
        said = [] if can_end else ["nobody said that there is no room"]
        remove(point / "filler")
        subprocess.run(["sync", "-f", point], check=True)  # btrfs has no room before
        said += in_child(lambda: looked_at(at, [], complete=False))
    tally.count(at.name, fault, letter)
    return [f"{at.name}, {disk.kind}, {fault}, {letter}: {line}" for line in said]


LEFT = tuple(kib << 10 for kib in (0, 8, 32, 64, 128, 256, 512, 1024))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_disk_that_is_full(room: Path, seed: int, kind: str, name: str) -> None:
    disk = make_disk(kind, room)
    at = prepared(name, disk, seed)
    said = []
    for leave in chosen(LEFT, seed, f"full, {name}, {kind}"):
        said += on_a_full_one(at, disk, lambda p, n=leave: fill(p, n), "disk full")  # type: ignore[misc]
    assert said == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", COMMANDS)
def test_no_inodes_are_left(room: Path, seed: int, name: str) -> None:
    disk = make_disk("ext4", room, "-N", "2048")
    at = prepared(name, disk, seed)
    said = []
    for leave in chosen((0, 1, 2, 5, 10, 20, 30), seed, f"inodes, {name}"):
        said += on_a_full_one(at, disk, lambda p, n=leave: use_up_inodes(p, n), "no inodes")  # type: ignore[misc]
    assert said == []


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_read_only_file_system(room: Path, seed: int, kind: str, name: str) -> None:
    disk = make_disk(kind, room)
    at = prepared(name, disk, seed)
    with disk.plain() as point:
        at = replace(at, before=at_home(at.before))
        subprocess.run(["mount", "-o", "remount,ro", point], check=True)
        letter, _ = in_child(lambda: run(at))
        assert letter not in {"ok", "P"}
        said: Any = in_child(lambda: at.command.any_time(at_home(at.before)))
        subprocess.run(["mount", "-o", "remount,rw", point], check=True)
        said += in_child(lambda: looked_at(at, [], complete=False))
    tally.count(name, "read-only", letter)
    assert said == []
