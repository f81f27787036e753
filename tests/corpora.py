"""Generated legacy stores for predictions: families of versions, no duplicates, tiny files."""

from __future__ import annotations

from pathlib import Path
from random import Random

from tests.trees import LIVE, Tree, describe, package_hash


def _package(store: Path, seed: int, name: str, version: str) -> Tree:
    label = package_hash(seed, f"{name}-{version}")
    tree = Tree(store / label, Random(f"{seed}:{name}:{version}"))
    describe(tree, name, version)
    return tree


def text(random: Random, size: int) -> bytes:
    """Bytes that shrink to about a third."""
    return bytes(random.choices(b"etaoin shrdlu", k=size))


def few_families(store: Path, seed: int) -> None:
    """Three families of four versions; each version changes a fifth of its files."""
    for name in ("alpha", "beta", "gamma"):
        for version in range(4):
            with _package(store, seed, name, f"1.{version}") as tree:
                for index in range(40):
                    since = version if index % 5 == version % 5 else 0
                    own = Random(f"{seed}:{name}:{index}:{since}")
                    size = own.randrange(100, 30_000)
                    data = text(own, size) if index % 2 else own.randbytes(size)
                    tree.file(LIVE + b"/lib/%03d" % index, data)


def no_duplicates(store: Path, seed: int) -> None:
    """Packages that share nothing but the sizes of their files."""
    for number in range(12):
        with _package(store, seed, f"alone{number}", "1.0") as tree:
            for index in range(40):
                tree.file(LIVE + b"/lib/%03d" % index, tree.rng.randbytes(500 * (index + 1)))


def tiny_files(store: Path, seed: int) -> None:
    """Many files of a few bytes, of which few sizes and not many contents exist."""
    for number in range(5):
        with _package(store, seed, f"tiny{number}", "1.0") as tree:
            for index in range(150):
                data = b"%d" % tree.rng.randrange(600) * (1 + index % 7)
                tree.file(LIVE + b"/share/%03d" % index, data)


CORPORA = {"families": few_families, "unique": no_duplicates, "tiny": tiny_files}
