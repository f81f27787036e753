"""Somebody who may write to a tree swaps a directory in it with a link that leads out."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path
from random import Random
from tempfile import mkdtemp
from types import TracebackType
from typing import Self

from tests.trees import LIVE, Tree, describe

SECRET = b"OUT: what nobody may read here\n"
FILES, DIRECTORIES = 5, 8

# A process of its own, since a thread would wait for the lock of this interpreter. Where it holds
# the directories open it goes on wherever they are moved. The pauses let others get through, too.
_PROGRAM = """
import ctypes, os, signal, sys, time
libc = ctypes.CDLL(None)
held, places, words = sys.argv[1] == "held", [], list(map(os.fsencode, sys.argv[2:]))
for path, aside in zip(words[::2], words[1::2]):
    aside = os.open(aside, os.O_RDONLY | os.O_DIRECTORY)
    if held:
        places.append((os.open(path, os.O_RDONLY | os.O_DIRECTORY), b"d", aside))
    else:
        places.append((-100, path + b"/d", aside))
going, swaps = True, 0
def end(*_):
    global going
    going = False
signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
while going:
    for _ in range(1 + swaps % 97 * 3):
        for place, name, aside in places:
            swaps += libc.renameat2(place, name, aside, b"s", 2) == 0
    time.sleep(swaps % 7 * 1e-4)
print(swaps)
"""
_IN_OPEN, _IN_MODIFY, _IN_MOVED, _IN_CREATE, _IN_DELETE = 0x20, 0x2, 0xC0, 0x100, 0x200
_HAPPENED = _IN_OPEN | _IN_MODIFY | _IN_MOVED | _IN_CREATE | _IN_DELETE


class Watch:
    """Notices whatever is done in directories, even that something is only opened."""

    def __init__(self, *places: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        for place in places:
            found = libc.inotify_add_watch(self._fd, os.fsencode(place), _HAPPENED)
            assert found >= 0, os.strerror(ctypes.get_errno())

    def happened(self) -> bool:
        """Whether something was done since this was asked last."""
        try:
            return bool(os.read(self._fd, 1 << 16))
        except BlockingIOError:
            return False

    def close(self) -> None:
        """Look away."""
        os.close(self._fd)


class Swapper:
    """Swaps ``d`` in a directory with a link ``s`` in another, as fast as it goes, while in use.

    Attributes:
        swaps: How often, known at the end.
    """

    def __init__(self, *places: tuple[Path, Path], held: bool = True) -> None:
        """Name the directories; ``held``: keep them open, and follow them so."""
        self._words = [
            "held" if held else "named",
            *(str(path) for pair in places for path in pair),
        ]
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


def make_package(path: Path, name: str, directories: int = DIRECTORIES) -> None:
    """A package with directories ``0/d``, ``1/d`` and so on."""
    with Tree(path, Random(name)) as tree:
        describe(tree, name, "1.0")
        for place in range(directories):
            for number in range(FILES):
                data = b"IN %s %d %d\n" % (name.encode(), place, number)
                tree.file(LIVE + b"/%d/d/%d" % (place, number), data)
            tree.file(LIVE + b"/%d/d/deep/f" % place, b"IN\n")


def pairs(path: Path, outside: Path, directories: int = DIRECTORIES) -> list[tuple[Path, Path]]:
    """Where the directories of a package are, each with a place where its link waits."""
    found = []
    for place in range(directories):
        aside = Path(mkdtemp(prefix="aside-", dir=outside.parent))
        (aside / "s").symlink_to(outside)
        found.append((path / os.fsdecode(LIVE) / str(place), aside))
    return found


def put_right(found: list[tuple[Path, Path]]) -> None:
    """Let each ``d`` be the directory again, where it still is in its place."""
    for place, aside in found:
        if (place / "d").is_symlink():
            (place / "d").unlink()
            (aside / "s").rename(place / "d")
            (aside / "s").symlink_to("nowhere")
