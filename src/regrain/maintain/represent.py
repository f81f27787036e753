"""Replace carriers by others that hold the same bytes, compressed or plain.

A change may be cut off anywhere, and nothing needs to be written down before it. The new carrier
is made aside, read back and flushed. Then, while nobody else writes, it gets its name, the ledger
is told of both, and only after that the old one goes. So no row ever lacks its carrier, and no
object its bytes. What is cut off in between leaves an object with two carriers, one of them
perhaps without a row, which is what other killed runs leave, too: who comes next records it, and
the next ``repack`` finishes the change.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from regrain import disk
from regrain.errors import HaltedError, reason
from regrain.ledger import NewCarrier
from regrain.maintain.repack import Change, Choice, Kept, Repack, changes
from regrain.store.frames import Compression, FrameError, Packer, block_size, hash_frame, pour
from regrain.store.locks import StoreLock
from regrain.store.objects import Carrier, dress_carrier, hash_carrier, hash_fd, object_path
from regrain.store.root import Owner
from regrain.store.share import facts_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from regrain.ledger import Ledger
    from regrain.store.locks import RunDirectory
    from regrain.store.root import StoreRoot

BATCH_OBJECTS = 500
BATCH_BYTES = 64 << 20
"""What is made aside before the store is locked for a moment, and the old ones go."""


class Represent:
    """Changes the representation of objects, batch by batch.

    Args:
        root: The store; the caller holds its run lock.
        ledger: Its ledger.
        run: Private space.
        choice: What is wanted.
        compression: How objects are compressed, and when it pays.
        fsync_each: Flush every file by itself instead of the file system.

    Attributes:
        done: What was done so far.
    """

    def __init__(
        self,
        root: StoreRoot,
        ledger: Ledger,
        run: RunDirectory,
        choice: Choice,
        compression: Compression,
        *,
        fsync_each: bool,
    ) -> None:
        self._root = root
        self._ledger = ledger
        self._pool = run.pool
        self._choice = choice
        self._packer = Packer(compression, block_size(root.objects))
        self._fsync_each = fsync_each
        self._batch: list[tuple[Change, int]] = []
        self.done = Repack()

    def run(self, *, on_progress: Callable[[Repack], None], stopping: Callable[[], bool]) -> Repack:
        """Change all there is to change.

        Raises:
            LockedError: Writers did not pause in time; what was done stays done.
            HaltedError: Memory or disk fail.
            OSError: The disk is full, or failed.
        """
        waiting = 0
        for change in changes(self._root, self._choice, self._packer, self.done):
            if stopping():
                self.done.stopped = True
                break
            waiting += self._take(change)
            is_full = len(self._batch) >= BATCH_OBJECTS or waiting >= BATCH_BYTES
            if change.is_last and is_full:
                self._commit()
                waiting = 0
            on_progress(self.done)
        self._commit()
        return self.done

    def _take(self, change: Change) -> int:
        """Prepare a change; return the bytes that wait on disk for it.

        On a full disk, what was prepared before makes room by being committed.
        """
        try:
            kept = self._prepare(change)
        except OSError as error:
            if error.errno not in disk.NO_SPACE or not self._batch:
                raise
            self._commit()
            kept = self._prepare(change)
        if kept is None:
            return change.old.status.st_size
        self._keep(change, kept)
        return 0

    # aside

    def _prepare(self, change: Change) -> Kept | None:
        """Make the new carrier aside, or prove the one that is there; say why not."""
        path = object_path(change.old.name)
        try:
            with disk.Closing(disk.open_file(path, self._root.objects)) as fd:
                if facts_of(os.fstat(fd)) != facts_of(change.old.status):
                    return Kept.BUSY
                size = self._prove(change) if change.is_there else self._make(change, fd)
        except FileNotFoundError:
            return Kept.BUSY
        except (disk.SourceReadError, FrameError) as error:
            return self._damaged(change.old.name, f"it cannot be read: {reason(error)}")
        if isinstance(size, Kept):
            return size
        self._batch.append((change, size))
        return None

    def _make(self, change: Change, source: int) -> int | Kept:
        """Make the new carrier; return the object's size."""
        with contextlib.suppress(FileNotFoundError):  # of an attempt that failed
            disk.unlink(change.new, self._pool)
        with disk.Closing(disk.create(change.new, self._pool)) as target:
            if change.old.is_compressed:
                found = self._unpack(change.old, source, target)
            else:
                found = self._pack(change.old, source, target)
            if not isinstance(found, Kept):
                status = change.old.status
                owner = Owner(status.st_uid, status.st_gid)
                dress_carrier(target, owner, change.mode, status.st_mtime_ns)
                if self._fsync_each:
                    disk.fsync(target)
        if isinstance(found, Kept):
            disk.unlink(change.new, self._pool)
        return found

    def _pack(self, old: Carrier, source: int, target: int) -> int | Kept:
        size = old.status.st_size
        if not self._packer.pack_file(source, size, target):
            return Kept.SMALL
        if hash_frame(target) == (old.digest, size):
            return size
        found = hash_fd(source)[0]
        if found == old.digest:
            raise _bad_copy(old)
        return self._damaged(old.name, f"its bytes hash to {found}")

    def _unpack(self, old: Carrier, source: int, target: int) -> int | Kept:
        found, size = pour(source, target)
        if found != old.digest:
            return self._damaged(old.name, f"its bytes hash to {found}")
        os.lseek(target, 0, os.SEEK_SET)
        if hash_fd(target) != (found, size):
            raise _bad_copy(old)
        return size

    def _prove(self, change: Change) -> int | Kept:
        """Read both carriers of a change that was cut off: what is damaged is never deleted."""
        size = 0
        for carrier in (change.old, self._there(change)):
            try:
                found, size = hash_carrier(self._root.objects, carrier)
            except FileNotFoundError:
                raise
            except OSError as error:
                return self._damaged(carrier.name, f"it cannot be read: {reason(error)}")
            if found != carrier.digest:
                return self._damaged(carrier.name, f"its bytes hash to {found}")
        return size

    def _there(self, change: Change) -> Carrier:
        path = object_path(change.new)
        status = os.stat(path, dir_fd=self._root.objects, follow_symlinks=False)
        return Carrier(change.new, change.old.digest, None, status, not change.old.is_compressed)

    def _keep(self, change: Change, kept: Kept) -> None:
        if change.is_last:  # each object counts once
            self.done.kept[kept] += 1

    def _damaged(self, name: str, why: str) -> Kept:
        if (name, why) not in self.done.damaged[-1:]:  # of several modes, each comes by here
            self.done.damaged.append((name, why))
        return Kept.DAMAGED

    # in place

    def _commit(self) -> None:
        """Let what was prepared take the place of what was there."""
        if not self._batch:
            return
        if not self._fsync_each:
            disk.syncfs(self._root.fd)
        with StoreLock(self._root, exclusive=True):
            placed = [(change, size) for change, size in self._batch if self._place(change)]
            self._flush(change.new for change, _ in placed)
            rows = [self._row(change, size) for change, size in placed]
            going = [change.old for change, _ in placed if change.is_last]
            self._ledger.represented(rows, [old.key for old in going])
            for old in going:
                disk.unlink(object_path(old.name), self._root.objects)
            self._flush(old.name for old in going)
        for (change, size), row in zip(placed, rows, strict=True):
            self._count(change, size, row.allocated)
        self._batch.clear()

    def _place(self, change: Change) -> bool:
        """Give a new carrier its name; False if the old one is not what it was any more."""
        old = change.old
        try:
            now = os.stat(object_path(old.name), dir_fd=self._root.objects, follow_symlinks=False)
            is_still = facts_of(now) == facts_of(old.status) and (
                self._choice is not Choice.COLD or now.st_nlink <= old.status.st_nlink
            )
            if is_still and not change.is_there:
                path = object_path(change.new).encode()
                name = change.new.encode()
                disk.rename_noreplace(name, self._pool, path, self._root.objects)
        except (FileNotFoundError, FileExistsError):
            is_still = False
        if not is_still:
            self._keep(change, Kept.BUSY)
            with contextlib.suppress(FileNotFoundError):
                disk.unlink(change.new, self._pool)
        return is_still

    def _row(self, change: Change, size: int) -> NewCarrier:
        new = self._there(change)
        status = new.status
        return NewCarrier(
            *new.key[:2], new.is_bare, status.st_mtime_ns, size, disk.allocated(status), new.key[2]
        )

    def _flush(self, names: Iterable[str]) -> None:
        for shard in sorted({name[:2] for name in names}):
            with disk.Closing(disk.open_directory(shard, self._root.objects)) as fd:
                disk.fsync(fd)

    def _count(self, change: Change, size: int, allocated: int) -> None:
        self.done.after += allocated
        self.done.freed -= allocated
        if change.is_last:
            before = disk.allocated(change.old.status)
            self.done.objects += 1
            self.done.size += size
            self.done.before += before
            self.done.freed += before if change.old.status.st_nlink == 1 else 0


def _bad_copy(old: Carrier) -> HaltedError:
    return HaltedError(
        "a copy does not hold the bytes that were read",
        path=f"objects/{object_path(old.name)}",
        advice="Memory or disk may be failing; check both before going on.",
    )
