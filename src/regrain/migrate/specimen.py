"""Exact copies of packages for a rehearsal, and the proof that a tree is what it was."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from blake3 import blake3
from msgspec.structs import replace

from regrain import disk
from regrain.errors import PackageError, RegrainError, shown
from regrain.model.entry import Kind
from regrain.model.phase import Layout
from regrain.store.checkout import checkout
from regrain.store.compare import first_difference
from regrain.store.legacy import LegacyPackage, usage
from regrain.store.objects import hash_fd
from regrain.store.packages import FileLevelPackage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regrain.migrate.sample import Candidate
    from regrain.model.entry import Entry
    from regrain.store.root import StoreRoot
    from regrain.store.source import PackageSource


class Source(NamedTuple):
    """Where packages are taken from.

    Attributes:
        top: The open top directory: of a store, or of legacy packages alone.
        root: The store; None where it is none yet.
    """

    top: int
    root: StoreRoot | None

    def open(self, package_hash: str) -> PackageSource:
        """Open a package: its legacy directory if it has one, else what is published.

        Raises:
            FileNotFoundError: It has neither.
            CorruptionError: Its file list is damaged.
        """
        try:
            return LegacyPackage(self.top, package_hash)
        except FileNotFoundError:
            if self.root is None:
                raise
        return FileLevelPackage(self.root.packages, self.root.objects, package_hash)


@dataclass(frozen=True, slots=True)
class Specimen:
    """A package that was copied.

    Attributes:
        candidate: It.
        proof: What its tree is known by, see ``Proof``.
        contents: The digests of its files, each with their bytes.
    """

    candidate: Candidate
    proof: str
    contents: dict[str, int] = field(repr=False)


def copy(source: Source, candidate: Candidate, directory: str) -> Specimen:
    """Copy a package into a directory under its hash; read source and copy back and compare.

    Nothing is linked and no block shared: what happens to the copy reaches nobody.

    Raises:
        FileNotFoundError: It is no longer there.
        PackageError: It cannot be read, is no tree that can be kept, or changed meanwhile.
        NoSpaceError: The copy does not fit.
        RegrainError: Something of it cannot be made here.
    """
    package = source.open(candidate.package_hash)
    path = os.path.join(directory, candidate.package_hash)
    checkout(package, path, may_reflink=False)
    wanted, contents = prove(package)
    with disk.Closing(disk.open_directory(directory)) as top:
        made = LegacyPackage(top, candidate.package_hash)
        if prove(made)[0] != wanted:
            found = first_difference(read(source.open(candidate.package_hash)), made.entries())
            where, how = found or (b"", "it changed while it was copied")
            raise PackageError(
                "a copy of the package is not what the package is",
                path=where,
                package=candidate.package_hash,
                why=how,
            )
    return Specimen(candidate, wanted, contents)


def prove(package: PackageSource) -> tuple[str, dict[str, int]]:
    """Read all of a package; return what its tree is known by, and the bytes of its contents.

    What it is known by covers every path with all its metadata and every byte.
    """
    hasher = blake3()
    contents: dict[str, int] = {}
    for entry in read(package):
        # Attributes come in any order, and none is none, however that is said.
        xattrs = dict(sorted(entry.xattrs.items())) if entry.xattrs else None
        hasher.update(repr(replace(entry, xattrs=xattrs)).encode())
        if entry.digest:
            contents[entry.digest] = entry.size
    return hasher.hexdigest(), contents


def read(package: PackageSource) -> Iterator[Entry]:
    """Yield all entries, with the digests of what was read, not of what should be there."""
    if package.layout is Layout.LEGACY:
        yield from package.entries()
        return
    for entry in package.entries():
        if entry.kind is Kind.FILE:
            with disk.Closing(package.open_content(entry)) as fd:
                yield replace(entry, digest=hash_fd(fd)[0])
        else:
            yield entry


def difference(specimen: Specimen, package: PackageSource, source: Source) -> str:
    """Say how a package differs from what was copied; empty if it does not.

    Args:
        specimen: What was copied.
        package: What is there now.
        source: Where the original is, to name the path; it may have gone meanwhile.
    """
    if prove(package)[0] == specimen.proof:
        return ""
    try:
        original = source.open(specimen.candidate.package_hash)
        found = first_difference(read(original), read(package))
    except (OSError, RegrainError):
        found = None
    if found is None:
        return "it is not what was copied"
    return f"'{shown(found[0])}': {found[1]}"


def taken(top: int) -> tuple[int, int]:
    """Return the bytes on disk and the inodes below an open directory, each inode once."""
    shared: set[tuple[int, int]] = set()
    size = inodes = 0
    for device, inode, status in usage(top):
        if status.st_nlink > 1:
            if (device, inode) in shared:
                continue
            shared.add((device, inode))
        size += disk.allocated(status)
        inodes += 1
    return size, inodes


def forget_cached(top: int) -> None:
    """Let the system forget the bytes of what was written: it is to be read from the disk."""
    disk.syncfs(top)
    for at, name, _, kind in disk.walk(top):
        if kind is disk.FILE:
            with disk.Closing(disk.open_file(name, at)) as fd:
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
