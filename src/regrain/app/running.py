"""One run of a migration: checked, prepared, worked off and ended, under its locks."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from regrain import disk
from regrain.app import inplace, triggers, undoing
from regrain.app.compression import ingest_compression
from regrain.app.floors import floors_of
from regrain.app.foretold import Worked
from regrain.app.logs import limits_of
from regrain.app.reconnecting import through_restarts
from regrain.app.recovery import check_owner, finish_begun
from regrain.errors import RefusedError, RegrainError, path_of
from regrain.ledger import Ledger, Pending, open_ledger
from regrain.migrate import pool
from regrain.migrate.control import Steering, Values, read_control
from regrain.migrate.disk_errors import staging_error
from regrain.migrate.jobs import Ingest, Options
from regrain.migrate.journal import Journal
from regrain.migrate.orders import Orders, Summary
from regrain.migrate.pace import Brake, Pace
from regrain.migrate.publish import Publisher
from regrain.migrate.ration import Ration
from regrain.migrate.readers import Readers
from regrain.migrate.reconcile import accept_legacy, reconcile
from regrain.migrate.recover import adopt, adopt_strangers, recover
from regrain.migrate.room import Room, check_room, wanted_for
from regrain.migrate.run import Run
from regrain.model.events import Remark
from regrain.model.phase import Phase
from regrain.store import dual, engines
from regrain.store.locks import RunDirectory, StoreLock, run_lock
from regrain.store.workers import worth_starting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from regrain.model.digest import PackageHash
    from regrain.model.events import Event
    from regrain.settings import Settings
    from regrain.store.root import StoreRoot

UNITS_A_SLOT = 2
"""Units handed to an engine for each that it does at a time: one in hand, one that waits there."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a run is asked for; see ``Migration.run``."""

    jobs: int | None = None
    batch: int | None = None
    limit: int | None = None
    only: str | None = None
    retry_failed: bool = False
    rescan: bool = False
    accept: str | None = None
    max_read: float | None = None
    delete_legacy: bool = False
    no_backup: bool = False
    executor: str | None = None


def check_request(root: StoreRoot, settings: Settings, request: Request) -> None:
    """See that a run may be begun.

    Raises:
        RefusedError: It may not.
    """
    if not settings.store.migration_enabled:
        raise RefusedError(
            "migration is switched off",
            why="[store] migration_enabled = false",
            advice="Set it to true to migrate.",
        )
    if root.phase() is Phase.ROLLING_BACK:
        raise RefusedError(
            "a rollback is under way",
            why="the store's phase is rolling_back",
            advice="Finish it with 'regrain rollback'.",
        )
    triggers.check(settings)
    inplace.check(root, settings, delete_legacy=request.delete_legacy, no_backup=request.no_backup)


def check_space(root: StoreRoot, settings: Settings, pending: Pending, *, in_place: bool) -> None:
    """Refuse to begin what cannot end; in place, what cannot even begin.

    Raises:
        RefusedError: There is too little space.
    """
    if in_place:
        inplace.check_room_to_begin(root, floors_of(root.fd, settings))
        return
    wanted = wanted_for(
        pending,
        ingest=Ingest(settings.store.ingest),
        can_reflink=disk.shares_extents(root.fd),
        is_compressed=ingest_compression(settings) is not None,
    )
    check_room(root.fd, root.path, wanted, pending.packages, floors_of(root.fd, settings))


def migrate(
    root: StoreRoot,
    settings: Settings,
    request: Request,
    on_event: Callable[[Event], None],
    stopping: Callable[[], bool],
) -> Summary:
    """Carry out a run; see ``Migration.run``."""
    check_request(root, settings, request)
    check_owner(root)
    with engines.connected(request.executor) as engine:
        work = partial(_migrate, root, settings, engine=engine, stopping=stopping)
        return through_restarts(root, request, work, on_event, stopping)


