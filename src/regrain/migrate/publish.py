"""Make a batch durable and visible, in the order of the write protocol.

1. flush all data that was staged;
2. give the objects their names, flush the directories they are in;
3. rename the packages into place: the commit point; flush their parent.

The ledger records it afterwards. A failed flush ends the run for good: the kernel may
have marked the pages clean although they were not written.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

from regrain import disk
from regrain.errors import CorruptionError, HaltedError, RegrainError, reason
from regrain.ledger import NewCarrier
from regrain.migrate.staging import staging_error
from regrain.model import layout
from regrain.model.layout import further_carrier, parse_carrier
from regrain.store.objects import hash_fd, object_path
from regrain.store.quarantine import quarantine

if TYPE_CHECKING:
    from collections.abc import Iterable

    from regrain.migrate.jobs import PackageResult, StagedCarrier
    from regrain.store.locks import RunDirectory
    from regrain.store.root import StoreRoot

_NAMES_REMEMBERED_MAX = 200_000


class StaleCarrierError(RegrainError):
    """A staged carrier is not what it was when it was staged."""


class Publisher:
    """Publishes what a run has staged.

    Args:
        root: The store.
        run: The run's directory.
        fsync_each: Flush directories one by one instead of the whole file system.
    """

    def __init__(self, root: StoreRoot, run: RunDirectory, *, fsync_each: bool) -> None:
        self._root = root
        self._run = run
        self._fsync_each = fsync_each
        self._staged: dict[str, StagedCarrier] = {}
        self._done: set[str] = set()
        self.published: list[NewCarrier] = []

    def staged(self, carriers: Iterable[StagedCarrier]) -> None:
        """Take note of what workers put into the pool."""
        self._staged.update((carrier.name, carrier) for carrier in carriers)

    def flush(self) -> None:
        """Step 1: make everything staged durable."""
        if not self._fsync_each:
            self._sync("the staged files")

    def publish_objects(self, result: PackageResult) -> tuple[int, int]:
        """Step 2: give the objects a package needs their names.

        Returns:
            How many were new, and the bytes they take on disk.

        Raises:
            StaleCarrierError: One changed since it was staged; the package must be redone.
        """
        count = allocated = 0
        for name in result.needed:
            if name in self._done:
                continue
            carrier = self._publish(name)
            if len(self._done) >= _NAMES_REMEMBERED_MAX:
                self._done.clear()
            self._done.add(name)
            if carrier is not None:
                self.published.append(carrier)
                count += 1
                allocated += carrier.allocated
        return count, allocated

    def flush_objects(self, results: Iterable[PackageResult]) -> None:
        """Step 2, end: make the names durable, of older objects no row names yet, too."""
        if not self._fsync_each:
            self._sync("the names of objects")
            return
        shards = {f"{first:02x}" for result in results for first in result.digests[::32]}
        for shard in sorted(shards):
            with disk.Closing(disk.open_directory(shard, self._root.objects)) as fd:
                self._fsync(fd, f"objects/{shard}")
        self._fsync(self._root.objects, "objects")

    def publish_packages(self, results: Iterable[PackageResult]) -> None:
        """Step 3, the commit point: rename file lists into place, flush their parent."""
        if self._fsync_each:
            self._fsync(self._run.staging, "temp")
        for result in results:
            name = result.package_hash.encode()
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

    # one carrier

    def _publish(self, name: str) -> NewCarrier | None:
        """Move one carrier from the pool to ``objects/``; None if it was there already."""
        status = _lstat(name, self._run.pool)
        if status is None:
            if _lstat(object_path(name), self._root.objects) is None:
                raise StaleCarrierError("a staged object is gone", path=name)
            return None
        self._vouch(name, status)
        digest, _, _ = parse_carrier(name) or ("", None, False)
        mode = stat.S_IMODE(status.st_mode)
        for target in dict.fromkeys((name, further_carrier(digest, mode))):
            if self._move(name, target, status):
                self._staged.pop(name, None)
                return NewCarrier(
                    bytes.fromhex(digest),
                    mode,
                    target == digest,
                    status.st_mtime_ns,
                    status.st_size,
                    disk.allocated(status),
                )
            found = os.stat(object_path(target), dir_fd=self._root.objects, follow_symlinks=False)
            if found.st_mode == status.st_mode:
                disk.unlink(name, self._run.pool)
                self._staged.pop(name, None)
                return None
        raise CorruptionError("two carriers of one mode", path=object_path(name))

    def _vouch(self, name: str, status: os.stat_result) -> None:
        """Check that a staged carrier is what was hashed."""
        known = self._staged.get(name)
        now = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        good = known is not None and now == known.facts
        if not good:
            # Staged for a package whose result has not come yet, or touched since, if only
            # by somebody who linked it: its bytes decide.
            with disk.Closing(disk.open_file(name, self._run.pool)) as fd:
                digest, size = hash_fd(fd)
                after = os.fstat(fd)
            good = name.startswith(digest) and size == status.st_size
            good = good and after.st_ctime_ns == status.st_ctime_ns
            good = good and (known is None or stat.S_IMODE(status.st_mode) == known.mode)
        if not good:
            disk.unlink(name, self._run.pool)
            self._staged.pop(name, None)
            raise StaleCarrierError("a file changed after it was staged", path=name)

    def _move(self, name: str, target: str, status: os.stat_result) -> bool:
        """Rename a carrier into ``objects/``; False if a good one of any mode is there.

        One that is there but broken is moved to quarantine, never overwritten.
        """
        path = object_path(target)
        try:
            disk.rename_noreplace(name.encode(), self._run.pool, path.encode(), self._root.objects)
        except FileExistsError:
            there = os.stat(path, dir_fd=self._root.objects, follow_symlinks=False)
            good = (
                stat.S_ISREG(there.st_mode)
                and there.st_size == status.st_size
                and (there.st_uid, there.st_gid) == self._root.owner
            )
            if good:
                return False
            quarantine(self._root, layout.OBJECTS, path)
            return self._move(name, target, status)
        except OSError as error:
            raise staging_error(error, name.encode()) from error
        return True

    # flushing

    def _sync(self, what: str) -> None:
        try:
            disk.syncfs(self._root.fd)
        except OSError as error:
            raise _sync_failed(what, error) from error

    def _fsync(self, fd: int, what: str) -> None:
        try:
            disk.fsync(fd)
        except OSError as error:
            raise _sync_failed(what, error) from error


def _sync_failed(what: str, error: OSError) -> HaltedError:
    return HaltedError(
        f"cannot flush {what} to the disk",
        why=reason(error),
        advice="The legacy packages are untouched. Check the disk and its messages, then run "
        "'regrain migrate' again: it stages anew what was in hand.",
    )


def _lstat(name: str, at: int) -> os.stat_result | None:
    with contextlib.suppress(FileNotFoundError):
        return os.stat(name, dir_fd=at, follow_symlinks=False)
    return None
