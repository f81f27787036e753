"""A small legacy store of files that compression treats in every way it can."""

from __future__ import annotations

from pathlib import Path
from random import Random

from tests.faults.inline import initialise
from tests.faults.small import Scene
from tests.stores import record
from tests.trees import LIVE, LegacyPackage, Tree, describe, package_hash

TEXT = b"text that two packages have, and that shrinks well\n" * 900
LARGE = 1_500_000
SHRINKING = (b"/share/text", b"/share/large", b"/bin/program", b"/share/private")
"""Files of ``packed`` whose objects are compressed."""

STAYING = (
    b"/share/random",
    b"/share/small",
    b"/share/sparse",
    b"/share/empty",
)
"""Files of ``packed`` whose objects are not, whatever is asked for."""


def lines(seed: str, size: int) -> bytes:
    """Lines of numbers: they shrink to about a half."""
    rng = Random(seed)
    return b"".join(b"%d\n" % rng.getrandbits(60) for _ in range(size // 18))[:size]


def _packed(tree: Tree, name: str) -> None:
    describe(tree, name, "1.0", sbom=())
    tree.file(LIVE + b"/share/text", TEXT)
    tree.file(LIVE + b"/share/large", lines("large", LARGE))
    tree.file(LIVE + b"/share/private", lines("private", 30_000), 0o600)
    tree.file(LIVE + b"/bin/program", lines("program", 50_000), 0o755)
    tree.link(LIVE + b"/bin/alias", LIVE + b"/bin/program")
    tree.file(LIVE + b"/share/random", tree.rng.randbytes(20_000))
    tree.file(LIVE + b"/share/small", b"small\n" * 100)
    tree.file(LIVE + b"/share/empty", b"")
    tree.sparse(LIVE + b"/share/sparse", [(65_536, TEXT)], 262_144)
    tree.symlink(LIVE + b"/share/link", b"text")


def _sharing(tree: Tree, name: str) -> None:
    describe(tree, name, "2.0", sbom=())
    tree.file(LIVE + b"/share/text", TEXT)
    tree.file(LIVE + b"/share/both", lines("both", 40_000))
    tree.file(LIVE + b"/bin/both", lines("both", 40_000), 0o755)
    tree.file(LIVE + b"/share/wide", lines("wide", 40_000), 0o664)
    tree.file(LIVE + b"/share/marked", lines("marked", 9000), xattrs={"user.mark": b"yes"})


_PACKAGES = {"packed": _packed, "sharing": _sharing}


def make_packed(place: Path, seed: int) -> Scene:
    """Build the store and initialise it."""
    packages = {}
    for name, fill in _PACKAGES.items():
        label = package_hash(seed, f"packed-{name}", 64)
        with Tree(place / label, Random(f"{seed}:packed:{name}")) as tree:
            fill(tree, name)
        packages[label] = LegacyPackage(label, place / label, name, "1.0", name)
    scene = Scene(place, packages, record(packages))
    initialise(place)
    return scene


def compressed_of(store: Path) -> set[str]:
    """The digests of the objects that lie compressed."""
    return {path.name[:64] for path in (store / "objects").glob("*/*.zst")}


def plain_of(store: Path) -> set[str]:
    """The digests of the objects that have a plain carrier."""
    found = (store / "objects").glob("*/*")
    return {path.name[:64] for path in found if path.suffix != ".zst"}