def _migrate(
    root: StoreRoot,
    settings: Settings,
    request: Request,
    on_event: Callable[[Event], None],
    *,
    engine: engines.Engine | None,
    stopping: Callable[[], bool],
) -> Summary:
    accepted = None if request.accept is None else dual.find_hash(root, request.accept)
    if read_control(root).is_paused:  # perhaps with a run that waits, and holds the lock
        return Summary(0, 0, stopped=False, paused=True)
    with run_lock(root, "regrain migrate"):
        known = triggers.known_concerns(root)
        found = undoing.go_forward(root, settings, stopping)
        if found is not None and found.stopped:
            return Summary(0, 0, stopped=True)
        with (
            StoreLock(root, exclusive=False) as lock,
            _journaled(root, settings, on_event, engine) as tell,
            _opened(root) as ledger,
        ):
            watch = triggers.Watch(settings, ledger, tell, known)
            watch.remind()
            run = _Running(root, settings, request, ledger, watch, lock, stopping, engine)
            run.prepare(accepted)
            summary = run.in_place() if request.delete_legacy else run.work(run.is_to_end, None)
    if watch.ended_by is not None:
        triggers.act(root, settings, watch.ended_by, stopping)
        return replace(summary, stopped=True)
    return summary


@contextlib.contextmanager
def _opened(root: StoreRoot) -> Iterator[Ledger]:
    ledger = open_ledger(root.path)
    try:
        yield ledger
    except OSError as error:
        raise staging_error(error, path_of(error, root.path)) from error
    finally:
        ledger.close()


@contextlib.contextmanager
def _journaled(
    root: StoreRoot,
    settings: Settings,
    on_event: Callable[[Event], None],
    engine: engines.Engine | None,
) -> Iterator[Callable[[Event], None]]:
    journal, worked = Journal(root, limits_of(settings)), Worked(root)
    journal.executor = "" if engine is None else engine.name

    def tell(event: Event) -> None:
        journal(event)
        worked(event)
        on_event(event)

    try:
        yield tell
    except RegrainError as error:
        journal.end(error)
        raise
    else:
        journal.end()
    finally:
        worked.end()


