"""A store seen from outside, for who watches it for days: often, cheaply, without a write."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

from regrain.app import standing
from regrain.app.account import Matters, matters
from regrain.app.health import Health, Room, last_trigger, room_of
from regrain.app.lasting import Memory
from regrain.app.standing import State
from regrain.app.steering import told
from regrain.errors import RegrainError
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

    from regrain.ledger import Ledger, Totals
    from regrain.settings import Settings

SHARE_MAX = 0.05
"""Adding up the ledger, and listing the store, are done anew for at most this share of the time
each: with a hundred thousand packages they take a while, and who watches must be no load."""

_T = TypeVar("_T")


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


class Seldom(Generic[_T]):
    """A value that may take long to find; then it is found seldom, and is a while old.

    How long it takes is the shorter of the last two times: the first one loads libraries, and on
    a busy machine any may be held up. Neither is a load, and a view must not stand still for it.

    Args:
        clock_: Says how long finding it took.
        share_max: Of the time, for finding it.
    """

    def __init__(self, clock_: Callable[[], float], share_max: float = SHARE_MAX) -> None:
        self._clock = clock_
        self._share_max = share_max
        self._found: _T | None = None
        self._found_in: object = None
        self._took = 0.0
        self._due_at = 0.0

    def get(self, circumstances: object, find: Callable[[], _T]) -> tuple[_T, bool]:
        """Return the value, and whether it was found just now.

        Args:
            circumstances: When these are others, it is found anew.
            find: Finds it.
        """
        began = self._clock()
        found = self._found
        if found is not None and circumstances == self._found_in and began < self._due_at:
            return found, False
        self._found = found = find()
        self._found_in = circumstances
        took = self._clock() - began
        self._due_at = began + min(took, self._took) / self._share_max
        self._took = took
        return found, True

    def forget(self) -> None:
        """Find it anew the next time."""
        self._found = None


class Observer:
    """Looks at a store, again and again. The store is opened anew each time: it may be replaced.

    Args:
        path: The store's directory, from the root.
        settings: What it is judged by.
        clock_: Says how long a look took, and for how long a rule of health is past its bar.
    """

    def __init__(
        self, path: str, settings: Settings, clock_: Callable[[], float] = monotonic
    ) -> None:
        self._path = path
        self._settings = settings
        self._clock = clock_
        self._totals: Seldom[Totals] = Seldom(clock_)
        self._matters: Seldom[Matters] = Seldom(clock_)
        self._memory = Memory(clock_)

    def look(self) -> Overview:
        """Look once.

        Raises:
            RegrainError: There is no store any more, or it cannot be read.
        """
        began = self._clock()
        root = StoreRoot(self._path)
        state = self._state(root)
        judged = standing.health(root, state, self._settings, self._memory)
        figures = standing.figures(root, state, self._settings, judged)
        at = state.snapshot.get("at")
        return Overview(
            figures,
            state,
            judged,
            room_of(root, self._settings),
            read_figures(state.snapshot),
            _foreground(state.snapshot),
            at if isinstance(at, int) else None,
            clock.now(),
            self._clock() - began,
        )

    def _state(self, root: StoreRoot) -> State:
        phase, running = root.phase(), is_running(root)
        circumstances = (root.store_id, phase, running)
        tries = 0

        def read(ledger: Ledger) -> State:
            nonlocal tries
            tries += 1
            if tries > 1:  # what the last try found may be half of this and half of that
                self._forget()
            return State(
                phase,
                self._totals.get(circumstances, ledger.totals)[0],
                running,
                read_snapshot(root),
                self._matters_of(root, ledger, circumstances),
                told(root),
                in_place=not self._settings.store.keep_old_packages,
            )

        try:
            return read_beside(root.path, read)
        except (RegrainError, OSError):
            self._forget()
            raise

    def _forget(self) -> None:
        self._totals.forget()
        self._matters.forget()

    def _matters_of(self, root: StoreRoot, ledger: Ledger, circumstances: object) -> Matters:
        """Return them; what stands against packages, and what ended a run, always as it is."""
        found, is_new = self._matters.get(circumstances, lambda: matters(root, ledger))
        if is_new:
            return found
        return replace(found, concerns=ledger.concerns(), trigger=last_trigger(ledger))


def _foreground(snapshot: dict[str, object]) -> Foreground | None:
    """Return what the last run measured; None where another version wrote it."""
    try:
        found = msgspec.convert(snapshot.get("foreground"), Foreground | None)
    except msgspec.ValidationError:
        return None
    return found if found is None or found.reads.is_sound else None
