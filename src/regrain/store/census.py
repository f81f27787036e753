"""What contents a legacy store holds: sizes of all files, and a closer look at some of them."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from blake3 import blake3

from regrain import disk
from regrain.errors import PackageError
from regrain.model.layout import carrier_mode
from regrain.store.frames import Compression, Packer, block_size, has_holes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

WHOLE_BYTES_MAX = 4 << 20
_PIECES = 8
_PIECE_BYTES = WHOLE_BYTES_MAX // _PIECES
"""A file up to this size is read whole. Of a larger one so many pieces are: two of one size that
agree in all of them are taken for equal, and the whole to shrink as they do."""


class Held(NamedTuple):
    """A file of a package that has bytes, each inode once.

    Attributes:
        package: Which of the packages.
        path: Inside it.
        size: ``st_size``.
        allocated: Bytes on disk.
    """

    package: int
    path: bytes
    size: int
    allocated: int


class Looked(NamedTuple):
    """What was found in a file.

    Attributes:
        key: Files of one content have one key.
        mode: Of the carrier that would hold it.
        plain: What that takes on disk.
        packed: What it takes compressed, or plain where that does not pay.
        bytes_read: How much of it was read.
        reading: How many seconds opening, reading and hashing it took, or of a large file would
            take if all of it were read.
        packing: Likewise compressing it; nothing where that content was compressed before.
    """

    key: bytes
    mode: int
    plain: int
    packed: int
    bytes_read: int
    reading: float = 0.0
    packing: float = 0.0


def files(store: int, package_hashes: Sequence[str]) -> Iterator[Held]:
    """Yield the files of packages; only directories are opened.

    A package that cannot be read is left out from there on: it will fail, and ``plan`` says so.

    Args:
        store: The open top directory.
        package_hashes: The packages.
    """
    for number, name in enumerate(package_hashes):
        try:
            with disk.Closing(disk.open_directory(name, store)) as root:
                yield from _files(root, number)
        except (OSError, PackageError):
            continue


def _files(root: int, number: int) -> Iterator[Held]:
    seen: set[tuple[int, int]] = set()
    for at, name, path, kind in disk.walk(root):
        if kind is not disk.FILE:
            continue
        status = os.stat(name, dir_fd=at, follow_symlinks=False)
        if status.st_nlink > 1:
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
        if status.st_size:
            yield Held(number, path, status.st_size, disk.allocated(status))


class Looker:
    """Reads files of packages: which are equal, and how far they shrink.

    Args:
        store: The open top directory.
        package_hashes: The packages that ``Held.package`` counts.
        compression: How objects would be compressed.
        clock: What time it is.
    """

    def __init__(
        self,
        store: int,
        package_hashes: Sequence[str],
        compression: Compression,
        clock: Callable[[], float],
    ) -> None:
        self._clock = clock
        self._store = store
        self._names = package_hashes
        self._packer = Packer(compression, block_size(store))
        self._block = block_size(store)
        self._packed: dict[bytes, int] = {}

    def look(self, held: Iterable[Held]) -> list[Looked]:
        """Look into some files of one size; those that vanished or changed are left out."""
        self._packed.clear()  # contents of other sizes are others
        found = []
        for one in held:
            try:
                found.append(self._look(one))
            except (OSError, PackageError):
                continue
        return found

    def _look(self, held: Held) -> Looked:
        parent, _, name = held.path.rpartition(b"/")
        began, packing = self._clock(), 0.0
        with (
            disk.Closing(disk.open_directory(self._names[held.package], self._store)) as root,
            disk.Closing(disk.descend(parent, root)) as at,
            disk.Closing(disk.open_file(name, at)) as fd,
        ):
            status = os.fstat(fd)
            if status.st_size != held.size:
                raise disk.SourceReadError("it changed")
            content = _content(fd, held.size)
            key = blake3(content).digest()
            if key not in self._packed:
                packing -= self._clock()
                self._packed[key] = self._shrunk(fd, held, content)
                packing += self._clock()
        mode = carrier_mode(stat.S_IMODE(status.st_mode))
        reading = self._clock() - began - packing
        part = held.size / len(content)
        return Looked(
            *(key, mode, held.allocated, self._packed[key], len(content)),
            *(reading * part, packing * part),
        )

    def _shrunk(self, fd: int, held: Held, content: bytes) -> int:
        if has_holes(fd, held.size):
            return held.allocated
        packed = self._packer.pack(content)
        if packed is None:
            return held.allocated
        size = len(packed) * held.size // len(content)
        return -(-size // self._block) * self._block


def _content(fd: int, size: int) -> bytes:
    """Return a file's bytes, or of a large one pieces from its beginning to its end."""
    if size <= WHOLE_BYTES_MAX:
        return b"".join(_read(fd, 0, size))
    step = (size - _PIECE_BYTES) // (_PIECES - 1)
    return b"".join(
        piece for number in range(_PIECES) for piece in _read(fd, number * step, _PIECE_BYTES)
    )


def _read(fd: int, start: int, length: int) -> Iterator[bytes]:
    while length > 0 and (piece := os.pread(fd, min(length, disk.PIECE), start)):
        yield piece
        start += len(piece)
        length -= len(piece)
