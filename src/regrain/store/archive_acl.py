"""Access lists: from the text that archives carry to what the kernel keeps.

Users and groups count by number only. GNU tar writes names where it knows some, with the
kernel's own form beside them: then that is taken, and the text only has to fit. bsdtar
adds the number behind the permissions.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

from regrain.errors import ArchiveError

ACCESS, DEFAULT = b"system.posix_acl_access", b"system.posix_acl_default"

_NOBODY = 0xFFFFFFFF
_VERSION = struct.pack("<I", 2)
_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 1, 2, 4, 8, 16, 32
_TAGS = {
    b"user": (_USER_OBJ, _USER),
    b"group": (_GROUP_OBJ, _GROUP),
    b"mask": (_MASK, 0),
    b"other": (_OTHER, 0),
}
_LINE = re.compile(rb"(user|group|mask|other):([^:]*):([r-])([w-])([x-])(?::([0-9]{1,10}))?")
_COMMENT = re.compile(rb"\s*#[^\n,]*")


class _Row(NamedTuple):
    tag: int
    permissions: int
    id: int | None  # None: known by a name only


def merge_acl(text: bytes, name: bytes, attributes: dict[bytes, bytes]) -> None:
    """Add the access list in ``text`` to ``attributes``, where it may stand already."""
    rows = sorted(_parse(text), key=lambda row: (row.tag, row.id or 0))
    if name in attributes:
        if not _fits(rows, _unpack(attributes[name])):
            raise ArchiveError("an access list in two versions")
    elif any(row.id is None for row in rows):
        raise ArchiveError(
            "an access list that names users instead of numbering them",
            advice="Make the archive with --xattrs beside --acls, or with bsdtar.",
        )
    else:
        attributes[name] = _VERSION + b"".join(
            struct.pack("<HHI", row.tag, row.permissions, row.id) for row in rows
        )


def check_acl(attributes: dict[bytes, bytes], mode: int) -> None:
    """Refuse access lists that the kernel would, and those that contradict the mode.

    One that says no more than the mode is dropped: the kernel does not keep it either.
    """
    for name in (ACCESS, DEFAULT):
        if name in attributes:
            _check(_unpack(attributes[name]))
    if ACCESS not in attributes:
        return
    rows = _unpack(attributes[ACCESS])
    by_tag = {row.tag: row.permissions for row in rows}
    group = by_tag.get(_MASK, by_tag[_GROUP_OBJ])
    if by_tag[_USER_OBJ] << 6 | group << 3 | by_tag[_OTHER] != mode & 0o777:
        raise ArchiveError("an access list that contradicts the mode", why=f"mode {mode:04o}")
    if len(rows) == 3:
        del attributes[ACCESS]


def _parse(text: bytes) -> list[_Row]:
    rows = []
    for line in re.split(rb"[\n,]", _COMMENT.sub(b"", text)):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise ArchiveError("an access list that is not well formed")
        own, named = _TAGS[match[1]]
        permissions = 4 * (match[3] == b"r") + 2 * (match[4] == b"w") + (match[5] == b"x")
        rows.append(_Row(named if match[2] else own, permissions, _id(match[2], match[6])))
    return rows


def _id(qualifier: bytes, number: bytes | None) -> int | None:
    """Return who a row is about; bsdtar's number counts more than the name before it."""
    if not qualifier:
        return _NOBODY
    if number is None and not (qualifier.isdigit() and len(qualifier) <= 10):
        return None
    found = int(number or qualifier)
    if found >= _NOBODY or (number and qualifier.isdigit() and int(qualifier) != found):
        raise ArchiveError("an access list with an impossible number")
    return found


def _unpack(raw: bytes) -> list[_Row]:
    if raw[:4] != _VERSION or len(raw) % 8 != 4:
        raise ArchiveError("an access list that is not well formed")
    return [_Row(*struct.unpack_from("<HHI", raw, at)) for at in range(4, len(raw), 8)]


def _fits(text: list[_Row], kept: list[_Row]) -> bool:
    """Tell whether a text says what the kernel's form says, as far as it gives numbers."""
    numbered = {row for row in text if row.id is not None}
    return sorted(row[:2] for row in text) == sorted(row[:2] for row in kept) and numbered <= {
        row if row.tag in (_USER, _GROUP) else row._replace(id=_NOBODY) for row in kept
    }


def _check(rows: list[_Row]) -> None:
    """Hold an access list against the kernel's rules."""
    tags = [row.tag for row in rows]
    once = (_USER_OBJ, _GROUP_OBJ, _OTHER)
    named = [(row.tag, row.id) for row in rows if row.tag in (_USER, _GROUP)]
    if (
        tags != sorted(tags)
        or any(tags.count(tag) != 1 for tag in once)
        or tags.count(_MASK) > 1
        or (named and _MASK not in tags)
        or len(set(named)) != len(named)
        or any(row.permissions > 7 or row.tag not in (*once, _USER, _GROUP, _MASK) for row in rows)
        or any(number == _NOBODY for _, number in named)
    ):
        raise ArchiveError("an access list that the kernel would not take")
