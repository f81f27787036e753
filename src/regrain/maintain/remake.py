"""Make carriers anew aside, compressed or plain, and read them back; what workers of ``repack`` do.

Each is made under a name that nobody else uses: who does the same again, since a worker was thought
to be lost, makes another one.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from regrain import disk
from regrain.errors import HaltedError, RegrainError, reason
from regrain.maintain.repack import Change, Kept
from regrain.model import layout
from regrain.store import errands
from regrain.store.frames import Compression, FrameError, Packer, block_size, hash_frame, pour
from regrain.store.objects import Carrier, dress_carrier, hash_carrier, hash_fd, object_path
from regrain.store.root import Owner, StoreRoot
from regrain.store.share import facts_of
from regrain.store.workers import signals, spawn_executor

if TYPE_CHECKING:
    from concurrent.futures import Executor


@dataclass(frozen=True, slots=True)
class Bench:
    """Where a worker works, and how; plain values, so that it can be sent to it.

    Attributes:
        store: The store's directory.
        run: The run's, below ``temp/``.
        compression: How objects are compressed, and when it pays.
        fsync_each: Flush every file by itself instead of the file system.
    """

    store: str
    run: str
    compression: Compression
    fsync_each: bool


class Made(NamedTuple):
    """What became of a change.

    Attributes:
        size: Of the object.
        staged: What the new carrier is called in the pool; empty where it has its name already.
        kept: Why there is none; None if there is.
        damage: The carrier that cannot be read, or holds other bytes, and what is wrong with it.
    """

    size: int = 0
    staged: str = ""
    kept: Kept | None = None
    damage: tuple[str, str] | None = None


class Unit(NamedTuple):
    """What was done of a unit of work, in its order.

    Attributes:
        made: Of each change that was begun; fewer than there are where the worker was to stop.
        error: What the system said of the next one: errno and words; None if nothing.
    """

    made: list[Made]
    error: tuple[int, str] | None = None


class _DamagedError(Exception):
    """A carrier cannot be read, or does not hold the bytes of its name."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(name, why)
        self.damage = name, why


