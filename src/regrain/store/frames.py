"""Compressed carriers: one zstd frame each, which says how long its content is.

Nothing here trusts a frame: its content is counted against what its header promises, block by
block, so that a bomb costs neither memory nor more disk than was announced and accepted.
"""

from __future__ import annotations

import errno
import math
import os
from typing import TYPE_CHECKING, NamedTuple

import zstandard
from blake3 import blake3

from regrain import disk
from regrain.disk_linux import memory_file
from regrain.errors import ArchiveError
from regrain.store.archive_stream import Stream, frame

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEADER_BYTES_MAX = 18
_WINDOW_BYTES_MAX = 128 << 20
_AT_ONCE_BYTES_MAX = disk.PIECE
"""Content up to this size is compressed and decompressed in one call."""

IN_MEMORY_BYTES_MAX = 16 << 20
"""Content up to this size is handed out as a file in memory, else as an unnamed one on disk."""


class FrameError(OSError):
    """A compressed carrier that is no whole frame, or not one of the size it should have."""


def _broken(why: str) -> FrameError:
    return FrameError(errno.EBADMSG, f"its compressed data is broken: {why}")


class Compression(NamedTuple):
    """How objects are compressed, and when that pays.

    Attributes:
        level: Of zstd.
        min_saving: The share of its bytes on disk that an object must lose.
    """

    level: int
    min_saving: float


# reading


def content_size(fd: int) -> int:
    """Return how many bytes a frame holds, as its header says; the position stays.

    Raises:
        FrameError: It is none of ours.
    """
    return _content_size(os.pread(fd, _HEADER_BYTES_MAX, 0))


def _content_size(head: bytes) -> int:
    try:
        found = zstandard.get_frame_parameters(head)
    except zstandard.ZstdError as error:
        raise _broken(str(error)) from error
    if found.content_size in (zstandard.CONTENTSIZE_UNKNOWN, zstandard.CONTENTSIZE_ERROR, 0):
        raise _broken("it does not say how long it is")
    if not found.has_checksum or found.dict_id:
        raise _broken("it has no checksum, or needs a dictionary")
    return int(found.content_size)


def pieces(fd: int) -> Iterator[bytes]:
    """Yield what the frame in an open file holds, from its beginning to its end.

    Raises:
        FrameError: It is no whole frame, holds another number of bytes than it says, or
            something stands behind it.
    """
    size = content_size(fd)
    os.lseek(fd, 0, os.SEEK_SET)
    if size <= _AT_ONCE_BYTES_MAX and os.fstat(fd).st_size <= 2 * _AT_ONCE_BYTES_MAX:
        yield _at_once(b"".join(_read(fd)), size)
        return
    raw = Stream(_read(fd))
    found = 0
    try:
        for piece in frame(raw, _WINDOW_BYTES_MAX):
            found += len(piece)
            if found > size:
                raise _broken("it holds more than it says")
            yield piece
        if raw.peek(1):
            raise _broken("something stands behind it")
    except ArchiveError as error:
        raise _broken(error.why or error.what) from error
    if found != size:
        raise _broken("it holds less than it says")


def _read(fd: int) -> Iterator[bytes]:
    while piece := os.read(fd, disk.PIECE):
        yield piece


