"""What a package has for itself, and what it shares: what removing it would free."""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING, NamedTuple

from regrain import disk
from regrain.errors import RegrainError
from regrain.model.entry import Kind
from regrain.model.layout import (
    FILE_LIST,
    carrier_mode,
    compressed_carrier,
    further_carrier,
)
from regrain.store.objects import object_path
from regrain.store.occupancy import Occupancy, covered
from regrain.store.packages import FileLevelPackage, published

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from regrain.store.root import StoreRoot

_HASH = re.compile(rb'"hash":"([0-9a-f]{64})"')
"""In a file list a quote inside a name is escaped, so this is always the field."""

_HASH_BYTES = 73


class Holding(NamedTuple):
    """What a package takes on disk, in both layouts together.

    Attributes:
        exclusive: What removing it would free, once ``gc`` collected its objects.
        shared: What would stay: objects that other packages have, too, and inodes that
            have names elsewhere.
        legacy: The part of ``exclusive`` that its legacy directory alone has: what removing
            only that would free, as ``cleanup`` does; 0 where there is none.
    """

    exclusive: int
    shared: int
    legacy: int


def holding(root: StoreRoot, package_hash: str) -> Holding | None:
    """Measure a package. The file lists of all others are read; the ledger is not asked.

    Returns:
        What it takes; None where a file list cannot be read, so that nobody knows who shares.
    """
    try:
        return _holding(root, package_hash)
    except OSError:
        return None


def _holding(root: StoreRoot, package_hash: str) -> Holding:
    mine, others = Occupancy(reads_extents=True), Occupancy(reads_extents=True)
    carriers = _carriers(root, package_hash)
    elsewhere = _named_elsewhere(root, package_hash, carriers)
    for digest, names in carriers.items():
        occupied = others if digest in elsewhere else mine
        for name in names:
            occupied.add(object_path(name), root.objects)
    mine.add_tree(package_hash, root.packages)
    before = len(mine.extents)
    mine.add_tree(package_hash, root.fd)
    kept = {key: link.allocated for key, link in mine.links.items() if link.met < link.names}
    both = covered([*mine.extents, *others.extents])
    overlap = covered(mine.extents) + covered(others.extents) - both
    linked = sum(size for key, size in kept.items() if key not in others.links)
    directory = Occupancy()
    directory.add_tree(package_hash, root.fd)
    named = sum(link.allocated for link in directory.links.values() if link.met < link.names)
    alone = both - covered([*mine.extents[:before], *others.extents])
    doubled = sum(size for _, size in mine.extents[before:]) - alone
    return Holding(
        mine.size - sum(kept.values()) - overlap,
        others.size + linked,
        directory.allocated - named - doubled,
    )


def _carriers(root: StoreRoot, package_hash: str) -> dict[str, set[str]]:
    """Return the names that carriers of a package's objects may have, by digest."""
    found: dict[str, set[str]] = {}
    # A package that is not published has no objects; of a damaged one what can be read counts.
    with contextlib.suppress(RegrainError, OSError):
        for entry in FileLevelPackage(root.packages, root.objects, package_hash).entries():
            if entry.kind is Kind.FILE and entry.size:
                names = found.setdefault(
                    entry.digest, {entry.digest, compressed_carrier(entry.digest)}
                )
                names.add(further_carrier(entry.digest, carrier_mode(entry.mode)))
    return found


def _named_elsewhere(root: StoreRoot, package_hash: str, digests: Iterable[str]) -> set[str]:
    """Return those of ``digests`` that file lists of other packages name."""
    wanted = {digest.encode() for digest in digests}
    found: set[bytes] = set()
    if wanted:
        for name in published(root.packages):
            if name != package_hash:
                for piece in _pieces(root, name):
                    found.update(wanted.intersection(_HASH.findall(piece)))
    return {digest.decode() for digest in found}


def _pieces(root: StoreRoot, package_hash: str) -> Iterator[bytes]:
    """Yield a file list in pieces; what begins in one and ends in the next is in the next."""
    with (
        contextlib.suppress(FileNotFoundError, NotADirectoryError),  # removed meanwhile
        disk.Closing(disk.open_directory(package_hash, root.packages)) as directory,
        disk.Closing(disk.open_file(FILE_LIST, directory)) as fd,
    ):
        rest = b""
        while piece := os.read(fd, disk.PIECE):
            both = rest + piece
            yield both
            rest = both[1 - _HASH_BYTES :]
