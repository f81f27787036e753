"""What a run is told, what it keeps in hand, and what it reports."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from regrain.errors import HaltedError
from regrain.ledger import NewCarrier, Outcome
from regrain.migrate.jobs import (
    Failure,
    FailureKind,
    ObjectsResult,
    PackageResult,
    Slice,
    Wanted,
    pack,
    unpacker,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from concurrent.futures import BrokenExecutor

    from regrain.ledger import Claim, Ledger
    from regrain.migrate.ration import Ration

_carriers = unpacker(NewCarrier)
_wanted = unpacker(Wanted)

TASK_BYTES = 128 << 10
"""Objects are published in tasks of about a thousand: so many bytes of packed wishes."""


Tasks = list[list[tuple[str, bytes]]]
"""Work with objects, task by task: pairs of a package and what is wished of it (packed)."""


DEATHS_MAX = 5
"""So many deaths of workers without any result between them are not a package's doing."""


def _nothing(_: object) -> None:
    """Leave it at that."""


@dataclass(frozen=True, slots=True)
class Orders:
    """What a run is to take, and how.

    Attributes:
        limit: How many packages to take at the most.
        only: A glob packages must match.
        verified: Whether workers compare packages with their source.
        ration: What bounds batches by the space they take; None where nothing does.
        after_commit: Told what was published and recorded, batch by batch.
    """

    limit: int | None = None
    only: str | None = None
    verified: bool = True
    ration: Ration | None = None
    after_commit: Callable[[Sequence[Outcome]], None] = _nothing

    def claim(
        self, ledger: Ledger, count: int, files_max: int, in_hand: Collection[str]
    ) -> list[Claim]:
        """Claim so many packages, of so many files together, that fit beside those in hand."""
        if self.ration is None:
            return ledger.claim(count, only=self.only, files_max=files_max)
        return self.ration.claim(
            ledger, count, only=self.only, files_max=files_max, in_hand=in_hand
        )

    @property
    def is_short(self) -> bool:
        """Whether packages are left that do not fit now."""
        return self.ration is not None and self.ration.is_short


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did.

    Attributes:
        completed: Packages that were published.
        failed: Packages that failed.
        stopped: Whether it was ended early.
        paused: Whether it did nothing, the store being paused.
        removed: Legacy directories that went, in place.
        freed_bytes: What that freed on disk.
        kept: Legacy directories that should have gone, and stay.
    """

    completed: int
    failed: int
    stopped: bool
    paused: bool = False
    removed: int = 0
    freed_bytes: int = 0
    kept: int = 0


@dataclass(slots=True)
class Batch:
    """Packages that are committed together.

    Attributes:
        claims: Them, by hash.
        done: What became of each.
        parts: Tasks that copy, later publish its objects and are not done yet; None before.
        is_publishing: Whether all that must be copied is.
        bereft: Packages that have nothing if another one fails, which was to bring what both need.
        has_losses: Whether one failed after it was read.
        carriers: What those published.
        new: How many of these each package brought.
        added: What they take on disk.
    """

    claims: dict[str, Claim]
    done: dict[str, PackageResult] = field(default_factory=dict)
    parts: int | None = None
    is_publishing: bool = False
    bereft: set[str] = field(default_factory=set)
    has_losses: bool = False
    carriers: list[NewCarrier] = field(default_factory=list)
    new: Counter[str] = field(default_factory=Counter)
    added: Counter[str] = field(default_factory=Counter)

    @property
    def is_done(self) -> bool:
        """Whether every package of it was read, or will not be."""
        return len(self.done) == len(self.claims)

    @property
    def good(self) -> list[PackageResult]:
        """What can be published."""
        return [result for result in self.done.values() if result.failure is None]

    @property
    def failed(self) -> list[tuple[Claim, Failure]]:
        """What cannot be, each with the reason."""
        return [
            (self.claims[result.package_hash], result.failure)
            for result in self.done.values()
            if result.failure is not None
        ]

    @property
    def shards(self) -> set[str]:
        """Where in ``objects/`` all lies that its packages name, or that it brought there.

        Of what they name, some may have been there already without a row, and not durably.
        """
        named = {first for result in self.good for first in result.digests[::32]}
        return {f"{first:02x}" for first in named | {new.digest[0] for new in self.carriers}}

    def copy_tasks(self) -> Tasks:
        """Return what is to be copied because no package of the batch brings it by a link."""
        if not any(result.to_copy for result in self.good):
            return []
        brought = {
            (one.digest, one.mode)
            for result in self.good
            for packed in result.wanted
            for one in _wanted(packed)
        }
        parts = []
        for result in self.good:
            needed = [one for packed in result.to_copy for one in _wanted(packed)]
            alone = {
                (one.digest, one.mode): one
                for one in needed
                if (one.digest, one.mode) not in brought
            }
            if len(alone) < len(needed):
                self.bereft.add(result.package_hash)
            brought.update(alone)
            if alone:
                parts.append((result.package_hash, pack(alone.values())))
        return _tasks(parts)

    def object_tasks(self) -> Tasks:
        """Return what is to be published, parted into tasks of about equal work."""
        return _tasks((r.package_hash, wanted) for r in self.good for wanted in r.wanted)

    def task_is_done(self) -> None:
        """Count one of the tasks that were handed out."""
        self.parts = (self.parts or 1) - 1

    def _lost(self, package_hash: str, failure: Failure) -> None:
        """Take note that a package failed although it was read."""
        self.done[package_hash] = PackageResult(package_hash, failure=failure)
        self.has_losses = True

    def give_up_bereft(self) -> None:
        """After a late failure, let those that relied on other packages try again."""
        if self.has_losses:
            words = "another package, with which it shares an object, failed; it is its turn again"
            for result in self.good:
                if result.package_hash in self.bereft:
                    failure = Failure(FailureKind.BEREFT, words, None)
                    self._lost(result.package_hash, failure)

    def outcomes(self, package_hashes: set[str], *, verified: bool) -> list[Outcome]:
        """Return what the ledger is to record of those of its good packages."""
        return [
            Outcome(
                self.claims[result.package_hash],
                tree_hash=result.tree_hash,
                list_hash=result.list_hash,
                digests=[result.digests[at : at + 32] for at in range(0, len(result.digests), 32)],
                files=result.files,
                size=result.size,
                added=self.added[result.package_hash] + result.list_allocated,
                deduplicated=result.objects_named - self.new[result.package_hash],
                verified=verified,
            )
            for result in self.good
            if result.package_hash in package_hashes
        ]

    def take(self, result: ObjectsResult) -> None:
        """Take note of what was copied, or published, of a package."""
        name = result.package_hash
        if result.staged:
            self.done[name].wanted.append(result.staged)
        if result.carriers:
            carriers = _carriers(result.carriers)
            self.carriers += carriers
            self.new[name] += len(carriers)
            self.added[name] += sum(carrier.allocated for carrier in carriers)
        if result.failure is not None:
            self._lost(name, result.failure)


@dataclass(slots=True)
class Large:
    """A large package while its slices are brought in."""

    slices: list[Slice]
    waiting: int
    wanted: list[bytes] = field(default_factory=list)
    to_copy: list[bytes] = field(default_factory=list)
    failure: Failure | None = None


def _tasks(parts: Iterable[tuple[str, bytes]]) -> Tasks:
    """Part the work with objects into tasks of about equal size."""
    tasks: Tasks = []
    room = 0
    for package_hash, packed in parts:
        if room < len(packed):
            tasks.append([])
            room = TASK_BYTES
        tasks[-1].append((package_hash, packed))
        room -= len(packed)
    return tasks


def packages_of(arguments: tuple[Any, ...]) -> list[str]:
    """Return the packages that a task with these arguments is about."""
    first = arguments[0]
    if isinstance(first, list):
        return [part if isinstance(part, str) else part[0] for part in first]
    return [first.package_hash if isinstance(first, Slice) else first]


def workers_keep_dying(error: BrokenExecutor) -> HaltedError:
    """Return the end of a run whose workers die before they did anything."""
    return HaltedError(
        "worker processes keep dying",
        why=str(error),
        advice="Often it is memory: see the kernel's messages, give fewer --jobs. From Python: the "
        "program needs its 'if __name__ == \"__main__\"' guard. Then run 'regrain migrate' again.",
    )
