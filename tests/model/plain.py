"""The plain model: what a store holds, in dictionaries, and what each command makes of it.

Written from the contract. Every command returns the exit code it has to end with, and changes
the model as the store has to change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from tests.compare import Snapshot, differences
from tests.model.trees import is_special

LEGACY_PHASES = ("rolling_back", "rolled_back")
OPEN = ("pending", "failed", "rolled_back")
"""What a cutover does not let pass."""


@dataclass(slots=True)
class Known:
    """One package.

    Attributes:
        legacy: Its legacy directory.
        published: Its tree at the file level.
        status: Of its migration; empty where it never had a legacy directory.
        excluded: Whether it is set aside.
        concern: Whether something stands against it.
        gone: Whether its legacy directory is known to be gone.
    """

    legacy: Snapshot | None = None
    published: Snapshot | None = None
    status: str = ""
    excluded: bool = False
    concern: bool = False
    gone: bool = False

    @property
    def is_twin(self) -> bool:
        """Whether it lies in both layouts."""
        return self.legacy is not None and self.published is not None

    @property
    def differs(self) -> bool:
        """Whether its two layouts part."""
        return self.is_twin and not same(self.legacy, self.published)

    def unpublish(self) -> None:
        """Take away what is published; the legacy directory is there."""
        self.published, self.gone = None, False


def same(left: Snapshot | None, right: Snapshot | None) -> bool:
    """Whether two trees are equal in everything, or both are none."""
    if left is None or right is None:
        return left is right
    return left is right or not differences(left, right)


@dataclass(slots=True)
class Plain:
    """A store."""

    phase: str = "dual"
    known: dict[str, Known] = field(default_factory=dict)

    def copy(self) -> Plain:
        """Return another that can go its own way."""
        return Plain(self.phase, {name: replace(one) for name, one in self.known.items()})

    def seen(self, name: str) -> Snapshot | None:
        """Return what a reader gets of a package."""
        one = self.known.get(name, Known())
        if self.phase == "rolled_back" or one.published is None:
            return one.legacy
        return one.published

    def visible(self) -> dict[str, Snapshot]:
        """Return what a reader gets."""
        found = ((name, self.seen(name)) for name in sorted(self.known))
        return {name: tree for name, tree in found if tree is not None}

    def statuses(self) -> dict[str, str]:
        """Return what the ledger has to say."""
        return {name: one.status for name, one in self.known.items() if one.status}

    def _where(self, chosen: Callable[[Known], bool]) -> Iterator[tuple[str, Known]]:
        return ((name, one) for name, one in sorted(self.known.items()) if chosen(one))

    # others

    def appear(self, name: str, tree: Snapshot) -> None:
        """A package manager puts a package there."""
        self.known.setdefault(name, Known()).legacy = tree

    def vanish(self, name: str) -> None:
        """It takes one away."""
        self.known[name].legacy = None
        self._drop_if_forgotten(name)

    def _drop_if_forgotten(self, name: str) -> None:
        one = self.known[name]
        if one.legacy is None and one.published is None and not one.status:
            del self.known[name]

    # packages come and go

    def add(self, name: str, tree: Snapshot) -> int:
        """Add a package, from a directory or an archive."""
        there = self.seen(name)
        if is_special(tree):
            return 1
        if there is not None:
            return 0 if same(there, tree) else 1
        one = self.known.setdefault(name, Known())
        if self.phase in LEGACY_PHASES:
            one.legacy = tree
            one.status = one.status or "pending"
        else:
            one.published = tree
        return 0

    def remove(self, name: str) -> int:
        """Remove a package, from both layouts, or one that is only remembered."""
        if self.seen(name) is None and not self.known.get(name, Known()).status:
            return 1
        del self.known[name]
        return 0

    def exclude(self, name: str) -> int:
        """Set a package aside."""
        if self.seen(name) is None:
            return 1
        one = self.known[name]
        if one.legacy is None:
            return 5
        if not one.excluded:
            one.excluded, one.concern, one.status = True, False, "pending"
            one.unpublish()
        return 0

    def include(self, name: str) -> int:
        """Take a package back in."""
        if self.seen(name) is None:
            return 1
        self.known[name].excluded = False
        return 0

    # what is looked at

    def reconcile(self, *, full: bool) -> None:
        """Take in what others did."""
        for _, one in self._where(lambda one: one.legacy is not None):
            if not one.status:
                self._take_in(one, full=full)
            elif one.gone or (full and one.status == "completed" and not one.excluded):
                one.concern = one.concern or one.differs
                one.gone = one.gone and one.differs
        for _, one in self._where(lambda one: one.legacy is None and bool(one.status)):
            if one.published is None:
                one.status = "failed"
            elif not one.gone:
                one.gone = True
                one.status = "completed" if one.status in {"pending", "failed"} else one.status

    @staticmethod
    def _take_in(one: Known, *, full: bool) -> None:
        if one.concern and not full:
            return
        if one.published is None:
            one.status = "pending"
        elif one.differs:
            one.concern = True
        else:
            one.status = "completed"

    def verify(self) -> int:
        """Verify the whole store, deep."""
        for _, one in self._where(lambda one: one.published is not None):
            one.concern = one.differs
        return 3 if any(one.differs for one in self.known.values()) else 0

    def rebuild(self) -> int:
        """Make the ledger anew from what lies on disk."""
        for one in self.known.values():
            one.gone = False
            if one.legacy is None:
                one.status = ""
            elif one.published is None:
                one.status = "pending"
            else:
                one.status = "rolled_back" if self.phase == "rolled_back" else "completed"
        for name in list(self.known):
            self._drop_if_forgotten(name)
        return 0

    # from phase to phase

    def begin(self) -> int:
        """Begin a migration: whatever was undone is taken up again."""
        if self.phase == "rolling_back":
            return 5
        for _, one in self._where(lambda o: o.status == "rolled_back" and not o.excluded):
            if one.published is None or one.differs:
                one.status = "pending"
                one.unpublish()
            else:
                one.status = "completed"
        if self.phase == "rolled_back":
            self.phase = "dual"
        return 0

    def accept(self, name: str) -> int:
        """Let a legacy directory replace what is published."""
        if self.seen(name) is None:
            return 1
        one = self.known[name]
        if one.legacy is None or one.excluded:
            return 5
        if is_special(one.legacy):
            return 1
        one.status, one.concern, one.gone = "pending", False, False
        return 0

    def waiting(self) -> set[str]:
        """Return the packages that a migration takes."""
        return {n for n, _ in self._where(lambda o: o.status == "pending" and not o.excluded)}

    def retry(self) -> None:
        """Put failed packages back in the queue."""
        for _, one in self._where(lambda one: one.status == "failed"):
            one.status = "pending"

    def migrate(self, names: set[str]) -> int:
        """Migrate these, all of which wait."""
        code = 0
        for name in names:
            one = self.known[name]
            if one.legacy is None or is_special(one.legacy):
                one.status, code = "failed", 3
            else:
                one.published, one.status = one.legacy, "completed"
        return code

    def cutover(self) -> int:
        """Let reads go to the file level."""
        if self.phase != "dual":
            return 0 if self.phase == "file_level" else 5
        self.reconcile(full=True)
        mine = [one for one in self.known.values() if not one.excluded]
        if any(one.concern or one.status in OPEN for one in mine):
            return 5
        self.phase = "file_level"
        return 0

    def cleanup(self, limit: int | None) -> int:
        """Remove legacy directories that are proved."""
        if self.phase not in {"file_level", "clean"}:
            return 5
        there = [
            one
            for _, one in self._where(lambda one: one.legacy is not None)
            if one.status == "completed" and not one.excluded and one.published is not None
        ]
        kept = [one for one in there if one.concern]
        going = [one for one in there if not one.concern][:limit]
        for one in going:
            if one.differs:
                one.concern = True
                kept.append(one)
            else:
                one.legacy, one.gone = None, True
        left = any(one.legacy is not None and not one.excluded for one in self.known.values())
        if self.phase == "file_level" and not left:
            self.phase = "clean"
        return 3 if kept else 0

    def roll_back(self) -> int:
        """Go back to the legacy layout."""
        if self.phase == "rolled_back":
            self._all_rolled_back()
            return 0
        self.phase = "rolling_back"
        for _, one in self._where(lambda one: one.published is not None and one.legacy is None):
            one.legacy, one.gone = one.published, False
            one.status = one.status or "completed"
        bad = [one for one in self.known.values() if one.differs]
        for one in bad:
            one.concern = True
        if bad:
            return 3
        for _, one in self._where(lambda one: one.is_twin and not one.status):
            one.status = "completed"
        self._all_rolled_back()
        self.phase = "rolled_back"
        return 0

    def _all_rolled_back(self) -> None:
        for _, one in self._where(lambda one: one.status == "completed"):
            one.status = "rolled_back"

    def roll_one_back(self, name: str) -> int:
        """Read one package from its legacy directory again."""
        if self.phase != "dual":
            return 5
        if self.seen(name) is None:
            return 1
        one = self.known[name]
        if one.published is None:
            return 0
        if one.legacy is None:
            return 5
        if one.differs:
            return 3
        one.unpublish()
        if one.status == "completed":
            one.status = "rolled_back"
        return 0

    def purge(self) -> int:
        """Drop what is published of a store that was rolled back."""
        alone = any(o.published is not None and o.legacy is None for o in self.known.values())
        if self.phase != "rolled_back" or alone:
            return 5
        self._all_rolled_back()
        for one in self.known.values():
            if one.published is not None:
                one.unpublish()
            if one.status == "rolled_back" and not one.excluded:
                one.status = "pending"
        return 0
