"""Build a legacy store without a network, from what this Python has installed.

The standard library and the installed distributions become packages, each in several
releases: the later ones repeat all files but a few, as releases do.
"""

from __future__ import annotations

import os
import shutil
import sysconfig
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from blake3 import blake3

from bench.corpus.wheels import LIVE, UNFINISHED, manifest

if TYPE_CHECKING:
    from collections.abc import Callable

RELEASES = 3
CHANGED = 12  # of so many files, a later release changes one
BUDGET = 16_000_000  # bytes of one release of everything
LEFT_OUT = {"__pycache__", "site-packages", "dist-packages", "test", "tests", "idlelib"}

Files = dict[str, Path]


def build(store: Path, say: Callable[[str], None]) -> list[str]:
    """Build the packages.

    Args:
        store: The store's directory, made if absent.
        say: Called with a line for each package that was built.

    Returns:
        The package hashes.
    """
    store.mkdir(parents=True, exist_ok=True)
    names = []
    for name, files in _sources().items():
        for release in range(RELEASES):
            names.append(_build_package(store, name, release, files))
            say(f"built {name} 1.{release}: {len(files) + 1} files")
    return names


def _sources() -> dict[str, Files]:
    """Choose what to make packages of: the smallest first, up to the budget."""
    candidates = {"python-library": _standard_library()}
    for distribution in metadata.distributions():
        candidates.setdefault(distribution.name, _distribution(distribution))
    sizes = {
        name: sum(path.stat().st_size for path in files.values())
        for name, files in candidates.items()
    }
    chosen, total = {}, 0
    for name in sorted(candidates, key=lambda name: (sizes[name], name)):
        total += sizes[name]
        if candidates[name] and total <= BUDGET:
            chosen[name] = candidates[name]
    return chosen


def _standard_library() -> Files:
    root = Path(sysconfig.get_path("stdlib"))
    files = {}
    for path, directories, names in os.walk(root):
        directories[:] = sorted(set(directories) - LEFT_OUT)
        for name in names:
            if name.endswith(".py"):
                file = Path(path, name)
                files[str(file.relative_to(root))] = file
    return files


def _distribution(distribution: metadata.Distribution) -> Files:
    files = {}
    for entry in distribution.files or ():
        path = Path(str(distribution.locate_file(entry)))
        # Some lists name commands outside their directory, and files made later.
        if ".." not in entry.parts and "__pycache__" not in entry.parts and path.is_file():
            files[str(entry)] = path
    return files


def _build_package(store: Path, name: str, release: int, files: Files) -> str:
    """Build one release beside its place and rename it there.

    Returns:
        Its package hash.
    """
    version = f"1.{release}"
    package_hash = blake3(f"{name} {version}".encode()).hexdigest()
    package = store / f"{UNFINISHED}{package_hash}"
    for number, (relative, source) in enumerate(sorted(files.items())):
        target = package / LIVE / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)
        if release and (number + release) % CHANGED == 0:
            with target.open("ab") as file:
                file.write(f"\n# release {version}\n".encode())
    (package / "manifest.toml").write_text(manifest(name, version), encoding="utf-8")
    package.rename(store / package_hash)
    return package_hash
