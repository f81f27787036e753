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
from collections import deque
from concurrent.futures import Executor, Future, wait
from typing import TYPE_CHECKING, Any, NamedTuple

from regrain import disk
from regrain.ledger import NewCarrier
from regrain.maintain.remake import Bench, Made, Remaker, Unit, carrier_there, remake
from regrain.maintain.repack import Change, Choice, Kept, Repack, changes
from regrain.store import engines
from regrain.store.frames import Compression, Packer, block_size
from regrain.store.locks import StoreLock
from regrain.store.objects import object_path
from regrain.store.share import facts_of
from regrain.store.workers import deaths_told

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from regrain.ledger import Ledger
    from regrain.store.locks import RunDirectory
    from regrain.store.root import StoreRoot

BATCH_OBJECTS = 500
BATCH_BYTES = 64 << 20
"""What is made aside before the store is locked for a moment, and the old ones go."""

UNIT_OBJECTS = 50
UNIT_BYTES = 8 << 20
"""What a worker is handed at a time."""

UNITS_AHEAD = 3
"""Handed out ahead for each worker, enough to outlast a commit."""

_TICK_SECONDS = 0.2


_Handed = deque[tuple[list[Change], Future[Unit]]]


class Hands(NamedTuple):
    """Who makes carriers anew.

    Attributes:
        executor: Takes units of work.
        signals: What its workers heed: a ``value`` of 1 stops them.
        jobs: How many there are.
    """

    executor: Executor
    signals: Any
    jobs: int


class _Asked:
    """Stands, in this process, for what workers share with a run."""

    def __init__(self, stopping: Callable[[], bool]) -> None:
        self._stopping = stopping
        self._is_told = False

    @property
    def value(self) -> bool:
        """Whether to stop after the object in hand."""
        return self._is_told or self._stopping()

    @value.setter
    def value(self, value: int) -> None:
        self._is_told = bool(value)


class _Own(Executor):
    """Does each unit at once, in this process."""

    def __init__(self, remaker: Remaker) -> None:
        """Work with this one."""
        self._remaker = remaker

    def submit(self, fn: Callable[..., Any], /, *args: Any, **_: Any) -> Future[Any]:  # noqa: ANN401, ARG002 -- as in the class above
        """Do a unit; return what it gave, or raised."""
        future: Future[Any] = Future()
        try:
            future.set_result(self._remaker.do(*args))
        except BaseException as error:  # noqa: BLE001 -- it is passed on
            future.set_exception(error)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002 -- as in the class above
        """Let go of the store."""
        self._remaker.close()


def own_hands(bench: Bench, stopping: Callable[[], bool]) -> Hands:
    """Return this process as who does the work: for a store so small that no worker pays."""
    asked = _Asked(stopping)
    return Hands(_Own(Remaker(bench, asked)), asked, 1)


