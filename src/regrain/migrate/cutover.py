"""The cutover: a gate that asks everything, then the switch to the file level.

Nothing is asked in order to be overruled later: what the gate found open stands in its
answer, all of it at once, each with what to do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from regrain.errors import RefusedError
from regrain.migrate import phases
from regrain.migrate.reconcile import Reconciliation, look
from regrain.migrate.shadow import SLOWDOWN_MAX, Comparison
from regrain.model import clock
from regrain.model.phase import Phase
from regrain.model.status import Status
from regrain.store.locks import StoreLock

if TYPE_CHECKING:
    from regrain.ledger import Ledger, Standing
    from regrain.store.root import StoreRoot

BACKUP_MARKED = "backup_marked"
"""The event of the history by which somebody said that a backup was made."""

BACKUP_ADVICE = (
    "Make one with 'regrain backup create DEST'; or, if it is made otherwise, say 'regrain "
    "backup mark NOTE'; or give --no-backup."
)

MARK_SECONDS_MAX = 24 * 3600
_UNFINISHED = {
    Status.PENDING: ("pending", "Run 'regrain migrate'."),
    Status.IN_PROGRESS: ("in progress", "Run 'regrain migrate'."),
    Status.ROLLED_BACK: ("rolled back", "Run 'regrain migrate'."),
    Status.FAILED: (
        "failed",
        (
            "'regrain status --failed' says why; mend it and run 'regrain migrate "
            "--retry-failed', or set them aside with 'regrain exclude HASH'; those that vanished "
            "for good: 'regrain remove HASH'."
        ),
    ),
}


def is_fresh(marked_at: int) -> bool:
    """Tell whether the mark of a backup is good still; one from the future is not."""
    return 0 <= clock.now() - marked_at <= MARK_SECONDS_MAX


@dataclass(frozen=True, slots=True)
class Failure:
    """Something that stands in the way of a cutover.

    Attributes:
        check: Which part of the gate says it: packages, reconciliation, integrity,
            verification, backup, health or comparison.
        reason: What is open.
        advice: What to do about it.
        packages: The packages concerned.
    """

    check: str
    reason: str
    advice: str
    packages: tuple[str, ...] = ()


class GateError(RefusedError):
    """The gate is closed.

    Args:
        failures: Everything that stands in the way.
    """

    def __init__(self, failures: list[Failure]) -> None:
        super().__init__(
            "the gate is closed",
            why="; ".join(failure.reason for failure in failures),
            advice=" ".join(dict.fromkeys(failure.advice for failure in failures)),
        )
        self.failures = failures


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the gate judges.

    Attributes:
        standings: Every package that has or had a legacy directory.
        concerns: What stands against packages, by hash.
        found: A full reconciliation, made just now.
        unverified: Packages whose published copy was not compared with its source.
        without_backup: Why no backup covers the store; empty if one does, or none is asked for.
        critical: What health calls critical, integrity left out.
        comparison: Of both layouts.
    """

    standings: dict[str, Standing]
    concerns: dict[str, str]
    found: Reconciliation
    unverified: frozenset[str]
    without_backup: str
    critical: tuple[str, ...]
    comparison: Comparison = field(default_factory=Comparison)


def judge(evidence: Evidence) -> list[Failure]:
    """Return everything that stands in the way of a cutover; empty if nothing does."""
    return [
        *_unfinished(evidence.standings),
        *_unreconciled(evidence.found, evidence.standings),
        *_concerned(evidence),
        *_unverified(evidence.unverified),
        *_without_backup(evidence.without_backup),
        *(
            Failure("health", text, "Mend it; 'regrain doctor' says more.")
            for text in evidence.critical
        ),
        *_compared(evidence.comparison),
    ]


def _unfinished(standings: dict[str, Standing]) -> list[Failure]:
    failures = []
    for status, (words, advice) in _UNFINISHED.items():
        names = tuple(
            name for name, s in standings.items() if s.status is status and not s.is_excluded
        )
        if names:
            failures.append(Failure("packages", f"{_count(names)} {words}", advice, names))
    return failures


def _unreconciled(found: Reconciliation, standings: dict[str, Standing]) -> list[Failure]:
    failures = []
    new = [usage.package_hash for usage in found.settled]
    if names := tuple(name for name in new if name not in standings):
        failures.append(
            Failure("reconciliation", f"{_count(names)} new", "Run 'regrain migrate'.", names)
        )
    if found.unsettled:
        names = tuple(name for name, _ in found.unsettled)
        first, why = found.unsettled[0]
        failures.append(
            Failure(
                "reconciliation",
                f"{_count(names)} not settled: {first}: {why}",
                "Let the writer finish, then run 'regrain migrate'; or take the directory away.",
                names,
            )
        )
    if found.unreadable:
        names = tuple(name for name, _ in found.unreadable)
        first, why = found.unreadable[0]
        failures.append(
            Failure(
                "reconciliation",
                f"{_count(names)} cannot be compared: {first}: {why}",
                "Mend the cause and ask again.",
                names,
            )
        )
    return failures


def _concerned(evidence: Evidence) -> list[Failure]:
    said = {change.package_hash: change.words for change in evidence.found.changed}
    said.update(evidence.concerns)
    said = {
        name: what
        for name, what in said.items()
        if name not in evidence.standings or not evidence.standings[name].is_excluded
    }
    if not said:
        return []
    first, what = min(said.items())
    return [
        Failure(
            "integrity",
            f"{_count(said)} not what was published: {first}: {what}",
            "'regrain why HASH' says what to do about each; 'regrain verify --level deep' takes "
            "back what was mended.",
            tuple(sorted(said)),
        )
    ]


def _unverified(names: frozenset[str]) -> list[Failure]:
    if not names:
        return []
    return [
        Failure(
            "verification",
            f"{_count(names)} not verified",
            "Run 'regrain verify --level deep'.",
            tuple(sorted(names)),
        )
    ]


def _without_backup(why: str) -> list[Failure]:
    return [Failure("backup", why, BACKUP_ADVICE)] if why else []


def _compared(comparison: Comparison) -> list[Failure]:
    failures = []
    if comparison.differences:
        name, path, what = comparison.differences[0]
        where = f" '{path.decode('utf-8', 'backslashreplace')}'" if path else ""
        names = tuple(sorted({name for name, _, _ in comparison.differences}))
        failures.append(
            Failure(
                "comparison",
                f"{_count(names)} not the same in both layouts: {name}{where}: {what}",
                "Run 'regrain verify --level deep'.",
                names,
            )
        )
    if comparison.is_slower:
        failures.append(
            Failure(
                "comparison",
                f"the new layout takes {comparison.slowdown:.2f} times as long to read, "
                f"{SLOWDOWN_MAX} is tolerated",
                "Ask again when the machine is less busy; if it stays so, look at the disk "
                "below objects/.",
            )
        )
    return failures


def _count(names: object) -> str:
    number = len(names)  # type: ignore[arg-type]
    return f"{number:,} package{'' if number == 1 else 's'}"


def switch(root: StoreRoot, ledger: Ledger, settle_seconds: float) -> list[Failure]:
    """Look once more while nobody writes, then replace the phase.

    Returns:
        What appeared since the gate was asked; the phase is as it was then.

    Raises:
        LockedError: Writers did not pause in time.
    """
    with StoreLock(root, exclusive=True):
        found = look(root, ledger, settle_seconds)
        standings = ledger.standings()
        failures = [*_unfinished(standings), *_unreconciled(found, standings)]
        if not failures:
            phases.switch(root, ledger, Phase.FILE_LEVEL)
        return failures
