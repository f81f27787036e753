"""Space: what a run needs of it, the floors it leaves free, and waiting until there is some."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from regrain.errors import NoSpaceError, RefusedError
from regrain.migrate.jobs import Ingest
from regrain.migrate.pace import Demand
from regrain.migrate.plan import INODES_A_PACKAGE
from regrain.model.clock import monotonic

if TYPE_CHECKING:
    from collections.abc import Callable

    from regrain.errors import RegrainError
    from regrain.ledger import Pending

BYTES_A_FILE = 700
BYTES_A_PACKAGE = 20 << 10
"""What file lists and ledger take, as ``plan`` reckons, with paths of usual length."""

TRY_SECONDS_MIN = 1.0
TRY_SECONDS_FIRST = 5.0
TRY_SECONDS_MAX = 60.0
"""After so long a run tries again although the file system shows no more room than before:
quotas, and what some file systems keep for themselves, cannot be seen."""

GROWN_BYTES_MIN = 4 << 20
GROWN_INODES_MIN = 64
_GROWN_SHARE = 4
"""What must have become free before a run tries again sooner: so much, or a quarter."""


class Space(NamedTuple):
    """Bytes and inodes; of inodes None where the file system has no limit."""

    size: int
    inodes: int | None

    def __str__(self) -> str:
        """Say it in words."""
        inodes = "" if self.inodes is None else f" and {self.inodes} inodes"
        return f"{self.size} bytes{inodes}"


def free_space(fd: int) -> Space:
    """Return what the file system of an open directory has left for this user."""
    found = os.fstatvfs(fd)
    return Space(found.f_bavail * found.f_frsize, found.f_favail if found.f_files else None)


class Floors(NamedTuple):
    """What is to stay free."""

    size: int
    inodes: int

    def undercut_by(self, space: Space) -> bool:
        """Tell whether less is left."""
        return space.size < self.size or (space.inodes is not None and space.inodes < self.inodes)


class Room:
    """Holds a run while the disk is full or nearly so, and lets it try again; a ``Brake``.

    Args:
        fd: The store's open top directory.
        floors: What is to stay free: below, packages in hand are finished and nothing new
            is begun.
        wait: Seconds without a package after which the run gives up.
        clock: What time it is.
    """

    def __init__(
        self, fd: int, floors: Floors, wait: float, clock: Callable[[], float] = monotonic
    ) -> None:
        self._fd = fd
        self._floors = floors
        self._wait = wait
        self._clock = clock
        self._error: RegrainError | None = None
        self._since: float | None = None
        self._then = Space(0, None)
        self._tried_at = 0.0
        self._delay = TRY_SECONDS_FIRST

    def failed(self, error: RegrainError) -> None:
        """Take note of an error that will pass: no space, or a ledger that is busy."""
        if self._error is None:
            self._error = error
            self.emptied()
        if self._since is None:
            self._since = self._clock()

    def emptied(self) -> None:
        """Take note that the run holds nothing any more: what becomes free now others freed."""
        self._then = free_space(self._fd)
        self._tried_at = self._clock()

    def progressed(self) -> None:
        """Take note that a package was published."""
        self._since = None if self._error is None else self._clock()
        self._delay = TRY_SECONDS_FIRST

    def demand(self) -> Demand | None:
        """Hold the run while there is no room.

        Raises:
            NoSpaceError: It waited long enough.
            LockedError: Likewise, for the ledger.
        """
        space = free_space(self._fd)
        if self._error is not None:
            if self._has_waited():
                raise self._error
            if not self._may_try(space):
                return Demand(self._words(space), at_once=True)
            self._error = None
            if not space.size:  # nothing is left to spare; btrfs says so until somebody writes
                return None
        if not self._floors.undercut_by(space):
            return None
        if self._since is None:
            self._since = self._clock()
        if self._has_waited():
            raise _below(space, self._floors, self._wait)
        return Demand(f"too little space: {space} are free, {Space(*self._floors)} are to stay so")

    def _words(self, space: Space) -> str:
        if not isinstance(self._error, NoSpaceError):
            return f"{self._error}"
        return f"no space left: {space} are free; it goes on by itself when there is more"

    def _has_waited(self) -> bool:
        return self._since is not None and self._clock() - self._since >= self._wait

    def _may_try(self, space: Space) -> bool:
        waited = self._clock() - self._tried_at
        if waited >= self._delay:
            self._delay = min(2 * self._delay, TRY_SECONDS_MAX)
            return True
        return waited >= TRY_SECONDS_MIN and self._has_grown(space)

    def _has_grown(self, space: Space) -> bool:
        then = self._then
        if space.size - then.size >= max(GROWN_BYTES_MIN, then.size // _GROWN_SHARE):
            return True
        if space.inodes is None or then.inodes is None:
            return False
        return space.inodes - then.inodes >= max(GROWN_INODES_MIN, then.inodes // _GROWN_SHARE)


def _below(space: Space, floors: Floors, wait: float) -> NoSpaceError:
    return NoSpaceError(
        "too little space to go on",
        why=f"{space} are free, {Space(*floors)} are to stay so; it waited {wait:g} s",
        advice="Free some, or lower [migration] free_bytes_min and free_inodes_min; then run "
        "the command again, it goes on.",
    )


def wanted_for(
    pending: Pending, *, ingest: Ingest, can_reflink: bool, is_compressed: bool = False
) -> Space:
    """Return what bringing packages in takes at the most, from what the ledger knows of them.

    Where files are linked, those that cannot be are not known before they are looked at
    (``plan`` does): they are left out, and a run that meets too many of them waits. Of what is
    compressed half is counted: on the corpus of wheels zstd left a fifth.
    """
    size = pending.files * BYTES_A_FILE + pending.packages * BYTES_A_PACKAGE
    inodes = pending.packages * INODES_A_PACKAGE
    is_linked = ingest is Ingest.HARDLINK or (ingest is Ingest.AUTO and not can_reflink)
    if is_compressed or not is_linked:
        inodes += pending.files
    if is_compressed:
        size += pending.allocated // 2
    elif ingest is Ingest.COPY:
        size += pending.allocated
    return Space(size, inodes)


def check_room(fd: int, path: str, wanted: Space, packages: int, floors: Floors) -> None:
    """See to it that what is to be brought in leaves the floors free.

    Raises:
        RefusedError: It does not; nothing was begun.
    """
    space = free_space(fd)
    inodes = None if space.inodes is None else space.inodes - (wanted.inodes or 0)
    if not floors.undercut_by(Space(space.size - wanted.size, inodes)):
        return
    raise RefusedError(
        "too little space to migrate",
        path=path,
        why=f"{packages} packages need up to {wanted}; {space} are free, of which "
        f"{Space(*floors)} are to stay so",
        advice="Free some; or lower [migration] free_bytes_min and free_inodes_min; or take "
        "some packages at a time, with --limit or --only.",
    )
