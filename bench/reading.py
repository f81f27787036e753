"""Time calls of the library in one process: ``python -m bench.reading``, run by `bench.micro`.

A process of its own, so that nothing but a reader's code is loaded. Windows of regrain and
of what it is compared with alternate; each prints its microseconds a call.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from regrain import PackageStore

if TYPE_CHECKING:
    from collections.abc import Callable

SMALL = 16 << 10
CHOICES = 1_000
WINDOWS = 20
READS = 2_000
CHECKOUTS = 5

Pairs = dict[str, list[float]]


def main() -> None:
    """Measure the store named by the first argument; the second is the largest package's hash."""
    path, largest = Path(sys.argv[1]), sys.argv[2]
    report = {
        **_readings(path),
        "checkout exact": _checkouts(path, largest, "exact", ["cp", "-a", "--reflink=never"]),
        "checkout shared": _checkouts(path, largest, "shared", ["cp", "-al"]),
    }
    json.dump(report, sys.stdout)


def _readings(path: Path) -> dict[str, Pairs]:
    """Read small files, package by package, and the same files of the legacy tree."""
    store = PackageStore.open(path)
    chosen = _small_files(store)

    def both(name: str, file: bytes) -> None:
        store.get_package(name).read(file)

    def alone(name: str, _: bytes) -> None:
        store.get_package(name)

    def bare(name: str, file: bytes) -> None:
        descriptor = os.open(os.path.join(os.fsencode(path / name), file), os.O_RDONLY)
        try:
            os.read(descriptor, SMALL + 1)
        finally:
            os.close(descriptor)

    kept = store.get_package(chosen[0][0])
    own = [file for name, file in chosen if name == chosen[0][0]]

    def again(number: int) -> None:
        kept.read(own[number % len(own)])

    calls: dict[str, Callable[[int], None]] = {
        "get_package, read a small file": lambda i: both(*chosen[i % CHOICES]),
        "get_package": lambda i: alone(*chosen[i % CHOICES]),
        "read a small file of a package that is kept": again,
    }
    return {
        name: _windows(call, lambda i: bare(*chosen[i % CHOICES])) for name, call in calls.items()
    }


def _small_files(store: PackageStore) -> list[tuple[str, bytes]]:
    files = [
        (str(package.hash), entry.path)
        for package in store.packages()
        for entry in package.files()
        if entry.size and entry.size <= SMALL
    ]
    return random.Random("reading").choices(files, k=CHOICES)


def _windows(ours: Callable[[int], None], other: Callable[[int], None]) -> Pairs:
    """Time both in turns; the first window of each only warms."""
    pairs: Pairs = {"ours": [], "other": []}
    for window in range(WINDOWS + 1):
        for name, call in (("ours", ours), ("other", other)):
            began = time.perf_counter()
            for number in range(READS):
                call(number)
            if window:
                pairs[name].append((time.perf_counter() - began) / READS * 1e6)
    return pairs


def _checkouts(path: Path, package: str, mode: str, copy: list[str]) -> Pairs:
    """Check a package out, in milliseconds, beside a copy of its legacy directory."""
    store = PackageStore.open(path)
    out = path.parent / "out"
    pairs: Pairs = {"ours": [], "other": []}
    for window in range(CHECKOUTS + 1):
        began = time.perf_counter()
        store.get_package(package).checkout(out, mode=mode)
        middle = time.perf_counter()
        shutil.rmtree(out)
        os.sync()
        begun = time.perf_counter()
        subprocess.run([*copy, path / package, out], check=True)
        ended = time.perf_counter()
        shutil.rmtree(out)
        os.sync()
        if window:
            pairs["ours"].append((middle - began) * 1e3)
            pairs["other"].append((ended - begun) * 1e3)
    return pairs


if __name__ == "__main__":
    main()
