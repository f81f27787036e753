"""Migrate a small store of real packages before your eyes: ``make demo``.

Runs the `regrain` command as anyone would, and judges what it did without its help: the
sizes, the checkout and the untouched legacy packages are looked at by `bench.trees`.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bench.corpus import local, wheels
from bench.trees import Entry, differences, snapshot, usage

DEFAULT_DIRECTORY = Path(__file__).parents[1] / "build" / "demo"
LIST = Path(__file__).with_name("demo.txt")
MARKER = ".regrain-demo"
STORE = "store"
CHECKOUT = "checkout"
PREFIX = 12  # digits of a package hash; the command takes any that are unique

BOLD, RED, GREEN, PLAIN = "\033[1m", "\033[31m", "\033[32m", "\033[0m"


class DemoError(Exception):
    """A step failed; the message says which."""


@dataclass(frozen=True, slots=True)
class Demo:
    """One run of the demonstration.

    Attributes:
        directory: Holds the store and the checkout.
        packages: The hashes of the legacy packages.
        before: Every entry of the legacy packages before regrain came.
    """

    directory: Path
    packages: list[str]
    before: dict[str, dict[bytes, Entry]]

    @property
    def store(self) -> Path:
        return self.directory / STORE

    @property
    def legacy(self) -> list[Path]:
        return [self.store / name for name in self.packages]


def main() -> int:
    """Run the demonstration.

    Returns:
        The exit code: 0 only if every command and every check succeeded.
    """
    options = _parser().parse_args()
    try:
        _prepare(options.directory)
        demo = _build(options.directory, offline=options.offline)
        _migrate(demo)
        _check(demo)
        _compare_sizes(demo)
    except (DemoError, OSError) as error:
        print(_painted(RED, f"\nThe demo failed: {error}"), flush=True)
        if (options.directory / MARKER).exists():
            print("What it made is left for you to look at.")
        return 1
    if not options.keep:
        shutil.rmtree(options.directory)
        print("\nThe demo's store is removed again; --keep leaves it for a look around.")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.demo", description=__doc__)
    parser.add_argument("--directory", type=Path, default=DEFAULT_DIRECTORY, help="works here")
    parser.add_argument("--keep", action="store_true", help="leave the store for a look around")
    parser.add_argument("--offline", action="store_true", help="use what Python has installed")
    return parser


def _prepare(directory: Path) -> None:
    """Make the directory anew, but never remove one that the demo did not make."""
    if directory.exists():
        if any(directory.iterdir()) and not (directory / MARKER).exists():
            raise DemoError(f"{directory} is not empty and not of an earlier demo")
        shutil.rmtree(directory)
    directory.mkdir(parents=True)
    (directory / MARKER).touch()


def _build(directory: Path, *, offline: bool) -> Demo:
    """Build the legacy store, of wheels if they can be had."""
    store = directory / STORE
    packages: list[str] = []
    if not offline:
        _heading("Getting real packages: releases of faker, networkx, setuptools and tzdata")
        try:
            files = wheels.fetch(wheels.read_list(LIST), wheels.cache_root() / "wheels", print)
            packages = wheels.build(files, store, _quiet)
        except wheels.WheelError as error:
            print(f"Without a network, it seems: {str(error).splitlines()[-1]}")
    if not packages:
        _heading("Making packages of the standard library and what is installed beside it")
        print("Each in three releases that differ in a few files; the shares are made up.")
        packages = local.build(store, _quiet)
    total = usage(*(store / name for name in packages))
    print(
        f"{len(packages)} packages, {total.files:,} files, {_megabytes(total.allocated)} allocated"
    )
    before = {name: snapshot(store / name) for name in packages}
    return Demo(directory, packages, before)


def _migrate(demo: Demo) -> None:
    """Run the commands in the order in which anyone would."""
    _heading("Migrating")
    chosen = demo.packages[-1][:PREFIX]
    print(f"$ cd {os.path.relpath(demo.directory)}")
    for words in ("plan", "init", "migrate", "status", "verify", f"checkout {chosen} {CHECKOUT}"):
        _regrain(demo, words.split())


def _regrain(demo: Demo, words: list[str]) -> None:
    """Show a command, run it, and let its output through."""
    arguments = ["--store", STORE, *words]
    print(_painted(BOLD, f"\n$ regrain {shlex.join(arguments)}"), flush=True)
    command = [sys.executable, "-m", "regrain", *arguments]
    result = subprocess.run(command, cwd=demo.directory, stdin=subprocess.DEVNULL, check=False)
    if result.returncode:
        raise DemoError(f"regrain {words[0]} ended with {result.returncode}")


def _check(demo: Demo) -> None:
    """Compare, entry by entry, what must be equal."""
    _heading("Looking at it without regrain")
    source = demo.legacy[-1]
    unequal = differences(source, demo.directory / CHECKOUT)
    _verdict("the checkout equals the legacy package", len(demo.before[source.name]), unequal)
    changed = [path.name for path in demo.legacy if snapshot(path) != demo.before[path.name]]
    entries = sum(map(len, demo.before.values()))
    _verdict("the legacy packages are as they were", entries, changed)


def _verdict(claim: str, entries: int, objections: list[str]) -> None:
    if objections:
        shown = "\n  ".join(objections[:5])
        raise DemoError(f"not so: {claim}\n  {shown}")
    print(f"{_painted(GREEN, 'yes')}  {claim}: {entries:,} entries, bytes and metadata")


def _compare_sizes(demo: Demo) -> None:
    """Say what the store takes now, and will take without the legacy packages."""
    legacy = usage(*demo.legacy)
    own = usage(*(path for path in demo.store.iterdir() if path.name not in demo.packages))
    together = usage(demo.store)
    rows = {
        "legacy packages": legacy,
        "both layouts, as now": together,
        "file level alone, after cleanup": own,
    }
    print(f"\n{'':34}{'allocated':>12}{'inodes':>10}")
    for name, figures in rows.items():
        print(f"{name:34}{_megabytes(figures.allocated):>12}{figures.inodes:>10,}")
    saved = 1 - own.allocated / legacy.allocated
    print(
        f"\nCleanup would leave {saved:.0%} less on disk, file lists and ledger included."
        "\nUntil then nothing is freed: both layouts exist, sharing inodes where they can, and the"
        "\nlegacy tree is untouched. Releases this close share more than a whole store may."
    )


def _heading(text: str) -> None:
    print(_painted(BOLD, f"\n== {text}"), flush=True)


def _painted(colour: str, text: str) -> str:
    plain = "NO_COLOR" in os.environ or not sys.stdout.isatty()
    return text if plain else f"{colour}{text}{PLAIN}"


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"


def _quiet(_: str) -> None:
    """Swallow a line of progress; the demo's builds take a second or two."""


if __name__ == "__main__":
    sys.exit(main())
