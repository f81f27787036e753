"""What it takes to give packages their legacy directories back, against what is free."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from regrain import disk
from regrain.errors import CorruptionError, RefusedError, UnknownFormatError
from regrain.model import layout
from regrain.model.digest import is_package_hash
from regrain.model.entry import Kind
from regrain.model.phase import Phase
from regrain.store.objects import object_path
from regrain.store.packages import FileLevelPackage, is_published, published
from regrain.store.share import ExactShare

if TYPE_CHECKING:
    from regrain.ledger import Ledger
    from regrain.model.entry import Entry
    from regrain.store.root import StoreRoot

_BLOCK = 4096
_LINE_BYTES_MIN = 90
"""The shortest line of a file list: no entry takes less."""


class Ways(NamedTuple):
    """How files of a legacy directory may come by their bytes, if not by copying.

    Attributes:
        reflink: They may share blocks with objects.
        link: They may be hard links of objects, where that is exact.
        link_outside: Such objects may have other names, too.
    """

    reflink: bool
    link: bool
    link_outside: bool


def ways_of(root: StoreRoot, ingest: str, *, link_outside: bool) -> Ways:
    """Return how legacy directories are rebuilt where packages come in by ``ingest``."""
    reflink = ingest in ("auto", "reflink") and disk.shares_extents(root.fd)
    return Ways(reflink, not reflink and ingest in ("auto", "hardlink"), link_outside)


class Need(NamedTuple):
    """What rebuilding takes.

    Attributes:
        packages: Packages without a legacy directory.
        size: Bytes on disk.
        inodes: Inodes.
    """

    packages: int
    size: int
    inodes: int


def lacking(root: StoreRoot) -> list[str]:
    """Return the published packages that have no legacy directory."""
    return [
        name
        for name in published(root.packages)
        if is_package_hash(name) and not is_published(root.fd, name)
    ]


def need(root: StoreRoot, ways: Ways, package_hashes: list[str]) -> Need:
    """Say what rebuilding these packages takes; change nothing."""
    size = inodes = 0
    used: set[int] = set()
    for name in package_hashes:
        try:
            package = FileLevelPackage(root.packages, root.objects, name)
            share = ExactShare(root, package, link_outside=ways.link_outside)
            for entry in package.entries():
                if not _is_linked(entry, share, ways, used):
                    inodes += 1
                    size += _takes(root, entry, ways)
        except (CorruptionError, UnknownFormatError, OSError):
            continue  # rebuilding meets it again, and says so
    return Need(len(package_hashes), size, inodes)


def cost_of_undoing(root: StoreRoot, ledger: Ledger) -> tuple[int, int]:
    """Return bytes on disk and inodes that a rollback would take now, at the most.

    Quick, for ``status``: from the ledger, as if nothing could be linked or reflinked; no
    file list is read (``need`` reads them).
    """
    if root.phase() is Phase.ROLLED_BACK:
        return 0, 0
    size = inodes = 0
    sizes = ledger.legacy_sizes()
    for name in lacking(root):
        allocated, count = sizes.get(name, (0, 0))
        size += allocated
        inodes += count or _entries_at_most(root, name)
    return size, inodes


def _entries_at_most(root: StoreRoot, name: str) -> int:
    try:
        status = os.stat(f"{name}/{layout.FILE_LIST}", dir_fd=root.packages, follow_symlinks=False)
    except OSError:
        return 0
    return status.st_size // _LINE_BYTES_MIN


def _is_linked(entry: Entry, share: ExactShare, ways: Ways, used: set[int]) -> bool:
    """Tell whether an entry needs no inode of its own."""
    if entry.kind is Kind.DIRECTORY:
        return False
    if entry.hardlink is not None:
        return True
    if entry.kind is Kind.SYMLINK or not ways.link:
        return False
    inode = share.candidate(entry)
    if inode is None or inode in used:
        return False
    used.add(inode)
    return True


def _takes(root: StoreRoot, entry: Entry, ways: Ways) -> int:
    """Return the bytes on disk of a new inode for an entry, rounded up."""
    if entry.kind is Kind.DIRECTORY:
        return _BLOCK
    if entry.kind is Kind.SYMLINK or not entry.size:
        return 0
    whole = -(-entry.size // _BLOCK) * _BLOCK
    try:
        status = os.stat(object_path(entry.digest), dir_fd=root.objects, follow_symlinks=False)
    except OSError:  # it is compressed, if it is there: what is written has blocks of its own
        return whole
    return 0 if ways.reflink else min(whole, disk.allocated(status) or whole)  # holes stay holes


def check_space(root: StoreRoot, wanted: Need, *, bytes_min: int, inodes_min: int) -> None:
    """See to it that rebuilding leaves the floors free.

    Raises:
        RefusedError: It does not; nothing was changed.
    """
    space = os.fstatvfs(root.fd)
    size = space.f_bavail * space.f_frsize - bytes_min
    inodes = space.f_favail - inodes_min
    if wanted.size > max(0, size) or (space.f_files and wanted.inodes > max(0, inodes)):
        raise RefusedError(
            "too little space to rebuild the legacy directories",
            path=root.path,
            why=f"{wanted.packages} packages need {wanted.size} bytes and {wanted.inodes} inodes; "
            f"{max(0, size)} bytes and {max(0, inodes)} inodes can be used, "
            f"with {bytes_min} bytes and {inodes_min} inodes to be left free",
            advice="Free some, or lower [migration] free_bytes_min and free_inodes_min.",
        )
