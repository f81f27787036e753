"""Make a batch durable and visible, in the order of the write protocol.

1. flush all data that was staged or is to be linked;
2. workers give the objects their names (see ``objects``); flush the directories they are in;
3. rename the packages into place: the commit point; flush their parent.

The ledger records it afterwards. A failed flush ends the run for good: the kernel may
have marked the pages clean although they were not written.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from regrain import disk
from regrain.migrate.disk_errors import flush_error, staging_error
from regrain.model.clock import monotonic
from regrain.store.locks import publish_lock

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager

    from regrain.store.locks import RunDirectory
    from regrain.store.root import StoreRoot

_SYNCS_MAX = 1000


class Publisher:
    """Publishes what a run has staged.

    Args:
        root: The store.
        run: The run's directory.
        fsync_each: Flush directories one by one instead of the whole file system.

    Attributes:
        sync_seconds: How long each flush took, the last ones; whoever tells of them empties it.
    """

    def __init__(self, root: StoreRoot, run: RunDirectory, *, fsync_each: bool) -> None:
        self._root = root
        self._run = run
        self._fsync_each = fsync_each
        self.sync_seconds: deque[float] = deque(maxlen=_SYNCS_MAX)

    def drop_staged(self) -> None:
        """Drop what was staged and is not to be published, so that it takes no space.

        Flushed, since btrfs gives space back with its next commit only.
        """
        try:
            self._run.drop()
            disk.syncfs(self._root.fd)
        except OSError as error:
            if error.errno not in disk.NO_SPACE:
                raise staging_error(error, b"temp") from error

    def flush(self) -> None:
        """Step 1: make all data durable."""
        if not self._fsync_each:
            self._sync("the staged files")

    def flush_objects(self, shards: Iterable[str]) -> None:
        """Step 2, end: make the names of objects in these directories of ``objects/`` durable."""
        if not self._fsync_each:
            self._sync("the names of objects")
            return
        for shard in sorted(shards):
            with disk.Closing(disk.open_directory(shard, self._root.objects)) as fd:
                self._fsync(fd, f"objects/{shard}")
        self._fsync(self._root.objects, "objects")

    def exclusive(self) -> AbstractContextManager[None]:
        """Keep others from publishing or removing packages, from the last look to the record."""
        return publish_lock(self._root)

    def publish_packages(self, package_hashes: Iterable[str]) -> None:
        """Step 3, the commit point: rename file lists into place, flush their parent."""
        if self._fsync_each:
            self._fsync(self._run.staging, "temp")
        for package_hash in package_hashes:
            name = package_hash.encode()
            try:
                self._rename_package(name)
            except OSError as error:
                raise staging_error(error, name) from error
        self._fsync(self._root.packages, "packages")

    def _rename_package(self, name: bytes) -> None:
        try:
            disk.rename_noreplace(name, self._run.staging, name, self._root.packages)
        except FileExistsError:  # it is replaced; the old list goes with the run's directory
            disk.rename_exchange(name, self._run.staging, name, self._root.packages)

    # flushing

    def _sync(self, what: str) -> None:
        began = monotonic()
        try:
            disk.syncfs(self._root.fd)
        except OSError as error:
            raise flush_error(what, error) from error
        self.sync_seconds.append(monotonic() - began)

    def _fsync(self, fd: int, what: str) -> None:
        began = monotonic()
        try:
            disk.fsync(fd)
        except OSError as error:
            raise flush_error(what, error) from error
        self.sync_seconds.append(monotonic() - began)
