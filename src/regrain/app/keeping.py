"""The facade of a store in use: packages come and go, objects nobody holds are collected."""

from __future__ import annotations

import contextlib
import os
import stat
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from regrain import disk
from regrain.app.compression import ingest_compression
from regrain.app.naming import being_removed, known_hash
from regrain.app.recovery import check_owner, finish_begun, storage_error, writing
from regrain.errors import (
    ArchiveError,
    ConfigurationError,
    HaltedError,
    LedgerLostError,
    NoSpaceError,
    PackageError,
    RegrainError,
    UnknownPackageError,
    reason,
    shown,
)
from regrain.ledger import open_ledger
from regrain.maintain import collect as collecting
from regrain.maintain import remove as removing
from regrain.migrate.add import UNPACKED, Added, Adder, Tree, check_copy, check_root
from regrain.migrate.jobs import Ingest, Options
from regrain.migrate.reconcile import queue_all
from regrain.model import file_list, layout
from regrain.model.digest import Digest, PackageHash
from regrain.model.phase import Phase
from regrain.store import dual
from regrain.store.checkout import checkout
from regrain.store.legacy import LegacyPackage
from regrain.store.locks import PATIENCE_SECONDS, RunDirectory
from regrain.store.unpack import look_through, unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from regrain.settings import Settings
    from regrain.store.root import StoreRoot

_LEGACY_PHASES = (Phase.ROLLING_BACK, Phase.ROLLED_BACK)
_HOUR = 3600
GRACE_SECONDS = 24 * _HOUR


# add


def writes_legacy(root: StoreRoot, settings: Settings) -> bool:
    """Tell which layout a new package goes to.

    Raises:
        ConfigurationError: The settings want legacy where that is over.
    """
    phase = root.phase()
    if phase in _LEGACY_PHASES:
        return True
    if settings.store.use_file_level_storage:
        return False
    if phase is Phase.DUAL:
        return True
    raise ConfigurationError(
        "use_file_level_storage = false has no meaning any more",
        path=root.path,
        why=f"the store's phase is {phase.value}",
        advice="Take it out of the configuration.",
    )


def add_package(
    root: StoreRoot, settings: Settings, path: str | bytes, package_hash: str | None = None
) -> Added:
    """Add a package from an archive or a directory.

    Args:
        root: The store.
        settings: Say which layout it goes to, and how files are brought in.
        path: An ``.sp`` archive (tar; zstd or plain), or a directory.
        package_hash: Its name; by default the BLAKE3 of the archive's bytes, or the tree
            hash of the directory.

    Returns:
        What became of it.

    Raises:
        ArchiveError: The archive is broken, or asks for what is refused.
        PackageError: It cannot be brought in, or another tree has that name.
        NoSpaceError: There is no room for it.
    """
    name = None if package_hash is None else PackageHash(package_hash)
    with _told(path):
        return _add(root, settings, path, name)


@contextlib.contextmanager
def _told(path: str | bytes) -> Iterator[None]:
    """Say of every failure which addition it ended, and what to do."""
    try:
        yield
    except (PackageError, NoSpaceError, HaltedError) as error:
        if error.path != shown(path):  # else it names what was given already
            error.what = f"cannot add '{shown(path)}': {error.what}"
        error.advice = _advice(error)
        raise


def _advice(error: RegrainError) -> str:
    """Return what to do about a failed addition; what stages packages speaks of migrating."""
    if isinstance(error, NoSpaceError):
        return "Free space or inodes, then add it again."
    if isinstance(error, LedgerLostError):  # no disk is to blame
        return error.advice
    if isinstance(error, HaltedError):
        return "Check the disk, then add it again."
    if isinstance(error, ArchiveError) and not error.advice:
        return "Get the archive anew, or have it made anew by a plain tar."
    again = "'regrain migrate --retry-failed'"
    return error.advice.replace(f"retry with {again}", "add it again").replace(
        again, "add it again"
    )


