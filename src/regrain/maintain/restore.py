"""Give packages their legacy directories back, exactly: built aside, compared, renamed."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from regrain import disk
from regrain.errors import (
    CorruptionError,
    HaltedError,
    NoSpaceError,
    RegrainError,
    UnknownFormatError,
    reason,
    shown,
)
from regrain.maintain.need import lacking
from regrain.maintain.rebuild import measured
from regrain.model import layout
from regrain.store.checkout import checkout
from regrain.store.compare import first_difference
from regrain.store.legacy import LegacyPackage
from regrain.store.locks import StoreLock, publish_lock
from regrain.store.moving import move_directory
from regrain.store.packages import FileLevelPackage, is_published
from regrain.store.quarantine import replace
from regrain.store.share import ExactShare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from regrain.ledger import Ledger
    from regrain.maintain.need import Ways
    from regrain.model.entry import Entry
    from regrain.store.locks import RunDirectory
    from regrain.store.root import StoreRoot

BATCH_PACKAGES = 64
BATCH_BYTES = 256 << 20
"""What is built before the file system is flushed once for all of it."""

_DISK_FAILED = frozenset({errno.EIO, errno.EROFS, errno.ENODEV, errno.ENXIO})


@dataclass(frozen=True, slots=True)
class Failure:
    """A package whose legacy directory is not what it was, or cannot be made.

    Attributes:
        package_hash: The package.
        why: In one clause.
        is_damage: Whether what is published is damaged.
    """

    package_hash: str
    why: str
    is_damage: bool = False


@dataclass(frozen=True, slots=True)
class Restored:
    """A package has its legacy directory again.

    Attributes:
        package_hash: The package.
        why: What was wrong with the one it had, which is in quarantine; empty if it had none.
    """

    package_hash: str
    why: str = ""


@dataclass(slots=True)
class Restoration:
    """What was rebuilt.

    Attributes:
        packages: Packages that have a legacy directory again, and were compared with it.
        failures: Those that could not be given one.
        stopped: Whether it was ended early.
    """

    packages: set[str] = field(default_factory=set)
    failures: list[Failure] = field(default_factory=list)
    stopped: bool = False


def restore(  # noqa: PLR0913 -- one call with its choices, each by its keyword
    root: StoreRoot,
    ledger: Ledger,
    run: RunDirectory,
    ways: Ways,
    *,
    rotten: Mapping[str, str],
    lacking_too: bool = True,
    on_event: Callable[[Restored | Failure], None],
    stopping: Callable[[], bool],
) -> Restoration:
    """Give every published package that has no legacy directory one; all others go on.

    Args:
        root: The store.
        ledger: Its ledger.
        run: Private space.
        ways: How files may come by their bytes.
        rotten: Packages whose legacy directory is to be replaced, with what is wrong with it;
            it goes to quarantine.
        lacking_too: Else only these are replaced.
        on_event: Told each package.
        stopping: Asked before each package.
    """
    done = Restoration()
    names = [*(lacking(root) if lacking_too else ()), *rotten]
    for batch in _batches(root, run, ways, names, done, on_event, stopping):
        disk.syncfs(root.fd)
        exact = [name for name in batch if _is_exact(root, run, name, done, on_event)]
        with StoreLock(root, exclusive=False), publish_lock(root):
            placed = [name for name in exact if _place(root, run, name, rotten, done, on_event)]
            disk.fsync(root.fd)
            ledger.restored(measured(root, placed, lambda _: None))
            for name in placed:
                ledger.legacy_mended(name, rotten.get(name, ""))
        done.packages.update(placed)
        for name in placed:
            on_event(Restored(name, rotten.get(name, "")))
    for failure in done.failures:
        if failure.is_damage:
            ledger.concern(failure.package_hash, failure.why)
    return done


def _batches(  # noqa: PLR0913, PLR0917 -- a part of restore
    root: StoreRoot,
    run: RunDirectory,
    ways: Ways,
    package_hashes: list[str],
    done: Restoration,
    on_event: Callable[[Restored | Failure], None],
    stopping: Callable[[], bool],
) -> Iterator[list[str]]:
    """Build legacy directories aside; yield so many as are flushed together."""
    batch: list[str] = []
    size = 0
    for name in package_hashes:
        if stopping():
            done.stopped = True
            break
        try:
            size += _build(root, run, ways, name)
        except FileNotFoundError:
            continue  # removed meanwhile
        except RegrainError as error:
            if is_published(root.packages, name):  # else its objects went with it
                _fail(done, name, error, on_event)
            continue
        batch.append(name)
        if len(batch) >= BATCH_PACKAGES or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _build(root: StoreRoot, run: RunDirectory, ways: Ways, name: str) -> int:
    """Build one legacy directory in private space; return the bytes of its files."""
    size = 0

    def count(entry: Entry) -> None:
        nonlocal size
        size += entry.size

    package = FileLevelPackage(root.packages, root.objects, name)
    share = ExactShare(root, package, link_outside=ways.link_outside) if ways.link else None
    path = os.path.join(root.path, layout.TEMP, run.name, layout.PACKAGES, name)
    checkout(package, path, share=share, on_entry=count, may_reflink=ways.reflink)
    return size


def _fail(
    done: Restoration,
    name: str,
    error: RegrainError,
    on_event: Callable[[Restored | Failure], None],
) -> None:
    """Take note that a package cannot be rebuilt; others can, unless the disk is the reason."""
    cause = error.__cause__
    is_damage = isinstance(error, CorruptionError | UnknownFormatError)
    if isinstance(error, NoSpaceError):
        raise error
    if not is_damage and isinstance(cause, OSError) and cause.errno in _DISK_FAILED:
        raise HaltedError(
            "cannot write to the store",
            path=error.path,
            why=reason(cause),
            advice="Check the disk, then run 'regrain rollback' again: it goes on.",
        ) from error
    where = f"'{error.path}': " if error.path else ""
    why = f"{where}{error.what}{f': {error.why}' if error.why else ''}"
    _note(done, Failure(name, why, is_damage), on_event)


def _is_exact(
    root: StoreRoot,
    run: RunDirectory,
    name: str,
    done: Restoration,
    on_event: Callable[[Restored | Failure], None],
) -> bool:
    """Read a directory that was built back, and compare it with its file list."""
    try:
        package = FileLevelPackage(root.packages, root.objects, name)
        found = first_difference(package.entries(), LegacyPackage(run.staging, name).entries())
    except FileNotFoundError:
        return False  # removed meanwhile
    if found is None:
        return True
    path, how = found
    _note(done, Failure(name, f"'{shown(path)}' cannot be restored exactly: {how}"), on_event)
    return False


def _place(
    root: StoreRoot,
    run: RunDirectory,
    name: str,
    rotten: Mapping[str, str],
    done: Restoration,
    on_event: Callable[[Restored | Failure], None],
) -> bool:
    """Give a finished directory its place, unless the package went meanwhile."""
    if not is_published(root.packages, name):
        return False
    if name in rotten:
        replace(root.fd, name, layout.TEMP, f"{run.name}/{layout.PACKAGES}/{name}")
        return True
    try:
        move_directory(name.encode(), run.staging, name.encode(), root.fd)
    except FileExistsError:
        if not is_published(root.fd, name):  # else somebody made one: it will be compared
            why = "what has its name at the store's top is no directory"
            _note(done, Failure(name, why), on_event)
        return False
    return True


def _note(
    done: Restoration, failure: Failure, on_event: Callable[[Restored | Failure], None]
) -> None:
    done.failures.append(failure)
    on_event(failure)
