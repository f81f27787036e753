"""A prediction that is kept in the store, and what came of it beside it."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, TypeVar

import msgspec

from regrain import disk
from regrain.model import clock, layout
from regrain.model.events import Progress
from regrain.model.status import Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from regrain.app.prediction import Prediction
    from regrain.ledger import Totals
    from regrain.model.events import Event
    from regrain.settings import Settings
    from regrain.store.root import StoreRoot

FILE = "prediction.json"
WORKED_FILE = "worked.json"
WRITE_SECONDS = 2.0
"""What a run that is killed forgets of its time, at the most."""

_BYTES_MAX = 1 << 20


class _Choice(msgspec.Struct, frozen=True):
    ingest: str
    compression: str
    saved_bytes: int
    saved_bytes_low: int
    saved_bytes_high: int
    seconds: tuple[float, float] | None


class Record(msgspec.Struct, frozen=True):
    """A prediction as it is kept."""

    at: int
    packages: int
    allocated_bytes: int
    ingest: str
    choices: list[_Choice]


class _Worked(msgspec.Struct, frozen=True):
    """How long runs have worked since a prediction was made, which is known by its time."""

    prediction_at: int
    seconds: float


_Kept = TypeVar("_Kept", Record, _Worked)


class Worked:
    """Adds up how long runs work, all of them together, for as long as a prediction stands.

    Time in which a run is held, such as by ``pause``, is left out, and so is what lies between
    runs. Nothing depends on it: where it cannot be written, it is not known.

    Args:
        root: The store.
        clock_: Tells the time.
    """

    def __init__(self, root: StoreRoot, clock_: Callable[[], float] = clock.monotonic) -> None:
        self._root = root
        self._clock = clock_
        kept = _read(root, FILE, Record)
        self._prediction_at = None if kept is None else kept.at
        self._seconds = 0.0 if kept is None else _seconds_worked(root, kept) or 0.0
        self._last = self._written = clock_()
        self._is_held = self._has_begun = False

    def __call__(self, event: Event) -> None:
        """Take an event; only progress says anything."""
        if not isinstance(event, Progress):
            return
        self._go_on()
        self._is_held = event.held
        self._has_begun = True
        if self._last - self._written >= WRITE_SECONDS:
            self._write()

    def end(self) -> None:
        """Write what it came to, if there was anything to do."""
        if self._has_begun:
            self._go_on()
            self._write()

    def _go_on(self) -> None:
        now = self._clock()
        if not self._is_held:
            self._seconds += now - self._last
        self._last = now

    def _write(self) -> None:
        self._written = self._last
        if self._prediction_at is not None:
            _write(self._root, WORKED_FILE, _Worked(self._prediction_at, self._seconds))


def keep(root: StoreRoot, found: Prediction) -> None:
    """Write a prediction into the store, for ``status`` to show it beside the outcome.

    Nothing depends on it: where it cannot be written, there is none.
    """
    content = Record(
        clock.now(),
        found.plan.packages,
        found.plan.allocated,
        found.chosen.ingest,
        [
            _Choice(
                one.ingest,
                one.compression,
                round(one.saved.value),
                math.floor(one.saved.value - one.saved.margin),
                math.ceil(one.saved.value + one.saved.margin),
                one.seconds if found.kept.files else None,  # else there was nothing to time
            )
            for one in found.choices
        ],
    )
    _write(root, FILE, content)


def _write(root: StoreRoot, name: str, content: Record | _Worked) -> None:
    with (
        contextlib.suppress(OSError),
        disk.Closing(disk.open_directory(layout.MIGRATION, root.fd)) as migration,
    ):
        disk.write_snapshot(name, msgspec.json.encode(content) + b"\n", migration)


def _read(root: StoreRoot, name: str, kind: type[_Kept]) -> _Kept | None:
    try:
        with disk.Closing(disk.open_directory(layout.MIGRATION, root.fd)) as migration:
            return msgspec.json.decode(disk.read_all(name, migration, _BYTES_MAX), type=kind)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _seconds_worked(root: StoreRoot, kept: Record) -> float | None:
    found = _read(root, WORKED_FILE, _Worked)
    return None if found is None or found.prediction_at != kept.at else found.seconds


def beside_outcome(root: StoreRoot, totals: Totals, settings: Settings) -> dict[str, object] | None:
    """Return what was predicted, and beside it what came of it; None where nothing was kept.

    The outcome is null until all the packages that were predicted, and no others, are migrated.
    """
    kept = _read(root, FILE, Record)
    if kept is None:
        return None
    wanted = (kept.ingest, settings.store.compression)
    for one in kept.choices:
        if (one.ingest, one.compression) == wanted:
            break
    else:
        return None
    is_done = totals.count(Status.COMPLETED) == totals.packages == kept.packages
    return {
        "made_at": kept.at,
        "packages": kept.packages,
        "allocated_bytes": kept.allocated_bytes,
        "ingest": one.ingest,
        "compression": one.compression,
        "saved_bytes": one.saved_bytes,
        "saved_bytes_low": one.saved_bytes_low,
        "saved_bytes_high": one.saved_bytes_high,
        "seconds": None if one.seconds is None else list(one.seconds),
        "outcome_saved_bytes": totals.saved if is_done else None,
        "within_margin": one.saved_bytes_low <= totals.saved <= one.saved_bytes_high
        if is_done
        else None,
        "outcome_seconds": _seconds_worked(root, kept) if is_done else None,
    }
