"""A very small legacy store that nevertheless takes every way a file can go.

Built once, then copied for each fault, so that a sweep of a thousand faults stays quick.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from regrain.ledger import open_ledger
from tests import databases
from tests.compare import Snapshot
from tests.faults.inline import Way, initialise, migrate
from tests.stores import record
from tests.trees import LIVE, LegacyPackage, Tree, describe, package_hash

SHARED = b"bytes that three packages have, in two modes\n"
MEMORY = Path("/dev/shm")
"""Where a flush costs nothing; what a kill leaves is the same as on a disk."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A store that is ready to be migrated, and what its legacy trees are."""

    path: Path
    packages: dict[str, LegacyPackage]
    before: dict[str, Snapshot]

    def named(self, name: str) -> LegacyPackage:
        """The package of this name."""
        (only,) = [package for package in self.packages.values() if package.name == name]
        return only


@contextmanager
def quick_place(fallback: Path) -> Iterator[Path]:
    """A directory on a file system in memory, if there is one."""
    if os.access(MEMORY, os.W_OK) and MEMORY.is_dir():
        with TemporaryDirectory(prefix="regrain-", dir=MEMORY) as place:
            yield Path(place)
    else:
        yield fallback


def _linkable(tree: Tree, name: str) -> None:
    describe(tree, name, "1.0")
    tree.file(LIVE + b"/bin/" + name.encode(), tree.rng.randbytes(700), 0o755)
    tree.file(LIVE + b"/share/shared", SHARED)
    tree.file(LIVE + b"/share/empty", b"")
    tree.symlink(LIVE + b"/share/link", b"../bin/" + name.encode())


def _grouped(tree: Tree, name: str) -> None:
    describe(tree, name, "2.0", sbom=())
    tree.file(LIVE + b"/share/shared", SHARED, 0o755)
    tree.file(LIVE + b"/share/first", b"one inode, two names\n")
    tree.link(LIVE + b"/share/second", LIVE + b"/share/first")
    tree.directory(LIVE + b"/private", 0o700)


def _copied(tree: Tree, name: str) -> None:
    describe(tree, name, "3.0", sbom=())
    tree.file(LIVE + b"/share/wide", b"group may write\n", 0o664)
    tree.sparse(LIVE + b"/share/sparse", [(8192, b"behind a hole")], 12_288, 0o664)
    tree.file(LIVE + b"/share/marked", b"marked\n", xattrs={"user.mark": b"yes"})
    tree.file(LIVE + b"/share/shared", SHARED)


def _sliced(tree: Tree, name: str) -> None:
    describe(tree, name, "4.0", sbom=())
    for number in range(7):
        tree.file(LIVE + b"/share/%d/a" % number, b"%d\n" % number)
    tree.link(LIVE + b"/share/6/b", LIVE + b"/share/0/a")
    tree.file(LIVE + b"/share/raw-\xff", tree.rng.randbytes((1 << 20) + 1))


_PACKAGES = {"linkable": _linkable, "grouped": _grouped, "copied": _copied, "sliced": _sliced}
SLICE_ENTRIES = 7
"""Only ``sliced`` has more regular files than its claim may have in one piece."""


def make_legacy(place: Path, seed: int) -> Scene:
    """Build the packages and nothing else."""
    packages = {}
    for name, fill in _PACKAGES.items():
        label = package_hash(seed, f"small-{name}", 32 if name == "grouped" else 64)
        with Tree(place / label, Random(f"{seed}:small:{name}")) as tree:
            fill(tree, name)
        packages[label] = LegacyPackage(label, place / label, name, "1.0", name)
    return Scene(place, packages, record(packages))


def make_template(place: Path, seed: int) -> Scene:
    """Build the store and initialise it."""
    scene = make_legacy(place, seed)
    initialise(place, SLICE_ENTRIES)
    return scene


def copy_of(template: Scene, place: Path) -> Scene:
    """Copy the template, hard links and times included."""
    subprocess.run(["cp", "-a", "--", template.path, place], check=True)
    databases.follow(place)
    packages = {
        label: LegacyPackage(label, place / label, known.name, known.version, known.what)
        for label, known in template.packages.items()
    }
    return Scene(place, packages, record(packages))


def published_before(template: Scene, place: Path, way: Way) -> Scene:
    """A copy whose packages are published and recorded, but count as pending again."""
    scene = copy_of(template, place)
    migrate(scene.path, way)
    ledger = open_ledger(str(scene.path))
    with ledger._transaction() as connection:
        connection.exec_driver_sql("UPDATE store_migration SET status = 'pending'")
    ledger.close()
    return Scene(scene.path, scene.packages, record(scene.packages))
