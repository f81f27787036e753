"""Package archives: what their members are, one after the other, read strictly.

There is one parser, this one, and it knows what GNU tar, bsdtar and Python write: ustar,
GNU and POSIX (PAX) headers. Python's own ``tarfile`` is not used: it takes a header with
a wrong checksum for the end of the archive, reads a GNU header's times as part of a name,
and passes over what it does not know.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from regrain.errors import ArchiveError
from regrain.model.entry import NAME_BYTES_MAX
from regrain.store import archive_headers as tar
from regrain.store import archive_pax as pax
from regrain.store.archive_sparse import Region, check_regions, new_regions, old_regions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regrain.store.archive_stream import Limits, Meter, Stream

_TARGET_BYTES_MAX = 4095
_ID_MAX = 2**32 - 2  # one more means "leave it as it is" to chown
_TYPE_BITS = 0o170000
_SECOND = 10**9
_SECONDS = range(-(2**63), 2**63)
_SPARSE_FOLDER = b"GNUSparseFile."


class MemberKind(StrEnum):
    """What a member makes."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    HARD_LINK = "hard link"


_KINDS = {
    tar.FILE: MemberKind.FILE,
    tar.OLD_FILE: MemberKind.FILE,
    tar.GNU_SPARSE: MemberKind.FILE,
    tar.DIRECTORY: MemberKind.DIRECTORY,
    tar.SYMLINK: MemberKind.SYMLINK,
    tar.HARD_LINK: MemberKind.HARD_LINK,
}


@dataclass(frozen=True, slots=True)
class Member:
    """A member of an archive; its path leads to a place inside the package.

    Attributes:
        path: Raw bytes relative to the package's root, ``b""`` for the root itself.
        kind: What it makes.
        mode: Permission bits with set-id and sticky.
        uid: Owner.
        gid: Group.
        mtime_ns: Modification time.
        size: Files: bytes, holes included.
        target: Symbolic links: where they point. Hard links: the path they repeat.
        xattrs: Extended attributes, access lists among them.
        regions: Files: the stretches that are there; the rest are holes.
    """

    path: bytes
    kind: MemberKind
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int = 0
    target: bytes = b""
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    regions: tuple[Region, ...] = ()


@dataclass(slots=True)
class _Said:
    """What the headers before a member say about it."""

    records: pax.Records | None = None
    name: bytes | None = None
    target: bytes | None = None

    def is_empty(self) -> bool:
        return self.records is None and self.name is None and self.target is None

    def record(self, key: bytes) -> bytes | None:
        return None if self.records is None else self.records.get(key)


def members(
    stream: Stream, meter: Meter, limits: Limits
) -> Iterator[tuple[Member, Iterator[tuple[int, memoryview]]]]:
    """Yield each member with its content, as (offset in the file, bytes).

    What is left of the content when the next member is asked for is passed over. At the
    end all that follows has been read, and found to be nothing.

    Raises:
        ArchiveError: The archive is broken, or asks for what is refused.
    """
    said = _Said()
    while (block := stream.take(tar.BLOCK)) != tar.NO_BLOCK:
        header = tar.parse_header(block)
        if header.type in (tar.PAX, tar.PAX_GLOBAL, tar.GNU_NAME, tar.GNU_LINK_NAME):
            _listen(header, said, stream, limits)
            continue
        member, stored = _member(header, said, stream, limits)
        said = _Said()
        meter.unpack(member.size - sum(length for _, length in member.regions))
        content = _content(stream, member.regions)
        yield member, content
        for _ in content:
            pass
        _padding(stream, stored, member.path)
    if not said.is_empty():
        raise ArchiveError("an extended header without its member")
    _check_end(stream)


def _check_end(stream: Stream) -> None:
    if stream.take(tar.BLOCK) != tar.NO_BLOCK:
        raise ArchiveError("an archive that ends too early", why="one block of zeroes, not two")
    for chunk in stream.rest():
        if bytes(chunk).strip(b"\0"):
            raise ArchiveError("an archive with something behind its end")
    if stream.taken % tar.BLOCK:
        raise ArchiveError("a truncated archive", why="it ends in the middle of a block")


