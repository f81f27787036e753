"""Those who use the store, and those who disturb it, each in a process of its own.

``python -m bench.drill.actors ROLE ARGUMENTS``; every one works until SIGTERM, and who has
something to tell prints one JSON document at its end.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from blake3 import blake3

from bench.corpus.wheels import manifest
from regrain import PackageStore, RegrainError

if TYPE_CHECKING:
    from collections.abc import Callable

READ_PAUSE_SECONDS = 0.005
ADD_PAUSE_SECONDS = 2.0
WRITE_BYTES = 1 << 20
WRITES_A_FILE = 64
DIRECT_BYTES = 1 << 20


def main() -> None:
    """Play the role that the first argument names."""
    role, arguments = sys.argv[1], sys.argv[2:]
    roles: dict[str, Callable[..., None]] = {
        "read": read,
        "add": add,
        "write": write,
        "thrash": thrash,
    }
    roles[role](*arguments)


class _Stop:
    """Turns SIGTERM into a word that loops ask for."""

    def __init__(self) -> None:
        self.asked = False
        signal.signal(signal.SIGTERM, self)

    def __call__(self, *_: object) -> None:
        self.asked = True


def read(store: str, digests: str, seed: str) -> None:
    """Read random files as programs do, and compare each with what it was before regrain came.

    Args:
        store: The store's directory.
        digests: A JSON file: lists of package hash, path, BLAKE3.
        seed: Of what is read when.
    """
    stop = _Stop()
    known = json.loads(Path(digests).read_text())
    random = Random(seed)
    opened = PackageStore.open(store)
    layouts: Counter[str] = Counter()
    wrong: list[str] = []
    slowest = 0.0
    while not stop.asked:
        name, path, digest = random.choice(known)
        began = time.perf_counter()
        try:
            package = opened.get_package(name)
            found = blake3(package.read(path)).hexdigest()
            layouts[package.layout.value] += 1
        except (OSError, RegrainError) as error:
            found = repr(error)
        slowest = max(slowest, time.perf_counter() - began)
        if found != digest:
            wrong.append(f"{name[:12]} {path}: {found}")
        time.sleep(READ_PAUSE_SECONDS)
    json.dump(
        {"reads": layouts.total(), "layouts": layouts, "wrong": wrong, "slowest": slowest},
        sys.stdout,
    )


def add(store: str, work: str) -> None:
    """Add a small package every other second, and read each one back at once.

    Args:
        store: The store's directory.
        work: An empty directory for what is added.
    """
    stop = _Stop()
    opened = PackageStore.open(store)
    added: list[str] = []
    wrong: list[str] = []
    number = 0
    while not stop.asked:
        number += 1
        text = f"added as number {number}\n"
        tree = Path(work) / f"new-{number}"
        (tree / "opt/pm/live").mkdir(parents=True)
        (tree / "opt/pm/live/data").write_text(text * 100)
        (tree / "manifest.toml").write_text(manifest("new", str(number)))
        try:
            name = opened.add_package(tree).package_hash
            if opened.get_package(name).read("opt/pm/live/data") != (text * 100).encode():
                wrong.append(f"{name[:12]}: other bytes")
            added.append(name)
        except (OSError, RegrainError) as error:
            wrong.append(str(error))
        time.sleep(ADD_PAUSE_SECONDS)
    json.dump({"added": added, "wrong": wrong}, sys.stdout)


def write(file: str) -> None:
    """Write and flush, without end: what makes others wait for the disk."""
    stop = _Stop()
    piece = os.urandom(WRITE_BYTES)
    fd = os.open(file, os.O_WRONLY | os.O_CREAT, 0o600)
    number = 0
    while not stop.asked:
        os.pwrite(fd, piece, number % WRITES_A_FILE * WRITE_BYTES)
        os.fsync(fd)
        number += 1
    os.close(fd)


def thrash(file: str, size: str, seed: str) -> None:
    """Read a file at random places past the page cache, without end.

    Args:
        file: What is read.
        size: Its bytes.
        seed: Of the places.
    """
    stop = _Stop()
    random = Random(seed)
    fd = os.open(file, os.O_RDONLY | os.O_DIRECT)
    with mmap.mmap(-1, DIRECT_BYTES) as buffer:  # which is aligned, as O_DIRECT wants it
        while not stop.asked:
            os.preadv(fd, [buffer], random.randrange(int(size) // DIRECT_BYTES) * DIRECT_BYTES)
    os.close(fd)


if __name__ == "__main__":
    main()
