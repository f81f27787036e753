"""Bring published packages of one store into another: copied, never shared, read back cold.

The order is that of every write: staged, flushed, objects named, flushed, packages renamed into
place, recorded. Killed anywhere, the next one goes on where this was.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from regrain import disk
from regrain.errors import CorruptionError, reason
from regrain.ledger import NewCarrier
from regrain.ledger.keeping import Intent
from regrain.migrate import replica_objects
from regrain.migrate.added import record
from regrain.migrate.disk_errors import staging_error
from regrain.migrate.progress import Tracker
from regrain.migrate.publish import Publisher
from regrain.migrate.replica_objects import Copier, Copy, Route, Wish, cold_hash
from regrain.migrate.replica_plan import Manifest, Parcel
from regrain.model.events import PackageCompleted, PackageFailed
from regrain.model.layout import FILE_LIST
from regrain.store import dual, engines
from regrain.store.objects import carriers_of, object_path
from regrain.store.packages import FileLevelPackage, is_published
from regrain.store.workers import deaths_told, worth_starting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Executor

    from regrain.ledger import Ledger
    from regrain.model.events import Event
    from regrain.store.locks import RunDirectory, StoreLock
    from regrain.store.root import StoreRoot

BATCH_BYTES = 512 << 20
BATCH_OBJECTS = 20_000
TASK_OBJECTS = 400
TASK_BYTES = 32 << 20
_TICK_SECONDS = 0.2

Item = TypeVar("Item")


@dataclass(slots=True)
class Replicated:
    """What was copied.

    Attributes:
        packages: Packages that are in the target now and were not before.
        objects: Objects that were copied.
        size: Their bytes.
        failed: Packages that could not be copied, each with the reason.
        stopped: Whether it was ended early.
    """

    packages: int = 0
    objects: int = 0
    size: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    stopped: bool = False


class Replicator:
    """Copies packages into a store.

    Args:
        source: Where they are published.
        target: Where they are to be.
        run: Private space there.
        ledger: The target's.
        locks: Those of both stores that are shared, given up between batches when wanted.
        emit: Told how far it is, and what became of each package.
        stopping: Asked often; True ends it after the objects in hand.
        office: Hands out units of work where an engine has the workers.
    """

    def __init__(  # noqa: PLR0913, PLR0917 -- all that it works with, wired in one place
        self,
        source: StoreRoot,
        target: StoreRoot,
        run: RunDirectory,
        ledger: Ledger,
        locks: list[StoreLock],
        emit: Callable[[Event], None],
        stopping: Callable[[], bool],
        office: engines.Office | None = None,
    ) -> None:
        self._source, self._target, self._run = source, target, run
        self._ledger, self._locks = ledger, locks
        self._emit, self._stopping = emit, stopping
        self._office = office
        # What other hosts wrote they have flushed; by name, as this one then does, too.
        self._publisher = Publisher(target, run, fsync_each=office is not None)
        self._flaws: dict[str, str] = {}

    def copy(self, manifest: Manifest, jobs_max: int) -> Replicated:
        """Copy what ``prepare`` found.

        Raises:
            NoSpaceError: The target is full.
            HaltedError: Its disk failed, or workers did.
            EngineError: The engine was lost.
        """
        done = Replicated(failed=dict(manifest.failed))
        for name, why in manifest.failed.items():
            self._emit(PackageFailed(name, "", "", why, None))
        if not manifest.parcels or self._stopping():
            done.stopped = self._stopping()
            return done
        tracker = Tracker(len(manifest.parcels), manifest.size)
        jobs = worth_starting(jobs_max, manifest.objects, manifest.size)
        executor, self._signals = self._workers(jobs)
        try:
            for batch in _batches(manifest.parcels):
                if self._stopping():
                    break
                self._give_way()
                self._copy_batch(executor, batch, tracker, done)
        finally:
            self._signals.value = 1
            executor.shutdown(wait=True, cancel_futures=True)
        done.stopped = self._stopping()
        return done

    def _workers(self, jobs: int) -> tuple[Executor, Any]:
        """Return who copies, and what they heed."""
        source, target = self._source, self._target
        route = Route(source.path, source.store_id, target.path, self._run.name)
        if self._office is None:
            return replica_objects.make_executor(jobs, route)
        return self._office.dispatcher(Copier, (route._replace(flushes=True),))

    def _give_way(self) -> None:
        for lock in self._locks:
            if lock.is_wanted():
                lock.give_way()

    def _copy_batch(
        self, executor: Executor, batch: list[Parcel], tracker: Tracker, done: Replicated
    ) -> None:
        wishes = [Wish(*pair) for parcel in batch for pair in parcel.lacking.items()]
        staged = self._work(executor, replica_objects.stage, _tasks(wishes), tracker)
        if self._stopping():
            return
        good = [copy for copy in staged if not copy.flaw]
        self._publisher.flush()
        published = self._work(executor, replica_objects.publish, _tasks(good), None)
        self._flaws |= {copy.digest: copy.flaw for copy in (*staged, *published) if copy.flaw}
        carriers = [copy for copy in published if not copy.flaw]
        whole = [parcel for parcel in batch if self._stage_lists(parcel, done)]
        self._publisher.flush_objects({copy.digest[:2] for copy in carriers})
        whole = [parcel for parcel in whole if self._is_written(parcel, done)]
        self._commit(whole, carriers, done, tracker)
        done.objects += len(carriers)
        done.size += sum(copy.size for copy in carriers)
        self._emit(tracker.snapshot())

    def _work(
        self,
        executor: Executor,
        task: Callable[[list[Any]], list[Copy]],
        pieces: Iterator[list[Any]],
        tracker: Tracker | None,
    ) -> list[Copy]:
        """Have workers do all pieces; a stop leaves out what was not begun."""
        with deaths_told():
            running = {executor.submit(task, piece) for piece in pieces}
        results: list[Copy] = []
        while running:
            done, running = wait(running, _TICK_SECONDS, FIRST_COMPLETED)
            for future in done:
                with deaths_told():
                    copies = future.result()
                results += copies
                if tracker is not None:
                    tracker.read(sum(copy.size for copy in copies))
            if tracker is not None:
                self._emit(tracker.snapshot())
                if self._stopping():
                    self._signals.value = 1
                    engines.check_workers(executor, is_ending=True)
                    running = {future for future in running if not future.cancel()}
        return results

    # file lists

    def _stage_lists(self, parcel: Parcel, done: Replicated) -> bool:
        """Copy a package's own directory into staging; False if the package failed."""
        name = parcel.package_hash
        named = (raw.hex() for raw in parcel.outcome.digests)
        broken = next((digest for digest in named if digest in self._flaws), None)
        if broken is not None:
            self._fail(name, f"object {broken}: {self._flaws[broken]}", done)
            return False
        try:
            self._copy_directory(name)
        except disk.SourceReadError as error:
            if is_published(self._source.packages, name):
                self._fail(name, f"its file list cannot be read: {reason(error)}", done)
            return False
        except OSError as error:
            raise staging_error(error, name.encode()) from error
        return True

    def _copy_directory(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            disk.remove_tree(name, self._run.staging)
        try:
            source = disk.open_directory(name, self._source.packages)
        except OSError as error:
            raise disk.SourceReadError(*error.args) from error
        with disk.Closing(source):
            disk.make_directory(name, self._run.staging, 0o700)
            with disk.Closing(disk.open_directory(name, self._run.staging)) as target:
                for child in sorted(os.listdir(source)):
                    self._copy_file(child, source, target)
                self._finish(target, stat.S_IMODE(os.fstat(source).st_mode))

    def _copy_file(self, name: str, source: int, target: int) -> None:
        try:
            opened = disk.open_file(name, source)
        except OSError as error:
            raise disk.SourceReadError(*error.args) from error
        with disk.Closing(opened) as fd, disk.Closing(disk.create(name, target)) as copy:
            status = os.fstat(fd)
            if stat.S_ISREG(status.st_mode):
                disk.copy_bytes(fd, copy, status.st_size)
                self._finish(copy, stat.S_IMODE(status.st_mode))

    def _finish(self, fd: int, mode: int) -> None:
        if os.geteuid() == 0:
            os.fchown(fd, *self._target.owner)
        os.fchmod(fd, mode)

    def _is_written(self, parcel: Parcel, done: Replicated) -> bool:
        """Read a flushed file list back from the disk."""
        place = f"{parcel.package_hash}/{FILE_LIST}"
        (found, _), _ = cold_hash(place, self._run.staging, is_compressed=False)
        if found == parcel.outcome.list_hash:
            return True
        self._fail(parcel.package_hash, "its file list changed while it was copied", done)
        return False

    def _fail(self, name: str, why: str, done: Replicated) -> None:
        done.failed[name] = why
        self._emit(PackageFailed(name, "", "", why, None))

    # the commit

    def _commit(
        self, parcels: list[Parcel], carriers: list[Copy], done: Replicated, tracker: Tracker
    ) -> None:
        rows = [
            NewCarrier(
                bytes.fromhex(copy.digest),
                copy.mode,
                copy.carrier == copy.digest,
                copy.mtime_ns,
                copy.size,
                copy.allocated,
                copy.is_compressed,
            )
            for copy in carriers
        ]
        added = Counter[str]()
        for copy in carriers:
            added[copy.digest] += copy.allocated * copy.is_new
        with self._publisher.exclusive():
            self._ledger.record_objects(rows)
            wanted = [p for p in parcels if not dual.has_package(self._target, p.package_hash)]
            names = [parcel.package_hash for parcel in wanted]
            if names:
                self._ledger.intend_all(names, Intent.ADD)
                self._publisher.publish_packages(names)
            for parcel in wanted:
                size = sum(
                    added[name] for name in {one.partition(".")[0] for one in parcel.lacking}
                )
                record(self._target, self._ledger, replace(parcel.outcome, added=size), [])
        for parcel in wanted:
            done.packages += 1
            tracker.completed(parcel.outcome.files)
            self._emit(
                PackageCompleted(
                    parcel.package_hash,
                    "",
                    "",
                    parcel.outcome.files,
                    parcel.outcome.size,
                    parcel.outcome.deduplicated,
                    0,
                )
            )


def read_back(target: StoreRoot, package_hash: str) -> None:
    """Read all objects of a published package from the disk, not from memory.

    Raises:
        CorruptionError: One is not what its name says.
    """
    package = FileLevelPackage(target.packages, target.objects, package_hash)
    for digest in sorted(package.contents().sizes):
        for carrier in carriers_of(target.objects, digest):
            path = object_path(carrier.name)
            (found, _), _ = cold_hash(path, target.objects, is_compressed=carrier.is_compressed)
            if found != digest:
                raise CorruptionError(
                    "the disk does not hold what was written",
                    path=os.path.join(target.path, "objects", path),
                    package=package_hash,
                    advice="Check that disk before trusting it with anything.",
                )


def _batches(parcels: list[Parcel]) -> Iterator[list[Parcel]]:
    batch: list[Parcel] = []
    objects = size = 0
    for parcel in parcels:
        batch.append(parcel)
        objects += len(parcel.lacking)
        size += sum(parcel.lacking.values())
        if objects >= BATCH_OBJECTS or size >= BATCH_BYTES:
            yield batch
            batch, objects, size = [], 0, 0
    if batch:
        yield batch


def _tasks(items: list[Item]) -> Iterator[list[Item]]:
    """Part wishes or copies into tasks of about equal work."""
    task: list[Item] = []
    size = 0
    for item in items:
        task.append(item)
        size += item.size  # type: ignore[attr-defined]
        if len(task) >= TASK_OBJECTS or size >= TASK_BYTES:
            yield task
            task, size = [], 0
    if task:
        yield task
