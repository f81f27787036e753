"""Health: rules with figure, threshold, reason and advice; the worst of all counts."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from regrain.model.status import Status

if TYPE_CHECKING:
    from regrain.app.standing import State
    from regrain.ledger import Concern, Ledger
    from regrain.model.events import Foreground
    from regrain.settings import Settings
    from regrain.store.root import StoreRoot

TRIGGER = "trigger"
"""The event of the history by which a trigger fired, or a later run went on in spite of it."""

WENT_ON = "went on after: "
"""How the words of the latter begin."""

ERROR_RATE_PACKAGES_MIN = 20
PACKAGES_AN_HOUR_MIN = 10
SLOWDOWN_WARNED = 1.2
SEVERITY = ("healthy", "warning", "critical")


@dataclass(frozen=True, slots=True)
class Issue:
    """What a rule found.

    Attributes:
        rule: ``integrity``, ``error_rate``, ``packages_an_hour``, ``foreground_reads``,
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


@dataclass(slots=True)
class Health:
    """The worst of all rules.

    Attributes:
        status: ``healthy``, ``warning`` or ``critical``.
        issues: What each rule that fired says.
        details: The same with figures and advice.
    """

    status: str = "healthy"
    issues: list[str] = field(default_factory=list)
    details: list[Issue] = field(default_factory=list)

    def add(self, issue: Issue | None) -> None:
        """Note an issue, if there is one."""
        if issue is not None:
            self.issues.append(issue.reason)
            self.details.append(issue)
            self.status = max(self.status, issue.severity, key=SEVERITY.index)

    def document(self) -> dict[str, object]:
        """Return what ``status --json`` prints of it."""
        details = [asdict(issue) for issue in self.details]
        return {"status": self.status, "issues": self.issues, "details": details}


