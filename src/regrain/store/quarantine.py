"""Damaged things are moved aside, never deleted without being asked."""

from __future__ import annotations

from regrain import disk
from regrain.errors import CorruptionError
from regrain.model import layout
from regrain.store.moving import exchange_directories, move_directory

_SAME_NAMES_MAX = 1_000_000


def quarantine(top: int, where: str, path: str) -> str:
    """Move a damaged thing aside; return its new name.

    Args:
        top: The open top directory of the store.
        where: The directory it is in, at the store's top.
        path: What to move, below that.
    """
    name = path.rpartition("/")[2]
    with (
        disk.Closing(disk.open_directory(where, top)) as source,
        disk.Closing(disk.open_directory(layout.QUARANTINE, top)) as target,
    ):
        for number in range(_SAME_NAMES_MAX):
            new = f"{name}.{number}"
            try:
                move_directory(path.encode(), source, new.encode(), target)
            except FileExistsError:
                continue
            disk.fsync(target)
            return new
    raise CorruptionError("quarantine is full of one name", path=name)


def replace(top: int, name: str, where: str, path: str, at: int | None = None) -> str:
    """Replace something damaged by something good, in one step.

    The good one waits in quarantine and changes places there with the damaged one: killed at
    any point, neither is lost, and there always is one of that name.

    Args:
        top: The open top directory of the store.
        name: The damaged one.
        where: The directory the good one is in.
        path: Its path below that.
        at: The open directory that ``name`` is below; the top by default.

    Returns:
        What the damaged one is called in quarantine.
    """
    place = top if at is None else at
    aside = quarantine(top, where, path)
    parent = name.rpartition("/")[0]
    with (
        disk.Closing(disk.open_directory(layout.QUARANTINE, top)) as target,
        disk.Closing(disk.descend(parent.encode(), place)) as changed,
    ):
        exchange_directories(aside.encode(), target, name.encode(), place)
        disk.fsync(changed)
        disk.fsync(target)
    return aside
