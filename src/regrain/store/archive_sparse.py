"""Sparse files as GNU tar and bsdtar store them: which stretches of a file are there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from regrain.errors import ArchiveError
from regrain.store.archive_headers import BLOCK, Field, Header, parse_number

if TYPE_CHECKING:
    from regrain.store.archive_stream import Stream

Region = tuple[int, int]
"""Offset and length of a stretch of data."""

REGIONS_MAX = 1 << 17
"""They are held in memory, so that there are not too many of them."""

_REAL_SIZE = Field("size of the sparse file", 483, 12)
_DIGITS = re.compile(rb"[0-9]{1,20}")
_LINE_BYTES_MAX = 20


def old_regions(header: Header, stream: Stream) -> tuple[int, list[Region]]:
    """Return the size and the regions of a member of type ``S`` (``tar --format=gnu -S``).

    Four regions stand in the header; 21 in each block that follows, as long as a flag
    says that one does.
    """
    if any(header.block[345:386]) or any(header.block[495:]):
        raise ArchiveError("a header of an incremental or multi-volume archive", path=header.name)
    size = header.number(_REAL_SIZE)
    regions: list[Region] = []
    block, start, count, flag = header.block, 386, 4, 482
    while True:
        _add(block[start : start + 24 * count], regions, header.name)
        if block[flag] not in b"\0\1":
            raise ArchiveError("a sparse file with a broken map", path=header.name)
        if not block[flag]:
            return size, regions
        block, start, count, flag = stream.take(BLOCK), 0, 21, 504
        if any(block[505:]):
            raise ArchiveError("a sparse file with a broken map", path=header.name)


def _add(raw: bytes, regions: list[Region], name: bytes) -> None:
    ended = False
    for at in range(0, len(raw), 24):
        pair = raw[at : at + 24]
        if not any(pair):
            ended = True
            continue
        if ended:
            raise ArchiveError("a sparse file with a broken map", path=name)
        numbers = [
            parse_number(part, name, Field("sparse map", 0, 12)) for part in (pair[:12], pair[12:])
        ]
        regions.append((numbers[0], numbers[1]))
        _limit(len(regions), name)


def new_regions(stream: Stream, stored: int, name: bytes) -> tuple[int, list[Region]]:
    """Return what the map takes, and the regions of a sparse file of format 1.0.

    There the map is text at the beginning of the member's data, filled up to a block.

    Args:
        stream: Stands at the member's data.
        stored: The size of that data, map included.
        name: The member.
    """
    text = _MapText(stream, stored, name)
    count = text.number()
    _limit(count, name)
    regions = [(text.number(), text.number()) for _ in range(count)]
    return text.end(), regions


class _MapText:
    """Numbers, one a line, in as many blocks as they take."""

    def __init__(self, stream: Stream, stored: int, name: bytes) -> None:
        self._stream = stream
        self._stored = stored
        self._name = name
        self._held = b""
        self._taken = 0

    def number(self) -> int:
        """Return the next one."""
        while b"\n" not in self._held:
            if len(self._held) > _LINE_BYTES_MAX or self._taken + BLOCK > self._stored:
                raise self._broken()
            self._held += self._stream.take(BLOCK)
            self._taken += BLOCK
        line, _, self._held = self._held.partition(b"\n")
        if _DIGITS.fullmatch(line) is None:
            raise self._broken()
        return int(line)

    def end(self) -> int:
        """Return what all of it took."""
        if any(self._held):
            raise self._broken()
        return self._taken

    def _broken(self) -> ArchiveError:
        return ArchiveError("a sparse file with a broken map", path=self._name)


def _limit(count: int, name: bytes) -> None:
    if count > REGIONS_MAX:
        raise ArchiveError(
            "a sparse file in too many pieces", path=name, why=f"the limit is {REGIONS_MAX}"
        )


def check_regions(regions: list[Region], stored: int, size: int, name: bytes) -> None:
    """Refuse regions that overlap, lie outside, or are not what is stored."""
    end = 0
    for offset, length in regions:
        if offset < end or length < 0:
            raise ArchiveError("a sparse file with a broken map", path=name)
        end = offset + length
    if end > size or sum(length for _, length in regions) != stored:
        raise ArchiveError("a sparse file with a broken map", path=name, why="the sizes differ")
