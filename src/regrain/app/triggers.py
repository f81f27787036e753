"""What ends a run although it could go on: it hears every event, judges, and acts as it is set.

A trigger never stops work in the middle: packages in hand are finished or put back, as at a
signal. What is judged is this run: what failed or was found before it is for ``status`` to say,
so that a run that is begun again is not ended by the same finding.
"""

from __future__ import annotations

import contextlib
import math
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from regrain.app.health import (
    TRIGGER,
    WENT_ON,
    Facts,
    error_rate,
    integrity,
    last_trigger,
    room_of,
)
from regrain.app.lasting import Memory, Standstill
from regrain.errors import RefusedError
from regrain.ledger import open_ledger
from regrain.migrate.commit import PASSING
from regrain.migrate.control import PAUSED
from regrain.migrate.pressure import IoPressure
from regrain.migrate.probe import Probe, SlowReaders
from regrain.model.clock import monotonic
from regrain.model.events import (
    Event,
    ObjectDamaged,
    PackageCompleted,
    PackageFailed,
    Progress,
    Remark,
    Triggered,
)
from regrain.model.phase import Phase
from regrain.model.status import Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from regrain.ledger import Concern, Ledger, Pending
    from regrain.migrate.pace import Brake, Tempo
    from regrain.model.issue import Issue
    from regrain.settings import Settings
    from regrain.store.root import StoreRoot

LOOK_SECONDS = 5.0
"""So often the ledger is asked what stands against packages: another command may have found it."""

FILES_MEASURED_MIN = 1500
BYTES_MEASURED_MIN = 128 << 20
"""Runs over less than so many files and bytes take about a second."""

_HOUR_SECONDS = 3600.0


class TriggeredError(RefusedError):
    """A trigger ended the run."""