def _listen(header: tar.Header, said: _Said, stream: Stream, limits: Limits) -> None:
    """Take in a header that speaks about the member after it."""
    size = header.number(tar.SIZE)
    is_pax = header.type in (tar.PAX, tar.PAX_GLOBAL)
    if not 0 < size <= (limits.header_bytes_max if is_pax else limits.path_bytes_max + 1):
        raise ArchiveError("an extended header of an impossible size", why=f"{size} bytes")
    raw = stream.take(size)
    _padding(stream, size, header.name)
    if is_pax and header.is_gnu:
        raise ArchiveError("an extended header that mixes the POSIX and the GNU format")
    if header.type == tar.PAX_GLOBAL:
        pax.check_global(raw)
    elif header.type == tar.PAX:
        if not said.is_empty():
            raise ArchiveError("conflicting headers", why="two extended headers for one member")
        said.records = pax.parse_records(raw)
    else:
        _listen_gnu(header.type, raw.removesuffix(b"\0"), said)


def _listen_gnu(kind: bytes, name: bytes, said: _Said) -> None:
    if said.records is not None:
        raise ArchiveError("conflicting headers", path=name, why="names in POSIX and GNU form")
    if (said.name if kind == tar.GNU_NAME else said.target) is not None:
        raise ArchiveError("conflicting headers", path=name, why="two long names for one member")
    if kind == tar.GNU_NAME:
        said.name = name
    else:
        said.target = name


def _member(header: tar.Header, said: _Said, stream: Stream, limits: Limits) -> tuple[Member, int]:
    """Return the member of ``header`` and how many bytes of data end at its padding."""
    if said.records is not None and header.is_gnu:
        raise ArchiveError("conflicting headers", path=header.name, why="POSIX before GNU")
    if (said.name is not None or said.target is not None) and not header.is_gnu:
        raise ArchiveError("conflicting headers", path=header.name, why="GNU before POSIX")
    kind = _KINDS[header.type]
    raw_name = _name(header, said)
    path = inner_path(raw_name, limits, directory=kind is MemberKind.DIRECTORY)
    if not path and kind is not MemberKind.DIRECTORY:
        raise ArchiveError(f"a root that is a {kind}")
    stored = _stored(header, said)
    if stored and kind is not MemberKind.FILE:
        raise ArchiveError(f"a {kind} with content", path=path)
    size, regions = _extent(header, said, stream, stored)
    mode = header.number(tar.MODE)
    if mode & ~(_TYPE_BITS | 0o7777):
        raise ArchiveError("an impossible mode", path=path, why=f"{mode:o}")
    try:
        xattrs = pax.attributes(said.records or {}, mode)
    except ArchiveError as error:
        raise ArchiveError(error.what, path=path, why=error.why, advice=error.advice) from error
    return Member(
        path,
        kind,
        mode & 0o7777,
        _owner(header, said, tar.UID, pax.UID),
        _owner(header, said, tar.GID, pax.GID),
        _mtime(header, said),
        size,
        _target(header, said, kind, limits),
        xattrs,
        tuple(regions),
    ), stored


def _name(header: tar.Header, said: _Said) -> bytes:
    name = header.name
    for other in (said.name, said.record(pax.PATH)):
        if other is not None:
            name = other
    if said.name is not None and not said.name.startswith(header.name):
        raise ArchiveError(
            "conflicting headers", path=name, why=f"its short name is {header.name!r}"
        )
    sparse = said.record(pax.SPARSE_NAME)
    if sparse is None:
        return name
    if _SPARSE_FOLDER not in name:
        raise ArchiveError("conflicting headers", path=name, why="a second name, of a sparse file")
    return sparse


def inner_path(raw: bytes, limits: Limits, *, directory: bool = False) -> bytes:
    """Return the path below the root that a name in an archive means.

    Raises:
        ArchiveError: It may mean a place elsewhere, or several.
    """
    if b"\0" in raw:
        raise ArchiveError("a name with a NUL in it", path=raw)
    if not raw:
        raise ArchiveError("a member without a name")
    if raw.startswith(b"/"):
        raise ArchiveError("an absolute name in the archive", path=raw)
    if len(raw) > limits.path_bytes_max:
        raise ArchiveError("a path that is too long", path=raw[:200] + b"...")
    path = raw.removesuffix(b"/") if directory else raw
    path = b"" if path == b"." else path.removeprefix(b"./")
    if not path:
        return b""
    names = path.split(b"/")
    for part, what in (
        (b"..", "a name that leads out of the package"),
        (b"", "a name with an empty component"),
        (b".", "a name with a component that means nothing"),
    ):
        if part in names:
            raise ArchiveError(what, path=raw)
    if len(names) > limits.depth_max:
        raise ArchiveError("a tree that is too deep", why=f"over {limits.depth_max} levels")
    if max(map(len, names)) > NAME_BYTES_MAX:
        raise ArchiveError("a name that is too long", path=raw)
    return path


