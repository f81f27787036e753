"""Rehearse the operation of a store in use: ``make drill``.

Every step is asserted, and what was said is written to docs/drill.md with date and machine. What
a migration does to readers is measured beside that, and not asserted: a figure of a machine.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import regrain
from bench.corpus import local
from bench.drill.console import ROOT, STORE, Console, DrillError
from bench.drill.pairs import PAIRS, READ_FROM, READS, Pair, measure, ratio
from bench.drill.steps import PRESSURE, run_all, set_the_scene
from bench.trees import usage

MARKER = ".regrain-drill"
DEFAULT_DIRECTORY = ROOT / "build" / "drill"
DEFAULT_PAGE = ROOT / "docs" / "drill.md"
ALLOWED = 1.2


def main() -> int:
    """Run the drill; return 0 only if every step ended as it must."""
    options = _parser().parse_args()
    console = Console(options.directory)
    try:
        _prepare(options.directory)
        names = _build(options.directory / STORE, None)
        total = usage(options.directory / STORE)
        run_all(set_the_scene(console, names))
        pages = [*_introduction(len(names), total.allocated), *console.pages]
        _write(options.output, pages)  # also where the windows take too long for somebody
        if not options.without_pairs:
            _write(options.output, [*pages, *_pairs(options.directory / "pairs", options.corpus)])
    except (DrillError, OSError) as error:
        print(f"\nThe drill failed: {error}", flush=True)
        return 1
    shutil.rmtree(options.directory)
    print(f"\nThe drill ended as it must; see {os.path.relpath(options.output)}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.drill", description=__doc__)
    parser.add_argument("--directory", type=Path, default=DEFAULT_DIRECTORY, help="works here")
    parser.add_argument("--output", type=Path, default=DEFAULT_PAGE, help="the page to write")
    parser.add_argument(
        "--corpus", type=Path, help="legacy packages to copy, for the windows; default: made up"
    )
    parser.add_argument("--without-pairs", action="store_true", help="leave out the windows")
    return parser


def _prepare(directory: Path) -> None:
    """Make the directory anew, but never remove one that the drill did not make."""
    if not PRESSURE.exists():
        raise DrillError(f"this kernel has no {PRESSURE} (CONFIG_PSI, psi=1)")
    if directory.exists():
        if any(directory.iterdir()) and not (directory / MARKER).exists():
            raise DrillError(f"{directory} is not empty and not of an earlier drill")
        shutil.rmtree(directory)
    directory.mkdir(parents=True)
    (directory / MARKER).touch()


def _build(store: Path, corpus: Path | None) -> list[str]:
    """Copy the packages of a corpus, or make some of what Python has installed."""
    if corpus is None:
        return local.build(store, lambda _: None)
    subprocess.run(["cp", "-a", "--reflink=never", corpus, store], check=True)
    return sorted(os.listdir(store))


def _write(path: Path, pages: list[str]) -> None:
    """Write the page, without the empty lines that follow one another."""
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(pages))
    path.write_text(text.rstrip() + "\n")


def _introduction(packages: int, allocated: int) -> list[str]:
    now = datetime.now(UTC)
    return [
        "# The drill",
        "",
        (
            "A migration of a store in use, held, paused, disturbed and cut over, by `make drill`. "
            "Each line that begins with **holds** was asserted. This page is its output."
        ),
        "",
        (
            f"- {now:%Y-%m-%d %H:%M} UTC, regrain {regrain.__version__}, Python "
            f"{platform.python_version()}"
        ),
        f"- {_machine()}",
        f"- {packages} packages made of a Python's own library, {allocated / 1e6:.0f} MB on disk",
    ]


def _machine() -> str:
    """Name what figures depend on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    told = subprocess.run(
        ["df", "--output=fstype", ROOT], capture_output=True, text=True, check=True
    ).stdout
    kind = told.split()[-1]
    return (
        f"{os.cpu_count()} processors ({platform.machine()}), {memory:.0f} GiB of memory, "
        f"Linux {platform.release().partition('-')[0]}, {kind}"
    )


def _pairs(directory: Path, corpus: Path | None) -> list[str]:
    directory.mkdir()
    names = _build(directory / STORE, corpus)
    total = usage(directory / STORE)
    load = os.getloadavg()[0]
    pairs = measure(Console(directory), directory / STORE)
    if len(pairs) < PAIRS:
        raise DrillError(f"only {len(pairs)} windows could be paired; take a larger --corpus")
    return _told(pairs, f"{len(names)} packages, {total.allocated / 1e6:.0f} MB", load)


def _told(pairs: list[Pair], store: str, load: float) -> list[str]:
    found = ratio(pairs)
    lines = [
        "\n## What readers wait beside a migration at defaults\n",
        (
            f"{len(pairs)} pairs of windows of {READS:,} reads (`get_package`, `read` of a file of "
            f"at most 16 KiB, in the page cache), of the {READ_FROM} smallest packages, which were "
            f"migrated before, while the migration of {store} works (busy) and is paused (idle) "
            "in turns; several migrations one after the other where one was too short. The figure "
            "of a window is its p99: what one read in a hundred exceeded.\n"
        ),
        "| pair | idle | busy | busy / idle |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {number} | {pair.idle * 1e6:.0f} µs | {pair.busy * 1e6:.0f} µs "
        f"| {pair.busy / pair.idle:.2f} |"
        for number, pair in enumerate(pairs, 1)
    ]
    judged = "met" if found.high <= ALLOWED else "missed" if found.low > ALLOWED else "open"
    lines.append(
        f"\n**Median ratio {found.middle:.2f}**, with 95 % between {found.low:.2f} and "
        f"{found.high:.2f}: the aim of at most {ALLOWED} is {judged} here. The machine had "
        f"{os.cpu_count()} processors and other work to do (load {load:.1f} before the first "
        "window), which makes the figure noisy: it is one of this machine on that day, and no "
        "step depends on it."
    )
    return lines


if __name__ == "__main__":
    sys.exit(main())
