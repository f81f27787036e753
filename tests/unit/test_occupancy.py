"""What lies on disk is counted as ``du`` does, shared extents once."""

from __future__ import annotations

import fcntl
import os
import subprocess
from pathlib import Path
from random import Random

import pytest

from regrain import disk
from regrain.disk_linux import shared_extents
from regrain.store.occupancy import Occupancy, covered
from tests.mounts import FICLONE

BLOCK = 4096


@pytest.mark.parametrize(
    ("extents", "size"),
    [
        ([], 0),
        ([(0, 10), (0, 10)], 10),
        ([(5, 10), (0, 10)], 15),
        ([(0, 10), (10, 10)], 20),
        ([(0, 100), (10, 10), (50, 100)], 150),
        ([(30, 10), (0, 10), (30, 5)], 20),
    ],
)
def test_what_extents_cover(extents: list[tuple[int, int]], size: int) -> None:
    assert covered(extents) == size


def test_trees_as_du_counts_them(workplace: Path, seed: int) -> None:
    random = Random(seed)
    for folder in ("one", "two"):
        (workplace / folder / "below").mkdir(parents=True)
        for number in range(5):
            content = random.randbytes(random.randrange(20_000))
            (workplace / folder / "below" / str(number)).write_bytes(content)
    os.link(workplace / "one" / "below" / "0", workplace / "one" / "again")
    os.link(workplace / "one" / "below" / "1", workplace / "two" / "other")
    os.link(workplace / "one" / "below" / "2", workplace / "outside")
    (workplace / "two" / "symlink").symlink_to("below")
    os.sync()
    occupied = Occupancy(reads_extents=True)
    with disk.Closing(disk.open_directory(os.fsencode(workplace))) as top:
        for name in ("one", "two", "missing", "outside/impossible"):
            occupied.add_tree(name, top)
    paths = [workplace / "one", workplace / "two"]
    command: list[str | Path] = ["du", "-sc", "--block-size=1", *paths]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert occupied.allocated == occupied.size == int(said.splitlines()[-1].split()[0])
    assert occupied.unread == 1
    links = sorted((link.names, link.met) for link in occupied.links.values())
    assert links == [(2, 1), (2, 2), (2, 2)]


@pytest.mark.root
@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_files_of_many_extents(kind: str, request: pytest.FixtureRequest, seed: int) -> None:
    """More of them than the kernel tells at once, some of which two files share."""
    place: Path = request.getfixturevalue(kind)
    count, step = 200, 4 * BLOCK
    first, second = place / "first", place / "second"
    with first.open("wb") as stream:
        for number in range(count):
            os.pwrite(stream.fileno(), Random(seed + number).randbytes(BLOCK), number * step)
        os.fsync(stream.fileno())
    with first.open("rb") as source, second.open("w+b") as target:
        assert shared_extents(source.fileno()) == []
        fcntl.ioctl(target, FICLONE, source.fileno())
        for number in range(0, count, 2):
            os.pwrite(target.fileno(), b"x" * BLOCK, number * step)
        os.fsync(target.fileno())
        os.sync()
        for opened in (source, target):
            extents = shared_extents(opened.fileno())
            assert len(extents) == count // 2
            assert sum(size for _, size in extents) == covered(extents) == count // 2 * BLOCK
    occupied = Occupancy(reads_extents=True)
    with disk.Closing(disk.open_directory(os.fsencode(place))) as top:
        occupied.add("first", top)
        occupied.add("second", top)
    assert occupied.allocated == sum(path.stat().st_blocks * 512 for path in (first, second))
    assert occupied.doubled == count // 2 * BLOCK