class HourOfWork:
    """Counts the packages of the last hour in which the run went as fast as it could.

    Args:
        clock: Says how late it is.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._worked = 0.0
        self._seen_at = clock()
        self._ends: deque[float] = deque()

    def package(self) -> None:
        """Count a package that is done, or failed."""
        self._ends.append(self._worked)

    def packages(self, *, throttled: bool) -> int | None:
        """Return how many there were; None before an hour of work.

        Args:
            throttled: Whether the time since the last call does not count.
        """
        now = self._clock()
        self._worked += 0.0 if throttled else now - self._seen_at
        self._seen_at = now
        while self._ends and self._ends[0] <= self._worked - _HOUR_SECONDS:
            self._ends.popleft()
        return len(self._ends) if self._worked >= _HOUR_SECONDS else None


def check(settings: Settings) -> None:
    """See that what is to be heeded can be read.

    Raises:
        RefusedError: It cannot.
    """
    if settings.migration.io_pressure_max:
        IoPressure(settings.migration.io_pressure_max).check()


def known_concerns(root: StoreRoot) -> dict[str, Concern] | None:
    """Return what stands against packages before a rolled-back store goes forward again.

    None in every other phase: then nothing is found before the ledger is open.
    """
    if root.phase() is not Phase.ROLLED_BACK:
        return None
    ledger = open_ledger(root.path)
    try:
        return ledger.concerns()
    finally:
        ledger.close()


class Watch:
    """Hears every event of a run, adds to its progress what it knows, and fires triggers.

    Args:
        settings: What is tolerated, and what to do beyond it.
        ledger: Asked for what stands against packages; told what was found.
        tell: Told every event.
        known: What stood against packages before the run; None: what does now.

    Attributes:
        probe: Measures readers beside the run.
        brakes: What may hold it back by its settings.
        ended_by: The trigger that ends the run; None if none does.
    """

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        tell: Callable[[Event], None],
        known: dict[str, Concern] | None,
    ) -> None:
        self._settings = settings
        self._limits = settings.migration
        self._ledger = ledger
        self._tell = tell
        self._known = ledger.concerns() if known is None else known
        self._completed = self._failed = 0
        self._looked_at = -math.inf
        self._fired: set[str] = set()
        self._hour = HourOfWork()
        self._standstill = Standstill()
        self._memory = Memory()
        self._judged_at = monotonic()  # a run that is over sooner needs no memory
        self._standing: tuple[Issue, ...] = ()
        self._before: tuple[int, int] | None = None
        self._root: StoreRoot | None = None
        self._slow: SlowReaders | None = None
        self._tempo: Callable[[], Tempo] | None = None
        self._damaged: list[ObjectDamaged] = []
        self.probe: Probe | None = None
        self.brakes: list[Brake] = []
        self.ended_by: Triggered | None = None

    def remind(self) -> None:
        """Say, once, that a trigger ended the last run; this one goes on in spite of it."""
        why = last_trigger(self._ledger)
        if why:
            self._ledger.remember(TRIGGER, detail=f"{WENT_ON}{why}")
            trigger, _, words = why.partition(": ")
            self._tell(Triggered(trigger, words, "pause", before=True))

    def measure(self, root: StoreRoot, pending: Pending, tempo: Callable[[], Tempo]) -> None:
        """Take the baseline of readers, before the run begins to work; make the brakes.

        A small run is over before there is a window to judge, so nothing is measured beside it
        unless a limit is set.

        Args:
            root: The store.
            pending: What there is to do.
            tempo: Says what the run is told to.

        Raises:
            RefusedError: Readers are to be heeded, and cannot be timed.
        """
        self._tempo = tempo
        self._root = root
        limits = self._limits
        is_asked = limits.latency_slowdown_max is not None
        is_long = pending.files >= FILES_MEASURED_MIN or pending.size >= BYTES_MEASURED_MIN
        self.probe = Probe(root, measures=is_asked or is_long)
        if limits.io_pressure_max:
            self.brakes.append(IoPressure(limits.io_pressure_max))
        if limits.latency_slowdown_max is not None:
            goes_on = limits.on_trigger == "continue"
            self._slow = SlowReaders(self.probe, limits.latency_slowdown_max, goes_on=goes_on)
            self._slow.check()
            self.brakes.append(self._slow)

    def close(self) -> None:
        """Let go of what holds the store open: the run knows this, and this the run."""
        self._tempo = self._slow = self.probe = self._root = None
        self.brakes = []

    def __call__(self, event: Event) -> None:
        """Take an event, and pass it on."""
        if isinstance(event, PackageCompleted | PackageFailed):
            self._hour.package()
            self._completed += isinstance(event, PackageCompleted)
            self._failed += isinstance(event, PackageFailed)
        elif isinstance(event, Progress):
            event = self._completed_by(event)
        self._tell(event)
        if isinstance(event, ObjectDamaged):
            self._damaged.append(event)
            self.look()
        elif isinstance(event, Progress):
            self._judge()

    def _completed_by(self, event: Progress) -> Progress:
        """Add to a progress what is known here."""
        told = None if self._tempo is None else self._tempo()
        is_slowed = told is not None and (told.max_read or told.max_files or told.pause)
        is_paused = event.throttle_reason == PAUSED
        event = replace(
            event,
            foreground=None if self.probe is None else self.probe.found,
            packages_last_hour=self._hour.packages(
                throttled=bool(event.throttle_reason or is_slowed)
            ),
            held_seconds=self._standstill.seconds(event, is_paused=is_paused),
        )
        return replace(event, standing=self._remembered(event))

    def _remembered(self, event: Progress) -> tuple[Issue, ...]:
        """Judge the run's own figures now and then; return what stands by now."""
        if self._root is not None and monotonic() - self._judged_at >= LOOK_SECONDS:
            self._judged_at = monotonic()
            failed, completed = self._of_the_store()
            facts = Facts(
                {},
                failed,
                failed + completed,
                self._limits.error_rate_max,
                room_of(self._root, self._settings),
                event.packages_last_hour,
                event.foreground,
                held_seconds=event.held_seconds,
                held_by=event.throttle_reason,
            )
            before = {issue.rule for issue in self._standing}
            self._standing = self._memory.after(facts).standing
            for issue in self._standing:
                if issue.rule == "held" and issue.rule not in before:
                    self._tell(Remark(f"{issue.reason}. {issue.advice}"))
        return self._standing

    def _of_the_store(self) -> tuple[int, int]:
        """Return how many packages failed and were completed, in this run and before it."""
        if self._before is None:
            with contextlib.suppress(*PASSING):  # once: adding up a large ledger takes a while
                totals = self._ledger.totals()
                failed, completed = totals.count(Status.FAILED), totals.count(Status.COMPLETED)
                self._before = (failed - self._failed, completed - self._completed)
        before = self._before or (0, 0)
        return before[0] + self._failed, before[1] + self._completed

    def look(self) -> None:
        """See whether anything stands against a package that did not before.

        Where the ledger is busy, or the disk full, this has to wait for the next look.
        """
        self._looked_at = monotonic()
        with contextlib.suppress(*PASSING):
            while self._damaged:
                self._note(self._damaged[0])
                del self._damaged[0]
            new = {
                name: concern
                for name, concern in self._ledger.concerns().items()
                if name not in self._known or self._known[name].what != concern.what
            }
            issue = integrity(new)
            if issue is not None:
                self._fire("integrity", issue.reason)

    def _note(self, event: ObjectDamaged) -> None:
        """Note a damaged object against the packages that have it."""
        for name in self._ledger.owners(bytes.fromhex(event.object)):
            self._ledger.concern(name, f"object {event.object}: {event.why}")

    def _judge(self) -> None:
        issue = error_rate(
            self._failed, self._failed + self._completed, self._limits.error_rate_max
        )
        if issue is not None:
            self._fire("error_rate", f"{issue.reason} in this run")
        if self._slow is not None and self._slow.is_lasting:
            limit = f"{self._limits.latency_slowdown_max:g} times is tolerated"
            self._fire("slowdown", f"{self._slow.words}; {limit}")
        if monotonic() - self._looked_at >= LOOK_SECONDS:
            self.look()

    def _fire(self, trigger: str, why: str) -> None:
        if trigger in self._fired:
            return
        self._fired.add(trigger)
        fired = Triggered(trigger, why, self._limits.on_trigger)
        goes_on = fired.action == "continue"
        if not goes_on:
            self.ended_by = self.ended_by or fired
        self._tell(fired)
        with contextlib.suppress(*PASSING):  # the log has it, too
            kind = "trigger_ignored" if goes_on else TRIGGER
            self._ledger.remember(kind, detail=f"{trigger}: {why}")


