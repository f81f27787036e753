"""The file list of a package: ``files.json``, one entry a line, sorted by raw path bytes.

The form is fixed in ``docs/formats.md``. Entries are written and read one at a time, so
a package of a million files needs no more memory than one of ten.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Annotated

import msgspec
from blake3 import blake3

from regrain.errors import CorruptionError, MalformedHashError, UnknownFormatError
from regrain.model.digest import PackageHash
from regrain.model.entry import Entry, Kind, check_path
from regrain.model.layout import FORMAT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LINE_BYTES_MAX = 64 << 20
"""A longer line is damage: names, targets and attributes of one entry are far smaller."""

FOOTER = b"]}\n"
_NANOSECONDS = 10**9
_SECOND_MIN, _SECOND_MAX = -(2**63), 2**63 - 1

_Hex = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
_Mode = Annotated[str, msgspec.Meta(pattern=r"\A[0-7]{4}\Z")]
_Id = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 2)]  # the last one means "leave it"
_SIZE_MAX = 2**63 - 1
_Size = Annotated[int, msgspec.Meta(ge=0, le=_SIZE_MAX)]


class _Line(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    path: str | None = None
    path_b64: str | None = None
    type: Kind | None = None
    mode: _Mode | None = None
    uid: _Id | None = None
    gid: _Id | None = None
    mtime_ns: int | None = None
    hash: _Hex | None = None
    size: _Size | None = None
    target: str | None = None
    target_b64: str | None = None
    xattrs: dict[str, str] | None = None
    xattrs_b64: dict[str, str] | None = None
    hardlink: str | None = None
    hardlink_b64: str | None = None


class _Header(msgspec.Struct, forbid_unknown_fields=True):
    format: int
    package_hash: str
    tree_hash: _Hex
    entries: list[_Line]


_encode = msgspec.json.Encoder().encode
_decode_line = msgspec.json.Decoder(_Line).decode
_decode_header = msgspec.json.Decoder(_Header).decode
_MODES = tuple(f"{mode:04o}" for mode in range(0o10000))
_TYPE_LETTERS = {Kind.FILE: b"\0f", Kind.DIRECTORY: b"\0d", Kind.SYMLINK: b"\0l0777"}


def header(package_hash: str, tree_hash: str) -> bytes:
    """Return the first line of a file list; ``entry_line`` and ``FOOTER`` follow."""
    return (
        f'{{"format":{FORMAT},"package_hash":"{package_hash}",'
        f'"tree_hash":"{tree_hash}","entries":[\n'
    ).encode()


def _either(raw: bytes) -> tuple[str | None, str | None]:
    """Return ``raw`` as text, or as base64 where it is not UTF-8."""
    try:
        return raw.decode(), None
    except UnicodeDecodeError:
        return None, base64.b64encode(raw).decode()


def _split_xattrs(
    xattrs: dict[bytes, bytes],
) -> tuple[dict[str, str] | None, dict[str, str] | None]:
    plain: dict[str, str] = {}
    encoded: dict[str, str] = {}
    for name in sorted(xattrs):
        value = base64.b64encode(xattrs[name]).decode()
        text, text_b64 = _either(name)
        if text is not None:
            plain[text] = value
        elif text_b64 is not None:
            encoded[text_b64] = value
    return plain or None, encoded or None


def entry_line(entry: Entry) -> bytes:
    """Return the JSON object of ``entry``, without separator or newline."""
    text, text_b64 = _either(entry.path)
    line = _Line(
        text, text_b64, entry.kind, _MODES[entry.mode], entry.uid, entry.gid, entry.mtime_ns
    )
    if entry.kind is Kind.FILE:
        line.hash, line.size = entry.digest, entry.size
    elif entry.kind is Kind.SYMLINK:
        line.target, line.target_b64 = _either(entry.target)
    if entry.hardlink is not None:
        line.hardlink, line.hardlink_b64 = _either(entry.hardlink)
    if entry.xattrs:
        line.xattrs, line.xattrs_b64 = _split_xattrs(entry.xattrs)
    return _encode(line)


def hashed_form(entry: Entry) -> bytes:
    """Return what ``tree_hash`` is computed over for ``entry`` (not for the root)."""
    letter = _TYPE_LETTERS[entry.kind]
    if entry.kind is Kind.SYMLINK:
        return entry.path + letter + entry.target + b"\0"
    return b"%b%b%04o%b\0" % (entry.path, letter, entry.mode, entry.digest.encode())


def tree_hash(entries: Iterable[Entry]) -> str:
    """Return the BLAKE3 over ``entries`` in order, the root left out."""
    hasher = blake3()
    for entry in entries:
        if entry.path:
            hasher.update(hashed_form(entry))
    return hasher.hexdigest()


def _raw(text: str | None, encoded: str | None, field: str) -> bytes:
    """Return the bytes of a field that stands as text or as base64, exactly one of both."""
    if (text is None) == (encoded is None):
        raise CorruptionError(f"'{field}' or '{field}_b64' must be there, and only one")
    if text is not None:
        return text.encode()
    raw = _unbase64(encoded or "", field)
    if _either(raw)[0] is not None:
        raise CorruptionError(f"'{field}_b64' where plain text would do")
    return raw


def _unbase64(text: str, field: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise CorruptionError(f"'{field}' is not base64") from error


def _join_xattrs(line: _Line) -> dict[bytes, bytes] | None:
    if line.xattrs is None and line.xattrs_b64 is None:
        return None
    found = {
        name.encode(): _unbase64(value, "xattrs") for name, value in (line.xattrs or {}).items()
    }
    for name, value in (line.xattrs_b64 or {}).items():
        found[_unbase64(name, "xattrs_b64")] = _unbase64(value, "xattrs_b64")
    if any(not name or b"\0" in name for name in found):
        raise CorruptionError("an extended attribute without a proper name")
    return found


def parse_line(raw: bytes) -> Entry:
    """Return the entry that ``raw`` (one JSON object) describes.

    Raises:
        CorruptionError: It is not an entry of format 1.
    """
    try:
        line = _decode_line(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptionError("a broken entry in a file list", why=str(error)) from error
    path = b"" if line.path == "" else check_path(_raw(line.path, line.path_b64, "path"))
    if line.type is None or line.mode is None or line.mtime_ns is None:
        raise CorruptionError("an entry without type, mode or mtime_ns", path=path)
    if line.uid is None or line.gid is None:
        raise CorruptionError("an entry without uid or gid", path=path)
    if not _SECOND_MIN <= line.mtime_ns // _NANOSECONDS <= _SECOND_MAX:
        raise CorruptionError("a time that no file can have", path=path)
    is_file, is_symlink = line.type is Kind.FILE, line.type is Kind.SYMLINK
    has_target = line.target is not None or line.target_b64 is not None
    has_hardlink = line.hardlink is not None or line.hardlink_b64 is not None
    if (
        is_file != (line.hash is not None)
        or is_file != (line.size is not None)
        or is_symlink != has_target
        or (has_hardlink and line.type is Kind.DIRECTORY)
    ):
        raise CorruptionError(f"fields that do not belong to a {line.type.value}", path=path)
    hardlink = (
        check_path(_raw(line.hardlink, line.hardlink_b64, "hardlink")) if has_hardlink else None
    )
    # By place, not by name: this runs for every entry, and keywords take half as long again.
    return Entry(
        path,
        line.type,
        int(line.mode, 8),
        line.uid,
        line.gid,
        line.mtime_ns,
        line.hash or "",
        line.size or 0,
        _target(line, path) if is_symlink else b"",
        _join_xattrs(line),
        hardlink,
    )


def _target(line: _Line, path: bytes) -> bytes:
    target = _raw(line.target, line.target_b64, "target")
    if not target or b"\0" in target:
        raise CorruptionError("a symbolic link with an impossible target", path=path)
    return target


def parse_header(raw: bytes, package_hash: str | None = None) -> tuple[PackageHash, str]:
    """Return package hash and tree hash from a file list's first line.

    Raises:
        CorruptionError: It is no such line, or names another package than ``package_hash``.
        UnknownFormatError: A newer version wrote it.
    """
    try:
        head = _decode_header(raw + b"]}")
        found = PackageHash(head.package_hash)
    except (msgspec.MsgspecError, UnicodeDecodeError, MalformedHashError) as error:
        raise CorruptionError("a file list without a proper first line", why=str(error)) from error
    if head.format != FORMAT:
        raise UnknownFormatError(
            f"a file list of format {head.format}",
            package=found,
            why=f"this version knows format {FORMAT}",
            advice="Use a newer regrain.",
        )
    if package_hash is not None and found != package_hash:
        raise CorruptionError("a file list that names another package", package=package_hash)
    return found, head.tree_hash


def parse(lines: Iterable[bytes], package_hash: str) -> Iterator[Entry]:
    """Yield the entries of a file list, root first; everything is checked on the way.

    Args:
        lines: The lines of the file, with or without their newlines.
        package_hash: The package it must be of.

    Raises:
        CorruptionError: Broken, truncated, unsorted, or ``tree_hash`` does not fit; what
            was yielded before must then not be relied on.
    """
    source = iter(lines)
    _, wanted = parse_header(next(source, b""), package_hash)
    checker = _Order()
    hasher = blake3()
    closed, goes_on = False, True
    for raw in source:
        stripped = raw.removesuffix(b"\n")
        if closed or goes_on == (stripped == b"]}"):
            raise CorruptionError("a file list that ends where it should not", package=package_hash)
        if stripped == b"]}":
            closed = True
            continue
        goes_on = stripped.endswith(b",")
        entry = parse_line(stripped.removesuffix(b","))
        checker.check(entry)
        if entry.path:
            hasher.update(hashed_form(entry))
        yield entry
    if not closed or checker.count == 0:
        raise CorruptionError("a file list that ends too early", package=package_hash)
    if hasher.hexdigest() != wanted:
        raise CorruptionError(
            "a file list whose entries do not give its tree_hash", package=package_hash
        )


class _Order:
    """Checks what only shows between entries: order, parents, hard-link groups."""

    def __init__(self) -> None:
        self.count = 0
        self._last = b""
        self._bytes_left = _SIZE_MAX
        self._directories: set[bytes] = set()
        self._firsts: set[int] = set()

    def check(self, entry: Entry) -> None:
        path = entry.path
        if self.count == 0:
            if path or entry.kind is not Kind.DIRECTORY:
                raise CorruptionError("a file list that does not begin with its root directory")
        else:
            if path <= self._last:
                raise CorruptionError("entries out of order in a file list", path=path)
            parent = path.rpartition(b"/")[0]
            if parent not in self._directories:
                raise CorruptionError("an entry whose directory is not in the file list", path=path)
        if entry.kind is Kind.DIRECTORY:
            self._directories.add(path)
        elif entry.hardlink is None:
            self._firsts.add(_inode_facts(entry, path))
        elif _inode_facts(entry, entry.hardlink) not in self._firsts:
            raise CorruptionError("a hard link to what is not the same file", path=path)
        self._bytes_left -= entry.size
        if self._bytes_left < 0:
            raise CorruptionError("more bytes in a file list than can be", path=path)
        self._last = path
        self.count += 1


def _inode_facts(entry: Entry, path: bytes) -> int:
    """Return a number that stands for all an inode has, and for the first of its paths.

    A number instead of the entry keeps the memory of a long list small.
    """
    attributes = tuple(sorted(entry.xattrs.items())) if entry.xattrs else ()
    return hash(
        (
            path,
            entry.kind,
            entry.mode,
            entry.uid,
            entry.gid,
            entry.mtime_ns,
            entry.digest,
            entry.size,
            entry.target,
            attributes,
        )
    )
