"""Give packages their legacy directories back, exactly: built aside, compared, renamed."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from regrain import disk
from regrain.errors import (
    CorruptionError,
    HaltedError,
    NoSpaceError,
    RefusedError,
    RegrainError,
    UnknownFormatError,
    reason,
    shown,
)
from regrain.maintain.rebuild import measured
from regrain.model import layout
from regrain.model.digest import is_package_hash
from regrain.model.entry import Kind
from regrain.model.phase import Phase
from regrain.store.checkout import checkout
from regrain.store.compare import first_difference
from regrain.store.legacy import LegacyPackage
from regrain.store.locks import StoreLock, publish_lock
from regrain.store.objects import object_path
from regrain.store.packages import FileLevelPackage, is_published, published
from regrain.store.share import ExactShare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from regrain.ledger import Ledger
    from regrain.model.entry import Entry
    from regrain.store.locks import RunDirectory
    from regrain.store.root import StoreRoot

BATCH_PACKAGES = 64
BATCH_BYTES = 256 << 20
"""What is built before the file system is flushed once for all of it."""

_BLOCK = 4096
_LINE_BYTES_MIN = 90
"""The shortest line of a file list: no entry takes less."""

_DISK_FAILED = frozenset({errno.EIO, errno.EROFS, errno.ENODEV, errno.ENXIO})


class Ways(NamedTuple):
    """How files of a legacy directory may come by their bytes, if not by copying.

    Attributes:
        reflink: They may share blocks with objects.
        link: They may be hard links of objects, where that is exact.
        link_outside: Such objects may have other names, too.
    """

    reflink: bool
    link: bool
    link_outside: bool


def ways_of(root: StoreRoot, ingest: str, *, link_outside: bool) -> Ways:
    """Return how legacy directories are rebuilt where packages come in by ``ingest``."""
    reflink = ingest in ("auto", "reflink") and disk.shares_extents(root.fd)
    return Ways(reflink, not reflink and ingest in ("auto", "hardlink"), link_outside)


class Need(NamedTuple):
    """What rebuilding takes.

    Attributes:
        packages: Packages without a legacy directory.
        size: Bytes on disk.
        inodes: Inodes.
    """

    packages: int
    size: int
    inodes: int


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
    """A package has its legacy directory again."""

    package_hash: str


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


def lacking(root: StoreRoot) -> list[str]:
    """Return the published packages that have no legacy directory."""
    return [
        name
        for name in published(root.packages)
        if is_package_hash(name) and not is_published(root.fd, name)
    ]


def need(root: StoreRoot, ways: Ways, package_hashes: list[str]) -> Need:
    """Say what rebuilding these packages takes; change nothing."""
    size = inodes = 0
    used: set[int] = set()
    for name in package_hashes:
        try:
            package = FileLevelPackage(root.packages, root.objects, name)
            share = ExactShare(root, package, link_outside=ways.link_outside)
            for entry in package.entries():
                if not _is_linked(entry, share, ways, used):
                    inodes += 1
                    size += _takes(root, entry, ways)
        except (CorruptionError, UnknownFormatError, OSError):
            continue  # rebuilding meets it again, and says so
    return Need(len(package_hashes), size, inodes)


def cost_of_undoing(root: StoreRoot, ledger: Ledger) -> tuple[int, int]:
    """Return bytes on disk and inodes that a rollback would take now, at the most.

    Quick, for ``status``: from the ledger, as if nothing could be linked or reflinked; no
    file list is read (``need`` reads them).
    """
    if root.phase() is Phase.ROLLED_BACK:
        return 0, 0
    size = inodes = 0
    sizes = ledger.legacy_sizes()
    for name in lacking(root):
        allocated, count = sizes.get(name, (0, 0))
        size += allocated
        inodes += count or _entries_at_most(root, name)
    return size, inodes


def _entries_at_most(root: StoreRoot, name: str) -> int:
    try:
        status = os.stat(f"{name}/{layout.FILE_LIST}", dir_fd=root.packages, follow_symlinks=False)
    except OSError:
        return 0
    return status.st_size // _LINE_BYTES_MIN


def _is_linked(entry: Entry, share: ExactShare, ways: Ways, used: set[int]) -> bool:
    """Tell whether an entry needs no inode of its own."""
    if entry.kind is Kind.DIRECTORY:
        return False
    if entry.hardlink is not None:
        return True
    if entry.kind is Kind.SYMLINK or not ways.link:
        return False
    inode = share.candidate(entry)
    if inode is None or inode in used:
        return False
    used.add(inode)
    return True


def _takes(root: StoreRoot, entry: Entry, ways: Ways) -> int:
    """Return the bytes on disk of a new inode for an entry, rounded up."""
    if entry.kind is Kind.DIRECTORY:
        return _BLOCK
    if entry.kind is Kind.SYMLINK or not entry.size or ways.reflink:
        return 0
    whole = -(-entry.size // _BLOCK) * _BLOCK
    try:
        status = os.stat(object_path(entry.digest), dir_fd=root.objects, follow_symlinks=False)
    except OSError:
        return whole
    return min(whole, disk.allocated(status) or whole)  # its holes stay holes


def check_space(root: StoreRoot, wanted: Need, *, bytes_min: int, inodes_min: int) -> None:
    """See to it that rebuilding leaves the floors free.

    Raises:
        RefusedError: It does not; nothing was changed.
    """
    space = os.fstatvfs(root.fd)
    size = space.f_bavail * space.f_frsize - bytes_min
    inodes = space.f_favail - inodes_min
    if wanted.size > max(0, size) or (space.f_files and wanted.inodes > max(0, inodes)):
        raise RefusedError(
            "too little space to rebuild the legacy directories",
            path=root.path,
            why=f"{wanted.packages} packages need {wanted.size} bytes and {wanted.inodes} inodes; "
            f"{max(0, size)} bytes and {max(0, inodes)} inodes can be used, "
            f"with {bytes_min} bytes and {inodes_min} inodes to be left free",
            advice="Free some, or lower [migration] free_bytes_min and free_inodes_min.",
        )


def restore(
    root: StoreRoot,
    ledger: Ledger,
    run: RunDirectory,
    ways: Ways,
    *,
    on_event: Callable[[Restored | Failure], None],
    stopping: Callable[[], bool],
) -> Restoration:
    """Give every published package that has no legacy directory one; all others go on."""
    done = Restoration()
    for batch in _batches(root, run, ways, done, on_event, stopping):
        disk.syncfs(root.fd)
        names = [name for name in batch if _is_exact(root, run, name, done, on_event)]
        with StoreLock(root, exclusive=False), publish_lock(root):
            placed = [name for name in names if _place(root, run, name)]
            disk.fsync(root.fd)
            ledger.restored(measured(root, placed, lambda _: None))
        done.packages.update(placed)
        for name in placed:
            on_event(Restored(name))
    for failure in done.failures:
        if failure.is_damage:
            ledger.concern(failure.package_hash, failure.why)
    return done


def _batches(
    root: StoreRoot,
    run: RunDirectory,
    ways: Ways,
    done: Restoration,
    on_event: Callable[[Restored | Failure], None],
    stopping: Callable[[], bool],
) -> Iterator[list[str]]:
    """Build legacy directories aside; yield so many as are flushed together."""
    batch: list[str] = []
    size = 0
    for name in lacking(root):
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
    failure = Failure(
        name, f"{where}{error.what}{f': {error.why}' if error.why else ''}", is_damage
    )
    done.failures.append(failure)
    on_event(failure)


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
    failure = Failure(name, f"'{shown(path)}' cannot be restored exactly: {how}")
    done.failures.append(failure)
    on_event(failure)
    return False


def _place(root: StoreRoot, run: RunDirectory, name: str) -> bool:
    """Rename a finished directory into its place, unless the package went meanwhile."""
    if not is_published(root.packages, name):
        return False
    try:
        disk.rename_noreplace(name.encode(), run.staging, name.encode(), root.fd)
    except FileExistsError:  # somebody else made one: it is compared with the others
        return False
    return True
