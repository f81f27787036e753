"""Extended headers: the records that POSIX lets stand before a member.

Every keyword is known, and used or ignored on purpose; an unknown one may change what a
member is, so it is refused. So are two records that say the same thing differently.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING

from regrain.errors import ArchiveError
from regrain.store.archive_acl import ACCESS, DEFAULT, check_acl, merge_acl

if TYPE_CHECKING:
    from collections.abc import Iterator

Records = dict[bytes, bytes]

PATH, LINK_PATH, SIZE, UID, GID, MTIME = b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime"
SPARSE_MAJOR, SPARSE_MINOR = b"GNU.sparse.major", b"GNU.sparse.minor"
SPARSE_NAME, SPARSE_SIZE = b"GNU.sparse.name", b"GNU.sparse.realsize"
SPARSE = {SPARSE_MAJOR, SPARSE_MINOR, SPARSE_NAME, SPARSE_SIZE}

_SCHILY, _LIBARCHIVE = b"SCHILY.xattr.", b"LIBARCHIVE.xattr."
_ACLS = {b"SCHILY.acl.access": ACCESS, b"SCHILY.acl.default": DEFAULT}
_USED = {PATH, LINK_PATH, SIZE, UID, GID, MTIME, *SPARSE, *_ACLS}
_IGNORED = {
    b"atime",
    b"ctime",
    b"comment",
    b"uname",
    b"gname",
    b"LIBARCHIVE.creationtime",
    b"RHT.security.selinux",  # labels are the system's own affair
    b"SCHILY.dev",
    b"SCHILY.fflags",  # inode flags are not kept
    b"SCHILY.ino",
    b"SCHILY.nlink",
}
_CHARSETS = {b"BINARY", b"ISO-IR 10646 2000 UTF-8"}
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
_ESCAPE_GNU = re.compile(rb"%(25|3[Dd])")
_SPACES = (b"user.", b"trusted.", b"security.")
_NAME_BYTES_MAX, _VALUE_BYTES_MAX = 255, 64 << 10
_WHOLE = re.compile(rb"[0-9]{1,20}")
_TIME = re.compile(rb"(-?)([0-9]{1,19})(?:\.([0-9]{1,100}))?")
_LENGTH = re.compile(rb"([1-9][0-9]{0,9}) ")
_SECOND = 10**9


def parse_records(raw: bytes) -> Records:
    """Return the records of an extended header.

    Raises:
        ArchiveError: They are not well formed, or a keyword is unknown or stands twice.
    """
    records: Records = {}
    for key, value in _split(raw):
        if key in records:
            raise ArchiveError(f"'{_shown(key)}' twice in one extended header")
        if key == b"hdrcharset":
            if value not in _CHARSETS:
                raise ArchiveError("names in an unknown character set", why=_shown(value))
        elif key.startswith(b"GNU.sparse.") and key not in SPARSE:
            raise ArchiveError(
                "a sparse file in an old format of GNU tar",
                why=_shown(key),
                advice="Make the archive with --sparse-version=1.0, or without --sparse.",
            )
        elif not (key in _USED or key in _IGNORED or key.startswith((_SCHILY, _LIBARCHIVE))):
            raise ArchiveError("an extended header with an unknown keyword", why=_shown(key))
        records[key] = value
    return records


def check_global(raw: bytes) -> None:
    """Accept a global header only if it says nothing about members."""
    for key, _ in _split(raw):
        if key != b"comment":
            raise ArchiveError("a global header that changes every member", why=_shown(key))


def _split(raw: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield keyword and value of each record, ``length keyword=value`` and a newline."""
    at = 0
    while at < len(raw):
        match = _LENGTH.match(raw, at)
        end = at + int(match[1]) if match else 0
        record = raw[match.end() : end] if match else b""
        key, equals, value = record.removesuffix(b"\n").partition(b"=")
        if not key or not equals or end > len(raw) or not record.endswith(b"\n"):
            raise ArchiveError("a broken extended header", why="a record that is not well formed")
        yield key, value
        at = end


