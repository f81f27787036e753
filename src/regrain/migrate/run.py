"""The run: claim packages, hand work to the workers, publish and record batch by batch."""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from typing import TYPE_CHECKING, Any

from regrain.errors import HaltedError, NoSpaceError, RegrainError
from regrain.ledger import Claim, Ledger, NewCarrier
from regrain.migrate import pool
from regrain.migrate.commit import Committer
from regrain.migrate.jobs import (
    Failure,
    FailureKind,
    ObjectsResult,
    PackageResult,
    Slice,
    SliceResult,
    unpacker,
)
from regrain.migrate.orders import Batch, Large, Orders, Summary, packages_of, workers_keep_dying
from regrain.migrate.progress import Tracker
from regrain.model.events import ObjectDamaged

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from regrain.migrate.pace import Pace
    from regrain.migrate.publish import Publisher
    from regrain.model.events import Event
    from regrain.store.locks import StoreLock

UNIT_FILES = 1500
UNIT_BYTES = 128 << 20
"""Small packages are put together into units of work of about so many files or bytes."""

BATCH_FILES_MAX = 20_000
"""A batch is closed at so many files: the workers must not wait for a long commit."""

BATCHES_OPEN_MAX = 3
TASKS_AHEAD = 6
"""Tasks handed to the executor for each worker, enough to outlast a commit."""

DEATHS_MAX = 5
"""So many deaths of workers without any result between them are not a package's doing."""

TICK_SECONDS = 0.2


