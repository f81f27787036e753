"""What no migration written in Python can do without: ``python bench/floor.py LEGACY PLACE STAGE``.

Loops with no program around them, in two processes. Each stage does a little more of what a
migration has to do with every file; what is between the last of them and `regrain migrate` is
regrain's own. None is safe: they care neither for what they meet, nor for a crash.
"""

from __future__ import annotations

import os
import stat
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from blake3 import blake3

if TYPE_CHECKING:
    from collections.abc import Iterator

PROCESSES = 2
PIECE = 1 << 20
STAGES = ("read and hash", "status, attributes", "second look", "lines", "links")
READ, FACTS, LOOK, LINES, LINKS = range(len(STAGES))


class Line(msgspec.Struct, frozen=True, gc=False):
    """What a file list says of a file."""

    path: bytes
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    digest: str
    size: int


def main() -> int:
    """Run one stage, with all before it."""
    legacy, place, stage = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    for number in range(256):
        (place / "objects" / f"{number:02x}").mkdir(parents=True)
    packages = sorted(legacy.iterdir(), key=_entries, reverse=True)
    with ProcessPoolExecutor(PROCESSES, get_context("fork")) as processes:
        for done in [processes.submit(_loop, package, place, stage) for package in packages]:
            done.result()
    return 0


def _entries(package: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(package))


def _loop(package: Path, place: Path, stage: int) -> None:
    lines = []
    seen: list[str] = []
    objects = place / "objects"
    for path in _files(str(package)):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        before = os.fstat(fd)
        digest = _hash(fd, before.st_size)
        if stage >= FACTS:
            os.listxattr(fd)
            os.fstat(fd)
        os.close(fd)
        if stage >= LOOK:
            seen.append(path)
        if stage >= LINES:
            lines.append(
                Line(
                    os.fsencode(path),
                    before.st_mode,
                    before.st_uid,
                    before.st_gid,
                    before.st_mtime_ns,
                    digest,
                    before.st_size,
                )
            )
        if stage >= LINKS and before.st_size:
            mode = stat.S_IMODE(before.st_mode)
            with suppress(FileExistsError):
                os.link(path, f"{objects}/{digest[:2]}/{digest}.{mode:o}")
    for path in seen:
        os.lstat(path)
    if lines:
        _write(lines, place / package.name)


def _files(directory: str) -> Iterator[str]:
    """Yield all regular files below a directory."""
    with os.scandir(directory) as found:
        for name in found:
            if name.is_dir(follow_symlinks=False):
                yield from _files(name.path)
            elif name.is_file(follow_symlinks=False):
                yield name.path


def _hash(fd: int, size: int) -> str:
    if size < PIECE:
        return blake3(os.read(fd, size + 1)).hexdigest()
    hasher = blake3()
    while piece := os.read(fd, PIECE):
        hasher.update(piece)
    return hasher.hexdigest()


def _write(lines: list[Line], path: Path) -> None:
    encode = msgspec.json.Encoder().encode
    content = b"\n".join(map(encode, lines))
    path.write_bytes(content)
    path.with_suffix(".b3").write_text(blake3(content).hexdigest())


if __name__ == "__main__":
    sys.exit(main())
