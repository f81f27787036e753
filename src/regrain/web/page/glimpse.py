"""What one look gives the page, whatever it cost to find: one value for all who watch."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from regrain.app.browsing import Measured, Past
    from regrain.app.observing import Overview
    from regrain.errors import RegrainError
    from regrain.migrate.chronicle import Sample


class Glimpse(NamedTuple):
    """All of it.

    Attributes:
        seen: The store; None where it was never seen.
        trouble: Why it cannot be seen now; None where it can.
        past: What the logs tell.
        points: How the last runs went.
        measured: What the store takes on disk; None where that was not measured.
    """

    seen: Overview | None
    trouble: RegrainError | None
    past: Past
    points: list[Sample]
    measured: Measured | None

    @property
    def is_measured(self) -> bool:
        """Whether anybody timed readers beside a run."""
        return any(point.read_seconds is not None for point in self.points)
