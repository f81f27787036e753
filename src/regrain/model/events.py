"""What a run tells whoever subscribes: frozen facts, emitted in order."""

from __future__ import annotations

from dataclasses import dataclass, field

from regrain.model.histogram import NO_TIMES, Histogram
from regrain.model.issue import Issue

READ_NOISE_SECONDS = 0.001
"""A small read that takes longer by no more than this is not slower: it may be chance."""


@dataclass(frozen=True, slots=True)
class Foreground:
    """How long a reader waits for a small file while a run goes on.

    Attributes:
        baseline_seconds: Before the run began to work, the median.
        seconds: In the last window, the median; None before there was one.
        steady_seconds: The least of the last windows: it took that long in each of them; None
            before there were several.
        reads: How long each read beside the run took; what was found is the same without it.
    """

    baseline_seconds: float
    seconds: float | None = None
    steady_seconds: float | None = None
    reads: Histogram = field(default=NO_TIMES, compare=False)

    @property
    def slowdown(self) -> float | None:
        """How many times as long as before a read takes, in the last window."""
        return None if self.seconds is None else self.seconds / self.baseline_seconds

    def is_slower(self, factor: float) -> bool:
        """Tell whether reads of the last window took over ``factor`` times the baseline."""
        return self._is_over(self.seconds, factor)

    def is_steadily_slower(self, factor: float) -> bool:
        """Tell whether those of each of the last windows did."""
        return self._is_over(self.steady_seconds, factor)

    def _is_over(self, seconds: float | None, factor: float) -> bool:
        return seconds is not None and (
            seconds > self.baseline_seconds * factor + READ_NOISE_SECONDS
        )

    @property
    def words(self) -> str:
        """What to say of it."""
        now = self.baseline_seconds if self.seconds is None else self.seconds
        return (
            f"a small read takes {now * 1e3:.1f} ms, {self.slowdown or 1.0:.1f} times the "
            f"{self.baseline_seconds * 1e3:.1f} ms before the run"
        )


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is.

    Attributes:
        packages_total: Packages this run set out to migrate.
        packages_done: Those published and recorded.
        packages_failed: Those that failed.
        files_done: Regular files of the packages done.
        bytes_total: ``st_size`` of all files to read.
        bytes_done: Read so far; what was read of packages that failed left out.
        rate_bytes_per_second: Of late; None until it can be told.
        seconds_left: At that rate, for what is neither done nor failed; None until it can be told,
            and while the run is held.
        throttle_reason: What holds the run back now; empty if nothing does.
        foreground: How long readers wait beside it; None where nobody measures.
        packages_last_hour: Packages done or failed in the last hour of work, time in which it
            was held or told to go slowly left out; None before there was one.
        held: Whether nothing new is begun.
        held_seconds: How long it was held since it last got a package done, pauses left out.
        standing: Rules of health that fired during the run and are not clear yet.
        bytes_in_hand: Those of ``bytes_done`` whose packages are not recorded yet.
        bytes_before: Of packages that were migrated before this run; no part of the others.
    """

    packages_total: int
    packages_done: int
    packages_failed: int
    files_done: int
    bytes_total: int
    bytes_done: int
    rate_bytes_per_second: float | None
    seconds_left: float | None
    throttle_reason: str = ""
    foreground: Foreground | None = None
    packages_last_hour: int | None = None
    held: bool = False
    held_seconds: float = 0.0
    standing: tuple[Issue, ...] = ()
    bytes_in_hand: int = 0
    bytes_before: int = 0


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a run found left over by one that was killed.

    Attributes:
        directories: Temporary directories removed.
        packages: Published packages that were recorded now.
        given_up: Claimed packages put back to pending.
        objects: Objects without a row that proved good and were recorded.
        quarantined: Damaged things moved aside.
    """

    directories: int
    packages: int
    given_up: int
    objects: int
    quarantined: int


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What a run found new, gone or changed among the legacy directories.

    Attributes:
        queued: New packages that wait for migration now.
        unsettled: New directories that are not taken yet, each with the reason.
        vanished: Packages whose directory is gone.
        changed: Packages whose directory is not what was published, each with what changed.
        unreadable: Packages whose directory could not be compared, each with the reason.
    """

    queued: tuple[str, ...]
    unsettled: tuple[tuple[str, str], ...]
    vanished: tuple[str, ...]
    changed: tuple[tuple[str, str], ...]
    unreadable: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class PackageCompleted:
    """A package is published, durable and recorded."""

    package_hash: str
    name: str
    version: str
    files: int
    size: int
    deduplicated_files: int
    space_saved: int


@dataclass(frozen=True, slots=True)
class BatchCommitted:
    """A batch is published and recorded; told after its packages.

    Attributes:
        packages: Those that were completed with it.
        seconds: How long publishing and recording took, flushes included; reading the packages
            is no part of it.
        sync_seconds: How long each flush took since the last batch, in their order.
    """

    packages: int
    seconds: float
    sync_seconds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class PackageFailed:
    """A package could not be brought in; the others go on."""

    package_hash: str
    name: str
    version: str
    message: str
    path: str | None


@dataclass(frozen=True, slots=True)
class PackageGivenUp:
    """A package went back to pending; the next run takes it again."""

    package_hash: str
    why: str


@dataclass(frozen=True, slots=True)
class LegacyRemoved:
    """The legacy directory of a published package is gone, in a migration in place."""

    package_hash: str
    freed_bytes: int


@dataclass(frozen=True, slots=True)
class LegacyKept:
    """A legacy directory that should have gone, in a migration in place, stays.

    Attributes:
        package_hash: The package.
        why: In one clause.
        in_doubt: Whether something is wrong with the package, rather than somebody using it.
        path: Where in the package, if that is known; as text.
    """

    package_hash: str
    why: str
    in_doubt: bool
    path: str = ""


@dataclass(frozen=True, slots=True)
class Remark:
    """What else there is to tell, such as why a run is held, and that it goes on."""

    text: str


@dataclass(frozen=True, slots=True)
class ObjectDamaged:
    """A run met a damaged object; it is in quarantine, and a good one has its place.

    Attributes:
        object: Its digest.
        why: What was wrong with it.
    """

    object: str
    why: str


@dataclass(frozen=True, slots=True)
class Triggered:
    """Something is wrong beyond single packages.

    Attributes:
        trigger: ``integrity``, ``error_rate`` or ``slowdown``.
        why: With figure and threshold.
        action: What ``on_trigger`` makes of it.
        before: Whether this is told of an earlier run, which it ended.
    """

    trigger: str
    why: str
    action: str
    before: bool = False


Event = (
    Progress
    | Recovered
    | Reconciled
    | PackageCompleted
    | BatchCommitted
    | PackageFailed
    | PackageGivenUp
    | LegacyRemoved
    | LegacyKept
    | Remark
    | ObjectDamaged
    | Triggered
)
