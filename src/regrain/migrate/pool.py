"""What the worker processes of a migration are asked to do. They hold no lock of the run."""

from __future__ import annotations

import contextlib
import gc
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from regrain import disk
from regrain.disk_linux import give_way
from regrain.errors import HaltedError, NoSpaceError, PackageError, RegrainError, path_of, reason
from regrain.migrate.disk_errors import flush_error, staging_error
from regrain.migrate.ingest import Ingester, StoppedError
from regrain.migrate.jobs import (
    Failure,
    FailureKind,
    ObjectsResult,
    Options,
    PackageResult,
    Record,
    Slice,
    SliceResult,
    Wanted,
    pack,
    unpacker,
)
from regrain.migrate.objects import ObjectPublisher, Places, StaleCarrierError
from regrain.migrate.seal import Sealer
from regrain.migrate.staging import Stager
from regrain.migrate.throttle import Throttle
from regrain.model import layout
from regrain.store import errands
from regrain.store.legacy import source_error
from regrain.store.locks import RUN_DIRECTORY_LOCK
from regrain.store.root import Owner
from regrain.store.workers import signals, spawn_executor

if TYPE_CHECKING:
    from concurrent.futures import Executor

SLICES_HELD_MAX = 16
GC_OBJECTS = 500_000

_records = unpacker(Record)
_wanted = unpacker(Wanted)


@dataclass(frozen=True, slots=True)
class Workplace:
    """Where a worker works; plain values, so that it can be sent to it.

    Attributes:
        store: The store's directory.
        run: The run's, below ``temp/``.
        owner: Who the store belongs to.
        options: How packages are brought in.
        niceness: How much it lets others go first at the processors, 0 to 19.
        idle_cpu: Whether it computes only when hardly anybody else does.
        io: How it lets them go first at the disks: ``low``, ``idle`` or ``normal``.
    """

    store: str
    run: str
    owner: Owner
    options: Options
    niceness: int = 0
    idle_cpu: bool = False
    io: str = "normal"


class _Worker:
    """What one worker process keeps open."""

    def __init__(self, place: Workplace, stop: Any) -> None:  # noqa: ANN401 -- a shared byte
        self._signals = stop
        self._turn = 0
        self.store = disk.open_directory(place.store)
        self._open: list[int] = []
        run = f"{layout.TEMP}/{place.run}"
        staging = self._below(f"{run}/{layout.PACKAGES}")
        self.spills = self._below(f"{run}/slices")
        places = Places(
            self.store, self._below(layout.OBJECTS), self._below(f"{run}/{layout.OBJECTS}")
        )
        stager = Stager(places.objects, places.pool, place.owner, place.options, copies_later=True)
        self.ingester = Ingester(stager, lambda: bool(stop.value), Throttle(stop))
        began_ns = os.stat(f"{run}/{RUN_DIRECTORY_LOCK}", dir_fd=self.store).st_ctime_ns
        self.sealer = Sealer(staging, self.ingester, place.owner, place.options, began_ns)
        self.objects = ObjectPublisher(places, place.owner, place.options, stager)
        self._flushes_names = place.options.flush_names
        self._staging, self._objects = staging, places.objects

    def close(self) -> None:
        """Let go of all; a process that ends need not."""
        for fd in (self.store, *self._open):
            os.close(fd)
        self._open.clear()

    def begin(self) -> None:
        """Begin a package or a part of one; forget what may be true no more."""
        if self._turn != self._signals.turn:
            self._turn = self._signals.turn
            self.ingester.stager.forget()
        self.ingester.begin()

    def _below(self, path: str) -> int:
        self._open.append(disk.descend(path.encode(), self.store))
        return self._open[-1]

    def sealed(self, result: PackageResult) -> PackageResult:
        """Return what was sealed, its name flushed where nobody else can do that."""
        if self._flushes_names:
            _flush(self._staging, "temp")
        return result

    def flush_objects(self, wanted: list[Wanted]) -> None:
        """Flush the names of objects, whoever gave them, where nobody else can do that."""
        if not self._flushes_names:
            return
        for shard in sorted({one.digest[:1].hex() for one in wanted}):
            with disk.Closing(disk.open_directory(shard, self._objects)) as fd:
                _flush(fd, f"objects/{shard}")

    def source(self, package_hash: str) -> disk.Closing:
        try:
            return disk.Closing(disk.open_directory(package_hash, self.store))
        except FileNotFoundError as error:
            raise PackageError(
                "source vanished",
                package=package_hash,
                why="its legacy directory is gone and it was not published yet",
            ) from error
        except OSError as error:
            raise source_error(error, b"") from error

    def seal_slices(self, package_hash: str, source: int, slices: list[Slice]) -> PackageResult:
        """Seal a package from spill files: held in memory if they are few, else read again."""
        if len(slices) <= SLICES_HELD_MAX:
            held = [record for piece in slices for record in self._read_spill(piece)]
            return self.sealer.seal(package_hash, source, lambda: iter(held))
        return self.sealer.seal(
            package_hash,
            source,
            lambda: (record for piece in slices for record in self._read_spill(piece)),
        )

    def write_spill(self, piece: Slice, records: list[Record]) -> None:
        name = _spill_name(piece)
        try:
            with contextlib.suppress(FileNotFoundError):
                disk.unlink(name, self.spills)
            with disk.Closing(disk.create(name, self.spills)) as fd:
                disk.write_all(fd, pack(records))
        except OSError as error:
            raise staging_error(error, name.encode()) from error

    def _read_spill(self, piece: Slice) -> list[Record]:
        return _records(disk.read_all(_spill_name(piece), self.spills, bytes_max=1 << 40))


