"""What a cutover would ask, as far as can be told without asking it: a list to tick off.

The gate itself looks closer (``migrate.cutover``); nothing is decided here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from regrain.model.status import Status
from regrain.model.wording import count, moment

if TYPE_CHECKING:
    from regrain.app.account import Matters
    from regrain.app.health import Health
    from regrain.app.standing import State

_UNFINISHED = (Status.PENDING, Status.IN_PROGRESS, Status.ROLLED_BACK)
_OF_ITS_OWN = frozenset({"integrity"})
"""Rules of health that a check of the gate speaks of."""


class Check(NamedTuple):
    """A part of the gate.

    Attributes:
        name: As the gate has it.
        is_met: Whether it holds now; None where only the cutover itself can tell.
        words: What is known.
    """

    name: str
    is_met: bool | None
    words: str


def readiness(state: State, health: Health) -> list[Check]:
    """Return all parts of the gate.

    Args:
        state: Of the store.
        health: Its.
    """
    matters = state.matters
    critical = [
        issue.reason
        for issue in health.details
        if issue.severity == "critical" and issue.rule not in _OF_ITS_OWN
    ]
    new = matters.unqueued
    concerned = len(matters.concerns)
    return [
        _packages(state),
        Check(
            "reconciliation",
            False if new else None,
            f"{count(new, 'new legacy directory')}, for the next migrate"
            if new
            else "the cutover compares all legacy directories once more",
        ),
        Check(
            "integrity",
            not concerned,
            f"{count(concerned, 'package')} not as published"
            if concerned
            else "nothing stands against any package",
        ),
        _verification(state),
        _backup(matters),
        Check("health", not critical, "; ".join(critical) or "nothing is critical"),
        Check("comparison", None, "the cutover reads samples from both layouts"),
    ]


def _packages(state: State) -> Check:
    totals = state.totals
    left = sum(totals.count(status) for status in _UNFINISHED)
    failed = state.matters.failed
    said = [f"{count(left, 'package')} to be migrated"] * bool(left)
    said += [f"{failed:,} failed"] * bool(failed)
    done = f"all {totals.count(Status.COMPLETED):,} are migrated"
    return Check("packages", not said, ", ".join(said) or done)


def _verification(state: State) -> Check:
    matters = state.matters
    if matters.unverified:
        said = f"{count(matters.unverified, 'package')} not compared yet"
    elif matters.is_proven:
        said = "a deep verification of the whole store found nothing"
    else:
        said = "each migrated package was compared with its source"
    return Check("verification", not matters.unverified, said)


def _backup(matters: Matters) -> Check:
    made, marked = matters.backup, matters.marked_at
    if not matters.is_backed_up:
        said = "none that covers every package; or say --no-backup"
    elif made is not None and (marked is None or made.at >= marked):
        said = f"made at {moment(made.at)} UTC"
    else:
        said = f"marked at {moment(marked)} UTC, good for 24 h"
    return Check("backup", matters.is_backed_up, said)
