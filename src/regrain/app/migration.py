"""The facade of a migration: wires settings, ledger, workers and subscribers."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from regrain import disk
from regrain.app import standing, triggers, undoing
from regrain.app.account import matters
from regrain.app.foresight import Foresight, foresee
from regrain.app.health import Health
from regrain.app.recovery import check_owner, finish_begun
from regrain.app.standing import State
from regrain.app.steering import told
from regrain.app.steps import Steps
from regrain.errors import (
    ConfigurationError,
    RefusedError,
)
from regrain.ledger import Ledger, PackageRow, Pending, open_ledger
from regrain.migrate import pool
from regrain.migrate.control import Steering, Values, read_control
from regrain.migrate.jobs import Ingest, Options
from regrain.migrate.journal import Journal, read_snapshot
from regrain.migrate.orders import Orders, Summary
from regrain.migrate.pace import Pace
from regrain.migrate.plan import Plan, make_plan
from regrain.migrate.publish import Publisher
from regrain.migrate.reconcile import accept_legacy, reconcile
from regrain.migrate.recover import adopt, adopt_strangers, recover
from regrain.migrate.room import Floors, Room, check_room, wanted_for
from regrain.migrate.run import Run
from regrain.migrate.staging import staging_error
from regrain.model.events import Remark
from regrain.model.phase import Phase
from regrain.model.status import Status
from regrain.settings import Settings
from regrain.store import dual
from regrain.store.locks import RunDirectory, StoreLock, is_running, run_lock
from regrain.store.root import open_top
from regrain.store.workers import worth_starting

if TYPE_CHECKING:
    from collections.abc import Callable

    from regrain.model.digest import PackageHash
    from regrain.model.events import Event, Progress
    from regrain.store.scan import Usage


def _ignore(_: object) -> None:
    """Take whatever comes."""


def plan(path: str, settings: Settings, on_package: Callable[[Usage], None] = _ignore) -> Plan:
    """Say what a migration of the directory at ``path`` would meet and cost; write nothing.

    Raises:
        NotAStoreError: There is no directory.
    """
    with disk.Closing(open_top(path)) as fd:
        return make_plan(
            path,
            fd,
            ingest=settings.store.ingest,
            can_reflink=disk.shares_extents(fd),
            link_outside=settings.store.link_outside,
            on_package=on_package,
        )


class Migration(Steps):
    """The migration of one store, from legacy packages to files named by content.

    Example:
        >>> migration = PackageStore.open("/opt/pm/store").migration()
        >>> migration.run(on_event=print)
    """

    def run(  # noqa: PLR0913 -- a facade: every option by its keyword
        self,
        on_event: Callable[[Event], None] = _ignore,
        *,
        jobs: int | None = None,
        batch: int | None = None,
        limit: int | None = None,
        only: str | None = None,
        retry_failed: bool = False,
        rescan: bool = False,
        accept: str | None = None,
        max_read: float | None = None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> Summary:
        """Migrate until nothing is pending; nothing at all where the store is paused.

        Args:
            on_event: Told everything, see ``regrain.model.events``.
            jobs: Worker processes; by default as many as the setting allows and as have
                enough to do.
            batch: Packages committed together.
            limit: Packages at the most.
            only: A glob that a package's name or hash must match.
            retry_failed: Put failed packages back in the queue first.
            rescan: Compare all legacy directories with what is published first; no bytes
                are read.
            accept: A package whose legacy directory, as it is now, is to replace what is
                published.
            max_read: MiB a second read from legacy, at the most.
            stopping: Asked often; True ends the run after the files in hand.

        Raises:
            RefusedError: Migration is switched off, the phase does not allow it, there is too
                little space, or the I/O pressure cannot be read although it is to be heeded.
            TriggeredError: Too many packages failed, something proved damaged, or readers
                became too slow: a RefusedError, too.
            ConfigurationError: What it was told from other terminals cannot be understood.
            UnknownPackageError: There is none to accept.
            LockedError: Another run holds the store.
            NoSpaceError: The disk stayed full for ``space_wait`` seconds.
            HaltedError: The disk failed.
        """
        self._check()
        check_owner(self._root)
        accepted = None if accept is None else dual.find_hash(self._root, accept)
        orders = Orders(
            limit=limit,
            only=only,
            verified=self._settings.store.verify_after_migration,
        )
        options = Values(jobs, batch, max_read)
        with run_lock(self._root, "regrain migrate"), contextlib.ExitStack() as held:
            if read_control(self._root).is_paused:
                return Summary(0, 0, stopped=False, paused=True)
            known = triggers.known_concerns(self._root)
            found = undoing.go_forward(self._root, self._settings, stopping)
            if found is not None and found.stopped:
                return Summary(0, 0, stopped=True)
            lock = held.enter_context(StoreLock(self._root, exclusive=False))
            ledger = open_ledger(self._root.path)
            try:
                journal = Journal(self._root)

                def tell(event: Event) -> None:
                    journal(event)
                    on_event(event)

                watch = triggers.Watch(self._settings, ledger, tell, known)
                watch.remind()
                self._prepare(ledger, orders, watch, retry_failed=retry_failed)
                self._reconcile(ledger, watch, accepted, full=rescan)
                watch.look()
                pending = ledger.pending(only=only, limit=limit)
                summary = Summary(0, 0, stopping())
                if pending.packages and not stopping() and watch.ended_by is None:
                    self._check_room(pending)
                    steering = Steering(
                        self._root,
                        self._values(pending),
                        options,
                        on_trouble=lambda words: watch(Remark(words)),
                    )
                    watch.measure(self._root, pending, steering.tempo)
                    summary = self._work(ledger, orders, watch, stopping, steering, lock)
            except OSError as error:
                raise staging_error(
                    error, os.fsencode(error.filename or self._root.path)
                ) from error
            finally:
                ledger.close()
        if watch.ended_by is not None:
            triggers.act(self._root, self._settings, watch.ended_by, stopping)
            return replace(summary, stopped=True)
        return summary

    def _prepare(
        self, ledger: Ledger, orders: Orders, emit: Callable[[Event], None], *, retry_failed: bool
    ) -> None:
        """Clean up after a run that was killed, and queue what is to be done."""
        finish_begun(self._root, ledger)
        recovered = recover(self._root, ledger, verified=orders.verified)
        if recovered is not None:
            emit(recovered)
        if retry_failed:
            ledger.retry_failed(only=orders.only)

    def _reconcile(
        self,
        ledger: Ledger,
        emit: Callable[[Event], None],
        accepted: PackageHash | None,
        *,
        full: bool,
    ) -> None:
        """Take in what others did to the legacy directories."""
        if accepted is not None:
            accept_legacy(self._root, ledger, accepted)
        event = reconcile(self._root, ledger, self._settings.migration.settle, full=full).event()
        if event is not None:
            emit(event)

    def _work(
        self,
        ledger: Ledger,
        orders: Orders,
        watch: triggers.Watch,
        stopping: Callable[[], bool],
        steering: Steering,
        lock: StoreLock,
    ) -> Summary:
        with RunDirectory(self._root) as directory, watch.probe or contextlib.nullcontext():
            options = self._options(directory)
            room = Room(self._root.fd, self._floors(), self._settings.migration.space_wait)
            run = Run(
                ledger,
                Publisher(self._root, directory, fsync_each=options.fsync_each),
                watch,
                lambda: stopping() or watch.ended_by is not None,
                partial(adopt, self._root, ledger),
                lock,
                orders,
                Pace(steering.tempo, [steering, room, *watch.brakes]),
                room,
            )
            place = pool.Workplace(self._root.path, directory.name, self._root.owner, options)
            summary = run.execute(lambda jobs: pool.make_executor(jobs, place))
            if run.may_leave_objects:
                adopt_strangers(self._root, ledger)
            return summary

    def _check(self) -> None:
        settings = self._settings.store
        if not settings.migration_enabled:
            raise RefusedError(
                "migration is switched off",
                why="[store] migration_enabled = false",
                advice="Set it to true to migrate.",
            )
        if not settings.keep_old_packages:
            raise RefusedError(
                "keep_old_packages = false is not supported by this version",
                advice="Leave it true; legacy directories are kept.",
            )
        if settings.compression != "none":
            raise ConfigurationError(
                'compression = "zstd" is not supported by this version',
                advice='Set it to "none".',
            )
        if self._root.phase() is Phase.ROLLING_BACK:
            raise RefusedError(
                "a rollback is under way",
                why="the store's phase is rolling_back",
                advice="Finish it with 'regrain rollback'.",
            )
        triggers.check(self._settings)

    def _floors(self) -> Floors:
        limits = self._settings.migration
        return Floors(limits.free_bytes_min, limits.free_inodes_min)

    def _check_room(self, pending: Pending) -> None:
        """Refuse to begin what cannot end.

        Raises:
            RefusedError: There is too little space.
        """
        root, store = self._root, self._settings.store
        wanted = wanted_for(
            pending, ingest=Ingest(store.ingest), can_reflink=disk.shares_extents(root.fd)
        )
        check_room(root.fd, root.path, wanted, pending.packages, self._floors())

    def _values(self, pending: Pending) -> Values:
        """Return what the settings say of the tempo; fewer workers where there is little to do."""
        store, migration = self._settings.store, self._settings.migration
        return Values(
            worth_starting(store.migration_parallel_files, pending.files, pending.size),
            store.migration_batch_size,
            migration.max_read,
            migration.pause_ms,
        )

    def _options(self, directory: RunDirectory) -> Options:
        settings = self._settings
        return Options(
            ingest=Ingest(settings.store.ingest),
            can_reflink=disk.shares_extents(directory.pool),
            can_link=disk.can_link(directory.pool),
            link_outside=settings.store.link_outside,
            fsync_each=settings.store.sync == "fsync",
            verify=settings.store.verify_after_migration,
        )

    def state(self) -> State:
        """Return where the migration stands, whoever runs it."""
        ledger = open_ledger(self._root.path, read_only=True)
        try:
            return State(
                self._root.phase(),
                ledger.totals(),
                is_running(self._root),
                read_snapshot(self._root),
                matters(self._root, ledger),
                told(self._root),
            )
        finally:
            ledger.close()

    def progress(self) -> Progress:
        """Return how far the migration as a whole is, whoever runs it."""
        return standing.progress(self.state())

    def health(self) -> Health:
        """Judge the store by its error rate and by what its file system has left."""
        return standing.health(self._root, self.state(), self._settings)

    def rows(self, status: Status | None = None) -> list[PackageRow]:
        """Return what the ledger knows of the packages (in ``status``)."""
        ledger = open_ledger(self._root.path, read_only=True)
        try:
            return list(ledger.package_rows(status))
        finally:
            ledger.close()

    def foresee(
        self,
        *,
        limit: int | None = None,
        only: str | None = None,
        retry_failed: bool = False,
        rescan: bool = False,
        accept: str | None = None,
    ) -> Foresight:
        """Say what ``run`` with these options would do; change nothing.

        Raises:
            RefusedError: It would be refused.
        """
        self._check()
        found = foresee(
            self._root,
            self._settings,
            limit=limit,
            only=only,
            retry_failed=retry_failed,
            rescan=rescan,
            accept=accept,
        )
        if found.packages:
            self._check_room(Pending(found.packages, found.files, found.size, found.size))
        return replace(found, paused=read_control(self._root).is_paused)
