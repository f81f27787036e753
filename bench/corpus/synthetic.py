"""Build a legacy store of a stated shape, the same for the same shape and seed.

Files are numbered through the whole store, and arithmetic alone says which of them bring
a new content, so that packages can be built in any order, side by side, and the share of
duplicates comes out exact. A duplicate repeats a content of an earlier package.
"""

from __future__ import annotations

import os
import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blake3 import blake3

from bench.corpus.awkward import add_awkward_entries
from bench.corpus.wheels import UNFINISHED, manifest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

EPOCH = 1_700_000_000
FILES_PER_DIRECTORY = 16
SMALLEST = 24  # bytes; enough for any two contents to differ

# name: (median, spread) of a log-normal size in bytes, and the largest allowed
SIZES: dict[str, tuple[int, float, int]] = {
    "tiny": (64, 0.3, 256),
    "small": (1_500, 1.0, 16 << 10),
    "mixed": (3_000, 1.7, 4 << 20),  # about what the real wheels have
    "large": (4 << 20, 0.8, 64 << 20),
}
PLAIN_MODES = ((0o644, 90), (0o755, 10))
AWKWARD_MODES = ((0o644, 70), (0o755, 10), (0o664, 15), (0o600, 5))


@dataclass(frozen=True, slots=True)
class Shape:
    """What a synthetic store is to look like.

    Attributes:
        packages: How many packages.
        files: Ordinary files in each, besides its manifest.
        duplicates: Share of all ordinary files whose content an earlier file has, 0 to 1.
        sizes: A name from `SIZES`.
        awkward: Add every kind of entry and metadata that is easy to lose.
        seed: Stores of the same shape and seed are identical.
    """

    packages: int
    files: int
    duplicates: float = 0.6
    sizes: str = "mixed"
    awkward: bool = False
    seed: int = 0

    def contents_before(self, file: int) -> int:
        """Count the distinct contents among the first so many files of the store."""
        return file - int(file * self.duplicates)

    def package_hash(self, index: int) -> str:
        """Name a package."""
        return blake3(f"{self.seed}/{index}".encode()).hexdigest()


def build(shape: Shape, store: Path, say: Callable[[str], None]) -> list[str]:
    """Write a synthetic legacy store; packages that exist are left alone.

    Args:
        shape: What to build.
        store: The store's directory, made if absent.
        say: Called with a line of progress now and then, and for each kind of awkward
            entry that this machine cannot make.

    Returns:
        The package hashes.
    """
    store.mkdir(parents=True, exist_ok=True)
    missing_kinds: set[str] = set()
    every = max(1, shape.packages // 10)
    # The umask would otherwise show in the modes of directories.
    with ProcessPoolExecutor(initializer=os.umask, initargs=(0o022,)) as pool:
        arguments = ([shape] * shape.packages, [store] * shape.packages, range(shape.packages))
        for count, skipped in enumerate(pool.map(_build_package, *arguments), start=1):
            missing_kinds.update(skipped)
            if count % every == 0 or count == shape.packages:
                say(f"built {count}/{shape.packages} packages")
    for kind in sorted(missing_kinds):
        say(f"left out, not possible here: {kind}")
    return [shape.package_hash(index) for index in range(shape.packages)]


def content(shape: Shape, number: int) -> bytes:
    """Make the bytes of one distinct content.

    Args:
        shape: The store it belongs to.
        number: Which content; different numbers give different bytes.

    Returns:
        Bytes that compress to about half, as program text does.
    """
    median, spread, largest = SIZES[shape.sizes]
    name = f"{shape.seed}/{number}"
    size = int(median * random.Random(name).lognormvariate(0, spread))
    size = min(max(size, SMALLEST), largest)
    return blake3(name.encode()).digest(length=(size + 1) // 2).hex().encode()[:size]


def _build_package(shape: Shape, store: Path, index: int) -> list[str]:
    """Build one package beside its place and rename it there.

    Returns:
        The kinds of awkward entries that could not be made.
    """
    final = store / shape.package_hash(index)
    if final.exists():
        return []
    package = store / f"{UNFINISHED}{final.name}"
    live = package / "opt/pm/live"
    live.mkdir(parents=True)
    text = manifest(f"synthetic-{index}", f"{shape.seed}.{index}")
    (package / "manifest.toml").write_text(text, encoding="utf-8")
    os.utime(package / "manifest.toml", (EPOCH, EPOCH))
    _add_ordinary_files(shape, live, index)
    chooser = random.Random(f"awkward/{shape.seed}/{index}")
    skipped = add_awkward_entries(live / "awkward", chooser) if shape.awkward else []
    for _, _, _, directory in os.fwalk(package, topdown=False):
        os.utime(directory, ns=(0, EPOCH * 10**9 + shape.awkward * 987_654_321))
    package.rename(final)
    return skipped


def _add_ordinary_files(shape: Shape, live: Path, index: int) -> None:
    """Write a package's numbered files, a few to each directory."""
    chooser = random.Random(f"files/{shape.seed}/{index}")
    modes, weights = zip(*(AWKWARD_MODES if shape.awkward else PLAIN_MODES), strict=True)
    first = index * shape.files
    earlier = shape.contents_before(first)
    for position in range(shape.files):
        group, place = divmod(position, FILES_PER_DIRECTORY)
        directory = live / f"lib/part{group // FILES_PER_DIRECTORY}/unit{group}"
        if place == 0:
            directory.mkdir(parents=True)
        known = shape.contents_before(first + position)
        is_new = shape.contents_before(first + position + 1) > known
        # The first package has only its own contents to repeat.
        number = known if is_new else chooser.randrange(earlier or known)
        (mode,) = chooser.choices(modes, weights)
        mtime = EPOCH + chooser.randrange(10**7)
        _write(f"{directory}/module{position}.py", content(shape, number), mode, mtime)


def _write(path: str, data: bytes, mode: int, mtime: int) -> None:
    """Write one file with its metadata through one descriptor."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, data)
        os.fchmod(descriptor, mode)
        os.utime(descriptor, (mtime, mtime))
    finally:
        os.close(descriptor)