class _Running:
    """A run with all it works with, its locks held."""

    def __init__(  # noqa: PLR0913, PLR0917 -- all that it works with
        self,
        root: StoreRoot,
        settings: Settings,
        request: Request,
        ledger: Ledger,
        watch: triggers.Watch,
        lock: StoreLock,
        stopping: Callable[[], bool],
        engine: engines.Engine | None,
    ) -> None:
        self._root, self._settings, self._request = root, settings, request
        self._engine = engine
        self._ledger, self._watch, self._lock = ledger, watch, lock
        self._stopping = stopping
        self._readers = Readers()
        self._orders = Orders(
            limit=request.limit,
            only=request.only,
            verified=settings.store.verify_after_migration,
        )

    def is_to_end(self) -> bool:
        """Tell whether somebody, or a trigger, asked for the end."""
        return self._stopping() or self._watch.ended_by is not None

    def prepare(self, accepted: PackageHash | None) -> None:
        """Clean up after a run that was killed; take in what others did to legacy directories."""
        root, ledger, watch = self._root, self._ledger, self._watch
        finish_begun(root, ledger)
        recovered = recover(root, ledger, verified=self._orders.verified)
        if recovered is not None:
            watch(recovered)
        if self._request.retry_failed:
            ledger.retry_failed(only=self._orders.only)
        if accepted is not None:
            accept_legacy(root, ledger, accepted)
        settle, full = self._settings.migration.settle, self._request.rescan
        jobs = self._settings.store.migration_parallel_files
        event = reconcile(root, ledger, settle, full=full, jobs=jobs).event()
        if event is not None:
            watch(event)
        watch.look()

    def in_place(self) -> Summary:
        """Work, and remove each legacy directory once its package is verified."""
        only = self._orders.only
        removal = inplace.Removal(self._root, self._ledger, self._watch, self.is_to_end)
        removal.sweep(only, self._lock)
        summary = self.work(removal.has_ended, removal)
        removal.sweep(only, self._lock)
        return removal.finish(summary)

    def work(self, stopping: Callable[[], bool], removal: inplace.Removal | None) -> Summary:
        """Work, if there is something to do and room for it."""
        orders, watch = self._orders, self._watch
        pending = self._ledger.pending(only=orders.only, limit=orders.limit)
        if not pending.packages or stopping():
            return Summary(0, 0, stopping())
        check_space(self._root, self._settings, pending, in_place=removal is not None)
        if removal is not None:
            orders = replace(orders, after_commit=removal.after_commit)
        steering = Steering(
            self._root,
            partial(self._values, pending),
            Values(self._request.jobs, self._request.batch, self._request.max_read),
            on_trouble=lambda words: watch(Remark(words)),
        )
        try:
            watch.measure(self._root, pending, steering.tempo)
            return self._work(orders, stopping, steering)
        finally:
            watch.close()

    def _work(self, orders: Orders, stopping: Callable[[], bool], steering: Steering) -> Summary:
        root, ledger, watch = self._root, self._ledger, self._watch
        with RunDirectory(root) as directory, watch.probe or contextlib.nullcontext():
            options, wait = self._options(directory), self._settings.migration.space_wait
            room = Room(root.fd, floors_of(root.fd, self._settings), wait)
            brakes: list[Brake] = [steering, room, *watch.brakes]
            if not self._settings.store.keep_old_packages:
                ration = Ration(root, options, floors_of(root.fd, self._settings), wait)
                orders = replace(orders, ration=ration)
                brakes.append(ration)
            run = Run(
                ledger,
                Publisher(root, directory, fsync_each=options.fsync_each),
                watch,
                stopping,
                partial(adopt, root, ledger),
                self._lock,
                orders,
                Pace(steering.tempo, brakes, self._readers),
                room,
            )
            limits = self._settings.migration
            place = pool.Workplace(
                root.path,
                directory.name,
                root.owner,
                options,
                limits.niceness,
                idle_cpu=limits.cpu_priority == "idle",
                io=limits.io_priority,
            )
            summary = self._execute(run, directory, place)
            if run.may_leave_objects:
                adopt_strangers(root, ledger)
            return summary

    def _execute(self, run: Run, directory: RunDirectory, place: pool.Workplace) -> Summary:
        """Let the workers of this host, or those of an engine, do the work."""
        engine = self._engine
        if engine is None:
            return run.execute(lambda jobs: pool.make_executor(jobs, place))
        words = "" if self._settings.store.sync == "fsync" else '; sync = "fsync" is enforced'
        self._watch(
            Remark(f"units of work go to {engine.name}, {engine.slots} at a time now{words}")
        )
        known = engine.workers().keys()
        office = engines.Office(engine, self._root, directory)
        try:
            with engines.abandoned_if_lost(directory):
                return run.execute(lambda _: office.dispatcher(pool.engage, (place,)))
        finally:
            # What one that was lost had named, it could tell nobody.
            run.may_leave_objects |= not known <= engine.workers().keys()

    def _values(self, pending: Pending) -> Values:
        """Return what the settings say of the tempo, with as many workers as pay."""
        store, migration = self._settings.store, self._settings.migration
        jobs_max = worth_starting(store.migration_parallel_files, pending.files, pending.size)
        engine = self._engine
        jobs = self._readers.of(jobs_max) if engine is None else UNITS_A_SLOT * engine.slots
        return Values(
            jobs,
            store.migration_batch_size,
            migration.max_read,
            migration.pause_ms,
            migration.max_files,
        )

    def _options(self, directory: RunDirectory) -> Options:
        store = self._settings.store
        return Options(
            ingest=Ingest(store.ingest),
            can_reflink=disk.shares_extents(directory.pool),
            can_link=disk.can_link(directory.pool),
            link_outside=store.link_outside,
            # Nobody but a host itself makes durable what it wrote.
            fsync_each=store.sync == "fsync" or self._engine is not None,
            verify=store.verify_after_migration,
            compression=ingest_compression(self._settings),
            flush_names=self._engine is not None,
        )
