"""What monitoring wants to know of a run beside its progress: counted from its events."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import msgspec

from regrain.errors import HaltedError, LockedError, NoSpaceError
from regrain.model.events import (
    BatchCommitted,
    LegacyKept,
    ObjectDamaged,
    PackageFailed,
    Reconciled,
    Triggered,
)
from regrain.model.histogram import NO_TIMES, Histogram

if TYPE_CHECKING:
    from regrain.errors import RegrainError
    from regrain.model.events import Event

ERROR_KINDS = (
    *("package_failed", "object_damaged", "legacy_changed", "legacy_vanished"),
    *("legacy_unreadable", "legacy_kept", "triggered", "no_space", "halted", "locked", "other"),
)
"""What goes wrong in a run; what it tries again by itself is no error."""

_ENDS = ((NoSpaceError, "no_space"), (HaltedError, "halted"), (LockedError, "locked"))


@dataclass(frozen=True, slots=True)
class Figures:
    """What was counted since a run began.

    Attributes:
        batches: How long it took to publish and record a batch.
        syncs: How long each flush of it took.
        errors: How often each kind of error was met; kinds that were not are left out.
    """

    batches: Histogram = NO_TIMES
    syncs: Histogram = NO_TIMES
    errors: dict[str, int] = field(default_factory=dict)


class Tally:
    """Counts the events of one run.

    Attributes:
        figures: What was counted so far.
    """

    def __init__(self) -> None:
        self.figures = Figures()

    def __call__(self, event: Event) -> None:
        """Take an event."""
        if isinstance(event, BatchCommitted):
            found = self.figures
            batches = found.batches.plus([event.seconds])
            self.figures = Figures(batches, found.syncs.plus(event.sync_seconds), found.errors)
        elif isinstance(event, PackageFailed):
            self._count("package_failed")
        elif isinstance(event, ObjectDamaged):
            self._count("object_damaged")
        elif isinstance(event, LegacyKept) and event.in_doubt:
            self._count("legacy_kept")
        elif isinstance(event, Triggered) and not event.before:
            self._count("triggered")
        elif isinstance(event, Reconciled):
            self._count("legacy_vanished", len(event.vanished))
            self._count("legacy_changed", len(event.changed))
            self._count("legacy_unreadable", len(event.unreadable))

    def ended_by(self, error: RegrainError) -> None:
        """Count the error that ended the run."""
        self._count(next((kind for known, kind in _ENDS if isinstance(error, known)), "other"))

    def document(self) -> dict[str, object]:
        """Return what the snapshot of a run tells of it."""
        return asdict(self.figures)

    def _count(self, kind: str, amount: int = 1) -> None:
        if amount:
            errors = self.figures.errors
            errors[kind] = errors.get(kind, 0) + amount


def read_figures(snapshot: dict[str, object]) -> Figures:
    """Return what the snapshot of a run tells; nothing where another version wrote it."""
    try:
        found = msgspec.convert(snapshot.get("figures", {}), Figures)
    except msgspec.ValidationError:
        return Figures()
    return found if found.batches.is_sound and found.syncs.is_sound else Figures()
