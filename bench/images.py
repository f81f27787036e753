"""File systems in image files, so that one machine can measure several kinds."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bench.job import BenchError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAKE = {
    "ext4": ["mkfs.ext4", "-q", "-F", "-b", "4096", "-i", "8192"],
    "xfs": ["mkfs.xfs", "-q", "-f", "-m", "reflink=1"],
    "btrfs": ["mkfs.btrfs", "-q", "-f"],
}
REFLINKS = frozenset({"xfs", "btrfs"})
DEBIAN = {"ext4": "e2fsprogs", "xfs": "xfsprogs", "btrfs": "btrfs-progs"}
SMALLEST = 1 << 30
"""Bytes; smaller ones get an unusual layout."""


@contextmanager
def mounted(kind: str, folder: Path, size: int) -> Iterator[Path]:
    """Mount a fresh image; unmount and remove it at the end, whatever happens.

    Args:
        kind: A name from `MAKE`.
        folder: Holds the image, a sparse file, and the place where it is mounted.
        size: Bytes that are to fit.

    Raises:
        BenchError: It cannot be done here.
    """
    if os.geteuid() != 0:
        raise BenchError(f"{kind}: only root can mount an image")
    if not shutil.which(MAKE[kind][0]):
        raise BenchError(f"{kind}: needs {MAKE[kind][0]} (Debian: {DEBIAN[kind]})")
    image, point = folder / f"{kind}.image", folder / kind
    point.mkdir()
    try:
        with image.open("wb") as stream:
            stream.truncate(max(size, SMALLEST))
        _run(kind, [*MAKE[kind], str(image)])
        _run(kind, ["mount", "-o", "loop", str(image), str(point)])
        try:
            yield point
        finally:
            _unmount(point)
    finally:
        image.unlink(missing_ok=True)
        point.rmdir()


def _unmount(point: Path) -> None:
    """Unmount; what still has it open keeps it alive, but out of sight."""
    done = subprocess.run(["umount", point], capture_output=True, check=False)
    if done.returncode:
        subprocess.run(["umount", "--lazy", point], check=True)


def _run(kind: str, command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"{kind}: {command[0]}: {done.stderr.strip()}")
