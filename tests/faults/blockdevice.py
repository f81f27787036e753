"""A disk that keeps a log of what was written and flushed, and that fails when told to.

``python -m tests.faults.blockdevice IMAGE CONTROL MOUNT [LOG]`` serves a directory with one file,
``disk.img``, by speaking the kernel's FUSE protocol itself, so that nothing need be installed. A
loop device on that file sends it every write, and every flush as an fsync.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import stat
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NAME = "disk.img"
OPERATIONS = ("read", "write", "flush")

_RECORD = struct.Struct("=iiiq")
_LOG = struct.Struct("=cQI")
_WRITE, _FLUSH, _ZEROS = b"W", b"F", b"Z"


class Control:
    """What a disk is told, and how often it did as told; shared with its server.

    Args:
        path: A file of a few bytes.
    """

    def __init__(self, path: Path) -> None:
        with path.open("a+b") as stream:
            stream.truncate(_RECORD.size * len(OPERATIONS))
            self._memory = mmap.mmap(stream.fileno(), 0)

    def fail(self, operation: str, error: int, *, after: int = 0, times: int = 1 << 30) -> None:
        """Have an operation fail ``times`` times, from its ``after + 1``-th on."""
        self._put(operation, error, after, times, 0)

    def heal(self) -> None:
        """Have nothing fail any more; what fired stays counted."""
        for operation in OPERATIONS:
            self._put(operation, 0, 0, 0, self.fired(operation))

    def fired(self, operation: str) -> int:
        """How often it failed since it was last told to."""
        return int(self._record(operation)[3])

    def due(self, operation: str) -> int:
        """Return the errno that an operation is to end with now; 0: none."""
        error, after, times, fired = self._record(operation)
        if not error or not times:
            return 0
        if after:
            self._put(operation, error, after - 1, times, fired)
            return 0
        self._put(operation, error, 0, times - 1, fired + 1)
        return int(error)

    def _record(self, operation: str) -> tuple[int, ...]:
        return _RECORD.unpack_from(self._memory, OPERATIONS.index(operation) * _RECORD.size)

    def _put(self, operation: str, *values: int) -> None:
        _RECORD.pack_into(self._memory, OPERATIONS.index(operation) * _RECORD.size, *values)


# the log


@dataclass(frozen=True, slots=True)
class Written:
    """One event of a log, and where in the log it ends.

    Attributes:
        end: Position in the log behind it.
        offset: Where on the disk it was written; -1: a flush.
        content: What was written.
    """

    end: int
    offset: int = -1
    content: bytes = b""

    @property
    def is_flush(self) -> bool:
        """Whether all that stands before it was on the disk when it ended."""
        return self.offset < 0


def events(log: Path) -> Iterator[Written]:
    """Yield what a log says."""
    content = log.read_bytes()
    position = 0
    while position < len(content):
        kind, offset, size = _LOG.unpack_from(content, position)
        position += _LOG.size
        if kind == _FLUSH:
            yield Written(position)
        elif kind == _ZEROS:
            yield Written(position, offset, bytes(size))
        else:
            position += size
            yield Written(position, offset, content[position - size : position])


# the server

_IN = struct.Struct("=IIQQIIIHH")
_OUT = struct.Struct("=IiQ")
BYTES_MAX = 1 << 20
"""Of a request that the kernel makes of this file system."""
_BIG_WRITES, _MAX_PAGES = 1 << 5, 1 << 22
_ROOT, _FILE = 1, 2
_FORGET, _INTERRUPT, _BATCH_FORGET = 2, 36, 42


class _Server:
    """Answers what the kernel asks of a file system with one file in it."""

    def __init__(self, image: str, control: Path, log: str | None) -> None:
        self._image = os.open(image, os.O_RDWR)
        self._size = os.fstat(self._image).st_size
        self._control = Control(control)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        self._log = None if log is None else os.open(log, flags, 0o600)
        self._answers = {
            1: self._lookup,
            3: self._attributes,
            4: self._attributes,
            14: lambda *_: struct.pack("=QII", 0, 0, 0),
            15: self._read,
            16: self._write,
            17: lambda *_: struct.pack("=5Q10I", *[0] * 5, 4096, 255, 4096, *[0] * 7),
            18: lambda *_: b"",
            20: self._flush,
            25: lambda *_: b"",
            26: self._begin,
            38: lambda *_: b"",
            43: self._allocate,
        }

    def serve(self, device: int) -> None:
        """Answer until the file system is unmounted."""
        while True:
            try:
                request = os.read(device, BYTES_MAX + 4096)
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return
                if error.errno in {errno.EINTR, errno.ENOENT, errno.EAGAIN}:
                    continue
                raise
            _, operation, unique, node, *_ = _IN.unpack_from(request)
            if operation in {_FORGET, _INTERRUPT, _BATCH_FORGET}:
                continue
            code, body = 0, b""
            try:
                body = self._answers.get(operation, _unknown)(node, request[_IN.size :])
            except OSError as error:
                code = -(error.errno or errno.EIO)
            os.write(device, _OUT.pack(_OUT.size + len(body), code, unique) + body)

    def _begin(self, _: int, body: bytes) -> bytes:
        flags = struct.unpack_from("=4I", body)[3] & (_BIG_WRITES | _MAX_PAGES)
        pages = BYTES_MAX // 4096
        return struct.pack(
            "=4IHHIIHHI7I", 7, 31, 0, flags, 16, 12, BYTES_MAX, 1, pages, 0, 0, *[0] * 7
        )

    def _about(self, node: int) -> bytes:
        mode, size = (stat.S_IFDIR | 0o700, 0)
        if node == _FILE:
            mode, size = (stat.S_IFREG | 0o600, self._size)
        blocks = size // 512
        return struct.pack("=6Q10I", node, size, blocks, *[0] * 6, mode, 1, 0, 0, 0, 4096, 0)

    def _lookup(self, _: int, name: bytes) -> bytes:
        if name.rstrip(b"\0") != NAME.encode():
            raise OSError(errno.ENOENT, "")
        return struct.pack("=4QII", _FILE, 0, 3600, 3600, 0, 0) + self._about(_FILE)

    def _attributes(self, node: int, _: bytes) -> bytes:
        return struct.pack("=QII", 3600, 0, 0) + self._about(node)

    def _fail_if_told(self, operation: str) -> None:
        if error := self._control.due(operation):
            raise OSError(error, os.strerror(error))

    def _read(self, _: int, body: bytes) -> bytes:
        self._fail_if_told("read")
        offset, size = struct.unpack_from("=8xQI", body)
        return os.pread(self._image, size, offset)

    def _write(self, _: int, body: bytes) -> bytes:
        self._fail_if_told("write")
        offset, size = struct.unpack_from("=8xQI", body)
        content = body[40 : 40 + size]
        self._note(_WRITE, offset, content)
        os.pwrite(self._image, content, offset)
        return struct.pack("=II", size, 0)

    def _flush(self, *_: object) -> bytes:
        self._fail_if_told("flush")
        self._note(_FLUSH, 0, b"")
        return b""

    def _allocate(self, _: int, body: bytes) -> bytes:
        self._fail_if_told("write")
        offset, length = struct.unpack_from("=8xQQ", body)
        while length:  # what is given back reads as zeros
            piece = min(length, 64 << 20)
            self._note(_ZEROS, offset, b"", piece)
            os.pwrite(self._image, bytes(piece), offset)
            offset, length = offset + piece, length - piece
        return b""

    def _note(self, kind: bytes, offset: int, content: bytes, size: int = 0) -> None:
        if self._log is not None:
            os.write(self._log, _LOG.pack(kind, offset, size or len(content)) + content)


def _unknown(*_: object) -> bytes:
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


def main() -> None:
    """Mount, say so, and serve until unmounted."""
    image, control, point, *log = sys.argv[1:]
    server = _Server(image, Path(control), log[0] if log else None)
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,max_read={BYTES_MAX}"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"regrain-test", os.fsencode(point), b"fuse", 0, options.encode()):
        sys.exit(f"cannot mount: {os.strerror(ctypes.get_errno())}")
    print("mounted", flush=True)  # noqa: T201 -- who started it waits for this word
    server.serve(device)


if __name__ == "__main__":
    main()
