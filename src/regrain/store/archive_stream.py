"""The bytes of an archive: read once, hashed, decompressed, counted against the limits."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import zstandard

from regrain import disk
from regrain.errors import ArchiveError, reason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blake3 import blake3

_ZSTD = b"\x28\xb5\x2f\xfd"
_OTHERS = {
    _ZSTD: "zstd",
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ\0": "xz",
    b"BZh": "bzip2",
    b"\x04\x22\x4d\x18": "lz4",
    b"LZIP": "lzip",
    b"PK\x03\x04": "zip",
    b"7z\xbc\xaf\x27\x1c": "7-zip",
    b"!<arch>\n": "ar",
    b"070701": "cpio",
}
_HEADER_BYTES = 512
_FRAME_HEADER_BYTES_MAX = 18
_BLOCK_BYTES_MAX = 128 << 10
_RLE, _RESERVED = 1, 3


class Limits(NamedTuple):
    """What an archive may ask for.

    Attributes:
        entries_max: Entries of the tree, directories that are only implied included.
        bytes_max: Bytes it unpacks to, headers and holes included.
        ratio_max: How many times its own size it may unpack to, holes included.
        ratio_free_bytes: So much it may unpack to whatever the ratio is.
        depth_max: Components of a path.
        path_bytes_max: Bytes of a path.
        header_bytes_max: Bytes of one extended header (names, attributes), held in memory.
        window_bytes_max: What decompressing may hold in memory.
    """

    entries_max: int = 10_000_000
    bytes_max: int = 1 << 40
    ratio_max: int = 1000
    ratio_free_bytes: int = 64 << 20
    depth_max: int = 4096
    path_bytes_max: int = 256 << 10
    header_bytes_max: int = 8 << 20
    window_bytes_max: int = 128 << 20


class Meter:
    """Counts what was read and what became of it; refuses what grows too much."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._read = self._unpacked = 0

    def read(self, size: int) -> None:
        """Count bytes of the archive's file."""
        self._read += size

    def unpack(self, size: int) -> None:
        """Count bytes that came out, or a hole before it is made."""
        limits = self._limits
        self._unpacked += size
        if self._unpacked > limits.bytes_max:
            raise ArchiveError(
                "an archive that is too large", why=f"it unpacks to over {limits.bytes_max} bytes"
            )
        if self._unpacked > max(limits.ratio_free_bytes, limits.ratio_max * self._read):
            raise ArchiveError(
                "an archive that looks like a decompression bomb",
                why=f"{self._read} bytes unpack to over {limits.ratio_max} times as many",
            )


