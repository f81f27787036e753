"""What travels between the coordinator and its workers: plain, picklable values."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

import msgspec

from regrain.model.entry import Entry


class Ingest(StrEnum):
    """How a file's bytes come into ``objects/``."""

    AUTO = "auto"
    REFLINK = "reflink"
    HARDLINK = "hardlink"
    COPY = "copy"


@dataclass(frozen=True, slots=True)
class Options:
    """How packages are brought in.

    Attributes:
        ingest: By which means.
        can_reflink: Whether the file system can (measured once a run).
        link_outside: Link inodes that have names outside their package, too.
        fsync_each: Flush every staged file by itself instead of ``syncfs`` once a batch.
        verify: Compare with a fresh listing of the source.
        bytes_per_second_max: For one worker; 0 is no limit.
    """

    ingest: Ingest
    can_reflink: bool
    link_outside: bool
    fsync_each: bool
    verify: bool
    bytes_per_second_max: float


class Slice(NamedTuple):
    """A part of a package: the paths ``start <= path < stop``."""

    package_hash: str
    number: int
    start: bytes
    stop: bytes | None


class FailureKind(StrEnum):
    """Whom a failure concerns (the letters of the fault matrix)."""

    PACKAGE = "package"
    SPACE = "space"
    HALT = "halt"
    STOPPED = "stopped"


class Failure(NamedTuple):
    """Why a package was not brought in."""

    kind: FailureKind
    message: str
    path: bytes | None


class StagedCarrier(NamedTuple):
    """A carrier that waits in the run's pool for being published.

    The inode's facts are those right after staging; publishing checks them again.
    """

    name: str
    digest: bytes
    mode: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    allocated: int

    @property
    def facts(self) -> tuple[int, int, int, int]:
        """What tells whether the inode was touched since."""
        return self.inode, self.size, self.mtime_ns, self.ctime_ns


class Record(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An entry with the facts by which a later look tells whether it is the same inode.

    Attributes:
        entry: The entry; of hard-link groups without the group's first path.
        device: Of the inode.
        inode: Its number.
        ctime_ns: Its change time after staging.
        links: Its names before staging.
    """

    entry: Entry
    device: int
    inode: int
    ctime_ns: int
    links: int


@dataclass(frozen=True, slots=True)
class SliceResult:
    """What became of a slice; its records wait in a spill file."""

    piece: Slice
    staged: list[StagedCarrier] = field(repr=False)
    needed: list[str] = field(repr=False)
    bytes_read: int
    failure: Failure | None


@dataclass(frozen=True, slots=True)
class PackageResult:
    """What became of a package: a finished file list in the run's directory, or a failure.

    Attributes:
        package_hash: The package.
        tree_hash: Of its file list.
        list_hash: BLAKE3 of the bytes of ``files.json``.
        files: Regular files, every path counted.
        objects_named: Files that are not empty.
        size: Sum of ``st_size`` of the files.
        digests: Raw digests of the distinct objects, 32 bytes each, joined.
        needed: Carriers that waited in the pool when the package named them.
        staged: Carriers this package staged.
        list_allocated: Bytes on disk of ``packages/<hash>``.
        bytes_read: Bytes read from the source.
        failure: Why there is nothing to publish.
    """

    package_hash: str
    tree_hash: str = ""
    list_hash: str = ""
    files: int = 0
    objects_named: int = 0
    size: int = 0
    digests: bytes = field(default=b"", repr=False)
    needed: list[str] = field(default_factory=list, repr=False)
    staged: list[StagedCarrier] = field(default_factory=list, repr=False)
    list_allocated: int = 0
    bytes_read: int = 0
    failure: Failure | None = None