_ADVICE = {
    "integrity": "'regrain why HASH' says what to do about each; 'regrain migrate' goes on with "
    "the others.",
    "error_rate": "'regrain status --failed' says why; mend the cause, then 'regrain migrate "
    "--retry-failed'. 'regrain migrate' goes on without them.",
    "slowdown": "'regrain migrate' goes on; with fewer --jobs, --max-read or [migration] "
    "io_pressure_max it is gentler.",
}


def act(
    root: StoreRoot, settings: Settings, fired: Triggered, stopping: Callable[[], bool]
) -> None:
    """Do what is set for a trigger, after the run it ended has let go of its locks.

    Returns only if it was stopped by a signal while it rolled back.

    Raises:
        TriggeredError: The run is ended, and the store rolled back, where that is set and fits.
        CorruptionError, FinishedWithFailuresError: The rollback was begun and cannot be ended.
    """
    because = f"{fired.trigger}: {fired.why}"
    if fired.action != "rollback":
        raise TriggeredError("a trigger ended the run", why=because, advice=_ADVICE[fired.trigger])
    from regrain.app.rollback import raise_failures, rollback

    try:
        done = rollback(root, settings, stopping=stopping)
    except RefusedError as error:
        raise TriggeredError(
            "a trigger ended the run; the rollback it asks for does not fit",
            why=f"{because}; {error.what}: {error.why}",
            advice=_ADVICE[fired.trigger],
        ) from error
    raise_failures(done)
    if not done.stopped:
        raise TriggeredError(
            "a trigger ended the run, and the store was rolled back",
            why=because,
            advice="It is read from its legacy directories. Mend the cause; 'regrain migrate' "
            "goes forward again.",
        )
