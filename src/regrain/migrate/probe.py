"""How long a reader waits beside a run: small reads, before the run begins and all along.

A probe does what a reader does: it opens a package through the code that serves readers and
reads a small file of it. The file's cached pages are dropped first, so that it is the disk that
answers, before the run as well as beside it. A thread of its own does that, so that it also
measures while the run waits for a flush.
"""

from __future__ import annotations

import os
from collections import deque
from random import Random
from statistics import median
from threading import Event as Flag
from threading import Thread
from typing import TYPE_CHECKING, Self

from regrain import disk
from regrain.errors import RefusedError, RegrainError
from regrain.migrate.pace import Demand
from regrain.model.clock import monotonic
from regrain.model.events import Foreground
from regrain.model.layout import MANIFEST
from regrain.store import dual

if TYPE_CHECKING:
    from collections.abc import Callable

    from regrain.store.root import StoreRoot

PACKAGES_MAX = 64
BASELINE_READS = 9
BASELINE_SECONDS_MAX = 0.5
"""The baseline is the median of so many reads; where they take long, of those made in time."""

BASELINE_PAUSE_SECONDS = 0.005
"""A processor that slept answers later: without a pause between them, the reads before a run
would be four times as quick as those beside it, which come from time to time."""

READS_A_WINDOW = 9
WINDOWS = 3
"""Slow over several windows: over so many, one after the other."""

PAUSE_SECONDS = 0.1
SHARE_MAX = 0.01
"""The probe reads for at most this share of the time, so that it is no load itself."""

_BYTES_MAX = 64 << 10


def look_into(root: StoreRoot, name: str) -> int | None:
    """Open a small file of a package as a reader does; None if it has none."""
    package = dual.open_package(root, name)
    entry = package.lookup(MANIFEST.encode())
    return None if entry is None else package.open_content(entry)


def time_read(root: StoreRoot, name: str) -> float | None:
    """Read a small file of a package as a reader does; return the seconds it took.

    None where there is nothing to read: it was removed, has no manifest, or is damaged, which
    is for ``verify`` to say.
    """
    try:
        begin = monotonic()
        fd = look_into(root, name)
        opened = monotonic() - begin
        if fd is None:
            return None
        with disk.Closing(fd):
            os.posix_fadvise(fd, 0, _BYTES_MAX, os.POSIX_FADV_DONTNEED)
            begin = monotonic()
            os.read(fd, _BYTES_MAX)
            return opened + monotonic() - begin
    except (OSError, RegrainError):
        return None


class Windows:
    """Reads, window by window, against what they took before the run.

    Args:
        baseline: Seconds.
    """

    def __init__(self, baseline: float) -> None:
        self._reads: list[float] = []
        self._medians: deque[float] = deque(maxlen=WINDOWS)
        self.found = Foreground(baseline)
        self.closed = 0

    def take(self, seconds: float) -> None:
        """Take a read; the last one of a window closes it."""
        self._reads.append(seconds)
        if len(self._reads) < READS_A_WINDOW:
            return
        self._medians.append(median(self._reads))
        reads = self.found.reads.plus(self._reads)
        self._reads.clear()
        steady = min(self._medians) if len(self._medians) == WINDOWS else None
        self.found = Foreground(self.found.baseline_seconds, self._medians[-1], steady, reads)
        self.closed += 1


