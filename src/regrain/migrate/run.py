"""The run: claim packages, hand work to the workers, publish and record batch by batch."""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from typing import TYPE_CHECKING, Any

from regrain.errors import HaltedError, NoSpaceError, RegrainError
from regrain.ledger import Ledger
from regrain.migrate import pool
from regrain.migrate.commit import PASSING, Committer
from regrain.migrate.crew import Crew
from regrain.migrate.jobs import (
    Failure,
    FailureKind,
    ObjectsResult,
    PackageResult,
    SliceResult,
)
from regrain.migrate.orders import (
    DEATHS_MAX,
    Batch,
    Orders,
    Summary,
    packages_of,
    workers_keep_dying,
)
from regrain.migrate.pace import Course
from regrain.migrate.parts import Parts
from regrain.migrate.progress import Tracker
from regrain.model.events import ObjectDamaged

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from regrain.migrate.crew import Done
    from regrain.migrate.orders import Tasks
    from regrain.migrate.pace import Pace
    from regrain.migrate.parts import Task
    from regrain.migrate.publish import Publisher
    from regrain.migrate.room import Room
    from regrain.model.events import Event
    from regrain.store.locks import StoreLock

BATCH_FILES_MAX = 20_000
"""A batch is closed at so many files: the workers must not wait for a long commit."""

