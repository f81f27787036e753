"""What a run is told, what it keeps in hand, and what it reports."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from regrain.errors import HaltedError
from regrain.ledger import NewCarrier, Outcome
from regrain.migrate.jobs import Slice, unpacker

if TYPE_CHECKING:
    from concurrent.futures import BrokenExecutor

    from regrain.ledger import Claim
    from regrain.migrate.jobs import Failure, PackageResult

_carriers = unpacker(NewCarrier)

TASK_BYTES = 128 << 10
"""Objects are published in tasks of about a thousand: so many bytes of packed wishes."""


DEATHS_MAX = 5
"""So many deaths of workers without any result between them are not a package's doing."""


@dataclass(frozen=True, slots=True)
class Orders:
    """What a run is to take, and how.

    Attributes:
        limit: How many packages to take at the most.
        only: A glob packages must match.
        verified: Whether workers compare packages with their source.
    """

    limit: int | None = None
    only: str | None = None
    verified: bool = True


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did."""

    completed: int
    failed: int
    stopped: bool
    paused: bool = False


@dataclass(slots=True)
class Batch:
    """Packages that are committed together.

    Attributes:
        claims: Them, by hash.
        done: What became of each.
        parts: Tasks that publish its objects and are not done yet; None before the first.
        carriers: What those published.
        new: How many of these each package brought.
        added: What they take on disk.
    """

    claims: dict[str, Claim]
    done: dict[str, PackageResult] = field(default_factory=dict)
    parts: int | None = None
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

    def object_tasks(self) -> list[list[tuple[str, bytes]]]:
        """Return what is to be published, parted into tasks of about equal work."""
        tasks: list[list[tuple[str, bytes]]] = []
        room = 0
        for result in self.good:
            for wanted in result.wanted:
                if room < len(wanted):
                    tasks.append([])
                    room = TASK_BYTES
                tasks[-1].append((result.package_hash, wanted))
                room -= len(wanted)
        return tasks

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

    def credit(self, package_hash: str, packed: bytes) -> None:
        """Take note of carriers (packed) that were published for a package."""
        carriers = _carriers(packed)
        self.carriers += carriers
        self.new[package_hash] += len(carriers)
        self.added[package_hash] += sum(carrier.allocated for carrier in carriers)


@dataclass(slots=True)
class Large:
    """A large package while its slices are brought in."""

    slices: list[Slice]
    waiting: int
    wanted: list[bytes] = field(default_factory=list)
    failure: Failure | None = None


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
