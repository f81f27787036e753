"""Objects: the bytes of files, named by their BLAKE3, each held by one carrier or more."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from blake3 import blake3

from regrain import disk
from regrain.errors import CorruptionError, reason
from regrain.model.layout import (
    SHARDS,
    carrier_mode,
    compressed_carrier,
    further_carrier,
    parse_carrier,
)
from regrain.store.frames import content_size, hash_frame, unpacked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regrain.store.root import Owner


_NO_CARRIER = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.EISDIR, errno.EBADMSG}
)
"""What opening answers where something else than a carrier has its name."""

_UNREADABLE = frozenset({errno.EIO, errno.EACCES})

_COMPRESSED = ".zst"


class Carrier(NamedTuple):
    """A carrier found on disk: its name, the digest it claims, and its inode's facts."""

    name: str
    digest: str
    mode_in_name: int | None
    status: os.stat_result
    is_compressed: bool = False

    @property
    def is_bare(self) -> bool:
        """Whether its name is the digest alone."""
        return self.name == self.digest

    @property
    def mode(self) -> int:
        """The mode of its inode."""
        return stat.S_IMODE(self.status.st_mode)

    @property
    def key(self) -> tuple[bytes, int, bool]:
        """What its row in the ledger goes by: raw digest, mode, whether it is compressed."""
        return bytes.fromhex(self.digest), self.mode, self.is_compressed


class Stored(NamedTuple):
    """An open carrier: the bytes themselves, or a zstd frame that holds them."""

    fd: int
    is_compressed: bool = False


def object_path(name: str) -> str:
    """Return where the carrier ``name`` lies below ``objects/``."""
    return f"{name[:2]}/{name}"


def has_frames(objects: int, shard: str) -> bool:
    """Tell whether a directory of ``objects/`` has compressed carriers, or what calls itself so."""
    with disk.Closing(disk.open_directory(shard, objects)) as fd:
        return any(name.endswith(_COMPRESSED.encode()) for name, _ in disk.list_directory(fd))


def open_object(objects: int, digest: str, mode: int, size: int) -> int:
    """Open the bytes named ``digest`` for reading; a carrier of ``mode`` is preferred.

    Where only a compressed carrier serves, they are decompressed into a file without a name,
    and compared with the digest before anybody sees them.

    Args:
        objects: The open ``objects`` directory.
        digest: The object's name.
        mode: The mode of the file that wants the bytes.
        size: The bytes that are expected.

    Raises:
        CorruptionError: There is no carrier of that size, or the compressed one is broken.
        PermissionError: Carriers exist, none may be read.
    """
    found = open_stored(objects, digest, mode, size)
    if not found.is_compressed:
        return found.fd
    with disk.Closing(found.fd):
        try:
            target, arrived = unpacked(found.fd)
        except disk.SourceReadError as error:
            raise _damaged(digest, reason(error)) from error
        if arrived == (digest, size):
            return target
        os.close(target)
        raise _damaged(digest, f"it hashes to {arrived[0]}")


def _damaged(digest: str, why: str) -> CorruptionError:
    return CorruptionError(
        "an object does not hold the bytes of its name",
        path=f"objects/{object_path(compressed_carrier(digest))}",
        why=why,
        advice="Run 'regrain verify' to find what else is damaged.",
    )


def open_stored(objects: int, digest: str, mode: int, size: int) -> Stored:
    """Open a carrier of ``digest`` as it is; a plain one is preferred, and of ``mode``.

    A representation that is being changed exists twice until the old one goes: plain ones are
    looked for, then the compressed one, then plain ones again.

    Raises:
        CorruptionError: There is no carrier of that size.
        PermissionError: Carriers exist, none may be read.
    """
    denied: OSError | None = None
    for name in (digest, further_carrier(digest, carrier_mode(mode)), compressed_carrier(digest)):
        try:
            return _open_carrier(objects, name, size)
        except PermissionError as error:
            denied = error
        except OSError as error:
            if error.errno not in _NO_CARRIER:
                raise
    for carrier in carriers_of(objects, digest):
        with contextlib.suppress(OSError):
            return _open_carrier(objects, carrier.name, size)
    if denied is not None:
        raise denied
    raise CorruptionError(
        "an object is missing or has the wrong size",
        path=f"objects/{object_path(digest)}",
        advice="Run 'regrain verify' to find all that is damaged.",
    )