class Remaker:
    """Makes carriers anew, for one run.

    Args:
        bench: Where, and how.
        stop: Its ``value`` tells whether to stop after the object in hand.
    """

    def __init__(self, bench: Bench, stop: Any) -> None:  # noqa: ANN401 -- a shared byte
        self._root = StoreRoot(bench.store)
        pool = f"{layout.TEMP}/{bench.run}/{layout.OBJECTS}"
        self._pool = disk.descend(pool.encode(), self._root.fd)
        self._packer = Packer(bench.compression, block_size(self._root.objects))
        self._fsync_each = bench.fsync_each
        self._stop = stop
        self._token, self._count = secrets.token_hex(8), 0

    def close(self) -> None:
        """Let go of all."""
        os.close(self._pool)
        del self._root

    def do(self, changes: list[Change]) -> Unit:
        """Prepare changes, one after the other.

        Raises:
            HaltedError: Memory or disk fail.
        """
        made: list[Made] = []
        for change in changes:
            if self._stop.value:
                break
            try:
                made.append(self._prepare(change))
            except OSError as error:
                return Unit(made, (error.errno or 0, reason(error)))
        return Unit(made)

    def _prepare(self, change: Change) -> Made:
        """Make the new carrier aside, or prove the one that is there; say why not."""
        path = object_path(change.old.name)
        try:
            with disk.Closing(disk.open_file(path, self._root.objects)) as fd:
                # Hosts number devices as they like, and all of objects/ is on one.
                if facts_of(os.fstat(fd))[1:] != facts_of(change.old.status)[1:]:
                    return Made(kept=Kept.BUSY)
                return self._prove(change) if change.is_there else self._make(change, fd)
        except FileNotFoundError:
            return Made(kept=Kept.BUSY)
        except _DamagedError as error:
            return Made(kept=Kept.DAMAGED, damage=error.damage)
        except (disk.SourceReadError, FrameError) as error:
            why = f"it cannot be read: {reason(error)}"
            return Made(kept=Kept.DAMAGED, damage=(change.old.name, why))

    def _make(self, change: Change, source: int) -> Made:
        self._count += 1
        name = f"{self._token}.{self._count}"
        try:
            with disk.Closing(disk.create(name, self._pool)) as target:
                size = (self._unpack if change.old.is_compressed else self._pack)(
                    change.old, source, target
                )
                if size is not None:
                    status = change.old.status
                    owner = Owner(status.st_uid, status.st_gid)
                    dress_carrier(target, owner, change.mode, status.st_mtime_ns)
                    if self._fsync_each:
                        disk.fsync(target)
                    return Made(size, name)
        except BaseException:
            self._drop(name)
            raise
        self._drop(name)
        return Made(kept=Kept.SMALL)

    def _drop(self, name: str) -> None:
        with contextlib.suppress(OSError):  # the run's directory goes, with all that is in it
            disk.unlink(name, self._pool)

    def _pack(self, old: Carrier, source: int, target: int) -> int | None:
        """Compress; return the object's size, None if that does not pay."""
        size = old.status.st_size
        if not self._packer.pack_file(source, size, target):
            return None
        if hash_frame(target) == (old.digest, size):
            return size
        found = hash_fd(source)[0]
        if found == old.digest:
            raise _bad_copy(old)
        raise _DamagedError(old.name, f"its bytes hash to {found}")

    def _unpack(self, old: Carrier, source: int, target: int) -> int:
        found, size = pour(source, target)
        if found != old.digest:
            raise _DamagedError(old.name, f"its bytes hash to {found}")
        os.lseek(target, 0, os.SEEK_SET)
        if hash_fd(target) != (found, size):
            raise _bad_copy(old)
        return size

    def _prove(self, change: Change) -> Made:
        """Read both carriers of a change that was cut off: what is damaged is never deleted."""
        size = 0
        for carrier in (change.old, carrier_there(self._root, change)):
            try:
                found, size = hash_carrier(self._root.objects, carrier)
            except FileNotFoundError:
                raise
            except OSError as error:
                raise _DamagedError(carrier.name, f"it cannot be read: {reason(error)}") from error
            if found != carrier.digest:
                raise _DamagedError(carrier.name, f"its bytes hash to {found}")
        return Made(size)


def carrier_there(root: StoreRoot, change: Change) -> Carrier:
    """Return the new carrier of a change, which has its name."""
    status = os.stat(object_path(change.new), dir_fd=root.objects, follow_symlinks=False)
    return Carrier(change.new, change.old.digest, None, status, not change.old.is_compressed)


def _bad_copy(old: Carrier) -> HaltedError:
    return HaltedError(
        "a copy does not hold the bytes that were read",
        path=f"objects/{object_path(old.name)}",
        advice="Memory or disk may be failing; check both before going on.",
    )


_remaker: Remaker | RegrainError | None = None


def _start(bench: Bench, stop: Any) -> None:  # noqa: ANN401 -- a shared byte
    global _remaker  # noqa: PLW0603 -- an executor gives its processes no other place
    try:
        _remaker = Remaker(bench, stop)
    except (OSError, RegrainError) as error:
        _remaker = HaltedError("a worker cannot open the store", why=str(error))


def make_executor(jobs: int, bench: Bench) -> tuple[Executor, Any]:
    """Return an executor of ``jobs`` workers, and the byte that stops them when set."""
    stop = signals()
    return spawn_executor(jobs, _start, bench, stop), stop


def remake(changes: list[Change]) -> Unit:
    """Prepare changes, in a worker.

    Raises:
        HaltedError: Memory or disk fail.
    """
    remaker = errands.at_work() or _remaker
    if not isinstance(remaker, Remaker):
        raise remaker or HaltedError("a worker process without its store")
    return remaker.do(changes)
