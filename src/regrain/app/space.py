"""What a store takes on disk, part by part: before, now, and after a cleanup."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from regrain import disk
from regrain.ledger import open_ledger, read_beside
from regrain.model import layout
from regrain.model.status import Status
from regrain.store.objects import carriers_in
from regrain.store.occupancy import Occupancy
from regrain.store.root import legacy_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from regrain.ledger import Standing, Totals
    from regrain.ledger.weighing import Weights
    from regrain.store.root import StoreRoot

QUICK_NAMES_MAX = 300_000
"""Up to so many files and objects ``status`` measures unasked: that takes a second or two."""

_LEDGER = tuple(f"{layout.LEDGER}{end}" for end in ("", "-wal", "-shm", "-journal"))
_ASIDE = (layout.STORE_FILE, layout.TEMP, layout.TRASH, layout.QUARANTINE, layout.MIGRATION)


@dataclass(frozen=True, slots=True)
class Space:
    """Bytes on disk of a store, each inode once, where it is met first, in this order.

    Attributes:
        objects: The carriers.
        file_lists: What lies in ``packages/``: file lists and copies for people.
        directories: The top directory, ``objects/`` and its parts.
        ledger: The database.
        aside: ``store.toml``, logs, locks; what is staged, on its way out, or in quarantine.
        foreign: What is none of regrain's.
        legacy: What legacy directories have for themselves.
        removable: Of these bytes what a cleanup takes.
        shared_extents: Bytes counted twice above: extents that files share by reflink.
        removable_extents: Likewise of what a cleanup takes.
        before: Legacy directories as they were found, and files of packages that had none.
        files: Bytes of all files of published packages.
        contents: Bytes of their distinct contents.
        compressed: Bytes of the contents that lie compressed.
        frames: The bytes of their frames.
        unread: Names that could not be looked at.
    """

    objects: int
    file_lists: int
    directories: int
    ledger: int
    aside: int
    foreign: int
    legacy: int
    removable: int
    shared_extents: int
    removable_extents: int
    before: int
    files: int
    contents: int
    compressed: int
    frames: int
    unread: int

    @property
    def overhead(self) -> int:
        """What regrain takes beside the contents of files."""
        return self.file_lists + self.directories + self.ledger + self.aside

    @property
    def allocated(self) -> int:
        """The whole store, as ``du`` gives it."""
        return self.objects + self.overhead + self.foreign + self.legacy

    @property
    def now(self) -> int:
        """The whole store, shared extents once."""
        return self.allocated - self.shared_extents

    @property
    def after(self) -> int:
        """The whole store, once a cleanup took the legacy directories it may take."""
        return self.now - self.removable + self.removable_extents

    @property
    def dedup_ratio(self) -> float | None:
        """How many times the published packages have each byte of content; None without any."""
        return self.files / self.contents if self.contents else None

    @property
    def compression_ratio(self) -> float | None:
        """How many times smaller what lies compressed is; None where nothing does."""
        return self.compressed / self.frames if self.frames else None

    @property
    def saved_share(self) -> float | None:
        """The share of ``before`` that is saved ``after``; None where nothing was before."""
        return 1 - self.after / self.before if self.before else None

    def document(self) -> dict[str, object]:
        """Return it as ``status --json`` has it."""
        return {
            "before_bytes": self.before,
            "now_bytes": self.now,
            "after_bytes": self.after,
            "saved_share": self.saved_share,
            "allocated_bytes": self.allocated,
            "shared_extents_bytes": self.shared_extents,
            "objects_bytes": self.objects,
            "legacy_bytes": self.legacy,
            "foreign_bytes": self.foreign,
            "overhead_bytes": self.overhead,
            "file_lists_bytes": self.file_lists,
            "directories_bytes": self.directories,
            "ledger_bytes": self.ledger,
            "aside_bytes": self.aside,
            "dedup_ratio": self.dedup_ratio,
            "compression_ratio": self.compression_ratio,
            "unread_names": self.unread,
        }


def is_quick(totals: Totals) -> bool:
    """Tell whether a store is measured unasked, since that takes a second or two at the most."""
    return totals.files + totals.objects <= QUICK_NAMES_MAX


def measure(root: StoreRoot) -> Space:
    """Look at every inode of a store; change nothing.

    Raises:
        CorruptionError: The ledger is missing or broken.
    """
    ledger = open_ledger(root.path, read_only=True)
    try:
        known = ledger.weights(), ledger.standings()
    finally:
        ledger.close()
    return _measure(root, *known)


def measure_beside(root: StoreRoot) -> Space:
    """Do the same without a trace, beside whoever writes to the ledger.

    Raises:
        RegrainError: The ledger cannot be read.
    """
    return _measure(root, *read_beside(root.path, lambda one: (one.weights(), one.standings())))


def _measure(root: StoreRoot, weights: Weights, standings: dict[str, Standing]) -> Space:
    legacy, foreign = legacy_names(root.fd)
    removable = {
        name
        for name in legacy
        if (one := standings.get(name)) and one.status is Status.COMPLETED and not one.is_excluded
    }
    walk = _Walk(root)
    objects, frames = walk.objects()
    file_lists = walk.added(walk.trees, [layout.PACKAGES])
    directories = walk.added(walk.directories)
    database = walk.added(walk.trees, _LEDGER)
    aside = walk.added(walk.trees, _ASIDE)
    others = walk.added(walk.trees, foreign)
    staying = walk.added(walk.trees, sorted(set(legacy) - removable))
    doubled = walk.occupied.doubled
    going = walk.added(walk.trees, sorted(removable))
    return Space(
        objects=objects,
        file_lists=file_lists,
        directories=directories,
        ledger=database,
        aside=aside,
        foreign=others,
        legacy=staying + going,
        removable=going,
        shared_extents=walk.occupied.doubled,
        removable_extents=walk.occupied.doubled - doubled,
        before=weights.before,
        files=weights.files,
        contents=weights.objects,
        compressed=weights.compressed,
        frames=frames,
        unread=walk.occupied.unread,
    )


class _Walk:
    """One look at a store, part after part."""

    def __init__(self, root: StoreRoot) -> None:
        self._root = root
        self.occupied = Occupancy(reads_extents=disk.shares_extents(root.fd))

    def added(self, part: Callable[..., None], *names: Iterable[str]) -> int:
        """Add a part; return the bytes on disk that were new."""
        before = self.occupied.allocated
        part(*names)
        return self.occupied.allocated - before

    def objects(self) -> tuple[int, int]:
        """Add all carriers; return their bytes on disk, and the bytes of frames."""
        frames = 0
        with disk.Closing(disk.reopen(self._root.objects)) as objects:
            for shard in layout.SHARDS:
                for carrier in carriers_in(objects, shard):
                    self.occupied.add_status(carrier.status, f"{shard}/{carrier.name}", objects)
                    frames += carrier.status.st_size if carrier.is_compressed else 0
        return self.occupied.allocated, frames

    def trees(self, names: Iterable[str]) -> None:
        """Add what lies at the top."""
        for name in names:
            self.occupied.add_tree(name, self._root.fd)

    def directories(self) -> None:
        """Add the top directory, ``objects/`` and what is in it beside carriers."""
        self.occupied.add_status(os.fstat(self._root.fd), ".", self._root.fd)
        self.occupied.add_status(os.fstat(self._root.objects), ".", self._root.objects)
        with disk.Closing(disk.reopen(self._root.objects)) as objects:
            for name, _ in disk.list_directory(objects):
                self.occupied.add(name, objects)
