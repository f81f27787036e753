"""Runs a migration inside this process: its workers' tasks are executed as they are submitted."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from regrain.app import initialising, lifecycle
from regrain.app.lifecycle import Cutover
from regrain.app.store import PackageStore
from regrain.migrate import pool, run
from regrain.migrate.orders import Summary
from regrain.model.events import Event
from regrain.settings import Migration as MigrationSettings
from regrain.settings import Settings
from regrain.settings import Store as StoreSettings
from regrain.store import scan


@dataclass(slots=True)
class Flag:
    """What workers share with their run: what tells them to stop, to forget, to be slow."""

    value: int = 0
    turn: int = 0
    rate: float = 0.0
    rate_held_at: float = 0.0
    files_rate: float = 0.0
    files_rate_held_at: float = 0.0


_numbers = count()


class Numbered(Future[Any]):
    """A future that sets keep in the order in which they were made: faults hit what they mean to.

    By default that is a matter of where in memory they lie.
    """

    def __init__(self) -> None:
        super().__init__()
        self._number = next(_numbers)

    def __hash__(self) -> int:
        return self._number


class Here(Executor):
    """Does at once, in this process, what it is given."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Do it now."""
        future = Numbered()
        future.set_running_or_notify_cancel()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 -- what a worker raises, its future holds
            future.set_exception(error)
        return future


class Inline(Here):
    """One worker, in this process; it ends like a process does: everything is closed."""

    def __init__(self, place: pool.Workplace, stop: Flag) -> None:
        start_worker(place, stop)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the worker."""
        close_worker()


def start_worker(place: pool.Workplace, stop: Flag) -> None:
    """Make this process a worker."""
    before = _open_descriptors()
    pool.start(place, stop)
    _opened.extend(_open_descriptors() - before)


def close_worker() -> None:
    """Close what the worker of this process has open, as the end of a process would."""
    pool._worker = None
    while _opened:
        os.close(_opened.pop())


_opened: list[int] = []


def _open_descriptors() -> set[int]:
    """The open descriptors, the one that looks for them left out."""
    found = {int(name) for name in os.listdir("/proc/self/fd")}
    return {fd for fd in found if os.path.exists(f"/proc/self/fd/{fd}")}


@contextmanager
def inline_workers() -> Iterator[None]:
    """Have every migration in this process work inline."""
    original = pool.make_executor

    def make_executor(jobs: int, place: pool.Workplace) -> tuple[Executor, Any]:
        stop = Flag()
        return Inline(place, stop), stop

    pool.make_executor = make_executor
    try:
        yield
    finally:
        pool.make_executor = original
        close_worker()


@dataclass(frozen=True, slots=True)
class Way:
    """How a store is migrated.

    Attributes:
        ingest: Link, copy, or as the program chooses.
        sync: Flush the file system, or file by file.
        batch: Packages committed together.
        slice_entries: Packages of more entries are cut into slices of so many; 0: none are.
        compression: Whether objects come in compressed.
    """

    ingest: str = "auto"
    sync: str = "syncfs"
    batch: int = 2
    slice_entries: int = 0
    compression: str = "none"

    def settings(self) -> Settings:
        """The settings of such a migration; directories count as settled at once,
        a full disk ends the run, and all of it may be taken."""
        return Settings(
            StoreSettings(
                ingest=self.ingest,  # type: ignore[arg-type]
                sync=self.sync,  # type: ignore[arg-type]
                compression=self.compression,  # type: ignore[arg-type]
                migration_batch_size=self.batch,
            ),
            MigrationSettings(settle=0.0, space_wait=0.0, free_bytes_min=0, free_inodes_min=0),
        )


@dataclass(slots=True)
class Told:
    """The events of a run."""

    events: list[Event] = field(default_factory=list)

    def of(self, kind: type[Event]) -> list[Any]:
        """Those of one kind."""
        return [event for event in self.events if isinstance(event, kind)]


@contextmanager
def slices_of(entries: int) -> Iterator[None]:
    """Cut packages into small slices, so that small ones go the way of large ones."""
    places = [
        (module, name)
        for module in (pool, run, scan)
        for name in ("SLICE_ENTRIES", "LARGE_FILES")
        if entries and hasattr(module, name)
    ]
    before = [getattr(module, name) for module, name in places]
    for module, name in places:
        setattr(module, name, entries)
    try:
        yield
    finally:
        for (module, name), value in zip(places, before, strict=True):
            setattr(module, name, value)


def migrate(store: Path, way: Way | None = None, **options: Any) -> Summary:
    """Migrate a store inside this process."""
    way = way or Way()
    with inline_workers(), slices_of(way.slice_entries):
        opened = PackageStore.open(store, way.settings())
        return opened.migration().run(jobs=1, **options)


def cutover(store: Path, way: Way | None = None, **options: Any) -> Cutover:
    """Cut a store over inside this process."""
    settings = (way or Way()).settings()
    return lifecycle.cutover(PackageStore.open(store, settings).root, settings, **options)


def initialise(store: Path, slice_entries: int = 0) -> initialising.Initialised:
    """Make a store of a legacy directory."""
    with slices_of(slice_entries):
        return initialising.initialise(str(store))
