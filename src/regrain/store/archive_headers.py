"""The 512-byte headers of a tar archive, ustar and GNU, read strictly.

Where implementations are known to read the same bytes differently, nothing is guessed:
the archive is refused.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from regrain.errors import ArchiveError

BLOCK = 512
NO_BLOCK = bytes(BLOCK)
"""Two of these end an archive."""

FILE, OLD_FILE, HARD_LINK, SYMLINK, DIRECTORY = b"0", b"\0", b"1", b"2", b"5"
GNU_SPARSE, GNU_NAME, GNU_LINK_NAME = b"S", b"L", b"K"
PAX, PAX_GLOBAL = b"x", b"g"

_USTAR, _GNU = b"ustar\x0000", b"ustar  \0"
_OCTAL = re.compile(rb" *([0-7]+)[ \0]*")
_SPECIAL = {b"3": "a character device", b"4": "a block device", b"6": "a FIFO"}
_KNOWN = {
    FILE,
    OLD_FILE,
    HARD_LINK,
    SYMLINK,
    DIRECTORY,
    GNU_SPARSE,
    GNU_NAME,
    GNU_LINK_NAME,
    PAX,
    PAX_GLOBAL,
}
_GNU_ONLY = {GNU_SPARSE, GNU_NAME, GNU_LINK_NAME}


class Field(NamedTuple):
    """A number in a header."""

    name: str
    start: int
    length: int

    @property
    def octal_max(self) -> int:
        """The largest number that can stand there as octal digits."""
        return int(8 ** (self.length - 1)) - 1


MODE = Field("mode", 100, 8)
UID = Field("uid", 108, 8)
GID = Field("gid", 116, 8)
SIZE = Field("size", 124, 12)
MTIME = Field("mtime", 136, 12)
_CHECKSUM = Field("checksum", 148, 8)


class Header(NamedTuple):
    """One header as it stands in the archive.

    Attributes:
        name: The name it gives, which an extended header before it may replace.
        type: Its type flag.
        target: The name it links to.
        is_gnu: It is of the GNU format, else of the POSIX one.
        block: All of it.
    """

    name: bytes
    type: bytes
    target: bytes
    is_gnu: bool
    block: bytes

    def number(self, field: Field) -> int:
        """Return the number in ``field``."""
        return parse_number(self.block[field.start : field.start + field.length], self.name, field)


def parse_number(raw: bytes, name: bytes, field: Field) -> int:
    """Return a number in octal, or in base 256 as GNU writes large and negative ones."""
    if raw[0] == 0x80:
        return int.from_bytes(raw[1:])
    if raw[0] == 0xFF:
        return int.from_bytes(raw, signed=True)
    match = _OCTAL.fullmatch(raw)
    if match is None:
        raise ArchiveError(f"a header whose {field.name} is not a number", path=name)
    return int(match[1], 8)


def parse_header(block: bytes) -> Header:
    """Return the header in ``block``.

    Raises:
        ArchiveError: It is not one, or of a kind that is refused.
    """
    magic = block[257:265]
    if magic not in (_USTAR, _GNU):
        raise ArchiveError(
            "not a tar archive",
            why="a header that is neither POSIX nor GNU",
            advice="A package archive is a tar archive, plain or compressed with zstd.",
        )
    name, kind, is_gnu = _text(block, 0, 100), block[156:157], magic == _GNU
    if sum(block) - sum(block[148:156]) + 8 * ord(" ") != _number(block, _CHECKSUM):
        raise ArchiveError("a broken header", path=name, why="its checksum is wrong")
    if kind in _SPECIAL:
        raise ArchiveError(f"{_SPECIAL[kind]} in the archive", path=name)
    if kind not in _KNOWN or (kind in _GNU_ONLY and not is_gnu):
        raise ArchiveError(
            "a member of an unknown type", path=name, why=f"its type flag is {kind!r}"
        )
    target = _text(block, 157, 100)
    if is_gnu:
        if kind != GNU_SPARSE and any(block[345:]):
            raise ArchiveError(
                "a header of an incremental or multi-volume archive, or a mixed one", path=name
            )
    elif any(block[500:]):
        raise ArchiveError("a header with something behind its end", path=name)
    elif prefix := _text(block, 345, 155):
        name = prefix + b"/" + name
    return Header(name, kind, target, is_gnu, block)


def _number(block: bytes, field: Field) -> int:
    return parse_number(block[field.start : field.start + field.length], b"", field)


def _text(block: bytes, start: int, length: int) -> bytes:
    """Return the text of a field, which NULs fill up to its end."""
    raw = block[start : start + length].rstrip(b"\0")
    if b"\0" in raw:
        raise ArchiveError("a name with a NUL in it", path=raw)
    return raw
