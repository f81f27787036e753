"""Synthetic stores of growing size: what a file takes must not grow with their number.

Every store is hashed by b3sum first, in the same minute, so that what is said of growth
rests on ratios as well.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from bench.corpus.synthetic import Shape, build
from bench.corpus.wheels import manifest
from bench.deeds import B3SUM
from bench.job import BenchError, Command, read_all
from bench.measure import measure
from bench.trees import usage

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.rounds import Turns

PIECE = 1 << 20
LARGE = 8 << 30
INODES_SPARE = 200_000
BYTES_A_FILE = 12_000
"""What a small file takes, with its share of what regrain adds; on the safe side."""


@dataclass(frozen=True, slots=True)
class Scale:
    """One store.

    Attributes:
        minutes: What it takes on two cores; to foretell.
        packages: How many packages.
        files: Ordinary files in each; 0 makes one file of 8 GiB instead.
        jobs: Worker processes; each is a run of its own.
    """

    minutes: float
    packages: int
    files: int
    jobs: tuple[int, ...] = (0,)


SCALES = {
    "1e4": Scale(0.2, 100, 99),
    "1e5": Scale(0.8, 1_000, 99),
    "1e6": Scale(7, 10_000, 99),
    "3e6": Scale(30, 30_000, 99),
    "jobs": Scale(2.4, 1_000, 99, (1, 2, 4)),
    "many-packages": Scale(12, 100_000, 10),
    "one-package": Scale(9, 1, 1_000_000),
    "one-file": Scale(2, 1, 0),
}
DEFAULT_SCALES = ("1e4", "1e5", "jobs", "1e6")


def measure_growth(turns: Turns, names: Sequence[str], place: Path) -> None:
    """Measure every store that fits, one after the other."""
    for name in names:
        for jobs in SCALES[name].jobs:
            scale = SCALES[name]
            late = time.monotonic() + 60 * scale.minutes / len(scale.jobs) > turns.deadline
            lack = "no time left" if late else _lack(scale, place)
            if lack:
                turns.results.problem(f"scaling, {name}: {lack}")
                continue
            row: dict[str, Any] = {"name": name, "jobs": jobs, "steps": {}}
            turns.results.document["scaling"].append(row)
            turns.say(f"scaling: {name}" + (f", {jobs} jobs" if jobs else ""))
            store = place / "store"
            try:
                _measure_store(turns, scale, store, row)
            except BenchError as error:
                turns.results.problem(f"scaling, {name}: {error}")
            finally:
                turns.results.save()
                # Millions of names: a program of the system's is quicker than Python.
                subprocess.run(["rm", "-rf", store], check=True)
                os.sync()


def _lack(scale: Scale, place: Path) -> str:
    """Say what the file system lacks for a store; empty if nothing."""
    files = scale.packages * (scale.files + 1)
    status = os.statvfs(place)
    size = files * BYTES_A_FILE + LARGE // 4 if scale.files else 3 * LARGE
    if status.f_bavail * status.f_frsize < size:
        return f"needs {size / 1e9:.0f} GB of free space"
    inodes = 2 * files + 4 * scale.packages + INODES_SPARE
    if status.f_files > 0 and status.f_favail < inodes:
        return f"needs {inodes:,} free inodes"
    return ""


def _measure_store(turns: Turns, scale: Scale, store: Path, row: dict[str, Any]) -> None:
    if scale.files:
        shape = Shape(scale.packages, scale.files, sizes="small")
        build(shape, store, lambda line: turns.say(f"  {line}"))
    else:
        _build_large(store)
    packages, files = scale.packages, scale.packages * (scale.files + 1) if scale.files else 2
    row.update(packages=packages, files=files)
    os.sync()
    read_all(store)
    command: Command = [sys.executable, "-m", "regrain", "--store", store]
    jobs = ["--jobs", str(row["jobs"])] if row["jobs"] else []
    steps: dict[str, Command] = {
        "b3sum": ["sh", "-c", B3SUM, store],
        "init": [*command, "init"],
        "migrate": [*command, "migrate", *jobs],
        "verify": [*command, "verify"],
        "status": [*command, "status", "--json"],
    }
    for name, words in steps.items():
        result = measure(words, subprocess.DEVNULL, errors=subprocess.DEVNULL)
        if result.exit_code:
            raise BenchError(f"{name} ended with {result.exit_code}")
        row["steps"][name] = asdict(result)
        turns.say(f"  {name}: {result.wall:.2f} s")
        turns.results.save()
    row["ledger"] = sum(path.stat().st_size for path in store.glob("state.sqlite*"))
    row["added_inodes"] = usage(store / "objects", store / "packages").directories
    answer = subprocess.run(steps["status"], capture_output=True, check=True)
    migrated = json.loads(answer.stdout)
    if (migrated["migrated_packages"], migrated["total_files"]) != (packages, files):
        raise BenchError(f"not all of it was migrated: {migrated}")


def _build_large(store: Path) -> None:
    """Make a package of one file of 8 GiB."""
    package = store / blake3(b"large").hexdigest()
    live = package / "opt/pm/live"
    live.mkdir(parents=True)
    (package / "manifest.toml").write_text(manifest("large", "1"), encoding="utf-8")
    bytes_of = blake3(b"one large file")
    with (live / "data").open("wb") as stream:
        for start in range(0, LARGE, PIECE):
            stream.write(bytes_of.digest(length=PIECE, seek=start))