class Probe:
    """Measures reads in the background, from its baseline until it is left.

    Args:
        root: The store.
        read: Reads one package; returns the seconds that took, or None.
        measures: Whether it measures at all.

    Attributes:
        windows: What was measured; None where there is no package to read.
    """

    def __init__(
        self,
        root: StoreRoot,
        read: Callable[[StoreRoot, str], float | None] = time_read,
        *,
        measures: bool = True,
    ) -> None:
        self._root = root
        self._read = read
        self._ended = Flag()
        self._thread: Thread | None = None
        names = dual.package_hashes(root) if measures else []
        random = Random(root.store_id)  # noqa: S311 -- a sample, no secret
        self._names = random.sample(names, min(PACKAGES_MAX, len(names)))
        self._turn = self._missed = 0
        baseline = self._baseline()
        self.windows = None if baseline is None else Windows(baseline)

    @property
    def found(self) -> Foreground | None:
        """What reads take; None where there is nothing to read."""
        return None if self.windows is None else self.windows.found

    @property
    def is_blind(self) -> bool:
        """Whether there are packages, and none of them can be read."""
        return bool(self._names) and (
            self.windows is None or self._missed >= max(len(self._names), READS_A_WINDOW)
        )

    def __enter__(self) -> Self:
        """Begin to measure."""
        if self.windows is not None:
            self._thread = Thread(target=self._go_on, name="regrain-probe", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End; a read that is under way is waited for."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None  # which knows this, and would keep the store open

    def _baseline(self) -> float | None:
        until = monotonic() + BASELINE_SECONDS_MAX
        reads = []
        for _ in range(BASELINE_READS if self._names else 0):
            self._ended.wait(BASELINE_PAUSE_SECONDS)
            if (seconds := self._read_next()) is not None:
                reads.append(seconds)
            if monotonic() > until:
                break
        return median(reads) if reads else None

    def _read_next(self) -> float | None:
        self._turn += 1
        seconds = self._read(self._root, self._names[self._turn % len(self._names)])
        self._missed = self._missed + 1 if seconds is None else 0
        return seconds

    def _go_on(self) -> None:
        pause = PAUSE_SECONDS
        while self.windows is not None and not self._ended.wait(pause):
            seconds = self._read_next()
            if seconds is not None:
                self.windows.take(seconds)
            pause = max(PAUSE_SECONDS, (seconds or 0.0) / SHARE_MAX)


_BLIND = "what readers wait cannot be measured: no small file of any package can be read"


class SlowReaders:
    """Takes load away while readers wait too long, step by step, before the run is ended for it.

    Every window that is too slow is a step up, every other a step down. On the first step one
    worker goes on, on the second the run is held, from the third on ``is_lasting`` says so.
    Where nothing can be measured any more the run is held at once.

    Args:
        probe: What measures.
        slowdown_max: How many times as long as the baseline a read may take.
        goes_on: Whether the run goes on, with one worker, however slow reads are.
    """

    def __init__(self, probe: Probe, slowdown_max: float, *, goes_on: bool = False) -> None:
        self._probe = probe
        self._slowdown_max = slowdown_max
        self._goes_on = goes_on
        self._closed = self._step = 0

    def check(self) -> None:
        """See that there is something to measure, before a run begins.

        Raises:
            RefusedError: There is not, so that the limit could not be kept.
        """
        if self._probe.is_blind:
            raise RefusedError(
                "readers cannot be timed, so [migration] latency_slowdown_max cannot be kept",
                why="no package has a manifest that can be read",
                advice="'regrain verify' says what is wrong with them; or take the limit away.",
            )

    def demand(self) -> Demand | None:
        """Say how many workers may go on."""
        windows = self._probe.windows
        if self._probe.is_blind:  # who asked for a limit wants no run without one
            return Demand(f"{_BLIND} (latency_slowdown_max)", 1 if self._goes_on else 0)
        if windows is None:
            return None
        if windows.closed != self._closed:
            self._closed = windows.closed
            slow = windows.found.is_slower(self._slowdown_max)
            self._step = min(self._step + 1, WINDOWS) if slow else max(self._step - 1, 0)
        if not self._step:
            return None
        jobs = 1 if self._step == 1 or self._goes_on else 0
        return Demand(f"{self.words} (latency_slowdown_max)", jobs)

    @property
    def words(self) -> str:
        """What is measured."""
        found = self._probe.found
        return "" if found is None else found.words

    @property
    def is_lasting(self) -> bool:
        """Whether reads stayed too slow although load was taken away."""
        return self._step >= WINDOWS
