"""Measure regrain beside hashing and linking the same tree: ``make bench``.

Everything runs in turn on one file system with a warm page cache: b3sum over every file,
`cp -al` of the tree, then `regrain init`, `migrate` and `verify` on a fresh copy of it.
Absolute times drift from day to day; the ratios to b3sum of the same round do not. Every
step must prove that it did the work, else there are no figures.
"""

from __future__ import annotations

import argparse
import compileall
import importlib.util
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from blake3 import blake3

from bench.corpus import wheels
from bench.measure import Measurement, measure
from bench.trees import Usage, usage

B3SUM = 'find "$0" -type f -print0 | xargs -0 -n 2000 b3sum --num-threads 2'
BASELINE = "b3sum"
DIGITS = 64

Round = dict[str, Measurement]


class BenchError(Exception):
    """A step failed, or did not do the work it was measured for."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """The tree that is measured, and what a migration of it must come to."""

    path: Path
    packages: int
    usage: Usage


def main() -> int:
    """Run the benchmark; the table goes to stdout, progress to stderr.

    Returns:
        The exit code.
    """
    options = _parser().parse_args()
    try:
        _check_machine()
        options.directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=options.directory, prefix="run-") as directory:
            corpus = _corpus(options.corpus, Path(directory))
            rounds, objects = [], 0
            for number in range(1, options.rounds + 1):
                _say(f"round {number} of {options.rounds}")
                results, objects = _round(corpus, Path(directory))
                rounds.append(results)
    except (BenchError, wheels.WheelError, OSError, subprocess.CalledProcessError) as error:
        _say(f"bench.first: {error}")
        return 1
    target = options.json or options.directory / "first.json"
    target.write_text(json.dumps(_report(corpus, rounds, objects), indent=2) + "\n")
    print(_table(corpus, rounds, objects))
    _say(f"written to {target}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.first", description=__doc__)
    cache = wheels.cache_root()
    parser.add_argument("--directory", type=Path, default=cache / "run", help="works here")
    parser.add_argument(
        "--corpus", type=Path, default=cache / "legacy", help="built there if absent"
    )
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", type=Path, help="default: first.json in the directory")
    return parser


def _check_machine() -> None:
    """Refuse before the long preparations what cannot end well."""
    if not shutil.which("b3sum"):
        raise BenchError("b3sum is not installed, and every figure is a ratio to it")
    module = importlib.util.find_spec("regrain")
    if module is None or not module.submodule_search_locations:
        raise BenchError("regrain is not installed in this Python")
    for place in module.submodule_search_locations:
        compileall.compile_dir(place, quiet=1)  # else the first run would be timed compiling


def _corpus(source: Path, directory: Path) -> Corpus:
    """Build the corpus if absent, and copy it to where the peers will read it."""
    files = wheels.fetch(wheels.read_list(), wheels.cache_root() / "wheels", _say)
    packages = wheels.build(files, source, _say)
    _expect("packages in the corpus", len(os.listdir(source)), len(packages))
    copy = _fresh_copy(source, directory / "peers")
    return Corpus(copy, len(packages), usage(copy))


def _fresh_copy(source: Path, copy: Path) -> Path:
    """Copy the corpus and settle the copy on disk."""
    _say(f"copying the corpus: {copy.name}")
    subprocess.run(["cp", "-a", source, copy], check=True)
    os.sync()
    return copy


def _warm(tree: Path) -> None:
    """Read everything once, just before it is measured.

    Not once for all: some kernels take cold pages away even where memory is free.
    """
    subprocess.run(["sh", "-c", B3SUM, tree], check=True, stdout=subprocess.DEVNULL)


def _round(corpus: Corpus, directory: Path) -> tuple[Round, int]:
    """Run every step once.

    Returns:
        The measurements by step, and the number of objects.
    """
    results: Round = {}
    _warm(corpus.path)
    results[BASELINE], objects = _hash_all(corpus)
    results["cp -al"] = _link_all(corpus, directory / "linked")
    store = _fresh_copy(corpus.path, directory / "store")
    _warm(store)
    for name in ("init", "migrate", "verify"):
        results[f"regrain {name}"] = _step(
            f"regrain {name}", [*_regrain(store), name], subprocess.DEVNULL
        )
        if name == "migrate":
            _check_migrated(corpus, store, objects)
    shutil.rmtree(store)
    results["regrain init + migrate"] = results["regrain init"] + results["regrain migrate"]
    return results, objects


def _step(name: str, command: list[str | Path], output: int) -> Measurement:
    result = measure(command, output)
    _say(f"{name}: {result.wall:.2f} s")
    if result.exit_code:
        raise BenchError(f"{name} ended with {result.exit_code}")
    return result


def _hash_all(corpus: Corpus) -> tuple[Measurement, int]:
    """Hash every file, and count the objects that its output calls for."""
    with tempfile.TemporaryFile() as output:
        result = _step(BASELINE, ["sh", "-c", B3SUM, corpus.path], output.fileno())
        output.seek(0)
        hashes = [line.removeprefix(b"\\")[:DIGITS] for line in output]
    _expect("b3sum's lines", len(hashes), corpus.usage.files)
    return result, len(set(hashes) - {blake3().hexdigest().encode()})


def _link_all(corpus: Corpus, copy: Path) -> Measurement:
    """Link every file, then take the links away again."""
    result = _step("cp -al", ["cp", "-al", corpus.path, copy], subprocess.DEVNULL)
    _expect("cp -al's files", usage(copy).files, corpus.usage.files)
    shutil.rmtree(copy)
    os.sync()
    return result


def _check_migrated(corpus: Corpus, store: Path, objects: int) -> None:
    """Let the disk say, and not only regrain, that all was migrated."""
    names = {path.name[:DIGITS] for path in (store / "objects").glob("*/*")}
    _expect("objects", len(names), objects)
    _expect("file lists", len(list(store.glob("packages/*/files.json"))), corpus.packages)
    answer = subprocess.run(
        [*_regrain(store), "status", "--json"], check=True, capture_output=True, text=True
    )
    status = json.loads(answer.stdout)
    _expect("migrated packages", status["migrated_packages"], corpus.packages)
    _expect("packages", status["total_packages"], corpus.packages)
    _expect("failed packages", status["failed_packages"], 0)


def _expect(what: str, found: int, wanted: int) -> None:
    if found != wanted:
        raise BenchError(f"{what}: found {found:,}, expected {wanted:,}")


def _regrain(store: Path) -> list[str | Path]:
    return [sys.executable, "-m", "regrain", "--store", store]


def _values(rounds: list[Round], name: str, field: str) -> list[float]:
    return [float(getattr(results[name], field)) for results in rounds]


def _median(rounds: list[Round], name: str, field: str) -> float:
    return statistics.median(_values(rounds, name, field))


def _ratios(rounds: list[Round], name: str, field: str) -> list[float]:
    """Divide a step's figures by the baseline's of the same rounds."""
    pairs = zip(_values(rounds, name, field), _values(rounds, BASELINE, field), strict=True)
    return [value / baseline for value, baseline in pairs]


def _spread(ratios: list[float]) -> str:
    """Write a median, with its range if there is more than one value."""
    text = f"{statistics.median(ratios):.2f}"
    return f"{text} ({min(ratios):.2f}-{max(ratios):.2f})" if len(ratios) > 1 else text


def _table(corpus: Corpus, rounds: list[Round], objects: int) -> str:
    """Write the results as Markdown."""
    files, allocated = corpus.usage.files, corpus.usage.allocated / 1e9
    conditions = f"warm, {os.cpu_count()} cores, {len(rounds)} round(s), medians"
    lines = [
        f"{corpus.packages} packages, {files:,} files, {objects:,} objects,",
        f"{allocated:.2f} GB allocated; {conditions}",
        "",
        "| step | wall s | ÷ b3sum | CPU s | ÷ b3sum | peak MB, tree | largest process |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name in rounds[0]:
        cells = [
            name,
            f"{_median(rounds, name, 'wall'):.2f}",
            _spread(_ratios(rounds, name, "wall")),
            f"{_median(rounds, name, 'cpu'):.2f}",
            _spread(_ratios(rounds, name, "cpu")),
            f"{_median(rounds, name, 'peak_tree') / 1e6:.0f}",
            f"{_median(rounds, name, 'peak_process') / 1e6:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _report(corpus: Corpus, rounds: list[Round], objects: int) -> dict[str, object]:
    """Collect what the table shows and what it leaves out, for scripts."""
    return {
        "schema": 1,
        "machine": {
            "cpus": os.cpu_count(),
            "kernel": platform.release(),
            "python": platform.python_version(),
        },
        "corpus": {
            "packages": corpus.packages,
            "objects": objects,
            **asdict(corpus.usage),
        },
        "rounds": [
            {name: asdict(result) for name, result in results.items()} for results in rounds
        ],
        "median_ratios_to_b3sum": {
            name: {
                field: round(statistics.median(_ratios(rounds, name, field)), 3)
                for field in ("wall", "cpu")
            }
            for name in rounds[0]
        },
    }


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
