"""A store seen from outside, for who watches it for days: often, cheaply, without a write."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec

from regrain.app import standing
from regrain.app.account import Matters, matters
from regrain.app.health import Health, Room, last_trigger, room_of
from regrain.app.standing import State
from regrain.app.steering import told
from regrain.ledger import read_beside
from regrain.migrate.journal import read_snapshot
from regrain.migrate.tally import Figures, read_figures
from regrain.model import clock
from regrain.model.clock import monotonic
from regrain.model.events import Foreground
from regrain.store.locks import is_running
from regrain.store.root import StoreRoot

if TYPE_CHECKING:
    from collections.abc import Callable

    from regrain.ledger import Ledger
    from regrain.settings import Settings

MATTERS_SHARE_MAX = 0.05
"""What takes listing the store is looked at for at most this share of the time: with a hundred
thousand packages that takes a second, and who watches must be no load."""


@dataclass(frozen=True, slots=True)
class Overview:
    """What was seen in one look.

    Attributes:
        figures: What ``status --json`` prints beside its header.
        state: What they were made of.
        health: The judgement.
        room: What the file system has left.
        run: What the last run counted, or the one under way.
        foreground: What readers waited beside it; None where that was not measured.
        snapshot_at: When that run last told of itself, in Unix seconds; None if never.
        at: When this was looked at, in Unix seconds.
        seconds: How long looking took.
    """

    figures: dict[str, object]
    state: State
    health: Health
    room: Room
    run: Figures
    foreground: Foreground | None
    snapshot_at: int | None
    at: int
    seconds: float


class Observer:
    """Looks at a store, again and again. The store is opened anew each time: it may be replaced.

    Args:
        path: The store's directory, from the root.
        settings: What it is judged by.
        clock_: Says how long a look took.
    """

    def __init__(
        self, path: str, settings: Settings, clock_: Callable[[], float] = monotonic
    ) -> None:
        self._path = path
        self._settings = settings
        self._clock = clock_
        self._matters: Matters | None = None
        self._seen_in: tuple[object, ...] = ()
        self._due_at = 0.0

    def look(self) -> Overview:
        """Look once.

        Raises:
            RegrainError: There is no store any more, or it cannot be read.
        """
        began = self._clock()
        root = StoreRoot(self._path)
        state = self._state(root)
        figures = standing.figures(root, state, self._settings)
        at = state.snapshot.get("at")
        return Overview(
            figures,
            state,
            standing.health(root, state, self._settings),
            room_of(root, self._settings),
            read_figures(state.snapshot),
            _foreground(state.snapshot),
            at if isinstance(at, int) else None,
            clock.now(),
            self._clock() - began,
        )

    def _state(self, root: StoreRoot) -> State:
        phase, running = root.phase(), is_running(root)

        def read(ledger: Ledger) -> State:
            return State(
                phase,
                ledger.totals(),
                running,
                read_snapshot(root),
                self._matters_of(root, ledger, (root.store_id, phase, running)),
                told(root),
                in_place=not self._settings.store.keep_old_packages,
            )

        return read_beside(root.path, read)

    def _matters_of(self, root: StoreRoot, ledger: Ledger, seen_in: tuple[object, ...]) -> Matters:
        """Return them; those that take long to find as they were a while ago.

        Where the phase changed, or another command holds the store, they are found anew.
        """
        began = self._clock()
        if self._matters is None or seen_in != self._seen_in or began >= self._due_at:
            self._matters = matters(root, ledger)
            self._seen_in = seen_in
            took = self._clock() - began
            self._due_at = began + took / MATTERS_SHARE_MAX
            return self._matters
        return replace(self._matters, concerns=ledger.concerns(), trigger=last_trigger(ledger))


def _foreground(snapshot: dict[str, object]) -> Foreground | None:
    """Return what the last run measured; None where another version wrote it."""
    try:
        found = msgspec.convert(snapshot.get("foreground"), Foreground | None)
    except msgspec.ValidationError:
        return None
    return found if found is None or found.reads.is_sound else None
