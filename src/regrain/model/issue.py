"""What a rule of health found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Issue:
    """What a rule found.

    Attributes:
        rule: ``integrity``, ``error_rate``, ``packages_an_hour``, ``foreground_reads``, ``held``,
            ``control``, ``free_bytes`` or ``free_inodes``.
        severity: ``warning`` or ``critical``.
        figure: What was measured.
        threshold: What it was measured against.
        reason: Both, in a clause.
        advice: What to do.
    """

    rule: str
    severity: str
    figure: float
    threshold: float
    reason: str
    advice: str