@dataclass(frozen=True, slots=True)
class Room:
    """What the file system of a store has left, and what it must have.

    Attributes:
        free_bytes: Left.
        free_bytes_min: Asked for.
        free_inodes: Left; None where inodes are not counted.
        free_inodes_min: Asked for.
    """

    free_bytes: int
    free_bytes_min: int
    free_inodes: int | None
    free_inodes_min: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What health is judged by.

    Attributes:
        concerns: What stands against packages.
        failed: Packages that failed.
        tried: Those and the completed ones.
        error_rate_max: The share of them that is tolerated.
        room: What the file system has left.
        packages_last_hour: Of the run under way; None without one, or before an hour of work.
        foreground: What readers wait beside it; None where that is not known.
        trouble: Why what a run was told cannot be understood; empty if it can.
    """

    concerns: dict[str, Concern]
    failed: int
    tried: int
    error_rate_max: float
    room: Room
    packages_last_hour: int | None = None
    foreground: Foreground | None = None
    trouble: str = ""


def judge(facts: Facts) -> Health:
    """Judge by all rules; nothing is looked at but the facts."""
    found = Health()
    found.add(integrity(facts.concerns))
    found.add(error_rate(facts.failed, facts.tried, facts.error_rate_max))
    found.add(_packages_an_hour(facts.packages_last_hour))
    found.add(_foreground_reads(facts.foreground))
    found.add(_control(facts.trouble))
    for issue in lack_of_room(facts.room):
        found.add(issue)
    return found


def gather(root: StoreRoot, state: State, settings: Settings) -> Facts:
    """Look at everything that health is judged by."""
    failed = state.totals.count(Status.FAILED)
    so_far = state.of_the_run
    return Facts(
        concerns=state.matters.concerns,
        failed=failed,
        tried=failed + state.totals.count(Status.COMPLETED),
        error_rate_max=settings.migration.error_rate_max,
        room=room_of(root, settings),
        packages_last_hour=None if so_far is None else so_far.packages_last_hour,
        foreground=None if so_far is None else so_far.foreground,
        trouble=state.told.trouble,
    )


def room_of(root: StoreRoot, settings: Settings) -> Room:
    """Look at what the file system has left."""
    space = os.fstatvfs(root.fd)
    limits = settings.migration
    return Room(
        space.f_bavail * space.f_frsize,
        limits.free_bytes_min,
        space.f_favail if space.f_files else None,
        limits.free_inodes_min,
    )


def critical_issues(root: StoreRoot, settings: Settings) -> tuple[str, ...]:
    """Say what the file system lacks, where that is critical."""
    return tuple(issue.reason for issue in lack_of_room(room_of(root, settings)))


def last_trigger(ledger: Ledger) -> str:
    """Say why the last run was ended by a trigger; empty if none was, or one went on since."""
    last = ledger.last_event(TRIGGER)
    return "" if last is None or last.detail.startswith(WENT_ON) else last.detail


# the rules


def integrity(concerns: dict[str, Concern]) -> Issue | None:
    """Judge by what stands against packages; only a clean ``verify`` takes that back."""
    if not concerns:
        return None
    first = min(concerns)
    return Issue(
        "integrity",
        "critical",
        len(concerns),
        0,
        f"{len(concerns)} {'package is' if len(concerns) == 1 else 'packages are'} not what was "
        f"published: {first}: {concerns[first].what} ('regrain why {first[:16]}')",
        "'regrain why HASH' says what to do about each; 'regrain verify --level deep' takes back "
        "what was mended.",
    )


def error_rate(failed: int, tried: int, rate_max: float) -> Issue | None:
    """Judge by how many packages failed, once there are enough to tell."""
    if tried < ERROR_RATE_PACKAGES_MIN or failed / tried <= rate_max:
        return None
    return Issue(
        "error_rate",
        "warning",
        failed / tried,
        rate_max,
        f"{failed} of {tried} packages failed ({failed / tried:.0%}, {rate_max:.0%} is tolerated)",
        "'regrain status --failed' says why; mend it, then 'regrain migrate --retry-failed'. "
        "[migration] error_rate_max sets what is tolerated.",
    )


def _packages_an_hour(packages: int | None) -> Issue | None:
    if packages is None or packages >= PACKAGES_AN_HOUR_MIN:
        return None
    return Issue(
        "packages_an_hour",
        "warning",
        packages,
        PACKAGES_AN_HOUR_MIN,
        f"{packages} packages were done in the last hour, under {PACKAGES_AN_HOUR_MIN}",
        "Very large packages take long; else see whether the disk or --max-read holds it back.",
    )


def _foreground_reads(found: Foreground | None) -> Issue | None:
    if found is None or not found.is_steadily_slower(SLOWDOWN_WARNED):
        return None
    return Issue(
        "foreground_reads",
        "warning",
        (found.steady_seconds or 0.0) / found.baseline_seconds,
        SLOWDOWN_WARNED,
        f"reads beside the run are slow: {found.words}",
        "Be gentler: fewer --jobs, --max-read, [migration] io_pressure_max or "
        "latency_slowdown_max.",
    )


def _control(trouble: str) -> Issue | None:
    if not trouble:
        return None
    return Issue("control", "warning", 1, 0, trouble, "Move the file away; then nothing was said.")


def lack_of_room(room: Room) -> list[Issue]:
    """Judge by what the file system has left."""
    found = []
    if room.free_bytes < room.free_bytes_min:
        found.append(
            Issue(
                "free_bytes",
                "critical",
                room.free_bytes,
                room.free_bytes_min,
                f"{room.free_bytes} bytes are free, under {room.free_bytes_min}",
                "Free space, or lower [migration] free_bytes_min.",
            )
        )
    if room.free_inodes is not None and room.free_inodes < room.free_inodes_min:
        found.append(
            Issue(
                "free_inodes",
                "critical",
                room.free_inodes,
                room.free_inodes_min,
                f"{room.free_inodes} inodes are free, under {room.free_inodes_min}",
                "Remove files, or lower [migration] free_inodes_min.",
            )
        )
    return found
