"""The shadow comparison: some packages are read from both layouts, side by side.

Both must hold the same, and the new layout must not be much slower. What is timed is opening
and reading files, warm, one after the other, through the code that serves readers; the bytes
are compared apart from that. Files that are stored compressed are compared and not timed:
unpacking takes longer than reading, whatever the layout.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from random import Random
from statistics import median
from typing import TYPE_CHECKING

from regrain import disk
from regrain.errors import CorruptionError, RegrainError, UnknownFormatError, path_of, reason
from regrain.model.clock import monotonic
from regrain.model.entry import Entry, Kind
from regrain.store.compare import first_difference
from regrain.store.legacy import LegacyPackage
from regrain.store.packages import FileLevelPackage, is_published

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from regrain.store.root import StoreRoot
    from regrain.store.source import PackageSource

PACKAGES_MAX = 32
FILES_MAX = 2000
FILES_A_PACKAGE_MAX = 200
BYTES_MAX = 64 << 20
ROUNDS = 5
ROUNDS_IN_DOUBT = 15
"""A first result that is too slow is measured again, longer: other programs disturb."""

SLOWDOWN_MAX = 1.2
NOISE_SECONDS = 5e-6
"""A difference below this, a file, is no difference."""


@dataclass(slots=True)
class Comparison:
    """What was compared, and how it ended.

    Attributes:
        packages: Packages read.
        files: Of their files, those that were read.
        size: Their bytes.
        legacy_seconds: What reading them takes from the legacy layout.
        file_level_seconds: And from the file level.
        differences: (package, path, what) of what is not the same.
    """

    packages: int = 0
    files: int = 0
    size: int = 0
    legacy_seconds: float = 0.0
    file_level_seconds: float = 0.0
    differences: list[tuple[str, bytes, str]] = field(default_factory=list)

    @property
    def is_slower(self) -> bool:
        """Whether the new layout is slower than is tolerated."""
        tolerated = self.legacy_seconds * SLOWDOWN_MAX
        return self.file_level_seconds > tolerated + NOISE_SECONDS * self.files

    @property
    def slowdown(self) -> float:
        """How many times as long the new layout takes; 1 where nothing was read."""
        return self.file_level_seconds / self.legacy_seconds if self.legacy_seconds else 1.0


@dataclass(frozen=True, slots=True)
class _Pair:
    """A package in both layouts, and the files of it whose reading is timed."""

    old: LegacyPackage
    new: FileLevelPackage
    files: list[Entry]


def compare(root: StoreRoot, names: Iterable[str], seed: str) -> Comparison:
    """Read a sample of packages from both layouts; nothing is changed.

    Args:
        root: The store.
        names: Packages that are in both.
        seed: The same seed chooses the same sample.
    """
    random = Random(seed)  # noqa: S311 -- a sample, no secret
    chosen = sorted(names)
    random.shuffle(chosen)
    result = Comparison()
    pairs = []
    for name in chosen:
        if result.packages == PACKAGES_MAX or result.files >= FILES_MAX:
            break
        with _differing(name, result):
            pair = _pair(root, name, random, result)
            if pair is not None:
                pairs.append(pair)
    _time(pairs, result, ROUNDS)
    if result.is_slower:
        _time(pairs, result, ROUNDS_IN_DOUBT)
    # Others go on: a package that was removed under the comparison is no matter of its own.
    result.differences = [
        difference
        for difference in result.differences
        if is_published(root.packages, difference[0]) and is_published(root.fd, difference[0])
    ]
    return result


@contextlib.contextmanager
def _differing(name: str, result: Comparison) -> Iterator[None]:
    """Take whatever keeps a package from being read for a difference of it."""
    try:
        yield
    except (CorruptionError, UnknownFormatError) as error:
        result.differences.append((name, b"", error.what))
    except RegrainError as error:
        result.differences.append((name, b"", str(error)))
    except OSError as error:
        result.differences.append((name, path_of(error), reason(error)))


def _pair(root: StoreRoot, name: str, random: Random, result: Comparison) -> _Pair | None:
    """Compare a package once; return what to time of it, None if it is not the same."""
    new = FileLevelPackage(root.packages, root.objects, name)
    old = LegacyPackage(root.fd, name)
    found = first_difference(new.entries(), old.tree(), content=False)
    if found is not None:
        result.differences.append((name, *found))
        return None
    listed = [entry for entry in new.entries() if entry.kind is Kind.FILE and entry.size]
    random.shuffle(listed)
    files: list[Entry] = []
    for entry in listed[:FILES_A_PACKAGE_MAX]:
        if result.files < FILES_MAX and result.size + entry.size <= BYTES_MAX:
            files.append(entry)
            result.files += 1
            result.size += entry.size
    result.packages += 1
    for entry in files:
        if not _same_bytes(old, new, entry):
            result.differences.append((name, entry.path, "its content differs"))
            return None
    return _Pair(old, new, [entry for entry in files if not _is_compressed(new, entry)])


def _is_compressed(package: FileLevelPackage, entry: Entry) -> bool:
    """Tell whether a file has to be unpacked to be read: who chose that knows its price."""
    fd, is_compressed = package.open_stored(entry)
    os.close(fd)
    return is_compressed


def _same_bytes(old: PackageSource, new: PackageSource, entry: Entry) -> bool:
    with (
        disk.Closing(old.open_content(entry)) as one,
        disk.Closing(new.open_content(entry)) as other,
    ):
        while True:
            piece = os.read(one, disk.PIECE)
            if piece != _read_exactly(other, len(piece) or 1):
                return False
            if not piece:
                return True


def _read_exactly(fd: int, size: int) -> bytes:
    pieces = []
    while size and (piece := os.read(fd, size)):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _time(pairs: list[_Pair], result: Comparison, rounds: int) -> None:
    """Measure both layouts by turns, package by package; medians of all rounds."""
    result.legacy_seconds = result.file_level_seconds = 0.0
    for pair in pairs:
        with _differing(pair.new.hash, result):
            old, new = _seconds(pair, rounds)
            result.legacy_seconds += old
            result.file_level_seconds += new


def _seconds(pair: _Pair, rounds: int) -> tuple[float, float]:
    """Return the medians of what reading a package's files takes from either layout."""
    old: list[float] = []
    new: list[float] = []
    for number in range(rounds):
        order: list[tuple[list[float], PackageSource]] = [(old, pair.old), (new, pair.new)]
        for times, source in order if number % 2 else reversed(order):
            times.append(_read(source, pair.files))
    return median(old), median(new)


def _read(source: PackageSource, files: list[Entry]) -> float:
    begin = monotonic()
    for entry in files:
        with disk.Closing(source.open_content(entry)) as fd:
            while os.read(fd, disk.PIECE):
                pass
    return monotonic() - begin
