"""Where legacy directories and published file lists part: one compared with the other.

A look at all packages of a store takes workers, as many as pay.
"""

from __future__ import annotations

import os
from concurrent.futures import BrokenExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from regrain import disk
from regrain.errors import (
    CorruptionError,
    PackageError,
    RegrainError,
    UnknownFormatError,
    reason,
)
from regrain.model.status import LEGACY_CHANGED
from regrain.store.compare import first_difference
from regrain.store.glance import first_change
from regrain.store.legacy import LegacyPackage, SpecialFileError
from regrain.store.packages import FileLevelPackage, is_published
from regrain.store.root import StoreRoot
from regrain.store.workers import spawn_executor, worth_starting

if TYPE_CHECKING:
    from collections.abc import Iterable

_NO_COPY = "its published copy is missing"
_ENTRIES_AT_A_FILES_COST = 4
"""A look at an inode takes about a quarter of the time that bringing a file in does (measured)."""


class Change(NamedTuple):
    """A package whose legacy directory and published file list part.

    Attributes:
        package_hash: It.
        path: The first path that differs.
        reason: How.
        in_legacy: Whether it is the directory that is not what it was; else what is published.
    """

    package_hash: str
    path: bytes
    reason: str
    in_legacy: bool = True

    @property
    def words(self) -> str:
        """What the ledger keeps of it."""
        where = f"'{os.fsdecode(self.path)}': " if self.path else ""
        text = f"{where}{self.reason}".encode("utf-8", "backslashreplace").decode()
        return LEGACY_CHANGED + text if self.in_legacy else text


class Compared(NamedTuple):
    """What comparing a package gave.

    Attributes:
        package_hash: It.
        change: What differs first, if anything does.
        unreadable: Why it could not be compared; empty if it could.
    """

    package_hash: str
    change: Change | None = None
    unreadable: str = ""

    @property
    def is_equal(self) -> bool:
        """Whether both are known to be the same."""
        return self.change is None and not self.unreadable


def compare(root: StoreRoot, name: str, *, content: bool = False) -> Compared:
    """Compare a legacy directory with what is published; the bytes too, if asked to."""
    try:
        return Compared(name, _difference(root, name, content=content))
    except PackageError as error:
        return Compared(name, unreadable=str(error))
    except OSError as error:
        return Compared(name, unreadable=reason(error))


def compare_all(root: StoreRoot, sizes: dict[str, int], jobs_max: int) -> Iterable[Compared]:
    """Compare many packages, without their bytes.

    Args:
        root: The store.
        sizes: How many files each has.
        jobs_max: Worker processes at the most.
    """
    jobs = worth_starting(jobs_max, sum(sizes.values()) // _ENTRIES_AT_A_FILES_COST, 0)
    if jobs > 1:
        largest_first = sorted(sizes, key=lambda name: -sizes[name])
        with suppress(BrokenExecutor), spawn_executor(jobs, _start, root.path) as executor:
            return list(executor.map(_compare_here, largest_first))
    return [compare(root, name) for name in sizes]


_root: StoreRoot | None = None


def _start(path: str) -> None:
    global _root  # noqa: PLW0603 -- an executor gives its processes no other place
    _root = StoreRoot(path)


def _compare_here(name: str) -> Compared:
    if _root is None:
        raise RegrainError("a worker process without its store")
    return compare(_root, name)


def _difference(root: StoreRoot, name: str, *, content: bool) -> Change | None:
    try:
        package = FileLevelPackage(root.packages, root.objects, name)
        if content:
            legacy = LegacyPackage(root.fd, name)
            found = first_difference(package.entries(), legacy.entries())
        else:
            found = _glance(root, package)
    except FileNotFoundError:
        return _absence(root, name)
    except SpecialFileError as error:
        return Change(name, os.fsencode(error.path or ""), error.why)
    except (CorruptionError, UnknownFormatError) as error:
        return Change(name, b"", f"its file list: {error.what}", in_legacy=False)
    return None if found is None else Change(name, *found)


def _glance(root: StoreRoot, package: FileLevelPackage) -> tuple[bytes, str] | None:
    with disk.Closing(_open(root, package.hash)) as legacy:
        try:
            return first_change(package.entries(), legacy, package.listed_at_ns)
        except PackageError as error:
            if disk.is_at(legacy, package.hash, root.fd):
                raise
            raise FileNotFoundError(error.what) from error  # it is being removed under us


def _open(root: StoreRoot, name: str) -> int:
    try:
        return disk.open_directory(name, root.fd)
    except NotADirectoryError as error:
        raise FileNotFoundError(*error.args) from error


def _absence(root: StoreRoot, name: str) -> Change | None:
    """Say what is missing: a package that is removed meanwhile is in neither place."""
    if is_published(root.fd, name) and not is_published(root.packages, name):
        return Change(name, b"", _NO_COPY, in_legacy=False)
    return None
