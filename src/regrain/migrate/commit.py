"""What becomes of packages that were read: published and recorded, failed, or given up."""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING

from regrain.errors import LockedError, NoSpaceError
from regrain.ledger import Ledger, NewCarrier, Outcome, UnrecordedObjectsError
from regrain.migrate.jobs import Failure, FailureKind
from regrain.model.clock import monotonic
from regrain.model.events import BatchCommitted, PackageCompleted, PackageFailed, PackageGivenUp

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from regrain.ledger import Claim
    from regrain.migrate.orders import Batch
    from regrain.migrate.progress import Tracker
    from regrain.migrate.publish import Publisher
    from regrain.model.events import Event

TRIES_MAX = 3

PASSING = (NoSpaceError, LockedError)
"""Errors that pass: no space, and a ledger that others keep busy."""


class Committer:
    """Commits what a run read, package by package or batch by batch.

    Args:
        ledger: Where it is recorded.
        publisher: Makes a batch durable and visible.
        emit: Told what became of each package.
        adopt: Records objects that are on disk without a row, once they are proven.
        tracker: Counts it.
        verified: Whether workers compared packages with their source.

    Attributes:
        completed: Packages published and recorded.
        failed: Packages that failed.
        after: Told what was published and recorded, once readers and events know of it.
    """

    def __init__(
        self,
        ledger: Ledger,
        publisher: Publisher,
        emit: Callable[[Event], None],
        adopt: Callable[[list[bytes]], None],
        tracker: Tracker,
        *,
        verified: bool,
    ) -> None:
        self._ledger = ledger
        self._publisher = publisher
        self._emit = emit
        self._adopt = adopt
        self._tracker = tracker
        self._verified = verified
        self._redone: Counter[str] = Counter()
        self._owed: list[str] = []
        self.completed = self.failed = 0
        self.after: Callable[[Sequence[Outcome]], None] = lambda _: None

    def publish(self, batch: Batch) -> None:
        """End the write protocol for one batch, whose objects have their names.

        Raises:
            NoSpaceError: The disk is full.
            HaltedError: The disk failed.
        """
        if not batch.good and not batch.carriers:
            return
        began = monotonic()
        self._publisher.flush_objects(batch.shards)
        with self._publisher.exclusive():
            claimed = self._ledger.still_claimed(batch.claims)
            outcomes = batch.outcomes(claimed, verified=self._verified)
            self._publisher.publish_packages(o.claim.package_hash for o in outcomes)
            self._record(outcomes, batch.carriers)
        took = monotonic() - began
        for gone in {result.package_hash for result in batch.good} - claimed:
            self.give_up(gone, "it was removed or excluded meanwhile")
        for outcome in outcomes:
            self.completed += 1
            self._tracker.completed(outcome.files, outcome.claim.package_hash)
            self._emit(
                PackageCompleted(
                    outcome.claim.package_hash,
                    outcome.claim.name,
                    outcome.claim.version,
                    outcome.files,
                    outcome.size,
                    outcome.deduplicated,
                    outcome.claim.allocated - outcome.added,
                )
            )
        self._emit(BatchCommitted(len(outcomes), took, tuple(self._publisher.sync_seconds)))
        self._publisher.sync_seconds.clear()
        self.after(outcomes)

    def _record(self, outcomes: list[Outcome], carriers: list[NewCarrier]) -> None:
        """Record a batch; objects somebody else published meanwhile are proven first."""
        try:
            self._ledger.record(outcomes, carriers)
        except UnrecordedObjectsError as error:
            self._adopt(error.digests)
            self._ledger.record(outcomes, carriers)

    def not_brought_in(self, claim: Claim, failure: Failure) -> None:
        """Put a package back, or let it fail."""
        if failure.kind is FailureKind.STALE:
            self._redone[claim.package_hash] += 1
            given_up = self._redone[claim.package_hash] < TRIES_MAX
        else:
            given_up = failure.kind is not FailureKind.PACKAGE
        if given_up:
            self.give_up(claim.package_hash, failure.message)
            return
        try:
            with self._publisher.exclusive():  # one that is being removed has not failed
                has_failed = self._ledger.fail(claim.package_hash, failure.message, failure.path)
        except PASSING as error:
            self.give_up(claim.package_hash, str(error))
            return
        if not has_failed:
            self.give_up(claim.package_hash, "it was removed or excluded meanwhile")
            return
        self.failed += 1
        self._tracker.failed(claim.size, claim.package_hash)
        path = None if failure.path is None else failure.path.decode()
        self._emit(
            PackageFailed(claim.package_hash, claim.name, claim.version, failure.message, path)
        )

    def give_up(self, package_hash: str, why: str) -> None:
        """Put a package back to pending, now or, where the ledger cannot be written to, later."""
        self._tracker.put_back(package_hash)
        self._owed.append(package_hash)
        with contextlib.suppress(*PASSING):
            self.settle()
        self._emit(PackageGivenUp(package_hash, why))

    def settle(self) -> None:
        """Write down what the ledger had no room, or no time, for.

        Raises:
            NoSpaceError, LockedError: It has not yet.
        """
        if self._owed:
            self._ledger.give_up(self._owed)
            self._owed.clear()
