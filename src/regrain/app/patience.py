"""Waiting until there is room again, for what is not a migration: the rollback of a store."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from regrain.app.logs import limits_of
from regrain.errors import path_of
from regrain.migrate.commit import PASSING
from regrain.migrate.disk_errors import staging_error
from regrain.migrate.journal import Journal
from regrain.migrate.room import Floors, Room

if TYPE_CHECKING:
    from collections.abc import Callable

    from regrain.errors import RegrainError
    from regrain.settings import Settings
    from regrain.store.root import StoreRoot

_TICK_SECONDS = 0.2


class Patience:
    """Waits after errors that pass, and gives up as a migration does.

    Args:
        root: The store.
        settings: ``space_wait`` says for how long.
        on_hold: Told what it waits for, and nothing when it goes on.
        stopping: Asked while it waits.
    """

    def __init__(
        self,
        root: StoreRoot,
        settings: Settings,
        on_hold: Callable[[str], None],
        stopping: Callable[[], bool],
    ) -> None:
        self._root = root
        # What is free was measured before the first step: only a full disk holds it now.
        self._room = Room(root.fd, Floors(0, 0), settings.migration.space_wait)
        self._journal = Journal(root, limits_of(settings))
        self._on_hold = on_hold
        self._stopping = stopping

    def progressed(self) -> None:
        """Take note that something was done."""
        self._room.progressed()

    def passing(self, error: RegrainError | OSError) -> RegrainError | None:
        """Return what an error means, if that will pass."""
        if isinstance(error, OSError):
            error = staging_error(error, path_of(error, self._root.path))
        return error if isinstance(error, PASSING) else None

    def wait_after(self, error: RegrainError) -> bool:
        """Wait until it may be tried again; False if it is to end instead.

        Raises:
            RegrainError: This error: it waited long enough.
        """
        self._room.failed(error)
        self._room.emptied()
        told = False
        while not self._stopping():
            demand = self._room.demand()
            if demand is None:
                break
            if not told:
                self._on_hold(demand.reason)
            told = True
            self._journal.hold(demand.reason)
            time.sleep(_TICK_SECONDS)
        self._journal.hold("")
        if told:
            self._on_hold("")
        return not self._stopping()
