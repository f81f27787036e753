"""``repack``: which objects are to lie compressed, or plain, and do not yet."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from regrain import disk
from regrain.maintain.heat import Heat
from regrain.maintain.wanted import WantedModes
from regrain.model.layout import SHARDS, compressed_carrier, further_carrier
from regrain.store.frames import Compression, Packer, block_size, has_holes
from regrain.store.objects import Carrier, carrier_flaw, carriers_in, object_path, size_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regrain.store.root import StoreRoot


_SAMPLE_OBJECTS = 100


class Choice(StrEnum):
    """What to compress; ``cold``: only what nothing outside the store is a hard link of."""

    ALL = "all"
    COLD = "cold"
    NONE = "none"


class Kept(StrEnum):
    """Why an object stays as it is, though it is not what was asked for."""

    SMALL = "too small, or does not shrink enough"
    SHARED = "share their inode with files outside the store"
    HOLES = "have holes"
    MODES = "have carriers of several modes"
    DAMAGED = "damaged"
    BUSY = "changed meanwhile"


@dataclass(slots=True)
class Repack:
    """What a change of representation takes, or took.

    Attributes:
        objects: Objects that change.
        size: Their bytes.
        before: What their carriers took on disk.
        after: What the new ones take; in a plan an estimate.
        freed: What the disk gets back: where the old ones had no other name, less the new ones.
        kept: How many objects stay, by reason.
        damaged: (carrier, what is wrong with it) of those that cannot be read.
        stopped: Whether it was ended early.
    """

    objects: int = 0
    size: int = 0
    before: int = 0
    after: int = 0
    freed: int = 0
    kept: Counter[Kept] = field(default_factory=Counter)
    damaged: list[tuple[str, str]] = field(default_factory=list)
    stopped: bool = False


class Change(NamedTuple):
    """A carrier that is to be replaced.

    Attributes:
        old: It.
        new: The name of the one that takes its place.
        is_there: Whether that has its name already: a run was killed in between.
        mode: The mode it is to have.
        is_last: Whether the old one goes; before that its object gets a carrier of every other
            mode that files of it have.
    """

    old: Carrier
    new: str
    is_there: bool
    mode: int
    is_last: bool = True


def foresee(root: StoreRoot, choice: Choice, compression: Compression) -> Repack:
    """Say what ``repack`` would do; change nothing.

    What compressing gives is estimated from a sample, of larger objects by their beginning.
    """
    found = Repack()
    block = block_size(root.objects)
    packer = Packer(compression, block)
    sample = _Sample(root, packer, block)
    shared = 0
    for change in changes(root, choice, packer, found):
        size = max(0, size_of(root.objects, change.old))
        if not change.is_last:
            found.after += -(-size // block) * block
            continue
        allocated = disk.allocated(change.old.status)
        found.objects += 1
        found.size += size
        found.before += allocated
        shared += allocated if change.old.status.st_nlink > 1 else 0
        if choice is Choice.NONE:
            found.after += -(-size // block) * block
        else:
            sample.take(found.objects, change.old)
    found.freed = found.before - shared - found.after
    if choice is not Choice.NONE:
        going, coming = sample.shares
        found.after = round(found.before * (1 - going + coming))
        found.freed = round((found.before - shared) * going - found.before * coming)
    return found


class _Sample:
    """Compresses every n-th object, fewer the more there are, and sums up what that gives."""

    def __init__(self, root: StoreRoot, packer: Packer, block: int) -> None:
        self._objects = root.objects
        self._packer = packer
        self._block = block
        self._next = 1
        self._all = self._going = self._coming = 0.0

    @property
    def shares(self) -> tuple[float, float]:
        """Of what objects take: the share of those that pay, and what these take compressed."""
        return self._going / (self._all or 1), self._coming / (self._all or 1)

    def take(self, number: int, carrier: Carrier) -> None:
        """Take the ``number``-th object, or pass it over."""
        if number < self._next:
            return
        self._next = number + 1 + number // _SAMPLE_OBJECTS
        with (
            contextlib.suppress(OSError),
            disk.Closing(disk.open_file(object_path(carrier.name), self._objects)) as fd,
        ):
            content = os.read(fd, disk.PIECE)
            plain = disk.allocated(carrier.status)
            packed = self._packer.pack(content)
            self._all += plain
            if packed is not None:
                self._going += plain
                self._coming += plain * self._blocks(packed) / self._blocks(content)

    def _blocks(self, content: bytes) -> int:
        return -(-len(content) // self._block)


def changes(root: StoreRoot, choice: Choice, packer: Packer, done: Repack) -> Iterator[Change]:
    """Yield what is to be changed; count what stays."""
    heat = Heat(root) if choice is Choice.COLD else None
    modes = WantedModes(root)
    for shard in SHARDS:
        for _, group in groupby(carriers_in(root.objects, shard), lambda one: one.digest):
            carriers = list(group)
            flaws = [(one.name, carrier_flaw(one, root.owner)) for one in carriers]
            if any(flaw for _, flaw in flaws):
                done.kept[Kept.DAMAGED] += 1
                done.damaged += [(name, flaw) for name, flaw in flaws if flaw]
                continue
            found = (
                _to_plain(carriers, modes)
                if choice is Choice.NONE
                else _to_compressed(root, heat, packer, carriers)
            )
            if isinstance(found, Kept):
                done.kept[found] += 1
            else:
                yield from found


def _to_plain(carriers: list[Carrier], modes: WantedModes) -> list[Change]:
    """Return what makes an object plain: one frame may have served files of several modes."""
    compressed = [one for one in carriers if one.is_compressed]
    if not compressed:
        return []
    old = compressed[0]
    plain = {one.mode: one.name for one in carriers if not one.is_compressed}
    found = [
        Change(old, further_carrier(old.digest, mode), is_there=False, mode=mode, is_last=False)
        for mode in sorted(modes.of(old.digest) - plain.keys() - {old.mode})
    ]
    if old.mode in plain:
        return [*found, Change(old, plain[old.mode], is_there=True, mode=old.mode)]
    is_bare_free = old.digest not in plain.values()
    name = old.digest if is_bare_free else further_carrier(old.digest, old.mode)
    return [*found, Change(old, name, is_there=False, mode=old.mode)]


def _to_compressed(
    root: StoreRoot, heat: Heat | None, packer: Packer, carriers: list[Carrier]
) -> list[Change] | Kept:
    """Return what to do with an object: nothing where it is compressed, and nothing else."""
    plain = [one for one in carriers if not one.is_compressed]
    if not plain:
        return []
    if len({one.mode for one in carriers}) > 1:
        return Kept.MODES
    old = plain[0]
    if heat is not None and heat.is_hot(old):
        return Kept.SHARED
    if not packer.size_max(old.status.st_size):
        return Kept.SMALL
    is_there = len(plain) < len(carriers)
    if not is_there and _has_holes(root, old):
        return Kept.HOLES
    return [Change(old, compressed_carrier(old.digest), is_there=is_there, mode=old.mode)]


def _has_holes(root: StoreRoot, carrier: Carrier) -> bool:
    try:
        with disk.Closing(disk.open_file(object_path(carrier.name), root.objects)) as fd:
            return has_holes(fd, carrier.status.st_size)
    except FileNotFoundError:  # collected at this moment
        return False
