"""Another place that keeps objects and file lists under the same names: a backup.

It is read and never written, and nothing it gives is trusted: whoever asks proves the bytes
by their hash.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

from regrain import disk
from regrain.errors import RefusedError, UsageError, reason
from regrain.model import layout
from regrain.store.frames import unpacked
from regrain.store.objects import Carrier, carriers_of, object_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regrain.store.root import StoreRoot


class Vault:
    """A backup, or another store.

    Attributes:
        path: Where it is.
    """

    def __init__(self, path: str, root: StoreRoot) -> None:
        """Open it.

        Args:
            path: Its directory.
            root: The store that is to be healed from it.

        Raises:
            UsageError: There is none.
            RefusedError: It is that store itself.
        """
        self.path = path
        try:
            with disk.Closing(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as top:
                self._objects = disk.Held(disk.open_directory(layout.OBJECTS, top))
                self._packages = disk.Held(disk.open_directory(layout.PACKAGES, top))
        except OSError as error:
            raise UsageError(
                "no backup there",
                path=path,
                why=reason(error),
                advice="Name the directory that 'regrain backup create' was given.",
            ) from error
        if os.path.samestat(os.fstat(self._objects.fd), os.fstat(root.objects)):
            raise RefusedError(
                "a store cannot be healed from itself", path=path, advice="Name a backup of it."
            )

    def objects(self, digest: str) -> Iterator[int]:
        """Yield what has the name of an object, each open for reading, decompressed."""
        for carrier in carriers_of(self._objects.fd, digest):
            if stat.S_ISREG(carrier.status.st_mode):
                with contextlib.suppress(OSError):
                    yield self._open(carrier)

    def _open(self, carrier: Carrier) -> int:
        fd = disk.open_file(object_path(carrier.name), self._objects.fd)
        if not carrier.is_compressed:
            return fd
        with disk.Closing(fd):
            return unpacked(fd)[0]

    def file_list(self, package_hash: str) -> int | None:
        """Open the file list of a package; None where there is none."""
        try:
            with disk.Closing(disk.open_directory(package_hash, self._packages.fd)) as directory:
                return disk.open_file(layout.FILE_LIST, directory)
        except OSError:
            return None