def _stored(header: tar.Header, said: _Said) -> int:
    """Return how many bytes follow the header."""
    size = _agreed(header, said, tar.SIZE, pax.SIZE)
    if size < 0:
        raise ArchiveError("a negative size", path=header.name)
    return size


def _agreed(header: tar.Header, said: _Said, short: tar.Field, key: bytes) -> int:
    """Return a number for which a record stands only where it does not fit the header."""
    own = header.number(short)
    record = said.record(key)
    if record is None:
        return own
    found = pax.whole(record, key)
    if found != own and found <= short.octal_max:
        raise ArchiveError(
            "conflicting headers", path=header.name, why=f"{short.name} {own} and {found}"
        )
    return found


def _extent(
    header: tar.Header, said: _Said, stream: Stream, stored: int
) -> tuple[int, list[Region]]:
    """Return the size of a file and the stretches of it that are stored."""
    if header.type == tar.GNU_SPARSE:
        size, regions = old_regions(header, stream)
    elif said.records is not None and pax.SPARSE & said.records.keys():
        records = said.records
        version = (records.get(pax.SPARSE_MAJOR), records.get(pax.SPARSE_MINOR))
        if version != (b"1", b"0") or not records.keys() >= pax.SPARSE:
            raise ArchiveError("a sparse file of an unknown format", path=header.name)
        if _KINDS[header.type] is not MemberKind.FILE:
            raise ArchiveError("a sparse file that is no file", path=header.name)
        size = pax.whole(records[pax.SPARSE_SIZE], pax.SPARSE_SIZE)
        taken, regions = new_regions(stream, stored, header.name)
        stored -= taken
    else:
        return stored, [(0, stored)] if stored else []
    check_regions(regions, stored, size, header.name)
    return size, regions


def _owner(header: tar.Header, said: _Said, short: tar.Field, key: bytes) -> int:
    number = _agreed(header, said, short, key)
    if not 0 <= number <= _ID_MAX:
        raise ArchiveError(f"an impossible {short.name}", path=header.name, why=str(number))
    return number


def _mtime(header: tar.Header, said: _Said) -> int:
    own = header.number(tar.MTIME)
    record = said.record(pax.MTIME)
    mtime_ns = own * _SECOND if record is None else pax.time_ns(record)
    if mtime_ns // _SECOND not in _SECONDS:
        raise ArchiveError("an impossible time", path=header.name)
    return mtime_ns


def _target(header: tar.Header, said: _Said, kind: MemberKind, limits: Limits) -> bytes:
    record = said.record(pax.LINK_PATH)
    target = record if record is not None else said.target
    if kind not in (MemberKind.SYMLINK, MemberKind.HARD_LINK):
        if target or header.target:
            raise ArchiveError("conflicting headers", path=header.name, why=f"a {kind} that links")
        return b""
    if target is None:
        target = header.target
    elif record is None and not target.startswith(header.target):
        raise ArchiveError("conflicting headers", path=header.name, why="two targets")
    if kind is MemberKind.HARD_LINK:
        path = inner_path(target, limits)
        if not path:
            raise ArchiveError("a hard link to a directory", path=header.name)
        return path
    if not target or b"\0" in target or len(target) > _TARGET_BYTES_MAX:
        raise ArchiveError("a symbolic link with an impossible target", path=header.name)
    return target


def _content(stream: Stream, regions: tuple[Region, ...]) -> Iterator[tuple[int, memoryview]]:
    for start, length in regions:
        at = start
        for chunk in stream.chunks(length):
            yield at, chunk
            at += len(chunk)


def _padding(stream: Stream, size: int, name: bytes) -> None:
    """Pass over what fills the last block of data up."""
    if any(stream.take(-size % tar.BLOCK)):
        raise ArchiveError("something between the end of a member and the next", path=name)