class Run:
    """One run over the pending packages.

    Args:
        ledger: Where packages are claimed and recorded.
        publisher: Makes a batch durable and visible.
        emit: Told every event.
        stopping: Tells whether a stop was asked for.
        adopt: Records objects that are on disk without a row, once they are proven.
        lock: The store's, shared; it is given up between batches when somebody wants it.
        orders: What to take, and how.
        pace: What may hold it back: then nothing new is handed out.

    Attributes:
        workers_died: Whether some did: objects may have names, but no row in the ledger.
    """

    def __init__(  # noqa: PLR0913, PLR0917 -- all that a run works with, wired in one place
        self,
        ledger: Ledger,
        publisher: Publisher,
        emit: Callable[[Event], None],
        stopping: Callable[[], bool],
        adopt: Callable[[list[bytes]], None],
        lock: StoreLock,
        orders: Orders,
        pace: Pace,
    ) -> None:
        self._ledger = ledger
        self._publisher = publisher
        self._emit = emit
        self._stopping = stopping
        self._lock = lock
        self._orders = orders
        self._pace = pace
        self._left = orders.limit
        packages, _, size = ledger.pending(only=orders.only, limit=orders.limit)
        self._tracker = Tracker(packages, size)
        self._commit = Committer(
            ledger, publisher, emit, adopt, self._tracker, verified=orders.verified
        )
        self.workers_died = False
        self._deaths = self._careful_packages = 0
        self._batches: deque[Batch] = deque()
        self._large: dict[str, Large] = {}
        self._todo: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        self._running: dict[Future[Any], tuple[Any, ...]] = {}
        self._end: RegrainError | None = None

    def execute(self, make_executor: Callable[[], tuple[Executor, Any]]) -> Summary:
        """Work until nothing is pending, a stop is asked for, or the disk fails.

        Args:
            make_executor: Gives an executor, and the byte that tells its workers to stop;
                called again when a worker died.

        Raises:
            NoSpaceError: The disk is full; what was not published is pending again.
            HaltedError: The disk failed, or workers keep dying.
        """
        executor, stop = make_executor()
        try:
            while True:
                if self._is_ending():
                    stop.value = 1
                    self._drop_unstarted()
                try:
                    if not self._batches and self._lock.is_wanted():
                        self._lock.give_way()
                        stop.turn += 1
                    going = self._pace.now()
                    held_by = going.reason if going.is_held and not self._is_ending() else ""
                    if not held_by:
                        self._fill(executor)
                    if not self._running and not self._batches and not held_by:
                        break
                    self._collect()
                except BrokenExecutor as error:
                    executor.shutdown(wait=False, cancel_futures=True)
                    self._after_worker_death(error)
                    executor, stop = make_executor()
                self._commit_batches()
                self._emit(self._tracker.snapshot(held_by))
        except BaseException:
            stop.value = 1
            self._give_up_all("the run ended early")
            raise
        finally:
            executor.shutdown(wait=True, cancel_futures=True)
        if self._end is not None:
            raise self._end
        return Summary(self._commit.completed, self._commit.failed, self._stopping())

    def _is_ending(self) -> bool:
        return self._stopping() or self._end is not None

    # handing out

    def _fill(self, executor: Executor) -> None:
        """Keep the workers busy: a few tasks ahead of each, no more."""
        open_max = 1 if self._careful_packages else BATCHES_OPEN_MAX
        while (
            len(self._batches) < open_max
            and not self._is_ending()
            and not (self._batches and self._lock.is_wanted())
        ):
            if not self._claim():
                break
        while self._todo and len(self._running) < TASKS_AHEAD * self._orders.jobs:
            task, arguments = self._todo.popleft()
            self._running[executor.submit(task, *arguments)] = arguments

    def _claim(self) -> bool:
        batch = 1 if self._careful_packages else self._orders.batch
        count = batch if self._left is None else min(batch, self._left)
        only = self._orders.only
        claims = self._ledger.claim(count, only=only, files_max=BATCH_FILES_MAX) if count else []
        if not claims:
            return False
        if self._left is not None:
            self._left -= len(claims)
        self._batches.append(Batch({claim.package_hash: claim for claim in claims}))
        unit: list[str] = []
        files = size = 0
        for claim in claims:
            if claim.cuts:
                self._slice(claim)
                continue
            unit.append(claim.package_hash)
            files, size = files + claim.files, size + claim.size
            if files >= UNIT_FILES or size >= UNIT_BYTES:
                self._todo.append((pool.bring_in, (unit,)))
                unit, files, size = [], 0, 0
        if unit:
            self._todo.append((pool.bring_in, (unit,)))
        return True

    def _slice(self, claim: Claim) -> None:
        """Part a large package; its slices cover all paths, whatever it holds by now."""
        name = claim.package_hash
        bounds = zip((b"", *claim.cuts), (*claim.cuts, None), strict=True)
        slices = [Slice(name, number, *bound) for number, bound in enumerate(bounds)]
        self._large[name] = Large(slices, len(slices))
        self._todo.extend((pool.bring_in_slice, (piece,)) for piece in slices)

    def _drop_unstarted(self) -> None:
        """Count packages nobody works on any more as stopped; what was read is published."""
        publishing = [task for task in self._todo if task[0] is pool.publish_objects]
        if isinstance(self._end, HaltedError) and publishing:
            self._batches[0].parts = (self._batches[0].parts or 0) - len(publishing)
            publishing.clear()
        self._todo = deque(publishing)
        busy = {name for arguments in self._running.values() for name in packages_of(arguments)}
        for batch in self._batches:
            for name in batch.claims.keys() - batch.done.keys() - busy:
                batch.done[name] = PackageResult(name, failure=_STOPPED)

    # taking back

    def _collect(self) -> None:
        if not self._running:  # held back
            time.sleep(TICK_SECONDS)
        done, _ = wait(self._running, TICK_SECONDS, FIRST_COMPLETED)
        for future in done:
            del self._running[future]
            result: list[PackageResult | ObjectsResult] | PackageResult | SliceResult
            result = future.result()
            self._deaths = 0
            if isinstance(result, SliceResult):
                self._take_slice(result)
            elif isinstance(result, PackageResult):
                self._take(self._with_slices(result))
            else:
                self._take_list(result)

    def _take_list(self, results: list[PackageResult | ObjectsResult]) -> None:
        for result in results:
            if isinstance(result, PackageResult):
                self._take(result)
            else:
                self._take_objects(result)
        if isinstance(results[0], ObjectsResult):
            batch = self._batch_of(results[0].package_hash)
            batch.parts = (batch.parts or 1) - 1

    def _take(self, result: PackageResult) -> None:
        self._tracker.read(result.bytes_read)
        self._batch_of(result.package_hash).done[result.package_hash] = result
        self._heed(result.failure)

    def _take_objects(self, result: ObjectsResult) -> None:
        for damage in result.damaged:
            self._emit(ObjectDamaged(*damage))
        batch = self._batch_of(result.package_hash)
        if result.carriers:
            batch.credit(result.package_hash, _carriers(result.carriers))
        if result.failure is not None:
            batch.done[result.package_hash] = PackageResult(
                result.package_hash, failure=result.failure
            )
            self._heed(result.failure)

    def _heed(self, failure: Failure | None) -> None:
        """End the run after a failure that concerns more than its package."""
        if failure is not None and failure.kind in (FailureKind.SPACE, FailureKind.HALT):
            kind = NoSpaceError if failure.kind is FailureKind.SPACE else HaltedError
            self._end = self._end or kind(failure.message)

    def _take_slice(self, result: SliceResult) -> None:
        name = result.piece.package_hash
        large = self._large[name]
        self._tracker.read(result.bytes_read)
        if result.wanted:
            large.wanted.append(result.wanted)
        large.failure = large.failure or result.failure
        large.waiting -= 1
        if large.waiting == 0:
            if large.failure is None:
                self._todo.appendleft((pool.finish, (name, large.slices)))
            else:
                del self._large[name]
                self._take(PackageResult(name, failure=large.failure))

    def _with_slices(self, result: PackageResult) -> PackageResult:
        large = self._large.pop(result.package_hash)
        result.wanted.extend(large.wanted)
        return result

    def _batch_of(self, package_hash: str) -> Batch:
        return next(batch for batch in self._batches if package_hash in batch.claims)

    # committing

    def _commit_batches(self) -> None:
        while self._batches and self._batches[0].is_done:
            batch = self._batches[0]
            try:
                if batch.parts is None and not isinstance(self._end, HaltedError):
                    self._start_publishing(batch)
                if batch.parts:
                    return
                if isinstance(self._end, HaltedError):
                    raise self._end
                self._commit.publish(batch)
            except (NoSpaceError, HaltedError) as error:
                self._end = error
                for result in batch.good:
                    self._commit.give_up(result.package_hash, str(error))
            for result in batch.done.values():
                if result.failure is not None:
                    self._commit.not_brought_in(batch.claims[result.package_hash], result.failure)
            self._batches.popleft()
            self._careful_packages = max(0, self._careful_packages - 1)

    def _start_publishing(self, batch: Batch) -> None:
        """Make the data of a batch durable, then have workers give the objects their names."""
        if batch.good:
            self._publisher.flush()
        tasks = batch.object_tasks()
        self._todo.extendleft((pool.publish_objects, (task,)) for task in tasks)
        batch.parts = len(tasks)

    def _after_worker_death(self, error: BrokenExecutor) -> None:
        """Try what was in hand one by one; a package that alone kills a worker again fails."""
        self.workers_died = True
        self._deaths += 1
        in_hand = [claim for batch in self._batches for claim in batch.claims.values()]
        if len(in_hand) == 1 and self._careful_packages:
            words = "a worker process died twice while it had this package"
            self._commit.not_brought_in(in_hand[0], Failure(FailureKind.PACKAGE, words, None))
            self._careful_packages -= 1
            self._batches.clear()
        else:
            self._careful_packages = len(in_hand)
        self._give_up_all("a worker process died")
        if self._deaths == DEATHS_MAX:
            raise workers_keep_dying(error) from error

    def _give_up_all(self, why: str) -> None:
        """Put everything in hand back."""
        for batch in self._batches:
            for name in batch.claims:
                self._commit.give_up(name, why)
        self._batches.clear()
        self._large.clear()
        self._todo.clear()
        self._running.clear()


_STOPPED = Failure(FailureKind.STOPPED, "stopped", None)


_carriers = unpacker(NewCarrier)
