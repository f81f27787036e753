"""The states of a package's migration and the legal moves, written down once.

The ledger's CHECK constraint and trigger are made from these tables.
"""

from __future__ import annotations

from enum import StrEnum

LEGACY_CHANGED = "legacy directory: "
"""How the words begin that only a deep verification, which looks at that directory, takes back."""


class Status(StrEnum):
    """Where the migration of a package stands."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"


NEXT: dict[Status, frozenset[Status]] = {
    Status.PENDING: frozenset({Status.IN_PROGRESS}),
    Status.IN_PROGRESS: frozenset({Status.COMPLETED, Status.FAILED, Status.PENDING}),
    Status.COMPLETED: frozenset({Status.PENDING, Status.ROLLED_BACK}),
    Status.FAILED: frozenset({Status.PENDING}),
    Status.ROLLED_BACK: frozenset({Status.COMPLETED, Status.PENDING}),
}
"""The states that may follow each state."""
