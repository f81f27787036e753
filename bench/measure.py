"""Measure a command with everything it starts: wall, CPU and memory of the process tree.

Memory is sampled from /proc, since the kernel keeps no peak for a tree. A sample costs one
to three milliseconds of the other core; a process that lives for less than a sampling
interval may be missed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

INTERVAL = 0.05
KIBIBYTE = 1024


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a command took.

    Attributes:
        wall: Seconds from start to end.
        cpu: User and system seconds of the process and all that it waited for.
        peak_tree: Largest sampled sum of proportional set sizes over the tree, in bytes, and
            at least `peak_process`; memory that processes share is counted once.
        peak_process: Largest resident set that any one process of the tree had, in bytes.
        exit_code: As a shell would negate it: below zero is a signal.
    """

    wall: float
    cpu: float
    peak_tree: int
    peak_process: int
    exit_code: int

    def __add__(self, other: Measurement) -> Measurement:
        """Take two commands, one after the other, as one."""
        return Measurement(
            wall=self.wall + other.wall,
            cpu=self.cpu + other.cpu,
            peak_tree=max(self.peak_tree, other.peak_tree),
            peak_process=max(self.peak_process, other.peak_process),
            exit_code=self.exit_code or other.exit_code,
        )


def measure(
    command: Sequence[str | Path],
    output: IO[bytes] | int,
    *,
    errors: IO[bytes] | int | None = None,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Measurement:
    """Run a command to its end and measure it.

    Args:
        command: The program and its arguments.
        output: Where its standard output goes.
        errors: Where its standard error goes; by default where ours does.
        environment: Its environment; by default ours.
        directory: Where it is started; by default where we are.

    Returns:
        The measurement, whatever the exit code.
    """
    started = time.perf_counter()
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=errors,
        env=environment,
        cwd=directory,
    )
    sampler = _Sampler(process.pid)
    try:
        sampler.start()
        # wait4 also counts what the descendants used, if someone waited for them.
        _, status, used = os.wait4(process.pid, 0)
    except BaseException:
        _end(process)
        raise
    finally:
        wall = time.perf_counter() - started
        sampler.stop()
    process.returncode = os.waitstatus_to_exitcode(status)
    return Measurement(
        wall=wall,
        cpu=used.ru_utime + used.ru_stime,
        peak_tree=max(sampler.peak_tree, sampler.peak_process),
        peak_process=sampler.peak_process,
        exit_code=process.returncode,
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let nothing go on in a directory that is about to be removed."""
    for child in reversed(list(_tree(process.pid))):
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    process.wait()


class _Sampler(threading.Thread):
    """Keeps the peaks of a process tree until told to stop."""

    def __init__(self, root: int) -> None:
        super().__init__(daemon=True)
        self.peak_tree = 0
        self.peak_process = 0
        self._root = root
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(INTERVAL):
            tree = list(_tree(self._root))
            self.peak_tree = max(self.peak_tree, sum(map(_proportional, tree)))
            # The kernel's own high-water mark; rusage's would include Python before exec.
            self.peak_process = max(self.peak_process, *map(_high_water, tree), 0)

    def stop(self) -> None:
        self._over.set()
        if self.ident is not None:
            self.join()


def _tree(root: int) -> Iterator[int]:
    """Yield a process and its living descendants."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (text := _read(f"/proc/{name}/stat")):
            # The second field is the program's name, which may hold anything but ends last.
            parent = int(text.rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(name))
    waiting = [root]
    while waiting:
        process = waiting.pop()
        yield process
        waiting.extend(children.get(process, ()))


def _proportional(process: int) -> int:
    return _kibibytes(f"/proc/{process}/smaps_rollup", "Pss:")


def _high_water(process: int) -> int:
    return _kibibytes(f"/proc/{process}/status", "VmHWM:")


def _kibibytes(path: str, field: str) -> int:
    """Read one field of a file of ``name: number kB`` lines, 0 where there is none."""
    for line in _read(path).splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * KIBIBYTE
    return 0


def _read(path: str) -> str:
    """Read a file of /proc; empty if its process has just gone."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