BATCHES_OPEN_MAX = 3
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
        pace: How fast it goes, and what may hold it.
        room: Told when there is no space, and when there was; one of the brakes of ``pace``.

    Attributes:
        may_leave_objects: Whether objects may have names, but no row in the ledger.
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
        room: Room,
    ) -> None:
        self._ledger = ledger
        self._publisher = publisher
        self._emit = emit
        self._stopping = stopping
        self._lock = lock
        self._orders = orders
        self._room = room
        self._left = orders.limit
        found = ledger.pending(only=orders.only, limit=orders.limit)
        self._tracker = Tracker(found.packages, found.size, bytes_before=ledger.bytes_migrated())
        self._commit = Committer(
            ledger, publisher, emit, adopt, self._tracker, verified=orders.verified
        )
        self._commit.after = orders.after_commit
        self.may_leave_objects = False
        self._deaths = self._careful_packages = 0
        self._batches: deque[Batch] = deque()
        self._parts = Parts()
        self._todo: deque[Task] = deque()
        self._running: dict[Future[Done], Task] = {}
        self._end: RegrainError | None = None
        self._course = Course(pace, emit)
        self._going = self._course.going
        self._lets_go = False

    def execute(self, make_executor: Callable[[int], tuple[Executor, Any]]) -> Summary:
        """Work until nothing is pending, a stop is asked for, or the disk fails.

        Args:
            make_executor: Gives an executor of so many workers, and what they share with
                the run; called again when a worker died, or their number changes.

        Raises:
            NoSpaceError: The disk stayed full; what was not published is pending again.
            LockedError: The ledger stayed busy.
            HaltedError: The disk failed, or workers keep dying.
        """
        crew = Crew(make_executor, self._going.tempo.jobs)
        try:
            while self._step(crew):
                self._commit_batches()
                self._tracker.hold(is_held=self._going.is_held)
                reason = self._course.reason(crew.slowed_by, is_idle=self._is_idle)
                self._emit(self._tracker.snapshot(reason))
        except BaseException:
            crew.stop_files()
            self._give_up_all("the run ended early")
            raise
        finally:
            crew.close()
            self._lock.take_again()
        if self._end is not None:
            raise self._end
        return Summary(self._commit.completed, self._commit.failed, self._stopping())

    def _step(self, crew: Crew) -> bool:
        """Do what there is to do at a moment; False when nothing is left."""
        try:
            self._going = self._going if self._is_ending else self._course.look()
        except RegrainError as error:
            self._end = error
        if self._is_ending or (self._going.at_once and not self._is_idle):
            self._lets_go = True
        if self._lets_go:
            crew.stop_files()
            self._drop_unstarted()
        try:
            if self._is_idle:
                self._rest(crew)
            self._fill(crew)
            if self._is_idle and (self._is_ending or not self._is_waiting):
                return False
            crew.check(is_ending=self._is_ending)
            self._collect()
        except BrokenExecutor as error:
            self._after_worker_death(error)
            crew.replace_dead()
        return True

    @property
    def _is_ending(self) -> bool:
        return self._stopping() or self._end is not None

    @property
    def _is_waiting(self) -> bool:
        """Whether there may be something to do later, though there is nothing now."""
        is_held = self._going.is_held or self._lets_go
        return is_held or not self._course.is_due or self._orders.is_short

    @property
    def _is_idle(self) -> bool:
        return not self._running and not self._batches

    def _rest(self, crew: Crew) -> None:
        """While nothing is in hand: let others have the store, and change the crew."""
        if self._is_ending:
            return
        if self._lets_go:
            self._lets_go = False
            self._publisher.drop_staged()
            self._room.emptied()
            crew.go_on()
        if self._going.is_held:
            self._lock.let_go()
            return
        if self._lock.take_again():
            crew.forget()
        elif self._lock.is_wanted():
            self._lock.give_way()
            crew.forget()

    # handing out

    def _fill(self, crew: Crew) -> None:
        """Keep the workers busy: a few tasks ahead of each, no more."""
        try:
            while self._may_claim() and self._claim():
                pass
        except PASSING as error:
            self._heed_error(error)
        jobs = self._going.jobs or 1
        if crew.jobs != self._going.tempo.jobs and not self._hand_over(crew):
            return
        while self._todo and len(self._running) < crew.ahead(jobs):
            task, arguments = self._todo.popleft()
            self._running[crew.submit(task, arguments)] = (task, arguments)
        crew.allow(self._going.tempo, min(jobs, len(self._running)))

    def _may_claim(self) -> bool:
        """Tell whether another batch may be begun."""
        if self._is_ending or self._going.is_held or self._lets_go:
            return False
        if not self._batches:
            return self._course.is_due
        one_by_one = self._careful_packages or self._going.tempo.pause
        return len(self._batches) < (1 if one_by_one else BATCHES_OPEN_MAX) and (
            not self._lock.is_wanted()
        )

    def _hand_over(self, crew: Crew) -> bool:
        """Let another number of workers take over, as soon as these have ended what they do."""
        for future in [future for future in self._running if future.cancel()]:
            self._todo.appendleft(self._running.pop(future))
        if not self._running or crew.is_elastic:
            crew.renew(self._going.tempo.jobs)
        return not self._running or crew.is_elastic

    def _claim(self) -> bool:
        self._commit.settle()
        batch = 1 if self._careful_packages else self._going.tempo.batch
        count = batch if self._left is None else min(batch, self._left)
        in_hand = [name for batch in self._batches for name in batch.claims]
        claims = self._orders.claim(self._ledger, count, BATCH_FILES_MAX, in_hand)
        if not claims:
            return False
        if self._left is not None:
            self._left -= len(claims)
        self._batches.append(Batch({claim.package_hash: claim for claim in claims}))
        self._todo.extend(self._parts.tasks(claims))
        return True

    def _drop_unstarted(self) -> None:
        """Count packages nobody works on any more as stopped; what was read is published."""
        publishing = [task for task in self._todo if task[0] in _AFTER_READING]
        if isinstance(self._end, HaltedError) and publishing:
            self._batches[0].parts = (self._batches[0].parts or 0) - len(publishing)
            publishing.clear()
        self._todo = deque(publishing)
        busy = {name for _, task in self._running.values() for name in packages_of(task)}
        for batch in self._batches:
            for name in batch.claims.keys() - batch.done.keys() - busy:
                batch.done[name] = PackageResult(name, failure=_STOPPED)

    # taking back

    def _collect(self) -> None:
        if not self._running:  # held, or between batches
            time.sleep(TICK_SECONDS)
        done, _ = wait(self._running, TICK_SECONDS, FIRST_COMPLETED)
        for future in done:
            del self._running[future]
            result, computed, took = future.result()
            self._deaths = 0
            self._course.worked(computed, took)
            if isinstance(result, SliceResult):
                self._take_slice(result)
            elif isinstance(result, PackageResult):
                self._take(self._parts.whole(result))
            else:
                self._take_list(result)

    def _take_list(self, results: list[PackageResult | ObjectsResult]) -> None:
        for result in results:
            if isinstance(result, PackageResult):
                self._take(result)
            else:
                self._take_objects(result)
        if isinstance(results[0], ObjectsResult):
            self._batch_of(results[0].package_hash).task_is_done()

    def _take(self, result: PackageResult) -> None:
        self._tracker.read(result.bytes_read, result.package_hash)
        self._batch_of(result.package_hash).done[result.package_hash] = result
        self._heed(result.failure)

    def _take_objects(self, result: ObjectsResult) -> None:
        for damage in result.damaged:
            self._emit(ObjectDamaged(*damage))
        batch = self._batch_of(result.package_hash)
        batch.take(result)
        self._heed(result.failure)

    def _heed(self, failure: Failure | None) -> None:
        """End the run, or let it wait, after a failure that concerns more than its package."""
        if failure is not None and failure.kind is FailureKind.SPACE:
            self._heed_error(NoSpaceError(failure.message))
        elif failure is not None and failure.kind is FailureKind.HALT:
            self._heed_error(HaltedError(failure.message))

    def _heed_error(self, error: RegrainError) -> None:
        """End the run, or put back what is not complete and wait, if the error will pass."""
        if isinstance(error, PASSING):
            self._room.failed(error)
            self._lets_go = True
        else:
            self._end = self._end or error

    def _take_slice(self, result: SliceResult) -> None:
        self._tracker.read(result.bytes_read, result.piece.package_hash)
        whole = self._parts.take(result)
        if isinstance(whole, PackageResult):
            self._take(whole)
        elif whole is not None:
            self._todo.appendleft(whole)

    def _batch_of(self, package_hash: str) -> Batch:
        return next(batch for batch in self._batches if package_hash in batch.claims)

    # committing

    def _commit_batches(self) -> None:
        while self._batches and self._batches[0].is_done:
            batch = self._batches[0]
            try:
                if not self._is_published(batch):
                    return
            except (*PASSING, HaltedError) as error:
                self._heed_error(error)
                self.may_leave_objects = True
                for result in batch.good:
                    self._commit.give_up(result.package_hash, str(error))
            for claim, failure in batch.failed:
                self._commit.not_brought_in(claim, failure)
            if self._left is not None:
                self._left += sum(failure.kind in _LATER for _, failure in batch.failed)
            self._batches.popleft()
            self._careful_packages = max(0, self._careful_packages - 1)

    def _is_published(self, batch: Batch) -> bool:
        """Go on publishing a batch; tell whether that is done."""
        if not isinstance(self._end, HaltedError):
            if batch.parts is None:
                self._hand_out(batch, pool.copy_objects, batch.copy_tasks())
            if not batch.parts and not batch.is_publishing:
                batch.is_publishing = True
                if batch.good:
                    self._publisher.flush()
                self._hand_out(batch, pool.publish_objects, batch.object_tasks())
        if batch.parts:
            return False
        if isinstance(self._end, HaltedError):
            raise self._end
        batch.give_up_bereft()
        self._commit.publish(batch)
        self._course.batch_ended()
        if batch.good:
            self._room.progressed()
        return True

    def _hand_out(self, batch: Batch, work: Callable[..., Any], tasks: Tasks) -> None:
        """Let workers do a step of a batch before they read further packages."""
        self._todo.extendleft((work, (task,)) for task in tasks)
        batch.parts = len(tasks)

    def _after_worker_death(self, error: BrokenExecutor) -> None:
        """Try what was in hand one by one; a package that alone kills a worker again fails."""
        self.may_leave_objects = True
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
        self._parts.clear()
        self._todo.clear()
        self._running.clear()


_AFTER_READING = (pool.copy_objects, pool.publish_objects)
_LATER = (FailureKind.STOPPED, FailureKind.SPACE, FailureKind.BEREFT)
_STOPPED = Failure(FailureKind.STOPPED, "stopped", None)
