"""Copies of files: written, plain or compressed, and read back before they count."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from regrain import disk
from regrain.errors import PackageError
from regrain.store.frames import FrameError, Packer, hash_frame
from regrain.store.objects import hash_fd

if TYPE_CHECKING:
    from regrain.model.entry import Entry


class OpenFile(NamedTuple):
    """A legacy file that was read.

    Attributes:
        fd: The file, open.
        before: Its status before it was read.
        content: Its bytes, if they are still at hand.
    """

    fd: int
    before: os.stat_result
    content: bytes | None


def write_and_read_back(file: OpenFile, target: int, entry: Entry) -> None:
    """Copy, then compare what the copy holds with the digest of what was read."""
    is_sparse = disk.allocated(file.before) < entry.size
    if file.content is not None and not is_sparse:
        disk.write_all(target, file.content)
        good = os.pread(target, len(file.content) + 1, 0) == file.content
    else:
        disk.copy_bytes(file.fd, target, entry.size)
        os.lseek(target, 0, os.SEEK_SET)
        good = hash_fd(target) == (entry.digest, entry.size)
    if not good:
        raise _not_what_was_read(entry)


def pack_and_read_back(packer: Packer, file: OpenFile, target: int, entry: Entry) -> bool:
    """Compress, then compare what that holds with what was read; False if it does not pay."""
    if file.content is None:
        if not packer.pack_file(file.fd, entry.size, target):
            return False
    else:
        packed = packer.pack(file.content)
        if packed is None:
            return False
        os.ftruncate(target, len(packed))
        disk.write_all(target, packed)
    try:
        good = hash_frame(target) == (entry.digest, entry.size)
    except FrameError:
        good = False
    if not good:
        raise _not_what_was_read(entry)
    return True


def _not_what_was_read(entry: Entry) -> PackageError:
    return PackageError(
        "a copy does not hold the bytes that were read",
        path=entry.path,
        advice="Memory or disk may be failing; check both before going on.",
    )
