"""Prove that both layouts of a package hold the same, before one of them may go."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from blake3 import blake3
from msgspec.structs import replace

from regrain import disk
from regrain.errors import CorruptionError, PackageError, UnknownFormatError, reason, shown
from regrain.model.entry import Kind
from regrain.model.layout import carrier_mode, further_carrier
from regrain.store.compare import first_difference
from regrain.store.cursor import Cursor
from regrain.store.legacy import listing
from regrain.store.objects import (
    Carrier,
    carrier_flaw,
    carriers_of,
    hash_carrier,
    hash_fd,
    object_path,
)
from regrain.store.packages import FileLevelPackage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regrain.model.entry import Entry
    from regrain.store.root import StoreRoot

_CARRIERS_REMEMBERED_MAX = 500_000


class Doubt(NamedTuple):
    """Why the two layouts of a package may not hold the same.

    Attributes:
        path: In the package.
        why: What was found.
        in_legacy: Whether it was found in the legacy directory, else in what is published.
    """

    path: bytes
    why: str
    in_legacy: bool

    def __str__(self) -> str:
        """Return it as one clause."""
        return f"'{shown(self.path)}': {self.why}" if self.path else self.why


def mark(root: int) -> str:
    """Return what tells a tree from every later state of it; no bytes are read.

    It covers all metadata, inodes and change times. The change time of the root is left out,
    since renaming the tree moves it.

    Raises:
        PackageError: The tree cannot be read.
    """
    hasher = blake3()
    for entry, status in listing(root):
        changed_at = status.st_ctime_ns if entry.path else 0
        hasher.update(repr((entry, status.st_dev, status.st_ino, changed_at)).encode())
    return hasher.hexdigest()


class Twins:
    """Compares legacy directories with what is published; hashes no carrier twice.

    Args:
        root: The store.
    """

    def __init__(self, root: StoreRoot) -> None:
        self._root = root
        self._good: dict[tuple[int, int], tuple[str, int, int]] = {}

    def doubt(self, package_hash: str, legacy: int, list_hash: str | None) -> Doubt | None:
        """Say what speaks against taking one layout for the other; None if nothing does.

        All metadata is compared and every byte read on both sides, but for an inode that
        both share, which is read once.

        Args:
            package_hash: The package.
            legacy: Its open legacy directory, wherever that lies.
            list_hash: What the ledger knows its file list by; None if it does not know it.
        """
        try:
            return self._compare(package_hash, legacy, list_hash)
        except PackageError as error:
            path = (error.path or "").encode()
            return Doubt(path, error.why or error.what, in_legacy=True)
        except FileNotFoundError:
            why = "it is not published"
        except (CorruptionError, UnknownFormatError) as error:
            why = f"its file list: {error.what}"
        except OSError as error:
            why = f"it cannot be read: {reason(error)}"
        return Doubt(b"", why, in_legacy=False)

    def _compare(self, package_hash: str, legacy: int, list_hash: str | None) -> Doubt | None:
        package = FileLevelPackage(self._root.packages, self._root.objects, package_hash)
        if package.list_hash() != list_hash:
            return Doubt(b"", "its file list is not the one recorded", in_legacy=False)
        read: dict[tuple[int, int], str] = {}
        found = first_difference(package.entries(), _hashed(legacy, read))
        if found is not None:
            return Doubt(*found, in_legacy=True)
        return self._doubt_objects(package, read)

    def _doubt_objects(
        self, package: FileLevelPackage, read: dict[tuple[int, int], str]
    ) -> Doubt | None:
        for entry in package.entries():
            if entry.kind is Kind.FILE and entry.size:
                carriers = self._carriers(entry)
                flaws = [self._flaw(carrier, entry, read) for carrier in carriers]
                if not carriers:
                    flaws = ["it is missing"]
                for flaw in filter(None, flaws):
                    why = f"object {entry.digest}: {flaw}"
                    return Doubt(entry.path, why, in_legacy=False)
        return None

    def _carriers(self, entry: Entry) -> list[Carrier]:
        """Return the carriers that serve a file: the bare one, and the one of its mode."""
        found = []
        for name in (entry.digest, further_carrier(entry.digest, carrier_mode(entry.mode))):
            try:
                status = os.stat(
                    object_path(name), dir_fd=self._root.objects, follow_symlinks=False
                )
            except FileNotFoundError:
                continue
            mode = None if name == entry.digest else carrier_mode(entry.mode)
            found.append(Carrier(name, entry.digest, mode, status))
        return found or list(carriers_of(self._root.objects, entry.digest))

    def _flaw(self, carrier: Carrier, entry: Entry, read: dict[tuple[int, int], str]) -> str:
        status = carrier.status
        flaw = carrier_flaw(carrier, self._root.owner)
        if flaw:
            return flaw
        if not carrier.is_compressed and status.st_size != entry.size:
            return f"its size is {status.st_size}, not {entry.size}"
        inode = (status.st_dev, status.st_ino)
        facts = (carrier.digest, status.st_mtime_ns, status.st_ctime_ns)
        if read.get(inode) == carrier.digest or self._good.get(inode) == facts:
            return ""
        try:
            digest, size = hash_carrier(self._root.objects, carrier)
        except OSError as error:
            return f"it cannot be read: {reason(error)}"
        if (digest, size) != (carrier.digest, entry.size):
            return f"its {size} bytes hash to {digest}"
        if len(self._good) >= _CARRIERS_REMEMBERED_MAX:
            self._good.clear()
        self._good[inode] = facts
        return ""


def _hashed(root: int, read: dict[tuple[int, int], str]) -> Iterator[Entry]:
    """Yield the entries of a legacy tree with their digests; note which inode gave which."""
    with Cursor(root) as cursor:
        for entry, status in listing(root):
            if entry.kind is not Kind.FILE:
                yield entry
                continue
            inode = (status.st_dev, status.st_ino)
            if entry.hardlink is None or inode not in read:
                read[inode] = _hash(cursor, entry.path, status)
            yield replace(entry, digest=read[inode])


def _hash(cursor: Cursor, path: bytes, status: os.stat_result) -> str:
    parent, _, name = path.rpartition(b"/")
    try:
        with disk.Closing(disk.open_file(name, cursor.at(parent))) as fd:
            opened = os.fstat(fd)
            if not stat.S_ISREG(opened.st_mode) or opened.st_ino != status.st_ino:
                raise PackageError("the tree changes", path=path, why="it was replaced")
            return hash_fd(fd)[0]
    except OSError as error:
        raise PackageError("cannot read a file", path=path, why=reason(error)) from error
