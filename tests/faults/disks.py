"""Small file systems on a disk that fails when told to, or that remembers every write."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.compare import Snapshot
from tests.faults.blockdevice import BYTES_MAX, NAME, Control
from tests.faults.small import Scene
from tests.mounts import MAKE, SIZE_MB, mounted_image, unmount

ROOT = Path(__file__).parents[2]
PATIENCE = 20.0
"""Seconds for workers to die after the process that had them."""


@dataclass(frozen=True, slots=True)
class Disk:
    """A file system's image, and how it comes to lie on a disk.

    Attributes:
        kind: ext4, xfs or btrfs.
        image: The bytes of the disk.
        point: Where it is mounted.
    """

    kind: str
    image: Path
    point: Path

    @contextmanager
    def plain(self, image: Path | None = None) -> Iterator[Path]:
        """Mount the image, or another one, as it is."""
        with mounted_image(image or self.image, self.point, PATIENCE):
            yield self.point

    @contextmanager
    def served(self, log: Path | None = None) -> Iterator[Control]:
        """Mount it on a disk that obeys, and that keeps a log."""
        folder = self.image.with_name("served")
        folder.mkdir(exist_ok=True)
        control = self.image.with_name("control")
        control.unlink(missing_ok=True)
        told = Control(control)
        words = [sys.executable, "-m", "tests.faults.blockdevice"]
        words += [str(self.image), str(control), str(folder), *([str(log)] if log else [])]
        with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            if server.stdout.readline() != "mounted\n":
                pytest.skip("cannot serve a file system to the kernel here (FUSE)")
            try:
                with mounted_image(folder / NAME, self.point, PATIENCE):
                    _part_requests(self.point)
                    yield told
            finally:
                told.heal()
                unmount(folder, PATIENCE)
                server.wait(60)


def _part_requests(point: Path) -> None:
    """Let the loop device below a mount ask for no more at once than its file is asked for.

    Of a larger request FUSE makes two. Where the second fails, the loop device is told that a part
    was written, and calls that a success: no file system could know of the failure.
    """
    done = subprocess.run(
        ["findmnt", "-n", "-o", "SOURCE", point], capture_output=True, text=True, check=True
    )
    queue = Path("/sys/block", Path(done.stdout.strip()).name, "queue")
    (queue / "max_sectors_kb").write_text(str(BYTES_MAX >> 11))


def make_disk(kind: str, folder: Path, *options: str, size_mb: int = 0) -> Disk:
    """Make a file system in an image."""
    if os.geteuid() != 0 or not Path("/dev/fuse").exists():
        pytest.skip("needs root and FUSE, to put a file system on a disk that fails")
    folder.mkdir(parents=True, exist_ok=True)
    image, point = folder / "disk.img", folder / "point"
    point.mkdir(exist_ok=True)
    with image.open("wb") as stream:
        stream.truncate((size_mb or SIZE_MB[kind]) << 20)
    try:
        subprocess.run([*MAKE[kind], *options, image], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip(f"needs {MAKE[kind][0]}")
    return Disk(kind, image, point)


class DiedError(AssertionError):
    """A process was killed by a signal.

    Attributes:
        signal: Which.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"the process died of {signal.Signals(number).name}")
        self.signal = number


def in_child(work: Callable[[], Any]) -> Any:
    """Do something in a process of its own, so that nothing of it keeps a file system busy.

    Returns:
        Its result, which JSON must be able to hold.

    Raises:
        AssertionError: It raised; with its traceback.
        DiedError: It was killed.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        try:
            told = json.dumps({"result": work()})
        except BaseException:  # noqa: BLE001 -- the child must not run on as its parent
            told = json.dumps({"raised": traceback.format_exc()})
        with os.fdopen(writing, "w") as stream:
            stream.write(told)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        answer = stream.read()
    _, status = os.waitpid(pid, 0)
    if status:
        raise DiedError(os.WTERMSIG(status))
    found = json.loads(answer)
    assert "raised" not in found, found["raised"]
    return found["result"]


def at_home(scene: Scene) -> Scene:
    """The scene as it is known, on whatever device its file system has become."""
    device = os.stat(scene.path).st_dev

    def moved(tree: Snapshot) -> Snapshot:
        return {
            path: replace(entry, identity=(device, entry.identity[1]))
            for path, entry in tree.items()
        }

    return Scene(
        scene.path, scene.packages, {name: moved(tree) for name, tree in scene.before.items()}
    )
