"""Stores that fill their disk to 95 % migrate in place, and go back where space allows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from regrain.model.phase import Phase
from regrain.store.root import StoreRoot
from tests import mounts
from tests.command import Regrain
from tests.compare import Snapshot, differences, snapshot
from tests.conftest import remove
from tests.reader import check_store
from tests.trees import Tree, describe, package_hash

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

FILL = 0.95
FLOOR_BYTES = 1_000_000
NOW = ("migrate", "--delete-legacy", "--no-backup")
FILES = 12
SHARED = 24
SIZE_MAX = 150_000
MODES = (0o644, 0o755, 0o664)


@dataclass(frozen=True, slots=True)
class Full:
    """A disk that is nearly full of legacy packages."""

    regrain: Regrain
    before: dict[str, Snapshot]

    @property
    def path(self) -> Path:
        return self.regrain.store


def free_bytes(path: Path) -> int:
    os.sync()
    space = os.statvfs(path)
    return space.f_bavail * space.f_frsize


def build(store: Path, number: int, random: Random, shared: list[bytes]) -> str:
    """A package half of whose files others have, too; a third of its modes mean a copy."""
    label = package_hash(1, f"package-{number}")
    with Tree(store / label, random) as tree:
        describe(tree, f"package-{number}", "1", sbom=())
        for count in range(FILES):
            own = random.randbytes(random.randrange(1000, SIZE_MAX))
            content = random.choice(shared) if random.random() < 0.5 else own
            tree.file(b"opt/pm/live/%d" % count, content, random.choice(MODES))
    return label


@contextmanager
def full_disk(kind: str, ingest: str, folder: Path, seed: int, packages_max: int) -> Iterator[Full]:
    """A disk full of packages, of so many at the most; something else takes the rest."""
    random = Random(f"{seed}:{kind}")
    with mounts.mounted(kind, folder) as point:
        space = os.statvfs(point)
        target = int(space.f_blocks * space.f_frsize * (1 - FILL))
        shared = [random.randbytes(random.randrange(1000, SIZE_MAX)) for _ in range(SHARED)]
        store = point / "store"
        names: list[str] = []
        while free_bytes(point) > target + FILES * SIZE_MAX and len(names) < packages_max:
            names.append(build(store, len(names), random, shared))
        left = free_bytes(point) - target
        (point / "filler").write_bytes(random.randbytes(max(0, left)))
        assert free_bytes(point) <= target * 1.02
        settings = {
            "REGRAIN_STORE__KEEP_OLD_PACKAGES": "false",
            "REGRAIN_STORE__INGEST": ingest,
            "REGRAIN_MIGRATION__SETTLE": "0",
            "REGRAIN_MIGRATION__SPACE_WAIT": "0",
            "REGRAIN_MIGRATION__FREE_BYTES_MIN": str(FLOOR_BYTES),
            "REGRAIN_MIGRATION__FREE_INODES_MIN": "10",
        }
        before = {name: snapshot(store / name) for name in names}
        yield Full(Regrain(store, settings), before)


def check_there_and_back(full: Full, place: Path) -> None:
    regrain, store = full.regrain, full.path
    regrain("init")
    summary = regrain(*NOW, "--json").documents[-1]
    assert summary["completed"] == summary["removed_directories"] == len(full.before)
    assert [name for name in full.before if (store / name).exists()] == []
    regrain("verify", "--level", "deep")
    assert regrain("gc", "--json").document["objects"] == 0
    assert check_store(store).problems == []
    for name, tree in full.before.items():
        regrain("checkout", name, place / "checkout")
        assert differences(tree, snapshot(place / "checkout"), holes=True) == []
        remove(place / "checkout")
    go_back(full)


def go_back(full: Full) -> None:
    """Roll back; where that is refused for want of space, once there is some."""
    regrain, store = full.regrain, full.path
    kept = dict(full.before)
    done = regrain("rollback", code=None)
    if done.code == 5:
        assert "packages need" in done.stderr
        assert "to be left free" in done.stderr
        assert StoreRoot(str(store)).phase() is Phase.DUAL
        for name in sorted(kept)[::2]:
            regrain("remove", name, "--execute")
            del kept[name]
        regrain("gc", "--execute", "--grace", "0")
        regrain("rollback")
    else:
        assert done.code == 0, done
    assert StoreRoot(str(store)).phase() is Phase.ROLLED_BACK
    for name, tree in kept.items():
        assert differences(tree, snapshot(store / name), holes=True) == []


@pytest.mark.parametrize(
    ("kind", "ingest", "packages_max"),
    [
        ("ext4", "copy", 12),
        pytest.param("ext4", "copy", 1000, marks=pytest.mark.slow),
        pytest.param("ext4", "auto", 1000, marks=pytest.mark.slow),
        pytest.param("xfs", "auto", 1000, marks=pytest.mark.slow),
        pytest.param("btrfs", "auto", 1000, marks=pytest.mark.slow),
    ],
)
def test_a_disk_that_is_nearly_full(
    kind: str, ingest: str, packages_max: int, workplace: Path, seed: int
) -> None:
    with full_disk(kind, ingest, workplace, seed, packages_max) as full:
        check_there_and_back(full, workplace)