class Stream:
    """Bytes that come in pieces and are taken as they are needed, never twice."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._piece = memoryview(b"")
        self.taken = 0

    def chunks(self, size: int) -> Iterator[memoryview]:
        """Yield the next ``size`` bytes in whatever pieces they come.

        Raises:
            ArchiveError: There are fewer.
        """
        while size:
            if not self._piece and not self._fill():
                raise ArchiveError("a truncated archive", why="it ends in the middle")
            chunk = self._piece[:size]
            self._piece = self._piece[len(chunk) :]
            self.taken += len(chunk)
            size -= len(chunk)
            yield chunk

    def take(self, size: int) -> bytes:
        """Return the next ``size`` bytes."""
        return b"".join(self.chunks(size))

    def peek(self, size: int) -> bytes:
        """Return the next ``size`` bytes without taking them; fewer at the end."""
        while len(self._piece) < size:
            held = bytes(self._piece)
            if not self._fill():
                break
            self._piece = memoryview(held + self._piece)
        return bytes(self._piece[:size])

    def rest(self) -> Iterator[memoryview]:
        """Yield all that is left."""
        while self._piece or self._fill():
            yield from self.chunks(len(self._piece))

    def _fill(self) -> bool:
        """Get the next piece that is not empty; the one in hand stays if there is none."""
        for piece in self._pieces:
            if piece:
                self._piece = memoryview(piece)
                return True
        return False


def open_stream(fd: int, hasher: blake3, meter: Meter, limits: Limits) -> Stream:
    """Return what is in the archive ``fd``, decompressed if need be.

    Args:
        fd: The archive, open at its beginning; it is only read.
        hasher: Gets all bytes of the file, as they lie there.
        meter: Counts.
        limits: What it may ask for.

    Raises:
        ArchiveError: It is neither a tar archive nor one compressed with zstd.
    """
    raw = Stream(_read(fd, hasher, meter))
    head = raw.peek(8)
    if not head:
        raise ArchiveError("not an archive", why="it is empty")
    if head.startswith(_ZSTD) or _is_skippable(head):
        stream = Stream(_counted(_decompressed(raw, limits.window_bytes_max), meter))
        _refuse_others(stream.peek(8), "inside the zstd data")
    else:
        _refuse_others(head, "in the file")
        stream = Stream(_counted((bytes(chunk) for chunk in raw.rest()), meter))
    if len(stream.peek(_HEADER_BYTES)) < _HEADER_BYTES:
        raise ArchiveError("not an archive", why="it is shorter than a header")
    return stream


def _refuse_others(head: bytes, where: str) -> None:
    for magic, name in _OTHERS.items():
        if head.startswith(magic):
            raise ArchiveError(
                "not a package archive",
                why=f"{name} data {where}",
                advice="A package archive is a tar archive, plain or compressed with zstd.",
            )


def _read(fd: int, hasher: blake3, meter: Meter) -> Iterator[bytes]:
    while True:
        try:
            piece = os.read(fd, disk.PIECE)
        except OSError as error:
            raise ArchiveError("cannot read the archive", why=reason(error)) from error
        if not piece:
            return
        hasher.update(piece)
        meter.read(len(piece))
        yield piece


def _counted(pieces: Iterator[bytes], meter: Meter) -> Iterator[bytes]:
    for piece in pieces:
        meter.unpack(len(piece))
        yield piece


def _is_skippable(head: bytes) -> bool:
    return len(head) >= 4 and head[0] & 0xF0 == 0x50 and head[1:4] == b"\x2a\x4d\x18"


def _decompressed(raw: Stream, window_bytes_max: int) -> Iterator[bytes]:
    """Yield the content of one zstd frame after the other.

    Skippable frames (pzstd and the seekable format write them) carry nothing and are
    passed over; anything else between or behind frames is refused.
    """
    while head := raw.peek(4):
        if head == _ZSTD:
            yield from frame(raw, window_bytes_max)
        elif _is_skippable(head):
            raw.take(4)
            for _ in raw.chunks(int.from_bytes(raw.take(4), "little")):
                pass
        else:
            raise ArchiveError("an archive with something behind its compressed data")


def frame(raw: Stream, window_bytes_max: int) -> Iterator[bytes]:
    """Yield the content of a frame, block by block.

    The library is given one block at a time. So no more than a block's 128 KiB can come
    out at once, and a frame that is cut off is noticed, which its own readers let pass.
    """
    try:
        head = raw.peek(_FRAME_HEADER_BYTES_MAX)
        frame = zstandard.get_frame_parameters(head)
        if frame.window_size > window_bytes_max:
            raise ArchiveError(
                "an archive that takes too much memory to decompress",
                why=f"its window is {frame.window_size} bytes, the limit {window_bytes_max}",
                advice="Compress it without --long, or with --long=27 at the most.",
            )
        if frame.dict_id:
            raise ArchiveError("an archive that was compressed with a dictionary")
        library = zstandard.ZstdDecompressor(max_window_size=window_bytes_max).decompressobj()
        yield library.decompress(raw.take(zstandard.frame_header_size(head)))
        last = False
        while not last:
            last, block = _block(raw)
            yield library.decompress(block)
        if frame.has_checksum:
            yield library.decompress(raw.take(4))
        ended = library.eof
    except zstandard.ZstdError as error:
        raise ArchiveError("an archive whose compressed data is broken", why=str(error)) from error
    if not ended:
        raise ArchiveError("an archive whose compressed data is broken", why="a frame has no end")


def _block(raw: Stream) -> tuple[bool, bytes]:
    """Return whether it is the last of its frame, and the next block."""
    head = raw.take(3)
    number = int.from_bytes(head, "little")
    kind, size = number >> 1 & 3, number >> 3
    if kind == _RESERVED or size > _BLOCK_BYTES_MAX:
        raise ArchiveError("an archive whose compressed data is broken", why="an impossible block")
    return bool(number & 1), head + raw.take(1 if kind == _RLE else size)
