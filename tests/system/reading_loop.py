"""A reader in a process of its own: reads every package again and again, and compares.

Called as ``python -m tests.system.reading_loop STORE EXPECTED STOP``: ``EXPECTED`` is a
pickle of the legacy trees, the loop ends at the first pass after ``STOP`` appeared. Prints
one JSON object: passes, reads by layout, errors, mismatches.
"""

from __future__ import annotations

import itertools
import json
import pickle
import sys
import traceback
from collections import Counter
from pathlib import Path

from blake3 import blake3

from regrain import PackageStore
from tests.compare import Snapshot


class Loop:
    """What was read, and what was wrong with it."""

    def __init__(self, store: Path, expected: dict[str, Snapshot]) -> None:
        self.store = PackageStore.open(str(store))
        self.expected = expected
        self.layouts: Counter[str] = Counter()
        self.wrong: list[str] = []
        # opened before the migration, read after it: these must follow the move
        self.old = {name: self.store.get_package(name) for name in expected}

    def one_pass(self, published: Path) -> bool:
        """Read every package; tell whether some but not all were published meanwhile."""
        before = len(list(published.iterdir()))
        for name, tree in self.expected.items():
            try:
                self.package(name, tree)
            except Exception:  # noqa: BLE001 - whatever a reader meets is what is counted here
                self.wrong.append(f"{name}: {traceback.format_exc()}")
        if {package.hash for package in self.store.packages()} != self.expected.keys():
            self.wrong.append("packages() does not name every package")
        return before < len(self.expected) and len(list(published.iterdir())) > 0

    def package(self, name: str, tree: Snapshot) -> None:
        if not self.store.has_package(name):
            self.wrong.append(f"{name}: has_package says no")
        fresh = self.store.get_package(name)
        self.layouts[str(fresh.layout)] += 1
        for package in (fresh, self.old[name]):
            if {bytes(entry.path) for entry in package.files()} != tree.keys():
                self.wrong.append(f"{name}: files() names other paths")
            for path, entry in tree.items():
                if entry.kind == "file" and digest(package.read(path)) != entry.digest:
                    self.wrong.append(f"{name}: {path!r} has other bytes")


def digest(data: bytes) -> str:
    return str(blake3(data).hexdigest())


def main(store: Path, expected: Path, stop: Path) -> None:
    loop = Loop(store, pickle.loads(expected.read_bytes()))
    during = 0
    for count in itertools.count(1):
        last = stop.exists()
        during += loop.one_pass(store / "packages")
        if count == 1:
            stop.with_name("reading").touch()
        if last:
            break
    result = {"passes": count, "during": during, "layouts": loop.layouts, "wrong": loop.wrong[:20]}
    print(json.dumps(result))  # noqa: T201 - this is how the result reaches the test


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:]))
