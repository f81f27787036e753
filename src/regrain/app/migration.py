"""The facade of a migration: what it does, where it stands, what it would do."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from regrain import disk
from regrain.app import standing
from regrain.app.account import matters
from regrain.app.foresight import Foresight, foresee
from regrain.app.health import Health
from regrain.app.running import Request, check_request, check_space, migrate
from regrain.app.standing import State
from regrain.app.steering import told
from regrain.app.steps import Steps
from regrain.ledger import PackageRow, Pending, open_ledger
from regrain.migrate.control import read_control
from regrain.migrate.journal import read_snapshot
from regrain.migrate.orders import Summary
from regrain.migrate.plan import Plan, make_plan
from regrain.model.status import Status
from regrain.settings import Settings
from regrain.store.locks import is_running
from regrain.store.root import open_top

if TYPE_CHECKING:
    from collections.abc import Callable

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
            in_place=not settings.store.keep_old_packages,
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
        delete_legacy: bool = False,
        no_backup: bool = False,
        executor: str | None = None,
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
            delete_legacy: Delete each legacy directory as soon as its package is verified;
                together with ``keep_old_packages = false`` only.
            no_backup: Do that without a backup.
            executor: Who has the workers: ``local`` (the default), ``dask:ADDRESS`` or ``mpi``.
                ``jobs`` is then how many units of work are handed out at a time, by default two
                for each that the engine does at a time.
            stopping: Asked often; True ends the run after the files in hand.

        Raises:
            RefusedError: Migration is switched off, the phase does not allow it, or there is
                too little space; legacy directories would be deleted without leave, or without
                a backup; the I/O pressure cannot be read although it is to be heeded.
            TriggeredError: Too many packages failed, something proved damaged, or readers
                became too slow: a RefusedError, too.
            ConfigurationError: What it was told from other terminals cannot be understood.
            UnknownPackageError: There is none to accept.
            LockedError: Another run holds the store.
            NoSpaceError: The disk stayed full for ``space_wait`` seconds.
            HaltedError: The disk failed, or a worker elsewhere has another version or another
                view of the store.
            LedgerLostError: The server that keeps the ledger does not answer, or went away and
                did not come back within ten minutes.
            UsageError: ``executor`` names none, or its extra is not installed.
            EngineError: The engine does not answer, or went away.
        """
        request = Request(
            jobs=jobs,
            batch=batch,
            limit=limit,
            only=only,
            retry_failed=retry_failed,
            rescan=rescan,
            accept=accept,
            max_read=max_read,
            delete_legacy=delete_legacy,
            no_backup=no_backup,
            executor=executor,
        )
        return migrate(self._root, self._settings, request, on_event, stopping)

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
                in_place=not self._settings.store.keep_old_packages,
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

    def foresee(  # noqa: PLR0913 -- as run
        self,
        *,
        limit: int | None = None,
        only: str | None = None,
        retry_failed: bool = False,
        rescan: bool = False,
        accept: str | None = None,
        delete_legacy: bool = False,
        no_backup: bool = False,
    ) -> Foresight:
        """Say what ``run`` with these options would do; change nothing.

        Raises:
            RefusedError: It would be refused.
        """
        request = Request(delete_legacy=delete_legacy, no_backup=no_backup)
        check_request(self._root, self._settings, request)
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
            pending = Pending(found.packages, found.files, found.size, found.size)
            check_space(self._root, self._settings, pending, in_place=delete_legacy)
        return replace(found, paused=read_control(self._root).is_paused)
