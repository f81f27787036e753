"""One line of a file list: a JSON object that describes one entry."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Literal

import msgspec

from regrain.errors import CorruptionError
from regrain.model.entry import Entry, Kind, check_path

Hex = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
SIZE_MAX = 2**63 - 1
_NANOSECONDS = 10**9
_SECOND_MIN, _SECOND_MAX = -(2**63), 2**63 - 1

_Mode = Annotated[str, msgspec.Meta(pattern=r"\A[0-7]{4}\Z")]
_Id = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 2)]  # the last one means "leave it"
_Size = Annotated[int, msgspec.Meta(ge=0, le=SIZE_MAX)]
_Time = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class Line(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """All that a line may have; which fields belong to what is checked by ``parse_line``."""

    path: str | None = None
    path_b64: str | None = None
    type: Kind | None = None
    mode: _Mode | None = None
    uid: _Id | None = None
    gid: _Id | None = None
    mtime_ns: int | None = None
    hash: Hex | None = None
    size: _Size | None = None
    target: str | None = None
    target_b64: str | None = None
    xattrs: dict[str, str] | None = None
    xattrs_b64: dict[str, str] | None = None
    hardlink: str | None = None
    hardlink_b64: str | None = None


class _PlainDirectory(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A line with nothing but what every directory has; most lines are plain."""

    path: str
    type: Literal["directory"]
    mode: str
    uid: _Id
    gid: _Id
    mtime_ns: _Time


class _PlainFile(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The same of a file."""

    path: str
    type: Literal["file"]
    mode: str
    uid: _Id
    gid: _Id
    mtime_ns: _Time
    hash: str
    size: _Size


_encode = msgspec.json.Encoder().encode
_decode_line = msgspec.json.Decoder(Line).decode
_decode_plain_file = msgspec.json.Decoder(_PlainFile).decode
_decode_plain_directory = msgspec.json.Decoder(_PlainDirectory).decode
_MODES = tuple(f"{mode:04o}" for mode in range(0o10000))
_MODE_OF = {text: mode for mode, text in enumerate(_MODES)}
_HEX_DIGITS = "0123456789abcdef"
_HEX_LENGTH = 64
_FILE, _DIRECTORY = Kind.FILE, Kind.DIRECTORY
_TYPE_LETTERS = {Kind.FILE: b"\0f", Kind.DIRECTORY: b"\0d", Kind.SYMLINK: b"\0l0777"}


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
    line = Line(
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


def _join_xattrs(line: Line) -> dict[bytes, bytes] | None:
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
    entry = parse_unchecked(raw)
    if entry.path:
        check_path(entry.path)
    return entry


def parse_unchecked(raw: bytes) -> Entry:
    """Return the same, of which the caller has still to check that the path stays inside."""
    return _parse_plain(raw) or _parse_any(raw)


def _parse_plain(raw: bytes) -> Entry | None:
    """Return what most entries are; None for what needs a closer look."""
    try:
        if b'"type":"file"' in raw:
            file = _decode_plain_file(raw)
            digest = file.hash
            if len(digest) != _HEX_LENGTH or digest.strip(_HEX_DIGITS):
                return None
            path, mode = file.path.encode(), _MODE_OF[file.mode]
            # By place, not by name: this runs for every entry.
            return Entry(path, _FILE, mode, file.uid, file.gid, file.mtime_ns, digest, file.size)
        line = _decode_plain_directory(raw)
        path, mode = line.path.encode(), _MODE_OF[line.mode]
        return Entry(path, _DIRECTORY, mode, line.uid, line.gid, line.mtime_ns)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, KeyError):
        return None


def _parse_any(raw: bytes) -> Entry:
    try:
        line = _decode_line(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptionError("a broken entry in a file list", why=str(error)) from error
    path = b"" if line.path == "" else _raw(line.path, line.path_b64, "path")
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


def _target(line: Line, path: bytes) -> bytes:
    target = _raw(line.target, line.target_b64, "target")
    if not target or b"\0" in target:
        raise CorruptionError("a symbolic link with an impossible target", path=path)
    return target
