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


def replace(top: int, name: str, where: str, path: str) -> str:
    """Replace a damaged directory at the store's top by a good one, in one step.

    The good one waits in quarantine and changes places there with the damaged one: killed at
    any point, neither is lost, and there always is one of that name.

    Args:
        top: The open top directory of the store.
        name: The damaged directory.
        where: The directory the good one is in.
        path: Its path below that.

    Returns:
        What the damaged one is called in quarantine.
    """
    aside = quarantine(top, where, path)
    with disk.Closing(disk.open_directory(layout.QUARANTINE, top)) as target:
        exchange_directories(aside.encode(), target, name.encode(), top)
        disk.fsync(top)
        disk.fsync(target)
    return aside
