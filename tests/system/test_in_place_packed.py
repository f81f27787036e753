"""Disks full to 95 % of versions much alike: migrated in place, compressed, and back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from tests import mounts
from tests.command import Regrain
from tests.compare import differences, snapshot
from tests.conftest import remove
from tests.packed import compressed_of, lines, plain_of
from tests.reader import check_store
from tests.system.test_in_place_disks import FILL, NOW, Full, free_bytes, go_back
from tests.trees import LIVE, Tree, describe, package_hash

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(600)]

FREE_SHARE = 0.60
FAMILIES, FILES = 6, 12
CHANGED = 3
"""Files of a version that the one before it had not."""

SIZES = (700, 9000, 60_000, 300_000)
PACKAGE_BYTES_MAX = FILES * max(SIZES)


def build(store: Path, number: int, contents: list[bytes], random: Random) -> str:
    """The next version of a family: a few files are new, a few are no text."""
    for place in random.sample(range(FILES), CHANGED if contents else FILES):
        size = random.choice(SIZES)
        is_text = random.random() < 0.9
        new = lines(f"{number}:{place}", size) if is_text else random.randbytes(size)
        contents[place:place] = [new]
        del contents[FILES:]
    label = package_hash(2, f"version-{number}")
    with Tree(store / label, random) as tree:
        describe(tree, f"family-{number % FAMILIES}", str(number), sbom=())
        for place, content in enumerate(contents):
            tree.file(LIVE + b"/%d" % place, content, random.choice((0o644, 0o755, 0o664)))
        tree.link(LIVE + b"/link", LIVE + b"/0")
        tree.symlink(LIVE + b"/symlink", b"0")
    return label


@contextmanager
def full_disk(kind: str, folder: Path, seed: int) -> Iterator[tuple[Full, int]]:
    """A disk full of packages, and how many bytes were free before them.

    What it gives nobody, btrfs a good part of a small disk, is no share of it.
    """
    random = Random(f"{seed}:{kind}:packed")
    with mounts.mounted(kind, folder) as point:
        room = free_bytes(point)
        limit = int(room * (1 - FILL))
        store = point / "store"
        families: list[list[bytes]] = [[] for _ in range(FAMILIES)]
        names: list[str] = []
        while free_bytes(point) > limit + PACKAGE_BYTES_MAX:
            number = len(names)
            names.append(build(store, number, families[number % FAMILIES], random))
        rest = free_bytes(point) - limit
        (point / "filler").write_bytes(random.randbytes(max(0, rest)))
        settings = {
            "REGRAIN_STORE__KEEP_OLD_PACKAGES": "false",
            "REGRAIN_STORE__COMPRESSION": "zstd",
            "REGRAIN_MIGRATION__SETTLE": "0",
            "REGRAIN_MIGRATION__SPACE_WAIT": "0",
            "REGRAIN_MIGRATION__FREE_BYTES_MIN": "1000000",
            "REGRAIN_MIGRATION__FREE_INODES_MIN": "10",
        }
        before = {name: snapshot(store / name) for name in names}
        yield Full(Regrain(store, settings), before), room


def check_all(full: Full, place: Path) -> None:
    """Every package can be had back, and nothing is wrong with the store."""
    full.regrain("verify", "--level", "deep")
    assert check_store(full.path).problems == []
    for name, tree in full.before.items():
        full.regrain("checkout", name, place / "checkout")
        assert differences(tree, snapshot(place / "checkout"), holes=True) == []
        remove(place / "checkout")


def represent(full: Full, representation: str) -> None:
    """Bring the objects to how they are to lie; everything came in compressed."""
    store = full.path
    assert compressed_of(store)
    if representation == "zstd":
        return
    full.regrain("repack", "--compress", "none", "--execute")
    assert compressed_of(store) == set()
    if representation == "cold":
        first = min(full.before)
        full.regrain("checkout", first, store.parent / "hot", "--mode", "shared")
        full.regrain("repack", "--compress", "cold", "--execute")
        hot = {path.stat().st_ino for path in (store.parent / "hot").rglob("*")}
        mine = {path.stat().st_ino for path in (store / "objects").glob("*/*")}
        assert hot & mine
        assert compressed_of(store)
        assert not compressed_of(store) & plain_of(store)


@pytest.mark.parametrize(
    ("kind", "representation"),
    [("ext4", "zstd"), ("ext4", "none"), ("ext4", "cold"), ("xfs", "zstd"), ("btrfs", "zstd")],
)
def test_most_of_the_disk_is_free_at_the_end(
    kind: str, representation: str, workplace: Path, seed: int
) -> None:
    with full_disk(kind, workplace, seed) as (full, room):
        full.regrain("init")
        full.regrain(*NOW)
        assert [name for name in full.before if (full.path / name).exists()] == []
        (full.path.parent / "filler").unlink()
        free = free_bytes(full.path)
        assert free > FREE_SHARE * room, f"{free / room:.1%} free"
        represent(full, representation)
        check_all(full, workplace)
        go_back(full)