def whole(value: bytes, key: bytes) -> int:
    """Return a number that a record gives in decimal digits."""
    if _WHOLE.fullmatch(value) is None:
        raise ArchiveError(f"an extended header whose {_shown(key)} is not a number")
    return int(value)


def time_ns(value: bytes) -> int:
    """Return a time in nanoseconds; what is finer is cut off downwards, as GNU tar does."""
    match = _TIME.fullmatch(value)
    if match is None:
        raise ArchiveError("an extended header whose mtime is not a time", why=_shown(value))
    digits = match[3] or b""
    nanoseconds = int(match[2]) * _SECOND + int(digits[:9].ljust(9, b"0"))
    if not match[1]:
        return nanoseconds
    return -nanoseconds - (1 if digits[9:].strip(b"0") else 0)


def attributes(records: Records, mode: int) -> dict[bytes, bytes]:
    """Return the extended attributes that the records give, access lists included.

    Args:
        records: Of an extended header.
        mode: What the member's header says, which its access list must agree with.
    """
    plain = {key[len(_SCHILY) :]: records[key] for key in records if key.startswith(_SCHILY)}
    found = _libarchive(records)
    if not found:
        for name, value in plain.items():
            _put(found, _ESCAPE_GNU.sub(_unescape, name), value)
    elif plain:
        _check_same(plain, found)
    for name, value in found.items():
        _check_attribute(name, value)
    for key, name in _ACLS.items():
        if key in records:
            merge_acl(records[key], name, found)
    check_acl(found, mode)
    return found


def _check_same(plain: dict[bytes, bytes], found: dict[bytes, bytes]) -> None:
    """Refuse attributes that stand both ways, as bsdtar writes them, but not alike.

    Its versions differ in how they escape the name of the plain one; that of the other is
    beyond doubt.
    """
    for name, value in plain.items():
        readings = {name, _ESCAPE_GNU.sub(_unescape, name), _ESCAPE.sub(_unescape, name)}
        if not any(found.get(reading) == value for reading in readings):
            raise _two_versions(name)
    if len(plain) != len(found):
        raise ArchiveError("extended attributes in two versions")


def _two_versions(name: bytes) -> ArchiveError:
    return ArchiveError("an extended attribute in two versions", why=_shown(name))


def _libarchive(records: Records) -> dict[bytes, bytes]:
    """Return the attributes whose values stand in base64, without its padding."""
    found: dict[bytes, bytes] = {}
    for key, value in records.items():
        if key.startswith(_LIBARCHIVE):
            try:
                plain = base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
            except binascii.Error as error:
                raise ArchiveError("an extended attribute that is not base64") from error
            _put(found, _ESCAPE.sub(_unescape, key.removeprefix(_LIBARCHIVE)), plain)
    return found


def _unescape(match: re.Match[bytes]) -> bytes:
    return bytes([int(match[1], 16)])


def _put(found: dict[bytes, bytes], name: bytes, value: bytes) -> None:
    if name in found:
        raise _two_versions(name)
    found[name] = value


def _check_attribute(name: bytes, value: bytes) -> None:
    """Refuse what no system takes; what this one does not take shows when it is set."""
    if not (name.startswith(_SPACES) or name in (ACCESS, DEFAULT)):
        raise ArchiveError("an extended attribute of an unknown kind", why=_shown(name))
    if b"\0" in name or name.endswith(b".") or len(name) > _NAME_BYTES_MAX:
        raise ArchiveError("an extended attribute with an impossible name", why=_shown(name))
    if len(value) > _VALUE_BYTES_MAX:
        raise ArchiveError("an extended attribute that is too large", why=_shown(name))


def _shown(raw: bytes) -> str:
    text = raw.decode("utf-8", "backslashreplace")
    return text if len(text) <= 100 else text[:100] + "…"
