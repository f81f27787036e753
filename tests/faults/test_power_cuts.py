"""The power goes at every flush of every command, on each file system: nothing is lost.

The block log is real: every write and flush that a file system sent to its disk. A protocol that
was broken on purpose must be caught by the very same sweep.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from regrain import disk as operations
from tests.conftest import remove
from tests.faults import tally
from tests.faults.commands import COMMANDS
from tests.faults.disks import make_disk
from tests.faults.power import Cut, Recording, cut_problems, images, record_run
from tests.faults.sweeping import chosen

pytestmark = pytest.mark.root

KINDS = ("ext4", "xfs", "btrfs")
ONE_IN = 24
"""Of a sample: there are some seven thousand cuts."""

CUTS_MIN = 4
A_FEW = 4
COPYING = "migrate, copied and flushed one by one"


@pytest.fixture
def room(place: Path) -> Iterator[Path]:
    folder = place / "disk"
    yield folder
    remove(folder)


def sweep(recording: Recording, cuts: list[Cut], seed: int) -> list[str]:
    random = Random(f"{seed}:power:{recording.arena.name}:{recording.disk.kind}")
    return [
        line
        for cut, image in images(recording, cuts, random)
        for line in cut_problems(recording, cut, image)
    ]


def test_a_few_cuts_of_a_migration(room: Path, seed: int) -> None:
    recording = record_run("migrate", make_disk("ext4", room), seed)
    assert recording.letter == "ok"
    assert len(recording.promised) > A_FEW
    cuts = recording.cuts()
    picked = Random(seed).sample(range(len(cuts)), A_FEW)
    assert sweep(recording, [cuts[number] for number in sorted(picked)], seed) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", COMMANDS)
def test_cut_at_every_flush(room: Path, seed: int, kind: str, name: str) -> None:
    recording = record_run(name, make_disk(kind, room), seed)
    assert recording.letter == "ok"
    cuts = recording.cuts()
    assert len(cuts) >= CUTS_MIN
    picked = chosen(cuts, seed, f"power, {name}, {kind}", ONE_IN)
    assert sweep(recording, picked, seed) == []


def flush_nothing() -> None:
    """Break the protocol: what is said to be on the disk is not."""
    module: Any = operations
    module.fsync = module.syncfs = lambda _: None


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KINDS)
def test_a_protocol_without_flushes_is_caught(
    room: Path, seed: int, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(tally.VARIABLE, raising=False)  # what is survived here is luck
    recording = record_run(COPYING, make_disk(kind, room), seed, flush_nothing)
    assert recording.letter == "ok"
    assert sweep(recording, recording.cuts(), seed) != []
