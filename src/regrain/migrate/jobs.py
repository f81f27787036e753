"""What travels between the coordinator and its workers: plain, picklable values."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import msgspec

from regrain.model.entry import Entry
from regrain.model.layout import compressed_carrier, further_carrier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from regrain.store.frames import Compression


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
        can_link: Likewise, hard links.
        link_outside: Link inodes that have names outside their package, too.
        fsync_each: Flush every staged file by itself instead of ``syncfs`` once a batch.
        verify: Compare with a fresh listing of the source.
        compression: How objects are compressed where that pays; None leaves them plain.
        flush_names: Let workers flush the directories in which they gave names, too: they are on
            other hosts, for which the coordinator cannot do it.
    """

    ingest: Ingest
    can_reflink: bool
    can_link: bool
    link_outside: bool
    fsync_each: bool
    verify: bool
    compression: Compression | None = None
    flush_names: bool = False

    def without_links(self) -> Options:
        """Return the same for a tree that stays another's: its inodes are never linked."""
        ingest = Ingest.AUTO if self.ingest is Ingest.HARDLINK else self.ingest
        return replace(self, ingest=ingest, can_link=False)


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
    STALE = "stale"
    BEREFT = "bereft"
    """Another package of its batch, which was to bring an object of both, failed late."""


class Failure(NamedTuple):
    """Why a package was not brought in."""

    kind: FailureKind
    message: str
    path: bytes | None


class Wanted(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A carrier a package needs that was not published when the package named it.

    Attributes:
        digest: Raw, of the bytes.
        mode: The carrier's.
        source: Where the inode to link, or to copy, lies in the package; empty if a copy waits in
            the pool.
        inode: Its facts, by which publishing tells that it is the one that was read or staged.
        size: Likewise.
        mtime_ns: Likewise.
        ctime_ns: Likewise.
        allocated: Bytes on disk.
        unpacked_size: Of a compressed copy, how many bytes it holds; 0 for any other.
    """

    digest: bytes
    mode: int
    source: bytes
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    allocated: int
    unpacked_size: int = 0

    @property
    def copy(self) -> str:
        """The name of a copy in the pool: by content and mode, and how it holds the bytes."""
        name = further_carrier(self.digest.hex(), self.mode)
        return compressed_carrier(name) if self.unpacked_size else name

    @property
    def facts(self) -> tuple[int, int, int]:
        """What tells one inode and its content from another; the change time apart."""
        return self.inode, self.size, self.mtime_ns


class Record(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An entry with the facts by which a later look tells whether it is the same inode.

    Attributes:
        entry: The entry; of hard-link groups without the group's first path.
        device: Of the inode; 0 where it is that of the package's root. Hosts number them as they
            like, and a package may be read by one and finished by another.
        inode: Its number.
        ctime_ns: Its change time.
        links: Its names.
    """

    entry: Entry
    device: int
    inode: int
    ctime_ns: int
    links: int


class PublishedCarrier(NamedTuple):
    """A carrier that got its name just now; the fields of its row in the ledger."""

    digest: bytes
    mode: int
    is_bare: bool
    mtime_ns: int
    size: int
    allocated: int
    is_compressed: bool = False


_pack = msgspec.msgpack.Encoder().encode
_T = TypeVar("_T")


def pack(values: Iterable[object]) -> bytes:
    """Return values as bytes that are quicker to send to another process than themselves."""
    listed = list(values)
    try:
        return _pack(listed)
    except OverflowError:  # a time no 64 bits hold; JSON knows no such limit
        return msgspec.json.encode(listed)


def unpacker(kind: type[_T]) -> Callable[[bytes], list[_T]]:
    """Return what makes values of a ``kind`` again of what ``pack`` returned."""
    compact = msgspec.msgpack.Decoder(list[kind]).decode  # type: ignore[valid-type]
    loose = msgspec.json.Decoder(list[kind]).decode  # type: ignore[valid-type]
    return lambda raw: loose(raw) if raw.startswith(b"[") else compact(raw)


@dataclass(frozen=True, slots=True)
class SliceResult:
    """What became of a slice; its records wait in a spill file."""

    piece: Slice
    wanted: bytes = field(default=b"", repr=False)
    to_copy: bytes = field(default=b"", repr=False)
    bytes_read: int = 0
    failure: Failure | None = None


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
        wanted: Packed lists of what must be published before the package can be.
        to_copy: Packed lists of what must be copied first, unless another package brings it.
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
    wanted: list[bytes] = field(default_factory=list, repr=False)
    to_copy: list[bytes] = field(default_factory=list, repr=False)
    list_allocated: int = 0
    bytes_read: int = 0
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class ObjectsResult:
    """What became of a part of the objects that a package wanted copied, or published.

    Attributes:
        package_hash: The package.
        staged: Packed wishes of copies that wait in the pool now.
        carriers: Packed rows of those that were not there before and got their names.
        failure: Why the others did not.
        damaged: Objects that were in the way, broken, and are in quarantine: digest, reason.
    """

    package_hash: str
    staged: bytes = field(default=b"", repr=False)
    carriers: bytes = field(default=b"", repr=False)
    failure: Failure | None = None
    damaged: tuple[tuple[str, str], ...] = ()
