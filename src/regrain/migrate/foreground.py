"""A reader in a process of its own, who notes how long his reads take while others work."""

from __future__ import annotations

import contextlib
import os
import time
from random import Random
from statistics import median, quantiles
from typing import Any, NamedTuple, Self

from regrain import disk
from regrain.errors import RegrainError
from regrain.model.clock import monotonic
from regrain.model.entry import Kind
from regrain.store import dual
from regrain.store.root import StoreRoot
from regrain.store.workers import signals, spawn_executor

QUIET_SECONDS = 1.0
"""How long reads are timed while nobody else works."""

_FILES_MAX = 200
_FILE_BYTES_MAX = 256 << 10
_PAUSE_SECONDS = 0.002
_READS_MAX = 1_000_000


class Latency(NamedTuple):
    """How long reads took.

    Attributes:
        reads: How many were timed.
        middle: Seconds of the one in the middle.
        slow: Seconds that one in twenty exceeded.
    """

    reads: int
    middle: float
    slow: float


class _Reader:
    """What the process keeps: an open store, and the files it reads over and over."""

    def __init__(self, path: str, package_hashes: list[str], seed: int, stop: Any) -> None:  # noqa: ANN401 -- a shared byte
        self._root = StoreRoot(path)
        self._random = Random(seed)  # noqa: S311 -- a sample, no secret
        self._stop = stop
        self._files = self._choose(package_hashes)
        for name, where in self._files:  # once, so that all are cached as in daily use
            self._read(name, where)

    def _choose(self, package_hashes: list[str]) -> list[tuple[str, bytes]]:
        found = []
        for name in package_hashes:
            with contextlib.suppress(OSError, RegrainError):
                found += [
                    (name, entry.path)
                    for entry in dual.open_package(self._root, name).tree()
                    if entry.kind is Kind.FILE and 0 < entry.size <= _FILE_BYTES_MAX
                ]
        self._random.shuffle(found)
        return found[:_FILES_MAX]

    def _read(self, name: str, path: bytes) -> None:
        """Find a package and read a file of it, as a program would that starts."""
        package = dual.open_package(self._root, name)
        entry = package.lookup(path)
        if entry is not None:
            with disk.Closing(package.open_content(entry)) as fd:
                while os.read(fd, disk.PIECE):
                    pass

    def listen(self, seconds: float) -> Latency:
        """Read and time until so many seconds are over, or a stop is asked for."""
        taken: list[float] = []
        until = monotonic() + seconds
        while self._files and monotonic() < until and not self._stop.value:
            name, path = self._random.choice(self._files)
            begin = monotonic()
            self._read(name, path)
            if len(taken) < _READS_MAX:
                taken.append(monotonic() - begin)
            time.sleep(_PAUSE_SECONDS)
        if len(taken) < 2:
            return Latency(len(taken), sum(taken), sum(taken))
        return Latency(len(taken), median(taken), quantiles(taken, n=20)[-1])


_reader: list[_Reader] = []


def _begin(path: str, package_hashes: list[str], seed: int, stop: Any) -> None:  # noqa: ANN401
    _reader[:] = [_Reader(path, package_hashes, seed, stop)]


def _listen(seconds: float) -> Latency:
    return _reader[0].listen(seconds)


class Foreground:
    """The reader: first alone, then, inside a ``with`` block, until he is told to stop.

    Attributes:
        alone: How long his reads took while nobody worked.
    """

    def __init__(self, path: str, package_hashes: list[str], seed: int) -> None:
        """Start him.

        Args:
            path: The store he reads from.
            package_hashes: What he reads.
            seed: Of what he reads when.
        """
        self._stop = signals()
        self._executor = spawn_executor(1, _begin, path, package_hashes, seed, self._stop)
        try:
            self.alone = self._executor.submit(_listen, QUIET_SECONDS).result()
            self._future = self._executor.submit(_listen, float("inf"))
        except BaseException:
            self._executor.shutdown(cancel_futures=True)
            raise

    def __enter__(self) -> Self:
        """Let him go on reading."""
        return self

    def __exit__(self, *_: object) -> None:
        """End his process."""
        self._stop.value = 1
        self._executor.shutdown()

    def stop(self) -> Latency:
        """Stop him; return how long his reads took since he was not alone any more."""
        self._stop.value = 1
        latency = self._future.result()
        self._executor.shutdown()
        return latency
