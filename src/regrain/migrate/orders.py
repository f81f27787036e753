"""What a run is told, what it keeps in hand, and what it reports."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from regrain.ledger import Claim
    from regrain.migrate.jobs import Failure, PackageResult, Slice


@dataclass(frozen=True, slots=True)
class Orders:
    """What a run is to take, and how.

    Attributes:
        batch: Packages committed together.
        jobs: Worker processes.
        limit: How many packages to take at the most.
        only: A glob packages must match.
        verified: Whether workers compare packages with their source.
    """

    batch: int
    jobs: int
    limit: int | None = None
    only: str | None = None
    verified: bool = True


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did."""

    completed: int
    failed: int
    stopped: bool


@dataclass(slots=True)
class Batch:
    """Packages that are committed together."""

    claims: dict[str, Claim]
    done: dict[str, PackageResult] = field(default_factory=dict)

    @property
    def is_done(self) -> bool:
        """Whether nothing of it is with the workers any more."""
        return len(self.done) == len(self.claims)


@dataclass(slots=True)
class Large:
    """A large package while its slices are brought in."""

    slices: list[Slice]
    waiting: int
    needed: set[str] = field(default_factory=set)
    bytes_read: int = 0
    failure: Failure | None = None
