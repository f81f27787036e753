"""Where the bytes of a damaged object may still be: each place is proved by its hash."""

from __future__ import annotations

import contextlib
import os
import stat
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

from regrain import disk
from regrain.errors import CorruptionError, UnknownFormatError, reason, shown
from regrain.maintain.patients import Condition, Need
from regrain.model.entry import Kind
from regrain.store.frames import unpacked
from regrain.store.objects import Carrier, carriers_of, hash_carrier, hash_fd, object_path
from regrain.store.packages import FileLevelPackage, published

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from regrain.maintain.patients import Patient
    from regrain.store.root import StoreRoot


class Backup(Protocol):
    """What is asked of a backup. Nothing it gives is trusted."""

    path: str

    def objects(self, digest: str) -> Iterator[int]:
        """Yield what has the name of an object, each open for reading."""

    def file_list(self, package_hash: str) -> int | None:
        """Open the file list of a package; None where there is none."""


class Source(NamedTuple):
    """An open file whose bytes were proved to be those of an object.

    Attributes:
        held: The file.
        where: What to call it.
    """

    held: disk.Held
    where: str


def needs_of(root: StoreRoot, digests: Iterable[str]) -> dict[str, list[Need]]:
    """Return which files of which packages need objects, as far as file lists can be read."""
    found: dict[str, list[Need]] = {digest: [] for digest in digests}
    if not found:
        return found
    for name in published(root.packages):
        with contextlib.suppress(CorruptionError, UnknownFormatError, OSError):
            for entry in FileLevelPackage(root.packages, root.objects, name).entries():
                if entry.kind is Kind.FILE and entry.digest in found and entry.size:
                    need = Need(name, entry.path, entry.mode, entry.size, entry.mtime_ns)
                    found[entry.digest].append(need)
    return found


def examine(root: StoreRoot, digest: str) -> list[Condition]:
    """Look at all that has the name of an object, and hash it."""
    return [_condition(root, carrier) for carrier in carriers_of(root.objects, digest)]


def _condition(root: StoreRoot, carrier: Carrier) -> Condition:
    status = carrier.status
    return Condition(
        carrier.name,
        carrier.mode_in_name,
        stat.S_IMODE(status.st_mode),
        (status.st_dev, status.st_ino),
        status.st_nlink,
        stat.S_ISREG(status.st_mode),
        (status.st_uid, status.st_gid) == root.owner,
        _flaw(root, carrier),
        carrier.is_compressed,
    )


def _flaw(root: StoreRoot, carrier: Carrier) -> str:
    if not stat.S_ISREG(carrier.status.st_mode):
        return "it is not a regular file"
    try:
        found = hash_carrier(root.objects, carrier)[0]
    except OSError as error:
        return f"it cannot be read: {reason(error)}"
    return "" if found == carrier.digest else f"its bytes hash to {found}"


def find(root: StoreRoot, patient: Patient, backups: Iterable[Backup]) -> Source | None:
    """Find the bytes of an object, the nearest place first; None if they are nowhere."""
    for where, opened in _places(root, patient, backups):
        held = _proved(opened, patient.digest)
        if held is not None:
            return Source(held, where)
    return None


def _places(
    root: StoreRoot, patient: Patient, backups: Iterable[Backup]
) -> Iterator[tuple[str, Callable[[], int]]]:
    for condition in patient.conditions:
        if condition.is_regular and not condition.flaw:
            yield f"objects/{object_path(condition.name)}", partial(_open, root, condition)
    suspects = {condition.inode for condition in patient.conditions}
    for need in patient.needs:
        where = f"{need.package_hash}/{shown(need.path)}"
        yield where, partial(_open_legacy, root, need, suspects)
    for backup in backups:
        for fd in backup.objects(patient.digest):
            yield f"the backup {backup.path}", partial(_as_it_is, fd)


def _as_it_is(fd: int) -> int:
    return fd


def _open(root: StoreRoot, condition: Condition) -> int:
    fd = disk.open_file(object_path(condition.name), root.objects)
    if not condition.is_compressed:
        return fd
    with disk.Closing(fd):
        return unpacked(fd)[0]


def _open_legacy(root: StoreRoot, need: Need, suspects: set[tuple[int, int]]) -> int:
    """Open a legacy file, which must be another inode than those that are damaged.

    What has the inode of a carrier holds what that holds.
    """
    fd = open_legacy(root, need)
    status = os.fstat(fd)
    if (status.st_dev, status.st_ino) in suspects or status.st_size != need.size:
        os.close(fd)
        raise FileNotFoundError(need.path)
    return fd


def open_legacy(root: StoreRoot, need: Need) -> int:
    """Open the legacy file that a file list was made from; OSError if there is none."""
    parent, _, name = need.path.rpartition(b"/")
    with (
        disk.Closing(disk.open_directory(need.package_hash, root.fd)) as top,
        disk.Closing(disk.descend(parent, top)) as at,
    ):
        return disk.open_file(name, at)


def _proved(opened: Callable[[], int], digest: str) -> disk.Held | None:
    """Open a file and read it; None unless it holds the bytes of an object."""
    try:
        held = disk.Held(opened())
        if not stat.S_ISREG(os.fstat(held.fd).st_mode) or hash_fd(held.fd)[0] != digest:
            return None
        os.lseek(held.fd, 0, os.SEEK_SET)
    except OSError:
        return None
    return held


def also_damaged(root: StoreRoot, patient: Patient) -> list[Need]:
    """Return the legacy files that are the same inode as a carrier whose bytes are wrong."""
    bad = {c.inode for c in patient.conditions if c.flaw and c.is_regular and c.links > 1}
    found = []
    for need in patient.needs if bad else ():
        with contextlib.suppress(OSError), disk.Closing(open_legacy(root, need)) as fd:
            status = os.fstat(fd)
            if (status.st_dev, status.st_ino) in bad:
                found.append(need)
    return found
