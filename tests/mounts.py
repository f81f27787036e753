"""File systems of a chosen kind in small images, for tests that run as root."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MAKE = {
    "ext4": ["mkfs.ext4", "-q", "-F", "-b", "4096"],
    "xfs": ["mkfs.xfs", "-q", "-f", "--unsupported"],
    "btrfs": ["mkfs.btrfs", "-q", "-f"],
}
SIZE_MB = {"ext4": 128, "xfs": 200, "btrfs": 256}
FICLONE = 0x40049409


@contextmanager
def mounted(kind: str, folder: Path, *options: str) -> Iterator[Path]:
    """Mount a fresh image of this kind; unmount and forget it at the end, whatever happens."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount an image")
    if shutil.which(MAKE[kind][0]) is None:
        pytest.skip(f"needs {MAKE[kind][0]}")
    image, point = folder / f"{kind}.img", folder / kind
    point.mkdir()
    with image.open("wb") as stream:
        stream.truncate(SIZE_MB[kind] << 20)
    _run([*MAKE[kind], *options, str(image)])
    try:
        with mounted_image(image, point):
            yield point
    finally:
        image.unlink()


@contextmanager
def mounted_image(image: Path, point: Path, patience: float = 0.0) -> Iterator[None]:
    """Mount an image that there is; unmount it at the end, whatever happens.

    Where processes may be about to die that have something open there, ``patience`` is for them.
    """
    mount = subprocess.run(
        ["mount", "-o", "loop", image, point], capture_output=True, text=True, check=False
    )
    if mount.returncode != 0:
        pytest.skip(f"cannot loop-mount {image.name} here: {mount.stderr.strip()}")
    try:
        yield
    finally:
        unmount(point, patience)


def unmount(point: Path, patience: float = 0.0) -> None:
    """Unmount, by force of detachment where something still has it open; that is an error."""
    until = time.monotonic() + patience
    while True:
        done = subprocess.run(["umount", point], capture_output=True, text=True, check=False)
        if "busy" not in done.stderr or time.monotonic() >= until:
            break
        time.sleep(0.02)
    if done.returncode != 0:
        _run(["umount", "--lazy", str(point)])
        pytest.fail(f"something kept {point} busy: {done.stderr.strip()}")


def can_reflink(folder: Path) -> bool:
    """Find out by trying whether files can share blocks here."""
    source, target = folder / ".clone-from", folder / ".clone-to"
    source.write_bytes(bytes(8192))
    try:
        with source.open("rb") as old, target.open("wb") as new:
            fcntl.ioctl(new, FICLONE, old.fileno())
    except OSError as error:
        if error.errno in {errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.EXDEV}:
            return False
        raise
    else:
        return True
    finally:
        source.unlink()
        target.unlink(missing_ok=True)


def shared_bytes(path: Path) -> bool:
    """Whether the kernel says that a file shares blocks with another (``filefrag``)."""
    os.sync()
    done = subprocess.run(["filefrag", "-v", path], capture_output=True, text=True, check=True)
    return "shared" in done.stdout


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
