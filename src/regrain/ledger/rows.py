"""The values the ledger takes and gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from regrain.model.status import Status


@dataclass(frozen=True, slots=True)
class Scanned:
    """A legacy directory as the first look found it.

    Attributes:
        package_hash: Its name.
        name: ``[package] name`` of its manifest, may be empty.
        version: Likewise.
        files: Regular files.
        inodes: Inodes, directories and the root included, each once.
        size: Sum of ``st_size`` of its regular files, each path counted.
        allocated: Bytes on disk, each inode once.
        cuts: Paths that part it into slices of about equal work, ends left out.
    """

    package_hash: str
    name: str
    version: str
    files: int
    inodes: int
    size: int
    allocated: int
    cuts: tuple[bytes, ...] = ()


class Pending(NamedTuple):
    """What there is to bring in: packages, files, ``st_size`` of these, bytes on disk."""

    packages: int
    files: int
    size: int
    allocated: int


@dataclass(frozen=True, slots=True)
class Claim:
    """A package taken for migration."""

    package_id: int
    package_hash: str
    name: str
    version: str
    files: int
    size: int
    allocated: int
    attempts: int
    cuts: tuple[bytes, ...] = ()
    inodes: int = 0


class NewCarrier(NamedTuple):
    """A carrier that was published.

    Attributes:
        digest: Raw, of the bytes it holds.
        mode: Its inode's.
        is_bare: Whether its name is the digest alone.
        mtime_ns: Its inode's.
        size: Of the object; of a compressed carrier, what it unpacks to.
        allocated: What it takes on disk.
        is_compressed: Whether it holds the bytes as a zstd frame.
    """

    digest: bytes
    mode: int
    is_bare: bool
    mtime_ns: int
    size: int
    allocated: int
    is_compressed: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a package that was published.

    Attributes:
        claim: The package.
        tree_hash: Of its file list.
        list_hash: BLAKE3 of the bytes of ``files.json``, which covers what tree_hash leaves out.
        digests: Raw digests of its distinct objects.
        files: Regular files in its tree.
        size: Their bytes.
        added: Allocated bytes that came to the store by this package.
        deduplicated: Files that share an object that was there before.
        verified: Whether it was compared with its source.
    """

    claim: Claim
    tree_hash: str
    list_hash: str
    digests: list[bytes] = field(repr=False)
    files: int
    size: int
    added: int
    deduplicated: int
    verified: bool


@dataclass(frozen=True, slots=True)
class PackageRow:
    """A package as the ledger knows it."""

    package_hash: str
    status: Status
    name: str
    version: str
    files: int
    size: int
    allocated: int
    space_saved: int | None
    attempts: int
    started_at: int | None
    completed_at: int | None
    error_message: str | None
    error_path: bytes | None


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over all packages that have or had a legacy directory.

    Those that are set aside are counted apart: no migration will take them.

    Attributes:
        by_status: Packages in each state.
        files: Regular files of all packages.
        files_done: Those of completed packages.
        deduplicated: Files of completed packages that share an older object.
        bytes_total: Sum of ``st_size`` of all packages.
        bytes_done: That of completed packages.
        saved: What cleanup will free on balance.
        objects: Distinct objects.
        carriers_allocated: Bytes on disk of all carriers.
        excluded: Packages that are set aside.
    """

    by_status: dict[Status, int]
    files: int
    files_done: int
    deduplicated: int
    bytes_total: int
    bytes_done: int
    allocated: int
    saved: int
    objects: int
    carriers_allocated: int
    excluded: int = 0

    @property
    def packages(self) -> int:
        """Packages in all states, those that are set aside too."""
        return sum(self.by_status.values()) + self.excluded

    def count(self, status: Status) -> int:
        """Packages in ``status``."""
        return self.by_status.get(status, 0)
