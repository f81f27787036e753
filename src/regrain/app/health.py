"""Health: rules with figure, threshold, reason and advice; the worst of all counts."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

from regrain.model.issue import Issue
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
HELD_SECONDS_MAX = 600.0
EASE = 0.8
"""A rule that fired and stands is judged by a bar further away: four fifths of what may be at the
most (of a slowdown, of what it goes beyond one), five quarters of what must be at the least."""

EXACT = ("integrity", "control")
"""Rules of facts, not of figures that sway. They are clear when the fact is gone, and no sooner:
what stands against a package only a clean ``verify`` takes back."""

SEVERITY = ("healthy", "warning", "critical")


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
        held_seconds: How long the run was held since it last got a package done.
        held_by: By what.
        standing: What fired before and is not clear yet, as far as somebody remembers.
    """

    concerns: dict[str, Concern]
    failed: int
    tried: int
    error_rate_max: float
    room: Room
    packages_last_hour: int | None = None
    foreground: Foreground | None = None
    trouble: str = ""
    held_seconds: float = 0.0
    held_by: str = ""
    standing: tuple[Issue, ...] = ()


def judge(facts: Facts) -> Health:
    """Judge by all rules; nothing is looked at but the facts."""
    found, issues = Health(), look(facts)
    seen = {issue.rule for issue in issues}
    for issue in issues:
        found.add(issue)
    for issue in facts.standing:
        if issue.rule not in seen:
            found.add(replace(issue, reason=f"{issue.reason}; that was so a moment ago"))
    return found


def look(facts: Facts) -> list[Issue]:
    """Return what is beyond its bar now; what stands already is judged by the lower one, too.

    What is beyond the lower one alone says so: that bar is not what is tolerated.
    """
    found = _beyond(facts, frozenset())
    fired = {issue.rule for issue in found}
    lower = _beyond(facts, frozenset(issue.rule for issue in facts.standing))
    return found + [
        replace(issue, reason=f"{issue.reason} (it was past its limit; this bar clears it)")
        for issue in lower
        if issue.rule not in fired
    ]


def _beyond(facts: Facts, eased: frozenset[str]) -> list[Issue]:
    def ease(rule: str) -> float:
        return EASE if rule in eased else 1.0

    room = facts.room
    found = [
        integrity(facts.concerns),
        error_rate(facts.failed, facts.tried, facts.error_rate_max * ease("error_rate")),
        _packages_an_hour(
            facts.packages_last_hour, PACKAGES_AN_HOUR_MIN / ease("packages_an_hour")
        ),
        _foreground_reads(facts.foreground, 1 + (SLOWDOWN_WARNED - 1) * ease("foreground_reads")),
        _held(facts.held_seconds, facts.held_by),
        _control(facts.trouble),
        *lack_of_room(
            replace(
                room,
                free_bytes_min=round(room.free_bytes_min / ease("free_bytes")),
                free_inodes_min=round(room.free_inodes_min / ease("free_inodes")),
            )
        ),
    ]
    return [issue for issue in found if issue is not None]


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
        held_seconds=0.0 if so_far is None else so_far.held_seconds,
        held_by="" if so_far is None else so_far.throttle_reason,
        standing=() if so_far is None else so_far.standing,
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
        f"{failed} of {tried} packages failed ({_percent(failed / tried)}, "
        f"{_percent(rate_max)} is tolerated)",
        "'regrain status --failed' says why; mend it, then 'regrain migrate --retry-failed'. "
        "[migration] error_rate_max sets what is tolerated.",
    )


def _percent(share: float) -> str:
    """Return a share so exactly that one sees on which side of its limit it is."""
    return f"{100 * share:.3g}%"


def _packages_an_hour(packages: int | None, packages_min: float) -> Issue | None:
    if packages is None or packages >= packages_min:
        return None
    return Issue(
        "packages_an_hour",
        "warning",
        packages,
        packages_min,
        f"{packages} packages were done in the last hour, under {packages_min:g}",
        "Very large packages take long; else see whether the disk or --max-read holds it back.",
    )


def _foreground_reads(found: Foreground | None, slowdown_max: float) -> Issue | None:
    if found is None or not found.is_steadily_slower(slowdown_max):
        return None
    return Issue(
        "foreground_reads",
        "warning",
        (found.steady_seconds or 0.0) / found.baseline_seconds,
        slowdown_max,
        f"reads beside the run are slow: {found.words}",
        "Be gentler: fewer --jobs, --max-read, [migration] io_pressure_max or "
        "latency_slowdown_max.",
    )


def _held(seconds: float, by: str) -> Issue | None:
    if seconds < HELD_SECONDS_MAX:
        return None
    return Issue(
        "held",
        "warning",
        seconds,
        HELD_SECONDS_MAX,
        f"no package was done in {seconds / 60:.0f} minutes in which the run was held: {by}",
        "It goes on by itself when that is over. If it never will be, take the cause away, raise "
        "the limit that is named, or stop the run.",
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
