"""Damaged things are moved aside, never deleted without being asked."""

from __future__ import annotations

from regrain import disk
from regrain.errors import CorruptionError
from regrain.model import layout

_SAME_NAMES_MAX = 1_000_000


def quarantine(top: int, where: str, path: str) -> str:
    """Move a damaged thing aside; return its new name.

    Args:
        top: The open top directory of the store.
        where: The directory it is in: ``objects``, ``packages`` or ``trash``.
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
                disk.rename_noreplace(path.encode(), source, new.encode(), target)
            except FileExistsError:
                continue
            disk.fsync(target)
            return new
    raise CorruptionError("quarantine is full of one name", path=name)
