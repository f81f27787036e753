"""How a run went, for later: its progress from time to time, in the log.

The snapshot in ``state.json`` is replaced twice a second, and what it said before is lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from regrain.model.events import Progress

NAME = "Progress"
PAUSE_SECONDS = 2.0
SHARE = 0.01
"""A line comes when the run lasts this share longer than at the last one: an hour takes about
400 lines, a week 900."""

CHANGE_SHARE = 0.001
"""The same for a change of brakes: a pause between batches changes them with each, and a run of a
week would fill the logs with that; so it takes 9,000 lines at the most."""


class Course:
    """Chooses the moments of a run that are kept."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._next = self._change_next = 0.0
        self._is_throttled = False

    def is_due(self, progress: Progress, now: float) -> bool:
        """Tell whether to keep it: the first, the last, one now and then, a change of brakes.

        Args:
            progress: How far the run is.
            now: On a clock that never goes back.
        """
        is_last = progress.packages_done + progress.packages_failed == progress.packages_total
        is_throttled = bool(progress.throttle_reason)
        is_change = is_throttled != self._is_throttled and now >= self._change_next
        if now < self._next and not is_last and not is_change:
            return False
        if self._began is None:
            self._began = now
        self._is_throttled = is_throttled
        self._next = now + max(PAUSE_SECONDS, (now - self._began) * SHARE)
        self._change_next = now + (now - self._began) * CHANGE_SHARE
        return True


def line(progress: Progress) -> dict[str, object]:
    """Return what is kept of a progress."""
    waits = progress.foreground
    return {
        "packages_done": progress.packages_done,
        "packages_failed": progress.packages_failed,
        "bytes_done": progress.bytes_done,
        "bytes_total": progress.bytes_total,
        "rate_bytes_per_second": progress.rate_bytes_per_second,
        "throttle_reason": progress.throttle_reason,
        "read_seconds": None if waits is None else waits.seconds,
        "read_baseline_seconds": None if waits is None else waits.baseline_seconds,
    }
