"""What a migration at defaults does to a reader, in paired windows: one beside it, one without.

The reader reads small files of packages that were migrated before, so that nothing about what it
reads changes. In turns the migration works, and is paused; the order changes from pair to pair,
so that a machine that becomes slower or faster speaks for neither side.
"""

from __future__ import annotations

import os
import shutil
import time
from math import comb
from random import Random
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from regrain import PackageStore

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from subprocess import Popen

    from bench.drill.console import Console

PAIRS = 20
READS = 10_000
FILES = 1_000
SMALL = 16 << 10
READ_FROM = 5
"""So many packages, the smallest, are migrated first and read from."""
ROUNDS_MAX = 40
OWN = ("objects", "packages", "temp", "trash", "quarantine", "migration")


class Pair(NamedTuple):
    """Seconds that one read in a hundred exceeded, without the migration and beside it."""

    idle: float
    busy: float


class Ratio(NamedTuple):
    """The median of the pairs' ratios, with an interval that holds it with 95 %."""

    middle: float
    low: float
    high: float


def ratio(pairs: Sequence[Pair]) -> Ratio:
    """Judge the pairs; the interval is that of order statistics, which assumes no distribution."""
    ratios = sorted(pair.busy / pair.idle for pair in pairs)
    below = interval_rank(len(ratios))
    return Ratio(median(ratios), ratios[below - 1], ratios[len(ratios) - below])


def interval_rank(count: int) -> int:
    """Return k: the k-th least and k-th greatest of ``count`` values hold the median with 95 %."""
    rank, outside = 0, 0.0
    while rank < count // 2:
        outside += 2 * comb(count, rank) / 2**count
        if outside > 0.05:
            break
        rank += 1
    return max(rank, 1)


class Reader:
    """Reads small files of some packages, warm, one package opened a read."""

    def __init__(self, store: PackageStore, names: Sequence[str]) -> None:
        random = Random("pairs")
        self._store = store
        files = [
            (name, entry.path)
            for name in names
            for entry in store.get_package(name).files()
            if entry.size and entry.size <= SMALL
        ]
        self._files = random.choices(files, k=FILES)
        self.p99()  # once, so that all is cached

    def p99(self) -> float:
        """Read 10,000 times; return the seconds that one read in a hundred exceeded."""
        taken = []
        for number in range(READS):
            name, path = self._files[number % FILES]
            began = time.perf_counter()
            self._store.get_package(name).read(path)
            taken.append(time.perf_counter() - began)
        return sorted(taken)[READS * 99 // 100]


def measure(console: Console, store: Path) -> list[Pair]:
    """Measure so many pairs, over as many migrations of the same packages as that takes."""
    pairs: list[Pair] = []
    for _ in range(ROUNDS_MAX):
        if len(pairs) >= PAIRS:
            break
        _forget(store)
        console.quietly("init")
        console.quietly("migrate", "--limit", str(READ_FROM))
        opened = PackageStore.open(store)
        names = [str(each.hash) for each in opened.packages() if each.layout.value == "file_level"]
        reader = Reader(opened, names)
        pairs += _measure_one_run(console, reader, PAIRS - len(pairs), len(pairs))
    return pairs


def _measure_one_run(console: Console, reader: Reader, wanted: int, before: int) -> list[Pair]:
    """Measure pairs until there are enough, or the migration is over."""
    pairs: list[Pair] = []
    with console.running("migrate") as run:
        # Told to pause before it began, it would not begin at all.
        console.until(lambda: run.poll() is not None or _holds_the_store(console, run), "it begins")
        try:
            while len(pairs) < wanted:
                found: dict[bool, float] = {}
                # Even pairs begin idle, odd ones busy.
                for is_busy in (False, True) if (before + len(pairs)) % 2 == 0 else (True, False):
                    _steer(console, run, is_busy=is_busy)
                    found[is_busy] = reader.p99()
                    if run.poll() is not None:  # the window was not busy to its end
                        return pairs
                pairs.append(Pair(found[False], found[True]))
                print(f"pair {before + len(pairs)}: {found[True] / found[False]:.2f}", flush=True)
        finally:
            console.quietly("resume")
    return pairs


def _holds_the_store(console: Console, run: Popen[bytes]) -> bool:
    return str(console.status()["running"]).endswith(f" {run.pid}")


def _steer(console: Console, run: Popen[bytes], *, is_busy: bool) -> None:
    """Let the migration work, or hold it; wait until it really does, or is over."""

    def is_so() -> bool:
        if run.poll() is not None:
            return True
        held = bool(console.snapshot().get("throttle_reason"))
        return held is not is_busy and (console.status()["in_progress_packages"] > 0) is is_busy

    console.quietly("resume" if is_busy else "pause")
    console.until(is_so, "the migration goes on" if is_busy else "the migration holds")


def _forget(store: Path) -> None:
    """Make a directory with legacy packages of the store again."""
    for name in os.listdir(store):
        if name in OWN:
            shutil.rmtree(store / name)
        elif name.startswith("state.sqlite") or name == "store.toml":
            (store / name).unlink()
