"""What health remembers from one look to the next: rules that fired, and how long nothing moved.

A figure that sways around its bar would have a rule come and go with every look, and whoever is
told of it would be told again and again. So a rule that has fired stands until its figure was past
a lower bar for a while.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from regrain.app.health import EXACT, look
from regrain.model.clock import monotonic

if TYPE_CHECKING:
    from collections.abc import Callable

    from regrain.app.health import Facts
    from regrain.model.events import Progress
    from regrain.model.issue import Issue

CLEAR_SECONDS = 60.0
"""So long a figure must have been past the lower bar before its rule is clear."""


class Memory:
    """Rules that fired and are not clear yet.

    Args:
        clock: Says how late it is.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._seen: dict[str, tuple[Issue, float]] = {}

    def after(self, facts: Facts) -> Facts:
        """Return facts with what stands of earlier looks; remember what they show."""
        now = self._clock()
        told = {issue.rule: issue for issue in facts.standing}
        for issue in look(replace(facts, standing=self._standing(told))):
            if issue.rule not in EXACT:
                self._seen[issue.rule] = (issue, now)
        self._seen = {
            rule: (issue, at)
            for rule, (issue, at) in self._seen.items()
            if now - at < CLEAR_SECONDS
        }
        return replace(facts, standing=self._standing(told))

    def _standing(self, told: dict[str, Issue]) -> tuple[Issue, ...]:
        return tuple({**told, **{rule: issue for rule, (issue, _) in self._seen.items()}}.values())


class Standstill:
    """How long a run was held, by what nobody asked for, since it last got a package done.

    Args:
        clock: Says how late it is.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._seen_at = clock()
        self._packages = 0
        self._seconds = 0.0

    def seconds(self, progress: Progress, *, is_paused: bool) -> float:
        """Take a progress, and count the time since the one before it.

        Args:
            progress: Of the run.
            is_paused: Whether somebody holds it on purpose; that time does not count.
        """
        now, packages = self._clock(), progress.packages_done + progress.packages_failed
        if packages != self._packages:
            self._packages, self._seconds = packages, 0.0
        elif progress.held and not is_paused:
            self._seconds += now - self._seen_at
        self._seen_at = now
        return self._seconds