def _flush(fd: int, what: str) -> None:
    try:
        disk.fsync(fd)
    except OSError as error:
        raise flush_error(what, error) from error


def _spill_name(piece: Slice) -> str:
    return f"{piece.package_hash}.{piece.number}"


_worker: _Worker | HaltedError | None = None


def _found() -> _Worker | HaltedError | None:
    """Return the worker of an engine's unit, or else that of this process."""
    engaged: _Worker | None = errands.at_work()
    return engaged or _worker


def _here() -> _Worker:
    found = _found()
    if isinstance(found, _Worker):
        return found
    raise found or HaltedError("a worker process without its workplace")


def start(place: Workplace, stop: Any) -> None:  # noqa: ANN401 -- a shared byte
    """Begin a worker process. If it cannot, its first task says why."""
    global _worker  # noqa: PLW0603 -- an executor gives its processes no other place
    # What is made here by the hundred thousand has no cycles: looking for them is for nothing.
    gc.set_threshold(GC_OBJECTS)
    try:
        _worker = _Worker(place, stop)
    except OSError as error:
        _worker = HaltedError("a worker cannot open the store", why=reason(error))


def _start_process(place: Workplace, stop: Any) -> None:  # noqa: ANN401 -- a shared byte
    give_way(place.niceness, idle_cpu=place.idle_cpu, io=place.io)
    start(place, stop)


def make_executor(jobs: int, place: Workplace) -> tuple[Executor, Any]:
    """Return an executor of ``jobs`` workers, and the byte that stops them when set."""
    stop = signals()
    return spawn_executor(jobs, _start_process, place, stop), stop


def engage(place: Workplace, board: Any) -> _Worker:  # noqa: ANN401 -- stands for a shared byte
    """Return a worker of an engine; its process is others', so its priority is left alone."""
    return _Worker(place, board)


# what workers are asked to do


def bring_in(package_hashes: list[str]) -> list[PackageResult]:
    """Bring in whole packages, one after the other."""
    return [_bring_in_one(name) for name in package_hashes]


def _bring_in_one(package_hash: str) -> PackageResult:
    try:
        worker = _here()
        worker.begin()
        with worker.source(package_hash) as root:
            records = list(worker.ingester.ingest(root, b"", None))
            return worker.sealed(worker.sealer.seal(package_hash, root, lambda: iter(records)))
    except (RegrainError, OSError) as error:
        return _failed(package_hash, error)


