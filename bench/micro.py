"""Single calls: start-up, reading a file, checking a package out, adding an archive."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from bench.corpus.chosen import copy, sources
from bench.job import BenchError, Command, read_all
from bench.trees import usage

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.rounds import Turns

STARTS = 20
ADDS = 5
CORPUS = "sample"
"""Of which size makes no difference to a single call, so the store is quickly made."""

UNPACK = (
    'mkdir "$1" && tar -xf "$0" -C "$1" && '
    'find "$1" -type f -print0 | xargs -0 -r -n 2000 b3sum >/dev/null'
)
REGRAIN = [sys.executable, "-m", "regrain", "--store"]


def measure_calls(turns: Turns, place: Path) -> None:
    """Measure them all, each beside something that everybody knows."""
    rows: list[dict[str, Any]] = turns.results.document["micro"]

    def add(name: str, unit: str, beside: str, pairs: dict[str, list[float]]) -> None:
        rows.append({"name": name, "unit": unit, "beside": beside, **pairs})
        turns.results.save()
        turns.say(f"  {name}")

    store = place / "store"
    store.mkdir()
    copy(sources(CORPUS, turns.say), store)
    for verb in ("init", "migrate"):
        _run([*REGRAIN, store, verb])
    bare = [sys.executable, "-c", "pass"]
    for words in (["--help"], ["list"], ["status", "--json"]):
        call: Command = [sys.executable, "-m", "regrain", "--store", store, *words]
        name = f"`regrain {' '.join(words)}`, from start to end"
        add(name, "ms", "`python -c pass`", _in_turn(call, bare))
    largest = max(_packages(store), key=lambda path: usage(path).files)
    read_all(store)
    answer = _run([sys.executable, "-m", "bench.reading", store, largest.name])
    beside = {
        "checkout exact": "`cp -a`, process included",
        "checkout shared": "`cp -al`, process included",
    }
    for name, pairs in json.loads(answer).items():
        unit = "ms" if name in beside else "µs"
        add(name, unit, beside.get(name, "open, read, close in the legacy tree"), pairs)
    for form, option in {"plain": "-cf", "zstd": "--zstd -cf"}.items():
        add(
            f"`regrain add` of an archive, {form}, {usage(largest).files:,} files",
            "ms",
            "`tar -x`, then b3sum of every file",
            _additions(largest, place, form, option.split()),
        )


def _packages(store: Path) -> list[Path]:
    digits = set("0123456789abcdef")
    return [path for path in store.iterdir() if path.is_dir() and set(path.name) <= digits]


def _in_turn(ours: Sequence[str | Path], other: Sequence[str | Path]) -> dict[str, list[float]]:
    pairs: dict[str, list[float]] = {"ours": [], "other": []}
    for number in range(STARTS + 1):
        for name, command in (("ours", ours), ("other", other)):
            began = time.perf_counter()
            _run(command)
            if number:
                pairs[name].append((time.perf_counter() - began) * 1e3)
    return pairs


def _additions(package: Path, place: Path, form: str, options: list[str]) -> dict[str, list[float]]:
    """Add one archive to an empty store, in turn with unpacking and hashing it."""
    archive = place / f"{form}.sp"
    _run(["tar", *options, archive, "-C", package, "."])
    pairs: dict[str, list[float]] = {"ours": [], "other": []}
    for number in range(ADDS + 1):
        store, out = place / f"{form}-store", place / "unpacked"
        store.mkdir()
        _run([*REGRAIN, store, "init"])
        steps: dict[str, Command] = {
            "ours": [*REGRAIN, store, "add", archive],
            "other": ["sh", "-c", UNPACK, archive, out],
        }
        for name, command in steps.items():
            began = time.perf_counter()
            _run(command)
            if number:
                pairs[name].append((time.perf_counter() - began) * 1e3)
        if usage(*store.glob("packages/*/files.json")).files != 1:
            raise BenchError(f"the archive is not in {store}")
        _run(["rm", "-rf", store, out])
        _run(["sync"])
    return pairs


def _run(command: Sequence[str | Path]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip()[-600:]
        raise BenchError(f"{' '.join(map(str, command))} ended with {done.returncode}: {said}")
    return done.stdout
