"""Doctor: one walk over ``objects/``, by ``stat`` alone. What the bytes are, ``verify`` tells."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from regrain import disk
from regrain.maintain.abilities import LINKS_MAX, mount_of
from regrain.maintain.doctor_findings import Finding, Weight, listed, several, some
from regrain.maintain.doctor_places import strange_packages
from regrain.model import layout
from regrain.model.layout import parse_carrier
from regrain.store.objects import carrier_flaw, carriers_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from regrain.store.root import StoreRoot

_NEAR = 0.9


@dataclass(slots=True)
class Tally:
    """What the walk saw.

    Attributes:
        carriers: How many.
        allocated: What they take on disk.
        shared: Those with names outside ``objects/``.
        shared_bytes: What these take on disk.
        flaws: (carrier, what is wrong with its metadata).
        crowded: Carriers with nearly as many names as an inode can have.
        most_links: The most names that any carrier has.
        missing_shards: Of the 256 directories.
        shard_flaws: Shards of a wrong owner, mode or type.
        strangers: Names that are no carriers, or lie in the wrong shard.
    """

    carriers: int = 0
    allocated: int = 0
    shared: int = 0
    shared_bytes: int = 0
    flaws: list[tuple[str, str]] = field(default_factory=list)
    crowded: list[str] = field(default_factory=list)
    most_links: int = 0
    missing_shards: list[str] = field(default_factory=list)
    shard_flaws: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)


def check_objects(root: StoreRoot, on_shard: Callable[[int], None]) -> Iterator[Finding]:
    """Walk ``objects/`` and judge what is there; look at the names in ``packages/``."""
    mount = mount_of(root.objects)
    links_max = None if mount is None else LINKS_MAX.get(mount.kind)
    tally = _walk(root, None if links_max is None else int(links_max * _NEAR), on_shard)
    yield Finding(
        "objects",
        Weight.OK,
        several(tally.carriers, "object takes", "objects take")
        + f" {tally.allocated:,} bytes; what is in them was not read, which is the work of "
        "'regrain verify'",
        figures={
            "carriers": tally.carriers,
            "allocated_bytes": tally.allocated,
            "links_max": links_max,
            "most_links": tally.most_links,
        },
    )
    yield from _judge_shards(tally)
    yield from _judge_carriers(tally, links_max)
    yield from strange_packages(root)


def _walk(root: StoreRoot, links_warn: int | None, on_shard: Callable[[int], None]) -> Tally:
    tally = Tally()
    found = {os.fsdecode(name) for name in os.listdir(root.objects)}
    tally.strangers = sorted(found - set(layout.SHARDS))
    for number, shard in enumerate(layout.SHARDS, 1):
        if shard not in found:
            tally.missing_shards.append(shard)
            continue
        if not _is_good_shard(root, shard):
            tally.shard_flaws.append(shard)
        for carrier in carriers_in(root.objects, shard):
            status = carrier.status
            taken = disk.allocated(status)
            tally.carriers += 1
            tally.allocated += taken
            tally.most_links = max(tally.most_links, status.st_nlink)
            if status.st_nlink > 1:
                tally.shared += 1
                tally.shared_bytes += taken
            if links_warn is not None and status.st_nlink >= links_warn:
                tally.crowded.append(carrier.name)
            flaw = carrier_flaw(carrier, root.owner)
            if flaw:
                tally.flaws.append((carrier.name, flaw))
        tally.strangers += _strangers(root, shard)
        on_shard(number)
    return tally


def _is_good_shard(root: StoreRoot, shard: str) -> bool:
    status = os.stat(shard, dir_fd=root.objects, follow_symlinks=False)
    parent = stat.S_IMODE(os.fstat(root.objects).st_mode)
    mode = stat.S_IMODE(status.st_mode)
    return (
        stat.S_ISDIR(status.st_mode)
        and (status.st_uid, status.st_gid) == root.owner
        and not mode & 0o022
        and not parent & 0o755 & ~mode
    )


def _strangers(root: StoreRoot, shard: str) -> list[str]:
    try:
        with disk.Closing(disk.open_directory(shard, root.objects)) as fd:
            names = os.listdir(fd)
    except NotADirectoryError:
        return []
    parsed = {name: parse_carrier(name) for name in names}
    return sorted(
        f"{shard}/{name}"
        for name, carrier in parsed.items()
        if carrier is None or not name.startswith(shard)
    )


def _judge_shards(tally: Tally) -> Iterator[Finding]:
    if tally.missing_shards:
        yield Finding(
            "objects",
            Weight.ERROR,
            several(len(tally.missing_shards), "directory", "directories")
            + f" of objects/ missing: {some(tally.missing_shards)}",
            "Restore them from a backup; 'regrain init' makes empty ones, and "
            "'regrain verify' tells what was lost.",
            {"shards": tally.missing_shards},
            corrupt=True,
        )
    if tally.shard_flaws:
        yield Finding(
            "objects",
            Weight.WARNING,
            several(len(tally.shard_flaws), "directory", "directories")
            + f" of objects/ with a wrong owner, mode or type: {some(tally.shard_flaws)}",
            "Give them the owner and the mode of objects/ itself.",
            {"shards": tally.shard_flaws},
        )
    if tally.strangers:
        yield Finding(
            "objects",
            Weight.WARNING,
            several(len(tally.strangers), "name", "names")
            + f" in objects/ of no object: {some(tally.strangers)}",
            "Move them out of the store.",
            {"names": listed(tally.strangers)},
        )


def _judge_carriers(tally: Tally, links_max: int | None) -> Iterator[Finding]:
    if tally.flaws:
        name, why = tally.flaws[0]
        yield Finding(
            "objects",
            Weight.ERROR,
            several(len(tally.flaws), "object was changed", "objects were changed")
            + f", the first being {name}: {why}",
            "Find out who did it, put owner and mode back, and run 'regrain verify --repair'.",
            {"objects": [{"name": name, "reason": why} for name, why in tally.flaws[:1000]]},
            corrupt=True,
        )
    if tally.crowded:
        yield Finding(
            "objects",
            Weight.WARNING,
            several(len(tally.crowded), "object has", "objects have")
            + f" nearly the {links_max or 0:,} names that an inode can have here: "
            f"{some(tally.crowded)}",
            "Nothing breaks at the limit, copies are made instead; remove shared checkouts that "
            "are of no use any more.",
            {"names": listed(tally.crowded), "links_max": links_max},
        )
    if tally.shared:
        yield Finding(
            "objects",
            Weight.ADVICE,
            f"of {several(tally.carriers, 'object', 'objects')}, {tally.shared:,} "
            f"({tally.shared_bytes:,} bytes) "
            f"{'has' if tally.shared == 1 else 'have'} a name outside objects/, too: "
            "an in-place write hits both, "
            "and only a backup protects",
            "Keep a backup of the store.",
            {"objects": tally.shared, "bytes": tally.shared_bytes},
        )