def bring_in_slice(piece: Slice) -> SliceResult:
    """Bring in a part of a package; its records wait in a spill file for ``finish``."""
    try:
        worker = _here()
        worker.begin()
        with worker.source(piece.package_hash) as root:
            records = list(worker.ingester.ingest(root, piece.start, piece.stop))
            worker.write_spill(piece, records)
    except (RegrainError, OSError) as error:
        failed = _failed(piece.package_hash, error)
        return SliceResult(piece, bytes_read=failed.bytes_read, failure=failed.failure)
    stager = worker.ingester.stager
    return SliceResult(
        piece,
        wanted=pack(stager.wanted.values()) if stager.wanted else b"",
        to_copy=pack(stager.to_copy.values()) if stager.to_copy else b"",
        bytes_read=worker.ingester.bytes_read,
    )


def finish(package_hash: str, slices: list[Slice]) -> PackageResult:
    """Make a whole of a package whose slices were brought in."""
    try:
        worker = _here()
        worker.begin()
        with worker.source(package_hash) as root:
            return worker.sealed(worker.seal_slices(package_hash, root, slices))
    except (RegrainError, OSError) as error:
        return _failed(package_hash, error)


def copy_objects(parts: list[tuple[str, bytes]]) -> list[ObjectsResult]:
    """Stage copies of what packages have that cannot be linked.

    Args:
        parts: Pairs of a package and what is to be copied of it (packed).
    """
    return [_copy_objects(name, to_copy) for name, to_copy in parts]


def _copy_objects(package_hash: str, to_copy: bytes) -> ObjectsResult:
    staged: list[Wanted] = []
    failure = None
    try:
        worker = _here()
        worker.begin()
        with worker.source(package_hash) as root:
            staged.extend(worker.objects.copy(root, _wanted(to_copy)))
    except (RegrainError, OSError) as error:
        failure = _failed(package_hash, error).failure
    return ObjectsResult(package_hash, staged=pack(staged) if staged else b"", failure=failure)


def publish_objects(parts: list[tuple[str, bytes]]) -> list[ObjectsResult]:
    """Publish the objects of packages.

    Args:
        parts: Pairs of a package and what it wants (packed), or a part of that.
    """
    return [_publish_objects(name, wanted) for name, wanted in parts]


def _publish_objects(package_hash: str, wanted: bytes) -> ObjectsResult:
    """Publish objects; those that got their names before a failure are told with it."""
    new, failure = [], None
    damaged: list[tuple[str, str]] = []
    try:
        worker = _here()
        worker.begin()
        worker.objects.damaged = damaged
        with worker.source(package_hash) as root:
            listed = _wanted(wanted)
            for carrier in worker.objects.publish(root, listed):
                new.append(carrier)  # noqa: PERF402 -- what came before an error counts
            worker.flush_objects(listed)
    except (RegrainError, OSError) as error:
        failure = _failed(package_hash, error).failure
    carriers = pack(new) if new else b""
    return ObjectsResult(package_hash, carriers=carriers, failure=failure, damaged=tuple(damaged))


def _failed(package_hash: str, error: RegrainError | OSError) -> PackageResult:
    """Return the failure; errors of the source were told apart where they happened."""
    if isinstance(error, OSError):
        error = staging_error(error, path_of(error, package_hash))
    worker = _found()
    if not isinstance(worker, _Worker):
        return PackageResult(package_hash, failure=failure_of(error))
    return PackageResult(
        package_hash,
        bytes_read=worker.ingester.bytes_read,
        failure=failure_of(error),
    )


def failure_of(error: RegrainError) -> Failure:
    """Return whom an error concerns."""
    kinds = (
        (StoppedError, FailureKind.STOPPED),
        (NoSpaceError, FailureKind.SPACE),
        (HaltedError, FailureKind.HALT),
        (StaleCarrierError, FailureKind.STALE),
    )
    kind = next((kind for type_, kind in kinds if isinstance(error, type_)), FailureKind.PACKAGE)
    path = None if error.path is None else error.path.encode()
    return Failure(kind, str(error), path)
