"""Somebody who may write to a tree swaps a directory in it with a link that leads out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Self

from tests.trees import LIVE, Tree, describe

SECRET = b"OUT: what nobody may read here\n"
DIRECTORY, LINK = b"d", b"s"
FILES = 20

# A process of its own, since a thread would wait for the lock of this interpreter. Where it holds
# the directories open it goes on wherever they are moved. The pauses let others get through, too.
_PROGRAM = """
import ctypes, os, signal, sys, time
libc = ctypes.CDLL(None)
held, places = sys.argv[1] == "held", []
for path in map(os.fsencode, sys.argv[2:]):
    if held:
        places.append((os.open(path, os.O_RDONLY | os.O_DIRECTORY), b"d", b"s"))
    else:
        places.append((-100, path + b"/d", path + b"/s"))
going, swaps = True, 0
def end(*_):
    global going
    going = False
signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
while going:
    for _ in range(1 + swaps % 97):
        for place, one, other in places:
            swaps += libc.renameat2(place, one, place, other, 2) == 0
    time.sleep(swaps % 7 * 1e-4)
print(swaps)
"""


class Swapper:
    """Swaps ``d`` and ``s`` in directories, as fast as it goes, inside a ``with`` block.

    Attributes:
        swaps: How often, known at the end.
    """

    def __init__(self, *places: Path, held: bool = True) -> None:
        """Name the directories; ``held``: keep them open, and follow them so."""
        self._words = ["held" if held else "named", *map(str, places)]
        self.swaps = 0

    def __enter__(self) -> Self:
        """Begin."""
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-E", "-c", _PROGRAM, *self._words],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End, and count."""
        self._process.send_signal(signal.SIGTERM)
        said, _ = self._process.communicate(timeout=30)
        self.swaps = int(said)


def make_outside(place: Path) -> Path:
    """A directory that has the names which a package has, and other things in them."""
    outside = place / "outside"
    (outside / "deep").mkdir(parents=True)
    for number in range(FILES):
        (outside / f"{number}").write_bytes(SECRET + b"%d\n" % number)
    (outside / "deep" / "f").write_bytes(SECRET)
    (outside / "deep").chmod(0o750)
    return outside


def make_package(path: Path, outside: Path, name: str) -> Path:
    """A package with a directory and a link beside it; returns where these are."""
    with Tree(path, Random(name)) as tree:
        describe(tree, name, "1.0")
        for number in range(FILES):
            tree.file(LIVE + b"/d/%d" % number, b"IN %s %d\n" % (name.encode(), number))
        tree.file(LIVE + b"/d/deep/f", b"IN\n")
        tree.symlink(LIVE + b"/s", os.fsencode(outside))
    return path / os.fsdecode(LIVE)


def put_right(place: Path) -> None:
    """Let ``d`` be the directory again and ``s`` the link."""
    if (place / "d").is_symlink():
        (place / "d").rename(place / "aside")
        (place / "s").rename(place / "d")
        (place / "aside").rename(place / "s")
