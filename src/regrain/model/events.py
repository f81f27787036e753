"""What a run tells whoever subscribes: frozen facts, emitted in order."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is.

    Attributes:
        packages_total: Packages this run set out to migrate.
        packages_done: Those published and recorded.
        packages_failed: Those that failed.
        files_done: Regular files of the packages done.
        bytes_total: ``st_size`` of all files to read.
        bytes_done: Read so far.
        rate_bytes_per_second: Of late; None until it can be told.
        seconds_left: At that rate; None until it can be told.
        throttle_reason: What holds the run back now; empty if nothing does.
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


Event = (
    Progress
    | Recovered
    | Reconciled
    | PackageCompleted
    | PackageFailed
    | PackageGivenUp
    | LegacyRemoved
    | LegacyKept
    | Remark
)
