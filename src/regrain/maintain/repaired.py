"""What a repair hands back: one value for each damaged thing."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Subject(StrEnum):
    """What was damaged."""

    OBJECT = "object"
    FILE_LIST = "file_list"
    COPIES = "copies"
    LEGACY = "legacy"
    LEDGER = "ledger"


class Outcome(StrEnum):
    """What became of it."""

    HEALED = "healed"
    PENDING = "pending"
    """It is read from its legacy directory, and the next migration brings it in anew."""
    ASIDE = "moved_aside"
    """Nobody needs it; it is in quarantine."""
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Repair:
    """One damaged thing, and what became of it.

    Attributes:
        subject: What it is.
        name: The carrier, or the package.
        why: What was wrong with it.
        outcome: What became of it.
        source: Where its good form came from; empty if there was none.
        aside: What the damaged one is called in quarantine; empty if nothing went there.
        concerns: The packages and paths that need it; of a whole package the path is empty.
        shared: Of these the legacy files that are the same damaged inode.
        advice: What to do, where it could not be healed.
    """

    subject: Subject
    name: str
    why: str
    outcome: Outcome
    source: str = ""
    aside: str = ""
    concerns: tuple[tuple[str, bytes], ...] = ()
    shared: tuple[tuple[str, bytes], ...] = ()
    advice: str = ""


@dataclass(slots=True)
class Report:
    """What a repair did, or would do.

    Attributes:
        repairs: Every damaged thing.
        stopped: Whether it was ended early.
    """

    repairs: list[Repair] = field(default_factory=list)
    stopped: bool = False

    @property
    def lost(self) -> list[Repair]:
        """What could not be healed."""
        return [one for one in self.repairs if one.outcome is Outcome.LOST]

    @property
    def packages(self) -> list[str]:
        """The packages concerned."""
        return sorted({name for one in self.repairs for name, _ in one.concerns if name})
