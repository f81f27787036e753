"""What lies on disk: allocated bytes, each inode once, as ``du`` counts; shared extents once."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from regrain import disk
from regrain.disk_linux import shared_extents

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    Extent = tuple[int, int]
    Inode = tuple[int, int]

_NOT_SEEN = frozenset({errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENOTDIR})
"""What looking at a name answers where this user may not look, or it became something else."""


@dataclass(slots=True)
class Link:
    """An inode with several names.

    Attributes:
        names: How many it has.
        allocated: Its bytes on disk.
        met: How many of its names were added.
    """

    names: int
    allocated: int
    met: int = 0


class Occupancy:
    """Adds up trees. What has several names counts where it is met first.

    A tree that changes meanwhile is counted as it was met: what vanishes counts nothing.

    Args:
        reads_extents: Whether to ask which extents files share, which takes opening them.

    Attributes:
        allocated: Bytes on disk of all that was added, as ``du`` gives them.
        unread: Names that this user may not look at, or into.
        links: Inodes with several names.
        extents: Shared extents that were met, each as often as it was.
    """

    def __init__(self, *, reads_extents: bool = False) -> None:
        self._reads_extents = reads_extents
        self.allocated = 0
        self.unread = 0
        self.links: dict[Inode, Link] = {}
        self.extents: list[Extent] = []

    @property
    def doubled(self) -> int:
        """The bytes of ``allocated`` that were counted before, as an extent of another file."""
        return sum(size for _, size in self.extents) - covered(self.extents)

    @property
    def size(self) -> int:
        """The bytes on disk, each extent once."""
        return self.allocated - self.doubled

    def add_tree(self, name: str | bytes, at: int) -> None:
        """Add a file, or a directory and all below it."""
        with self._looking():
            status = os.stat(name, dir_fd=at, follow_symlinks=False)
            self.add_status(status, name, at)
            if stat.S_ISDIR(status.st_mode):
                with disk.Closing(disk.open_directory(name, at)) as root:
                    for below, child, _, _ in disk.walk(root):
                        try:
                            status = os.stat(child, dir_fd=below, follow_symlinks=False)
                        except OSError as error:
                            self._miss(error)
                        else:
                            self.add_status(status, child, below)

    def add(self, name: str | bytes, at: int) -> None:
        """Add one name, not what lies below it."""
        with self._looking():
            self.add_status(os.stat(name, dir_fd=at, follow_symlinks=False), name, at)

    def add_status(self, status: os.stat_result, name: str | bytes, at: int) -> None:
        """Add one name whose status is known."""
        size = disk.allocated(status)
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            inode = (status.st_dev, status.st_ino)
            link = self.links.setdefault(inode, Link(status.st_nlink, size))
            link.met += 1
            if link.met > 1:
                return
        self.allocated += size
        if self._reads_extents and size and stat.S_ISREG(status.st_mode):
            with self._looking(), disk.Closing(disk.open_file(name, at)) as fd:
                self._add_extents(fd)

    def _add_extents(self, fd: int) -> None:
        try:
            self.extents += shared_extents(fd)
        except OSError as error:
            if error.errno not in disk.NO_REFLINK:
                raise
            self._reads_extents = False  # a file system that cannot tell shares none

    @contextlib.contextmanager
    def _looking(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._miss(error)

    def _miss(self, error: OSError) -> None:
        """Pass over a name; one that vanished meanwhile is none."""
        if error.errno in _NOT_SEEN:
            self.unread += 1
        elif error.errno != errno.ENOENT:
            raise error


def covered(extents: Iterable[Extent]) -> int:
    """Return the bytes on disk that extents take together, wherever they overlap."""
    total = end = 0
    for start, size in sorted(extents):
        total += max(0, start + size - max(start, end))
        end = max(end, start + size)
    return total
