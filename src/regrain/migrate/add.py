"""Add one package: the same walk and write protocol as a migration, in this process.

What is added is written down before it becomes visible: whoever opens the store next
records what a killed process published (``added.finish_adds``).
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from regrain import disk
from regrain.errors import PackageError, UnknownPackageError
from regrain.ledger import NewCarrier, Outcome
from regrain.ledger.keeping import Intent
from regrain.migrate.added import finish_add, no_claim, queue, record
from regrain.migrate.ingest import Ingester
from regrain.migrate.jobs import Options, PackageResult, Record, Wanted
from regrain.migrate.objects import ObjectPublisher, Places, StaleCarrierError
from regrain.migrate.publish import Publisher
from regrain.migrate.seal import Sealer
from regrain.migrate.staging import Stager
from regrain.model.layout import MANIFEST
from regrain.model.manifest import BYTES_MAX, check_manifest
from regrain.store import dual
from regrain.store.compare import first_difference
from regrain.store.legacy import LegacyPackage, changed, source_error
from regrain.store.moving import move_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from regrain.ledger import Ledger
    from regrain.model.entry import Entry
    from regrain.store.locks import RunDirectory
    from regrain.store.root import StoreRoot
    from regrain.store.source import PackageSource

TRIES_MAX = 3
UNPACKED = "unpacked"


@dataclass(frozen=True, slots=True)
class Added:
    """What became of a package that was to be added.

    Attributes:
        package_hash: Its name.
        already_present: Whether it was there, equal in everything; nothing changed then.
        layout: Where it is.
        files: Regular files.
        size: Their bytes.
        new_objects: Objects that were not in the store before.
        added_bytes: What came to the store on disk.
    """

    package_hash: str
    already_present: bool
    layout: str
    files: int = 0
    size: int = 0
    new_objects: int = 0
    added_bytes: int = 0


class Tree(NamedTuple):
    """A tree that is to become a package.

    Attributes:
        parent: The open directory it is in.
        name: Its name there.
        is_ours: Whether it was made for this: then nobody else writes to it, and its inodes
            may become carriers.
    """

    parent: int
    name: str
    is_ours: bool


class Adder:
    """Adds packages to a store.

    Args:
        root: The store.
        run: Private space.
        ledger: The store's.
        options: How files are brought in.
        finish: Carries out what a killed process had begun with a package, additions aside;
            called while ``publish_lock`` is held.
    """

    def __init__(
        self,
        root: StoreRoot,
        run: RunDirectory,
        ledger: Ledger,
        options: Options,
        finish: Callable[[str], object],
    ) -> None:
        self._finish = finish
        self._root = root
        self._run = run
        self._ledger = ledger
        self._options = options
        self._publisher = Publisher(root, run, fsync_each=options.fsync_each)

    def add(self, tree: Tree, package_hash: str | None) -> Added:
        """Bring a tree in at file level.

        Args:
            tree: What to add.
            package_hash: Its name; None takes its tree hash.

        Raises:
            PackageError: It cannot be brought in, or another tree has that name.
        """
        for _ in range(TRIES_MAX):
            try:
                return self._try(tree, package_hash)
            except StaleCarrierError as error:
                last = error
        raise PackageError(
            "the tree changes while it is read", path=last.path, advice="Let its writer finish."
        ) from last

    def _try(self, tree: Tree, package_hash: str | None) -> Added:
        with disk.Closing(_open(tree)) as source:
            check_root(source)
            work = _Work(self._root, self._run, self._options, is_ours=tree.is_ours)
            result, wanted = work.bring_in(source, package_hash)
            present = self._present(result.package_hash, tree)
            if present is not None and result.package_hash not in self._ledger.intents():
                return present  # and nobody was killed who was about to change that
            self._publisher.flush()
            self._run.marks_errors = True
            new = [NewCarrier(*carrier) for carrier in work.objects.publish(source, wanted)]
        self._publisher.flush_objects({f"{first:02x}" for first in result.digests[::32]})
        with self._publisher.exclusive():
            self._settle(result.package_hash)
            present = self._present(result.package_hash, tree)
            if present is not None:  # somebody was faster
                self._ledger.record_objects(new)
                return present
            self._ledger.intend(result.package_hash, Intent.ADD)
            self._publisher.publish_packages([result.package_hash])
            self._record(result, new)
        return Added(
            result.package_hash,
            already_present=False,
            layout="file_level",
            files=result.files,
            size=result.size,
            new_objects=len(new),
            added_bytes=sum(carrier.allocated for carrier in new) + result.list_allocated,
        )

    def _settle(self, package_hash: str) -> None:
        """Finish what was begun with a package of this name.

        The lock is ours, so whoever began it was killed since this command looked first.
        """
        action = self._ledger.intents().get(package_hash)
        if action is Intent.ADD:
            finish_add(self._root, self._ledger, package_hash)
        elif action is not None:
            self._finish(package_hash)

    def _present(self, package_hash: str, tree: Tree) -> Added | None:
        """Compare with a package of that name, if there is one.

        Raises:
            PackageError: It is another tree.
        """
        for tries_left in (1, 0):
            if not dual.has_package(self._root, package_hash):
                return None
            try:
                there = dual.open_package(self._root, package_hash)
                return same(there, LegacyPackage(tree.parent, tree.name), package_hash)
            except (FileNotFoundError, UnknownPackageError, PackageError):
                if not tries_left:  # else it may have been removed under this look
                    raise
        return None

    def _record(self, result: PackageResult, new: list[NewCarrier]) -> None:
        digests = [result.digests[at : at + 32] for at in range(0, len(result.digests), 32)]
        allocated = sum(carrier.allocated for carrier in new)
        outcome = Outcome(
            no_claim(result.package_hash),
            tree_hash=result.tree_hash,
            list_hash=result.list_hash,
            digests=digests,
            files=result.files,
            size=result.size,
            added=allocated + result.list_allocated,
            deduplicated=result.objects_named - len(new),
            verified=True,
        )
        record(self._root, self._ledger, outcome, new)

    def add_as_legacy(self, tree: Tree, package_hash: str) -> Added:
        """Move a finished tree of ours to the top of the store, and queue it.

        Args:
            tree: One of ours, flushed by this.
            package_hash: Its name.

        Raises:
            PackageError: It is no package, or another tree has that name.
        """
        with disk.Closing(_open(tree)) as source:
            check_root(source)
        # All at once: nothing of it was flushed file by file.
        Publisher(self._root, self._run, fsync_each=False).flush()
        with self._publisher.exclusive():
            self._settle(package_hash)
            present = self._present(package_hash, tree)
            if present is not None:
                return present
            self._ledger.intend(package_hash, Intent.ADD)
            move_directory(tree.name.encode(), tree.parent, package_hash.encode(), self._root.fd)
            disk.fsync(self._root.fd)
            usage = queue(self._root, self._ledger, package_hash)
        return Added(
            package_hash,
            already_present=False,
            layout="legacy",
            files=usage.files,
            size=usage.size,
            added_bytes=usage.allocated,
        )


def check_copy(tree: Tree, source: int) -> None:
    """Check that a copy is what its source, looked at afresh, still is.

    Raises:
        PackageError: The source changed while it was copied.
    """
    copy, now = LegacyPackage(tree.parent, tree.name), LegacyPackage(source, ".")
    difference = first_difference(copy.entries(), now.entries())
    if difference is not None:
        raise changed(*difference)


class _Work:
    """What a worker process of a migration has, for one tree in this process."""

    def __init__(
        self, root: StoreRoot, run: RunDirectory, options: Options, *, is_ours: bool
    ) -> None:
        places = Places(root.fd, root.objects, run.pool)
        if not is_ours:
            # The tree stays its owner's, who may write to it: its inodes must not be ours.
            options = options.without_links()
        stager = Stager(root.objects, run.pool, root.owner, options)
        self._ingester = Ingester(stager, stopping=lambda: False)
        self._sealer = Sealer(run.staging, self._ingester, root.owner, options)
        self.objects = ObjectPublisher(places, root.owner, options, stager)

    def bring_in(self, source: int, package_hash: str | None) -> tuple[PackageResult, list[Wanted]]:
        """Hash and stage an open tree; return the result, and what must be published."""
        self._ingester.begin()
        records: list[Record] = list(self._ingester.ingest(source, b"", None))
        result = self._sealer.seal(package_hash, source, lambda: iter(records))
        return result, list(self._ingester.stager.wanted.values())


def same(there: PackageSource, new: PackageSource, package_hash: str) -> Added:
    """Compare the tree of a package with a new one of its name.

    Raises:
        PackageError: They differ.
    """
    files = size = 0

    def counted() -> Iterator[Entry]:
        nonlocal files, size
        for entry in there.entries():
            if entry.digest:
                files, size = files + 1, size + entry.size
            yield entry

    difference = first_difference(counted(), new.entries())
    if difference is not None:
        path, how = difference
        raise PackageError(
            "another tree has this name in the store",
            package=package_hash,
            path=path,
            why=how.replace("changed", "differs")
            .replace("appeared", "is only in the new one")
            .replace("vanished", "is only in the store"),
            advice="A package never changes: give the new tree another hash.",
        )
    return Added(
        package_hash, already_present=True, layout=there.layout.value, files=files, size=size
    )


def check_root(source: int) -> None:
    """Check that an open tree is a package: it has a manifest that can be read.

    Raises:
        PackageError: It has not.
    """
    try:
        status = os.stat(MANIFEST, dir_fd=source, follow_symlinks=False)
        raw = disk.read_all(MANIFEST, source, BYTES_MAX) if stat.S_ISREG(status.st_mode) else None
    except FileNotFoundError:
        raw = None
    except OSError as error:
        raise source_error(error, MANIFEST.encode()) from error
    if raw is None:
        raise PackageError(
            "not a package",
            path=MANIFEST,
            why="there is no such file at its root",
            advice="Add a directory or archive that has one.",
        )
    problem = check_manifest(raw)
    if problem:
        raise PackageError("a broken manifest", path=MANIFEST, why=problem, advice="Mend it.")


def _open(tree: Tree) -> int:
    try:
        return disk.open_directory(tree.name, tree.parent)
    except OSError as error:
        raise source_error(error, tree.name.encode()) from error
