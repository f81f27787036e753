"""Go on where the server comes back that keeps a ledger, as another run would."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from regrain.errors import LedgerLostError, LockedError
from regrain.ledger import open_ledger
from regrain.migrate.orders import Summary
from regrain.model.clock import monotonic
from regrain.model.events import LegacyRemoved, PackageCompleted, PackageFailed, Remark

if TYPE_CHECKING:
    from collections.abc import Callable

    from regrain.app.running import Request
    from regrain.model.events import Event
    from regrain.store.root import StoreRoot

    Work = Callable[[Request, Callable[[Event], None]], Summary]

WAIT_SECONDS = 600.0
"""How long a server is waited for that went away in the middle of a run."""

HELD_SECONDS = 60.0
"""How long it may go on holding, for a session that is dead, the locks of a run."""

FRUITLESS_MAX = 3
"""So often in turn a run may lose it without getting on: behind a pooler, say, locks never last."""

_TRY_SECONDS = 1.0


class _Counted:
    """Passes events on, and counts what a run that ends with an error cannot sum up."""

    def __init__(self, on_event: Callable[[Event], None]) -> None:
        self._on_event = on_event
        self.has_begun = False
        self.done = Summary(0, 0, stopped=False)

    def __call__(self, event: Event) -> None:
        self.has_begun = True
        done = self.done
        if isinstance(event, PackageCompleted):
            self.done = replace(done, completed=done.completed + 1)
        elif isinstance(event, PackageFailed):
            self.done = replace(done, failed=done.failed + 1)
        elif isinstance(event, LegacyRemoved):
            freed = done.freed_bytes + event.freed_bytes
            self.done = replace(done, removed=done.removed + 1, freed_bytes=freed)
        self._on_event(event)


def through_restarts(
    root: StoreRoot,
    request: Request,
    work: Work,
    on_event: Callable[[Event], None],
    stopping: Callable[[], bool],
) -> Summary:
    """Do a run; where the ledger's server goes away meanwhile, wait for it, and do what is left.

    All locks are lost with the server, and are taken anew: another host may have been faster.

    Args:
        root: The store.
        request: What is asked for.
        work: Does a run.
        on_event: Told everything.
        stopping: Asked while it waits; True ends it with the error.

    Returns:
        What all of them did.

    Raises:
        LedgerLostError: The server did not come back, or goes away again and again.
        LockedError: Another run holds the store now.
    """
    before = Summary(0, 0, stopped=False)
    fruitless = 0
    held_until: float | None = None  # None: the server was not lost yet
    while True:
        counted = _Counted(on_event)
        try:
            return _sum(before, work(request, counted))
        except LockedError:
            if held_until is None or stopping() or monotonic() > held_until:
                raise
            time.sleep(_TRY_SECONDS)
        except LedgerLostError as error:
            done = counted.done
            fruitless = 0 if done.completed else fruitless + 1
            was_never_there = held_until is None and not counted.has_begun
            # What was accepted once may be published by now, and cannot be accepted again.
            is_once = request.accept is not None
            if stopping() or was_never_there or is_once or fruitless == FRUITLESS_MAX:
                raise
            on_event(Remark(f"{error.what}: {error.why}; the run goes on when it is there again"))
            _wait_for(root, stopping)
            before, request = _sum(before, done), _rest(request, done)
            held_until = monotonic() + HELD_SECONDS
            if request.limit == 0:
                return before


def _wait_for(root: StoreRoot, stopping: Callable[[], bool]) -> None:
    due = monotonic() + WAIT_SECONDS
    while True:
        try:
            open_ledger(root.path, read_only=True).close()
        except LedgerLostError:
            if stopping() or monotonic() > due:
                raise
        else:
            return


def _rest(request: Request, done: Summary) -> Request:
    """Return what is left of a request."""
    taken = done.completed + done.failed
    limit = None if request.limit is None else max(0, request.limit - taken)
    # Those it put back into the queue are in it; those that failed since are not meant.
    return replace(request, limit=limit, retry_failed=request.retry_failed and not taken)


def _sum(before: Summary, then: Summary) -> Summary:
    return replace(
        then,
        completed=before.completed + then.completed,
        failed=before.failed + then.failed,
        removed=before.removed + then.removed,
        freed_bytes=before.freed_bytes + then.freed_bytes,
    )  # and those kept are all that the last one met
