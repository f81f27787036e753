"""What file lists name, as far as they can be read; their damage is told elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regrain.errors import CorruptionError, UnknownFormatError
from regrain.model.entry import Entry, Kind
from regrain.store.packages import FileLevelPackage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regrain.store.root import StoreRoot


def entries_of(root: StoreRoot, package_hash: str) -> Iterator[Entry]:
    """Yield what can be read of a package's file list."""
    try:
        yield from FileLevelPackage(root.packages, root.objects, package_hash).entries()
    except (CorruptionError, UnknownFormatError, OSError):
        return


def digests_of(root: StoreRoot, package_hashes: list[str], shards: set[str]) -> set[str]:
    """Return the objects of packages that lie in these directories of ``objects/``."""
    return {
        entry.digest
        for name in package_hashes
        for entry in entries_of(root, name)
        if entry.kind is Kind.FILE and entry.size and entry.digest[:2] in shards
    }
