"""What a store lacks of another: packages by their file lists, objects by name and size."""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from regrain import disk
from regrain.errors import CorruptionError, UnknownFormatError, reason
from regrain.ledger import Outcome
from regrain.migrate.added import no_claim
from regrain.store.objects import carriers_of, size_of
from regrain.store.packages import FileLevelPackage, is_published

if TYPE_CHECKING:
    from collections.abc import Iterable

    from regrain.store.root import StoreRoot

_BLOCK = 4096
_INODES_A_LIST = 3
"""The directory, the list and the manifest, roughly: the bytes are counted."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """A package that the target lacks.

    Attributes:
        package_hash: It.
        outcome: What the target's ledger is to know of it.
        lacking: Carriers of its objects, by name, with the size of the object, of which the target
            had none of that mode when it was looked at.
    """

    package_hash: str
    outcome: Outcome
    lacking: dict[str, int]


@dataclass(slots=True)
class Manifest:
    """What is to be copied.

    Attributes:
        parcels: Packages, the target lacks them.
        present: Packages that are there, with the same file list.
        failed: Packages that cannot be copied, each with the reason.
        objects: Carriers of objects that are to be copied.
        size: Their bytes.
        allocated: What all of it takes on disk at the most.
        inodes: Likewise inodes.
    """

    parcels: list[Parcel] = field(default_factory=list)
    present: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    objects: int = 0
    size: int = 0
    allocated: int = 0
    inodes: int = 0


def prepare(source: StoreRoot, target: StoreRoot | None, names: Iterable[str]) -> Manifest:
    """Read the file lists of packages, and say what the target lacks.

    Args:
        source: Where they are published.
        target: None where there is none yet.
        names: Packages; those that are not published any more are left out.
    """
    found = Manifest()
    seen: set[str] = set()
    for name in names:
        try:
            if target is not None and is_published(target.packages, name):
                _compare(source, target, name, found)
                continue
            parcel = _parcel(source, target, name, seen)
        except FileNotFoundError:  # removed meanwhile
            continue
        except (CorruptionError, UnknownFormatError) as error:
            found.failed[name] = str(error)
            continue
        except OSError as error:
            found.failed[name] = reason(error)
            continue
        found.parcels.append(parcel)
        found.objects += len(parcel.lacking)
        found.size += sum(parcel.lacking.values())
        found.allocated += sum(-(-size // _BLOCK) * _BLOCK for size in parcel.lacking.values())
        found.allocated += _list_bytes(source, name)
        found.inodes += len(parcel.lacking) + _INODES_A_LIST
    return found


def _compare(source: StoreRoot, target: StoreRoot, name: str, found: Manifest) -> None:
    """Say of a package that both have whether it is the same; a damaged list is no other tree."""
    package = FileLevelPackage(source.packages, source.objects, name)
    flaw = ""
    try:
        kept = FileLevelPackage(target.packages, target.objects, name)
        if package.list_hash() == kept.list_hash():
            found.present.append(name)
            return
        _prove(kept)
    except (CorruptionError, UnknownFormatError) as error:
        flaw = error.what
    _prove(package)
    if flaw:
        found.failed[name] = f"what has its name in '{target.path}' is damaged: {flaw}"
    else:
        found.failed[name] = (
            f"another tree has its name in '{target.path}': 'regrain --store {target.path} remove "
            f"{name} --execute' makes room for it"
        )


def _prove(package: FileLevelPackage) -> None:
    """Read a file list to its end.

    Raises:
        CorruptionError: Its entries do not give its tree hash.
    """
    for _ in package.entries():
        pass


def damaged_lists(source: StoreRoot, target: StoreRoot, names: Iterable[str]) -> list[str]:
    """Return the packages whose file list is damaged in the target; equal ones are not read."""
    return [name for name in names if _is_list_damaged(source, target, name)]


def _is_list_damaged(source: StoreRoot, target: StoreRoot, name: str) -> bool:
    if not is_published(target.packages, name):
        return False
    try:
        kept = FileLevelPackage(target.packages, target.objects, name)
        with contextlib.suppress(CorruptionError, UnknownFormatError, OSError):
            here = FileLevelPackage(source.packages, source.objects, name)
            if here.list_hash() == kept.list_hash():
                return False
        _prove(kept)
    except (CorruptionError, OSError):
        return True
    except UnknownFormatError:
        return False
    return False


def _list_bytes(source: StoreRoot, name: str) -> int:
    with disk.Closing(disk.open_directory(name, source.packages)) as fd:
        sizes = (os.stat(one, dir_fd=fd, follow_symlinks=False).st_size for one in os.listdir(fd))
        return sum(-(-size // _BLOCK) * _BLOCK for size in sizes) + _BLOCK


def _parcel(
    source: StoreRoot, target: StoreRoot | None, package_hash: str, seen: set[str]
) -> Parcel:
    """Read a file list; ``seen`` are carriers that an earlier package brings."""
    package = FileLevelPackage(source.packages, source.objects, package_hash)
    held = package.contents()
    lacking: dict[str, int] = {}
    for digest, length in held.sizes.items():
        for name, mode in _carriers(source, digest, length):
            if name not in seen and not (target and _has(target, digest, mode, length)):
                lacking[name] = length
    seen.update(lacking)
    new = {name.partition(".")[0] for name in lacking}
    outcome = Outcome(
        no_claim(package_hash),
        tree_hash=package.tree_hash,
        list_hash=package.list_hash(),
        digests=sorted(bytes.fromhex(digest) for digest in held.sizes),
        files=held.files,
        size=held.size,
        added=0,
        deduplicated=held.named - len(new),
        verified=True,
    )
    return Parcel(package_hash, outcome, lacking)


def _carriers(source: StoreRoot, digest: str, size: int) -> list[tuple[str, int]]:
    """Return name and mode of an object's carriers; where there is none, the name it should have.

    That leads to a copy that fails, and says why.
    """
    found = [
        (carrier.name, carrier.mode)
        for carrier in carriers_of(source.objects, digest)
        if stat.S_ISREG(carrier.status.st_mode) and size_of(source.objects, carrier) == size
    ]
    return found or [(digest, -1)]


def _has(target: StoreRoot, digest: str, mode: int, size: int) -> bool:
    """Tell whether a carrier is there by mode, size and owner; checking reads it."""
    return any(
        carrier.status.st_mode == stat.S_IFREG | mode
        and (carrier.status.st_uid, carrier.status.st_gid) == target.owner
        and size_of(target.objects, carrier) == size
        for carrier in carriers_of(target.objects, digest)
    )
