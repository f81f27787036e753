"""How a ledger grows: ``python -m bench.growth PLACE [--files 1e4,1e5,1e6,1e7] [--database URL]``.

Makes ledgers as migrations of growing size would leave them, through the ledger's own functions
and without any files: packages of a hundred files, of which half bring a new content. Measures
what the ledger takes, and how long the questions take that regrain asks it, and says what a
straight line through the logarithms of the last four means for 10⁹ files. Prints a table, and
leaves ``growth.json`` in PLACE.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import sys
import time
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from blake3 import blake3

from regrain.ledger import Claim, NewCarrier, Outcome, Scanned, open_ledger
from regrain.ledger.upkeep import inspection_of
from regrain.model import clock, layout, whereabouts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from regrain.ledger import Ledger

FILES_A_PACKAGE = 100
NEW_A_PACKAGE = 50
PACKAGES_A_BATCH = 100
CLAIMED = 10
FILE_SIZE = 10_000
ROUNDS = 3
HORIZON = 1e9
FITTED = 4
"""Points that the line goes through: the last ones, since small ledgers fit into any cache."""
STUDENT = {1: 12.71, 2: 4.30, 3: 3.18}
"""Of so many degrees of freedom, the quantile that holds 95 % on both sides."""
CONSTANT = {"open, s", "peak memory, MB"}
"""Most of it is there with the smallest ledger; a power law would say nothing."""
SECONDS_A_FILE = 5e-5
"""To foretell; ten times as much where the ledger is larger than the memory."""

Figures = dict[str, float]


class Fit(NamedTuple):
    """A power law, and what it says of the horizon.

    Attributes:
        exponent: 1 where twice the files take twice as much.
        there: The value at ``HORIZON`` files.
        factor: By what the truth may be more or less, with 95 %, if it is a power law and the
            points' own deviation is all there is.
    """

    exponent: float
    there: float
    factor: float


def main(arguments: list[str] | None = None) -> int:
    """Run it."""
    options = _parser().parse_args(arguments)
    sizes = sorted(int(float(word)) for word in options.files.split(","))
    print(f"about {sizes[-1] * SECONDS_A_FILE:.0f} s, more if the disk is slow", flush=True)
    store = options.place / "growth"
    (store / layout.MIGRATION).mkdir(parents=True)
    whereabouts.choose(str(store), options.database)
    found: dict[int, Figures] = {}
    packages = 0
    ledger = open_ledger(str(store), create=True)
    try:
        for size in sizes:
            last = packages
            packages = size // FILES_A_PACKAGE
            seconds = _fill(ledger, last, packages)
            found[size] = _figures(ledger, store, packages)
            found[size]["recording a file, µs"] = (
                1e6 * seconds / max(1, (packages - last) * FILES_A_PACKAGE)
            )
            print(f"{size:,} files: {json.dumps(found[size])}", flush=True)
    finally:
        ledger.close()
    (options.place / "growth.json").write_text(json.dumps(found, indent=1))
    print("\n".join(table(found)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=__doc__)
    parser.add_argument("place", type=Path, help="an existing directory; works in PLACE/growth")
    parser.add_argument("--files", default="1e4,1e5,1e6")
    parser.add_argument("--database", help="postgresql+psycopg://…; default: SQLite")
    return parser


# a ledger that looks used


def _fill(ledger: Ledger, first: int, end: int) -> float:
    """Add the packages of these numbers; return the seconds that recording them took."""
    began, took = time.perf_counter(), 0.0
    for at in range(first, end, PACKAGES_A_BATCH):
        numbers = range(at, min(end, at + PACKAGES_A_BATCH))
        ledger.queue(_scanned(number) for number in numbers)
        claims = ledger.claim(len(numbers))
        prepared = [_outcome(claim, number) for claim, number in zip(claims, numbers, strict=True)]
        carriers = [carrier for number in numbers for carrier in _carriers(number)]
        start = time.perf_counter()
        ledger.record(prepared, carriers)
        took += time.perf_counter() - start
        if sys.stderr.isatty():
            seconds = time.perf_counter() - began
            sys.stderr.write(f"\r{at:,} of {end:,} packages, {seconds:.0f} s ")
    return took


def _hash(kind: str, number: int) -> bytes:
    return blake3(f"{kind}{number}".encode()).digest()


def _scanned(number: int) -> Scanned:
    size = FILES_A_PACKAGE * FILE_SIZE
    name = _hash("package", number).hex()
    return Scanned(
        name, f"name-{number % 977}", "1.0", FILES_A_PACKAGE, FILES_A_PACKAGE + 9, size, size
    )


def _carriers(number: int) -> list[NewCarrier]:
    first = number * NEW_A_PACKAGE
    return [
        NewCarrier(
            _hash("file", file),
            0o644,
            is_bare=True,
            mtime_ns=10**18 + file,
            size=FILE_SIZE,
            allocated=12_288,
        )
        for file in range(first, first + NEW_A_PACKAGE)
    ]


def _outcome(claim: Claim, number: int) -> Outcome:
    """A package whose other files are some that came before, of any age."""
    own = number * NEW_A_PACKAGE
    files = {*range(own, own + NEW_A_PACKAGE)}
    random = Random(number)
    files |= {random.randrange(own + NEW_A_PACKAGE) for _ in range(FILES_A_PACKAGE - NEW_A_PACKAGE)}
    name = claim.package_hash
    digests = sorted(_hash("file", file) for file in files)
    return Outcome(
        claim, name, name, digests, claim.files, claim.size, claim.size // 2, 50, verified=True
    )


# what is asked of it


def _figures(ledger: Ledger, store: Path, packages: int) -> Figures:
    digest = _hash("file", packages)
    shard = f"{digest[0]:02x}"
    questions: dict[str, Callable[[], object]] = {
        "status: sums, s": ledger.totals,
        "status: sizes, s": ledger.weights,
        "a run begins: what is known, s": ledger.standings,
        "gc: what nobody has, s": lambda: ledger.unreferenced(clock.now()),
        "doctor: one shard of 256, s": lambda: ledger.carriers_in(shard),
        "owners of an object, s": lambda: ledger.owners(digest),
        "what removing a package frees, s": lambda: ledger.exclusive(_hash("package", 0).hex()),
        "open, s": lambda: open_ledger(str(store), read_only=True).close(),
    }
    found = {name: _seconds(question) for name, question in questions.items()}
    found["bytes a file"] = _size(store) / (packages * FILES_A_PACKAGE)
    found["peak memory, MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    return found


def _seconds(question: Callable[[], object]) -> float:
    took = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        question()
        took.append(time.perf_counter() - began)
    return round(statistics.median(took), 6)


def _size(store: Path) -> int:
    told = inspection_of(str(store)).description()
    if "bytes" in told:
        return int(str(told["bytes"]))
    return sum(path.stat().st_size for path in store.glob(f"{layout.LEDGER}*"))


# what a line through it says


def fit(points: Sequence[tuple[float, float]]) -> Fit:
    """Return the power law through points of files and a value, both above 0.

    Least squares of the logarithms; the error is that of a prediction by such a line, and infinite
    where two points leave nothing to judge by.
    """
    xs, ys = [math.log(x) for x, _ in points], [math.log(y) for _, y in points]
    line = statistics.linear_regression(xs, ys)
    middle, spread = statistics.fmean(xs), sum((x - statistics.fmean(xs)) ** 2 for x in xs)
    rest = [y - line.intercept - line.slope * x for x, y in zip(xs, ys, strict=True)]
    there = math.log(HORIZON)
    factor = math.inf
    if len(points) > 2:
        deviation = math.sqrt(sum(r * r for r in rest) / (len(points) - 2))
        error = deviation * math.sqrt(1 + 1 / len(points) + (there - middle) ** 2 / spread)
        factor = math.exp(STUDENT[len(points) - 2] * error)
    return Fit(line.slope, math.exp(line.intercept + line.slope * there), factor)


def table(found: dict[int, Figures]) -> list[str]:
    """Return the figures in Markdown, a column a size, and what they say of the horizon."""
    sizes = list(found)
    heads = [f"{size:,} files" for size in sizes]
    lines = [
        f"| | {' | '.join(heads)} | grows with files to the | at 10⁹ |",
        f"|---|{'---:|' * (len(sizes) + 2)}",
    ]
    for name in found[sizes[0]]:
        values = [found[size][name] for size in sizes]
        law = ["", ""]
        if len(sizes) > 1 and all(values) and name not in CONSTANT:
            line = fit(list(zip(map(float, sizes), values, strict=True))[-FITTED:])
            law = [
                f"{line.exponent:.2f}",
                f"{line.there:,.3g} (within a factor of {line.factor:.2g})",
            ]
        lines.append(f"| {name} | {' | '.join(f'{v:.3g}' for v in values)} | {' | '.join(law)} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
