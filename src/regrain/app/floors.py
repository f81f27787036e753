"""How much of a file system a command leaves free."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from regrain.migrate.room import Floors
from regrain.settings import Migration

if TYPE_CHECKING:
    from regrain.settings import Settings

_PARTS_MIN = 1000


def floors_of(fd: int | str, settings: Settings) -> Floors:
    """Return what is to stay free on the file system of an open directory, or of a path.

    The defaults are made for disks of terabytes. Where nobody set others, at the most a
    thousandth of the file system is asked for: a small disk is no reason to refuse all work.
    """
    limits, defaults, space = settings.migration, Migration(), os.statvfs(fd)
    size, inodes = limits.free_bytes_min, limits.free_inodes_min
    if size == defaults.free_bytes_min:
        size = min(size, space.f_blocks * space.f_frsize // _PARTS_MIN)
    if inodes == defaults.free_inodes_min:
        inodes = min(inodes, space.f_files // _PARTS_MIN)
    return Floors(size, inodes)
