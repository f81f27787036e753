"""A legacy directory that serves for a damaged package, held to what was published."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from regrain.errors import CorruptionError, reason
from regrain.model.phase import Layout
from regrain.store.objects import Stored

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regrain.model.entry import Entry
    from regrain.model.manifest import Manifest
    from regrain.store.legacy import LegacyPackage
    from regrain.store.packages import FileLevelPackage


class StandIn:
    """The entries of a published package, the bytes of its legacy directory.

    Where an object is a hard link of a legacy inode, it is damaged in both layouts. So whoever
    reads here compares what comes with the digests that the file list has, as with any object.

    Args:
        listed: The published package; its file list is whole.
        legacy: The package's legacy directory.
    """

    layout = Layout.LEGACY

    def __init__(self, listed: FileLevelPackage, legacy: LegacyPackage) -> None:
        self.hash = listed.hash
        self._listed = listed
        self._legacy = legacy

    def lookup(self, path: bytes) -> Entry | None:
        """Return the entry at ``path``, symbolic links not followed; None without one."""
        return self._listed.lookup(path)

    def entries(self) -> Iterator[Entry]:
        """Yield all entries as they were published."""
        return self._listed.entries()

    def tree(self) -> Iterator[Entry]:
        """Yield all entries as they were published."""
        return self._listed.entries()

    def open_content(self, entry: Entry) -> int:
        """Open the bytes of a file's entry in the legacy directory.

        Raises:
            CorruptionError: They are not there either.
        """
        try:
            fd = self._legacy.open_content(entry)
        except OSError as error:
            raise self._lost(entry, reason(error)) from error
        if os.fstat(fd).st_size != entry.size:
            os.close(fd)
            raise self._lost(entry, "it has another size")
        return fd

    def _lost(self, entry: Entry, why: str) -> CorruptionError:
        return CorruptionError(
            "neither layout has the file whole",
            path=entry.path,
            package=self.hash,
            why=f"object {entry.digest} is damaged, and in the legacy directory: {why}",
            advice="Run 'regrain verify --repair', with --from BACKUP where you have one.",
        )

    def open_stored(self, entry: Entry) -> Stored:
        """Open the bytes of a file's entry, which are never compressed here."""
        return Stored(self.open_content(entry))

    def manifest(self) -> Manifest:
        """Return the package's own manifest."""
        return self._legacy.manifest()