def _at_once(raw: bytes, size: int) -> bytes:
    """Decompress a frame that promises ``size`` bytes; the library reserves no more for it."""
    library = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES_MAX)
    try:
        content = library.decompress(raw, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise _broken(str(error)) from error
    if len(content) != size:
        raise _broken("it holds less than it says")
    return content


def hash_frame(fd: int) -> tuple[str, int]:
    """Return digest and size of what the frame in an open file holds."""
    hasher, size = blake3(), 0
    for piece in pieces(fd):
        hasher.update(piece)
        size += len(piece)
    return hasher.hexdigest(), size


def pour(fd: int, target: int) -> tuple[str, int]:
    """Write what a frame holds into an open file; return digest and size of what was written.

    Raises:
        disk.SourceReadError: The frame is broken, or cannot be read.
        OSError: Writing failed.
    """
    hasher, size = blake3(), 0
    source = pieces(fd)
    _set_size(fd, target)
    while True:
        try:
            piece = next(source, None)
        except OSError as error:
            raise disk.SourceReadError(*error.args) from error
        if piece is None:
            return hasher.hexdigest(), size
        hasher.update(piece)
        size += len(piece)
        disk.write_all(target, piece)


def _set_size(fd: int, target: int) -> None:
    """Give the file that gets a frame's content its size, lest more is reserved for it."""
    try:
        size = content_size(fd)
    except OSError as error:
        raise disk.SourceReadError(*error.args) from error
    os.ftruncate(target, size)


def unpacked(fd: int) -> tuple[int, tuple[str, int]]:
    """Return an open file, without a name, that holds what a frame holds; its digest and size.

    Small ones lie in memory, others in the system's directory for temporary files: who only
    reads a store may not be allowed to write there.

    Raises:
        disk.SourceReadError: The frame is broken, or cannot be read.
        OSError: There is no room for it.
    """
    size = content_size(fd)
    if size <= IN_MEMORY_BYTES_MAX:
        target = memory_file()
    else:
        import tempfile

        with tempfile.TemporaryFile(buffering=0) as opened:
            target = os.dup(opened.fileno())
    try:
        arrived = pour(fd, target)
        os.lseek(target, 0, os.SEEK_SET)
    except BaseException:
        os.close(target)
        raise
    return target, arrived


# writing


class Packer:
    """Makes frames; keeps the library's memory from one to the next. For one thread.

    Args:
        compression: How.
        block: What files take on disk comes in multiples of this, in bytes.
    """

    def __init__(self, compression: Compression, block: int) -> None:
        self._library = zstandard.ZstdCompressor(level=compression.level, write_checksum=True)
        self._min_saving = compression.min_saving
        self._block = block

    def size_max(self, size: int) -> int:
        """Return how long the frame of an object may be for it to pay; 0 if none pays."""
        blocks = -(-size // self._block)
        saved = max(1, math.ceil(blocks * self._min_saving))
        return max(0, blocks - saved) * self._block

    def pack(self, content: bytes) -> bytes | None:
        """Return the frame of some bytes; None where that does not pay."""
        size_max = self.size_max(len(content))
        if not size_max:
            return None
        packed = self._library.compress(content)
        return packed if len(packed) <= size_max else None

    def pack_file(self, source: int, size: int, target: int) -> bool:
        """Write the frame of an open file's ``size`` bytes to another; False if it does not pay.

        Raises:
            disk.SourceReadError: Reading failed, or there are fewer bytes.
            OSError: Writing failed.
        """
        room = self.size_max(size)
        if not room:
            return False
        library = self._library.compressobj(size=size)
        position = 0
        try:
            while position < size:
                piece = _read_at(source, position, min(disk.PIECE, size - position))
                position += len(piece)
                packed = library.compress(piece)
                room -= len(packed)
                if room < 0:
                    return False
                disk.write_all(target, packed)
            packed = library.flush()
        except zstandard.ZstdError as error:
            raise disk.SourceReadError(errno.EIO, str(error)) from error
        if len(packed) > room:
            return False
        disk.write_all(target, packed)
        # xfs reserves more for a file that grows: what it takes on disk counts from here on.
        os.ftruncate(target, os.lseek(target, 0, os.SEEK_CUR))
        return True


def packed(fd: int, size: int, level: int) -> Iterator[bytes]:
    """Yield the frame of an open file's first ``size`` bytes, which are more than none."""
    library = zstandard.ZstdCompressor(level=level, write_checksum=True).compressobj(size=size)
    position = 0
    while position < size:
        piece = _read_at(fd, position, min(disk.PIECE, size - position))
        position += len(piece)
        yield library.compress(piece)
    yield library.flush()


def _read_at(fd: int, position: int, size: int) -> bytes:
    try:
        piece = os.pread(fd, size, position)
    except OSError as error:
        raise disk.SourceReadError(*error.args) from error
    if not piece:
        raise disk.SourceReadError(errno.EIO, "it is shorter than it was")
    return piece


def has_holes(fd: int, size: int) -> bool:
    """Tell whether a file has holes, which a frame would not keep."""
    return os.lseek(fd, 0, os.SEEK_HOLE) < size


def block_size(fd: int) -> int:
    """Return of what size the pieces are in which the file system gives out space."""
    return min(max(os.fstatvfs(fd).f_frsize, 512), 1 << 16)
