"""Objects: the bytes of files, named by their BLAKE3, each held by one carrier or more."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from blake3 import blake3

from regrain import disk
from regrain.errors import CorruptionError
from regrain.model.layout import SHARDS, carrier_mode, further_carrier, parse_carrier

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regrain.store.root import Owner


_NO_CARRIER = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.EISDIR})
"""What opening answers where something else than a carrier has its name."""


class Carrier(NamedTuple):
    """A carrier found on disk: its name, the digest it claims, and its inode's facts."""

    name: str
    digest: str
    mode_in_name: int | None
    status: os.stat_result


def object_path(name: str) -> str:
    """Return where the carrier ``name`` lies below ``objects/``."""
    return f"{name[:2]}/{name}"


def open_object(objects: int, digest: str, mode: int, size: int) -> int:
    """Open the bytes named ``digest`` for reading; a carrier of ``mode`` is preferred.

    Args:
        objects: The open ``objects`` directory.
        digest: The object's name.
        mode: The mode of the file that wants the bytes.
        size: The bytes that are expected.

    Raises:
        CorruptionError: There is no carrier of that size.
        PermissionError: Carriers exist, none may be read.
    """
    denied: OSError | None = None
    wanted = further_carrier(digest, carrier_mode(mode))
    for name in (digest, wanted):
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


def _open_carrier(objects: int, name: str, size: int) -> int:
    fd = disk.open_file(object_path(name), objects)
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode) and status.st_size == size:
        return fd
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
                yield Carrier(name, parsed[0], parsed[1], status)


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