class Represent:
    """Changes the representation of objects, batch by batch.

    Args:
        root: The store; the caller holds its run lock.
        ledger: Its ledger.
        run: Private space.
        choice: What is wanted.
        compression: How objects are compressed, and when it pays.
        fsync_each: Whether every file is flushed by itself instead of the file system.

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
        self._batch: list[tuple[Change, Made]] = []
        self._waiting = 0
        self._full = OSError()
        self.done = Repack()

    def run(
        self, hands: Hands, *, on_progress: Callable[[Repack], None], stopping: Callable[[], bool]
    ) -> Repack:
        """Change all there is to change.

        Raises:
            LockedError: Writers did not pause in time; what was done stays done.
            EngineError: The engine was lost; likewise.
            HaltedError: Memory or disk fail, or a worker died.
            OSError: The disk is full, or failed.
        """
        handed: _Handed = deque()
        try:
            with deaths_told():
                for unit in _units(changes(self._root, self._choice, self._packer, self.done)):
                    if self.done.stopped or stopping():
                        self.done.stopped = True
                        hands.signals.value = 1
                        break
                    handed.append((unit, hands.executor.submit(remake, unit)))
                    if len(handed) >= UNITS_AHEAD * hands.jobs:
                        self._take(hands, handed, stopping)
                        on_progress(self.done)
                while handed:
                    self._take(hands, handed, stopping)
                    on_progress(self.done)
            self._commit()
        finally:
            hands.signals.value = 1
            hands.executor.shutdown(wait=True, cancel_futures=True)
        return self.done

    def _take(self, hands: Hands, handed: _Handed, stopping: Callable[[], bool]) -> None:
        """Take the oldest unit; where the disk was too full for all of it, do the rest alone.

        What was made aside holds room until it is committed, so all of that is first.

        Raises:
            OSError: The disk failed, or is full, and nothing is left that could make room.
        """
        left = self._result(hands, *handed.popleft(), stopping)
        while left and handed:
            left += self._result(hands, *handed.popleft(), stopping)
        while left:
            self._commit()
            again = self._result(hands, left, hands.executor.submit(remake, left), stopping)
            if len(again) == len(left):
                raise self._full
            left = again

    def _result(
        self,
        hands: Hands,
        unit: list[Change],
        future: Future[Unit],
        stopping: Callable[[], bool],
    ) -> list[Change]:
        """Note what became of a unit; return what could not be done for want of space.

        Raises:
            OSError: The disk failed.
        """
        while not wait([future], _TICK_SECONDS).done:
            if stopping():
                hands.signals.value = 1
                engines.check_workers(hands.executor, is_ending=True)
        made, error = future.result()
        for change, one in zip(unit, made, strict=False):
            self._note(change, one)
        left = unit[len(made) :]
        if error is None:
            self.done.stopped = self.done.stopped or bool(left)
            return []
        self._full = OSError(*error)
        if self._full.errno not in disk.NO_SPACE:
            raise self._full
        return left

    def _note(self, change: Change, made: Made) -> None:
        """Let a change wait for its commit, or take note of why it is none."""
        if made.damage is not None and made.damage not in self.done.damaged[-1:]:
            self.done.damaged.append(made.damage)  # once, though each mode comes by here
        if made.kept is not None:
            self._keep(change, made.kept)
            return
        self._batch.append((change, made))
        self._waiting += change.old.status.st_size
        is_full = len(self._batch) >= BATCH_OBJECTS or self._waiting >= BATCH_BYTES
        if change.is_last and is_full:
            self._commit()

    def _keep(self, change: Change, kept: Kept) -> None:
        if change.is_last:  # each object counts once
            self.done.kept[kept] += 1

    # in place

    def _commit(self) -> None:
        """Let what was prepared take the place of what was there."""
        if not self._batch:
            return
        if not self._fsync_each:
            disk.syncfs(self._root.fd)
        with StoreLock(self._root, exclusive=True):
            placed = [(change, made) for change, made in self._batch if self._place(change, made)]
            self._flush(change.new for change, _ in placed)
            rows = [self._row(change, made.size) for change, made in placed]
            going = [change.old for change, _ in placed if change.is_last]
            self._ledger.represented(rows, [old.key for old in going])
            for old in going:
                disk.unlink(object_path(old.name), self._root.objects)
            self._flush(old.name for old in going)
        for (change, made), row in zip(placed, rows, strict=True):
            self._count(change, made.size, row.allocated)
        self._batch.clear()
        self._waiting = 0

    def _place(self, change: Change, made: Made) -> bool:
        """Give a new carrier its name; False if the old one is not what it was any more."""
        old = change.old
        try:
            now = os.stat(object_path(old.name), dir_fd=self._root.objects, follow_symlinks=False)
            is_still = facts_of(now) == facts_of(old.status) and (
                self._choice is not Choice.COLD or now.st_nlink <= old.status.st_nlink
            )
            if is_still and not change.is_there:
                path = object_path(change.new).encode()
                staged = made.staged.encode()
                disk.rename_noreplace(staged, self._pool, path, self._root.objects)
        except (FileNotFoundError, FileExistsError):
            is_still = False
        if not is_still:
            self._keep(change, Kept.BUSY)
            if made.staged:
                with contextlib.suppress(FileNotFoundError):
                    disk.unlink(made.staged, self._pool)
        return is_still

    def _row(self, change: Change, size: int) -> NewCarrier:
        new = carrier_there(self._root, change)
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


def _units(found: Iterator[Change]) -> Iterator[list[Change]]:
    """Part changes into units of work; those of one object stay together."""
    unit: list[Change] = []
    size = 0
    for change in found:
        unit.append(change)
        size += change.old.status.st_size
        if change.is_last and (len(unit) >= UNIT_OBJECTS or size >= UNIT_BYTES):
            yield unit
            unit, size = [], 0
    if unit:
        yield unit
