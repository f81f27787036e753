"""A backup at a URL, to heal a store from; nothing it gives is trusted."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from regrain import disk
from regrain.errors import CorruptionError
from regrain.model.layout import FILE_LIST
from regrain.remote.backups import read_marker
from regrain.remote.lists import fetch_list, scratch
from regrain.remote.place import Remote
from regrain.remote.pulling import fetch_unsized

if TYPE_CHECKING:
    from collections.abc import Iterator


class UrlVault:
    """What ``maintain`` asks of a backup, at a URL; nobody is asked before it is needed.

    Attributes:
        path: Its URL.
    """

    def __init__(self, url: str) -> None:
        self._remote = Remote(url)
        self.path = self._remote.url

    def check(self) -> str:
        """Make sure that a backup is there; return of which store it is.

        Raises:
            NotAStoreError: None is.
            RemoteError: The service does not answer.
        """
        return read_marker(self._remote).backup_of

    def objects(self, digest: str) -> Iterator[int]:
        """Yield an object, open for reading, decompressed, if it is there whole."""
        with contextlib.suppress(CorruptionError):
            yield fetch_unsized(self._remote, digest)

    def file_list(self, package_hash: str) -> int | None:
        """Open the file list of a package; None where there is none that is whole."""
        with scratch() as directory, contextlib.suppress(CorruptionError):
            if fetch_list(self._remote, package_hash, directory):
                with disk.Closing(disk.open_directory(package_hash, directory)) as own:
                    return disk.open_file(FILE_LIST, own)
        return None