def _add(root: StoreRoot, settings: Settings, path: str | bytes, name: PackageHash | None) -> Added:
    with (
        disk.Closing(_open_source(path)) as source,
        writing(root) as ledger,
        RunDirectory(root, marks_errors=False) as run,
    ):
        to_legacy = writes_legacy(root, settings)
        finish = partial(removing.finish_one, root, ledger)
        adder = Adder(root, run, ledger, brought_in_as(run, settings), finish)
        if not stat.S_ISDIR(os.fstat(source).st_mode):
            tree, archive_hash = _unpacked(run, source)
            name = name or archive_hash
        elif to_legacy:
            tree = _copied(run, root, source)
            name = name or PackageHash(_tree_hash(tree))
        else:
            tree = Tree(source, ".", is_ours=False)
        if to_legacy and name is not None:
            return adder.add_as_legacy(tree, name)
        return adder.add(tree, name)


class Foreseen(NamedTuple):
    """What would be added.

    Attributes:
        kind: ``directory`` or ``archive``.
        package_hash: Its name.
        is_taken: Whether a package has that name; whether it is the same was not looked at.
    """

    kind: str
    package_hash: str
    is_taken: bool


def foresee_package(
    root: StoreRoot, settings: Settings, path: str | bytes, package_hash: str | None = None
) -> Foreseen:
    """Read through a package that would be added, and write nothing; see ``add_package``.

    What only shows when an archive is unpacked is not noticed.

    Raises:
        ArchiveError: The archive is broken, or asks for what is refused.
        PackageError: It is no package, or cannot be read.
        ConfigurationError: The settings want legacy where that is over.
    """
    writes_legacy(root, settings)
    with _told(path), disk.Closing(_open_source(path)) as source:
        if stat.S_ISDIR(os.fstat(source).st_mode):
            check_root(source)
            kind, own = "directory", _tree_hash(Tree(source, ".", is_ours=False))
        else:
            kind, own = "archive", look_through(source)
    name = PackageHash(own if package_hash is None else package_hash)
    return Foreseen(kind, name, dual.has_package(root, name))


def _open_source(path: str | bytes) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise PackageError(
            "cannot open the package to add",
            path=path,
            why=reason(error),
            advice="Name an archive or a directory that this user may read.",
        ) from error
    mode = os.fstat(fd).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        os.close(fd)
        raise PackageError(
            "neither an archive nor a directory", path=path, advice="Name an .sp file or a tree."
        )
    return fd


def brought_in_as(run: RunDirectory, settings: Settings) -> Options:
    """Return how files come into a store, by its settings and what its disk can do."""
    return Options(
        ingest=Ingest(settings.store.ingest),
        can_reflink=disk.shares_extents(run.pool),
        can_link=disk.can_link(run.pool),
        link_outside=settings.store.link_outside,
        fsync_each=settings.store.sync == "fsync",
        verify=True,
        compression=ingest_compression(settings),
    )


def _tree_hash(tree: Tree) -> str:
    return file_list.tree_hash(LegacyPackage(tree.parent, tree.name).entries())


def _unpacked(run: RunDirectory, source: int) -> tuple[Tree, PackageHash]:
    """Unpack an archive into private space; return the tree, and the archive's own hash."""
    disk.make_directory(UNPACKED, run.fd, 0o700)
    with disk.Closing(disk.open_directory(UNPACKED, run.fd)) as target:
        found = unpack(source, target, keep_owner=os.geteuid() == 0)
    return Tree(run.fd, UNPACKED, is_ours=True), PackageHash(found.package_hash)


def _copied(run: RunDirectory, root: StoreRoot, source: int) -> Tree:
    """Copy a tree into private space, exactly."""
    path = os.path.join(root.path, layout.TEMP, run.name, UNPACKED)
    try:
        checkout(LegacyPackage(source, "."), path)
    except RegrainError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        kind = NoSpaceError if isinstance(error, NoSpaceError) else PackageError
        raise kind(
            "cannot copy the tree into the store",
            why=error.why,
            advice="Check the tree and the disk, then add it again.",
        ) from error
    tree = Tree(run.fd, UNPACKED, is_ours=True)
    check_copy(tree, source)
    return tree


