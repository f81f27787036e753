"""The corpora that peers are measured on, and what must be true of them afterwards.

What a tree holds is counted here without regrain and without any peer, so that every
proof rests on something that took no part in the work.
"""

from __future__ import annotations

import os
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.corpus import wheels
from bench.trees import Usage, digest, usage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LISTS = {
    "sample": wheels.DEFAULT_LIST.with_name("sample.txt"),
    "quarter": wheels.DEFAULT_LIST.with_name("quarter.txt"),
    "full": wheels.DEFAULT_LIST,
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What a tree of regular files holds.

    Attributes:
        files: Regular files.
        empty: Those of no bytes.
        symlinks: Symbolic links.
        size: Bytes of all files.
        contents: Distinct contents, the empty one not counted.
        carriers: Distinct pairs of content and mode, the empty one not counted.
        carriers_empty: Distinct modes of empty files.
        executables: Distinct pairs of content and "is executable", the empty one counted.
    """

    files: int
    empty: int
    symlinks: int
    size: int
    contents: int
    carriers: int
    carriers_empty: int
    executables: int


@dataclass(frozen=True, slots=True)
class Corpus:
    """A tree that is measured.

    Attributes:
        name: One of `LISTS`, or what a synthetic tree is called.
        path: A copy of our own; nobody may change it.
        packages: The names of its packages.
        facts: What it holds.
        usage: What it takes on disk.
    """

    name: str
    path: Path
    packages: tuple[str, ...]
    facts: Facts
    usage: Usage


def prepare(name: str, place: Path, say: Callable[[str], None]) -> Corpus:
    """Copy a corpus of real packages to where it will be measured.

    Args:
        name: One of `LISTS`.
        place: Where the copy goes; must not exist.
        say: Called with a line of progress.

    Returns:
        The copy. What it was copied from stays as it is in the user's cache, and is built
        there first if it is not there.
    """
    packages = sources(name, say)
    say(f"copying the {name} corpus: {len(packages)} packages")
    place.mkdir(parents=True)
    copy(packages, place)
    return measured(name, place)


def sources(name: str, say: Callable[[str], None]) -> list[Path]:
    """Have the packages of a corpus in the user's cache; nobody may change them there."""
    cache = wheels.cache_root()
    files = wheels.fetch(wheels.read_list(LISTS[name]), cache / "wheels", say)
    return [cache / "legacy" / package for package in wheels.build(files, cache / "legacy", say)]


def copy(sources: Sequence[Path], place: Path) -> None:
    """Copy trees into a directory with all their metadata, and settle them on disk."""
    subprocess.run(["cp", "-a", "--reflink=never", *sources, place], check=True)
    os.sync()


def measured(name: str, place: Path) -> Corpus:
    """Look at a tree that is there."""
    packages = tuple(sorted(os.listdir(place)))
    return Corpus(name, place, packages, facts(place), usage(place))


def facts(root: Path) -> Facts:
    """Count what a tree holds, reading every file."""
    files = empty = symlinks = size = 0
    contents: set[bytes] = set()
    carriers: set[tuple[bytes, int]] = set()
    modes_empty: set[int] = set()
    executables: set[tuple[bytes, bool]] = set()
    for directory, _, names in os.walk(root):
        for name in names:
            path = Path(directory, name)
            status = path.lstat()
            if stat.S_ISLNK(status.st_mode):
                symlinks += 1
                continue
            files += 1
            size += status.st_size
            mode = stat.S_IMODE(status.st_mode)
            content = digest(path) if status.st_size else b""
            executables.add((content, bool(mode & stat.S_IXUSR)))
            if status.st_size:
                contents.add(content)
                carriers.add((content, mode))
            else:
                empty += 1
                modes_empty.add(mode)
    return Facts(
        files=files,
        empty=empty,
        symlinks=symlinks,
        size=size,
        contents=len(contents),
        carriers=len(carriers),
        carriers_empty=len(modes_empty),
        executables=len(executables),
    )