def _open_carrier(objects: int, name: str, size: int) -> Stored:
    fd = disk.open_file(object_path(name), objects)
    try:
        status = os.fstat(fd)
        is_compressed = name.endswith(_COMPRESSED)
        if stat.S_ISREG(status.st_mode):
            found = content_size(fd) if is_compressed else status.st_size
            if found == size:
                return Stored(fd, is_compressed)
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    raise FileNotFoundError(errno.ENOENT, "wrong size", name)


def carriers_of(objects: int, digest: str) -> Iterator[Carrier]:
    """Yield the carriers of one object, the bare one first."""
    try:
        opened = disk.Closing(disk.open_directory(digest[:2], objects))
    except (FileNotFoundError, NotADirectoryError):
        return
    with opened as shard:
        names = [name for name in os.listdir(shard) if name.startswith(digest)]
        yield from _carriers(shard, sorted(names))


def carriers_in(objects: int, shard: str) -> Iterator[Carrier]:
    """Yield all carriers whose digest begins with the two digits ``shard``, sorted."""
    try:
        opened = disk.Closing(disk.open_directory(shard, objects))
    except (FileNotFoundError, NotADirectoryError):
        return
    with opened as fd:
        yield from _carriers(fd, sorted(os.listdir(fd)))


def _carriers(shard: int, names: list[str]) -> Iterator[Carrier]:
    for name in names:
        parsed = parse_carrier(name)
        if parsed is not None:
            with contextlib.suppress(FileNotFoundError):  # collected meanwhile
                status = os.stat(name, dir_fd=shard, follow_symlinks=False)
                yield Carrier(name, *parsed[:2], status, parsed[2])


def all_carriers(objects: int) -> Iterator[Carrier]:
    """Yield every carrier of the store, in the order of names."""
    for shard in SHARDS:
        yield from carriers_in(objects, shard)


def hash_fd(fd: int) -> tuple[str, int]:
    """Read an open file from its position to its end; return digest and bytes read."""
    hasher = blake3()
    size = 0
    while piece := os.read(fd, disk.PIECE):
        hasher.update(piece)
        size += len(piece)
    return hasher.hexdigest(), size


def hash_carrier(objects: int, carrier: Carrier) -> tuple[str, int]:
    """Read a carrier; return the digest of what it holds, decompressed, and its size.

    Raises:
        OSError: It cannot be read, or (``FrameError``) is no whole frame.
    """
    with disk.Closing(disk.open_file(object_path(carrier.name), objects)) as fd:
        return hash_frame(fd) if carrier.is_compressed else hash_fd(fd)


def size_of(objects: int, carrier: Carrier) -> int:
    """Return the size of the object that a carrier holds, by its inode or its frame's header.

    A frame that is broken or cannot be read, and what is no file, gives -1, which is no object's:
    one such carrier must not end the look at all others.
    """
    if not stat.S_ISREG(carrier.status.st_mode):
        return -1
    if not carrier.is_compressed:
        return carrier.status.st_size
    try:
        with disk.Closing(disk.open_file(object_path(carrier.name), objects)) as fd:
            return content_size(fd)
    except OSError as error:
        if error.errno not in _NO_CARRIER | _UNREADABLE:
            raise
        return -1


def dress_carrier(fd: int, owner: Owner, mode: int, mtime_ns: int) -> None:
    """Give a new carrier its owner, mode and time.

    The access list that a directory gives to what is made in it is taken away: no carrier has
    one, and it would outweigh the mode.
    """
    if os.geteuid() == 0:
        os.fchown(fd, *owner)
    os.fchmod(fd, mode)
    with contextlib.suppress(OSError):
        os.removexattr(fd, "system.posix_acl_access")
    os.utime(fd, ns=(mtime_ns, mtime_ns))


def carrier_flaw(carrier: Carrier, owner: Owner) -> str:
    """Say what is wrong with a carrier's metadata; empty if nothing is."""
    status = carrier.status
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISREG(status.st_mode):
        return "it is not a regular file"
    if (status.st_uid, status.st_gid) != owner:
        return f"it belongs to {status.st_uid}:{status.st_gid}, not to the store's owner"
    if mode != carrier_mode(mode):
        return f"its mode is {mode:04o}"
    if carrier.mode_in_name is not None and mode != carrier.mode_in_name:
        return f"its mode is {mode:04o}, its name says {carrier.mode_in_name:04o}"
    return ""