# remove, exclude


def plan_removal(root: StoreRoot, text: str) -> removing.Removal:
    """Say what removing a package would do; change nothing.

    Raises:
        UnknownPackageError: There is no such package.
    """
    ledger = open_ledger(root.path, read_only=True)
    try:
        return removing.foresee(root, ledger, known_hash(root, ledger, text))
    finally:
        ledger.close()


def remove_package(root: StoreRoot, text: str) -> removing.Removal:
    """Remove a package from both layouts.

    Its objects stay until ``collect`` takes those that no other package holds. A migration
    that has the package in hand drops it. Where a killed process had begun with it, this
    finishes it.

    Raises:
        UnknownPackageError: There is no such package.
    """
    check_owner(root)
    begun = being_removed(root, text)
    with writing(root) as ledger:  # which finishes what was begun
        try:
            name = known_hash(root, ledger, text)
        except UnknownPackageError:
            if begun is None:
                raise
            return removing.Removal(begun, was_begun=True)
        return removing.remove(root, ledger, name)


def exclude(root: StoreRoot, text: str, *, undo: bool = False, dry_run: bool = False) -> bool:
    """Set a package aside, or take it back in; False if that is how it was.

    Raises:
        UnknownPackageError: There is no such package.
        RefusedError: It has no legacy directory to be served from.
    """
    name = dual.find_hash(root, text)
    if not dual.has_package(root, name):
        raise UnknownPackageError(
            "no such package", package=name, advice="'regrain list' shows what there is."
        )
    if dry_run:
        if not undo:
            removing.check_excludable(root, name)
        return (name in excluded(root)) is undo
    with writing(root) as ledger:
        if undo:
            return removing.include(root, ledger, name)
        return removing.exclude(
            root, ledger, name, partial(queue_all, root, ledger, [name], lambda _: None)
        )


def excluded(root: StoreRoot) -> set[str]:
    """Return the packages that are set aside."""
    ledger = open_ledger(root.path, read_only=True)
    try:
        return ledger.excluded()
    finally:
        ledger.close()


# collect


def plan_collection(
    root: StoreRoot, *, grace: float = GRACE_SECONDS, size_max: int | None = None
) -> collecting.Collection:
    """Say what ``collect`` would take; change nothing."""
    ledger = open_ledger(root.path, read_only=True)
    try:
        return collecting.foresee(ledger, grace=grace, size_max=size_max)
    finally:
        ledger.close()


def collect(
    root: StoreRoot,
    *,
    grace: float = GRACE_SECONDS,
    size_max: int | None = None,
    on_progress: Callable[[int], None] = lambda _: None,
    patience: float = PATIENCE_SECONDS,
) -> collecting.Collection:
    """Delete the objects that no package has held for ``grace`` seconds.

    What a killed run left is looked through first, where no run is under way. For each turn
    with the store to itself it waits ``patience`` seconds at the most.

    Raises:
        RefusedError: What packages hold cannot be told.
        LockedError: Writers did not pause in time.
    """
    with writing(root):
        pass
    try:
        return collecting.collect(
            root,
            grace=grace,
            finish=partial(finish_begun, root),
            size_max=size_max,
            on_progress=on_progress,
            patience=patience,
        )
    except OSError as error:
        raise storage_error(error, root) from error


# owners


def owners(root: StoreRoot, digest: str) -> list[str]:
    """Return the packages that hold an object, sorted.

    Raises:
        MalformedHashError: ``digest`` is not 64 hexadecimal digits.
        UnknownPackageError: No such object is known.
    """
    raw = bytes.fromhex(Digest(digest))
    ledger = open_ledger(root.path, read_only=True)
    try:
        if ledger.object_size(raw) is None:
            raise UnknownPackageError(
                "no such object",
                path=digest,
                advice="'regrain files HASH --json' shows the objects of a package.",
            )
        return ledger.owners(raw)
    finally:
        ledger.close()
