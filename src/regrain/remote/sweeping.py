"""Collect at a URL what no listed package needs any more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from regrain.errors import CorruptionError, RefusedError
from regrain.remote import keys
from regrain.remote.lists import fetch_list, listed, scratch
from regrain.store.packages import FileLevelPackage

if TYPE_CHECKING:
    from collections.abc import Callable

    from regrain.remote.lease import Lease
    from regrain.remote.place import Remote


@dataclass(slots=True)
class Swept:
    """What a collection found.

    Attributes:
        objects: Taken, or to be taken.
        size: Their bytes there.
        waiting: Nobody's, but younger than the grace.
        waiting_size: Their bytes.
        kept: Needed by packages.
        stopped: Whether it was stopped before its end.
    """

    objects: int = 0
    size: int = 0
    waiting: int = 0
    waiting_size: int = 0
    kept: int = 0
    stopped: bool = False


def needed(remote: Remote) -> set[bytes]:
    """Return the digests that listed packages need.

    Raises:
        RefusedError: A file list cannot be read, so that nobody knows.
    """
    found: set[bytes] = set()
    for name in listed(remote):
        with scratch() as directory:
            try:
                if fetch_list(remote, name, directory):
                    sizes = FileLevelPackage(directory, directory, name).contents().sizes
                    found.update(map(bytes.fromhex, sizes))
            except CorruptionError as error:
                raise RefusedError(
                    "what packages need there cannot be told",
                    path=error.path,
                    why=error.why,
                    advice=error.advice,
                ) from error
    return found


def sweep(
    remote: Remote,
    now: float,
    grace: float,
    lease: Lease | None,
    stopping: Callable[[], bool],
) -> Swept:
    """Take objects that nobody needs and that were put there over ``grace`` seconds ago.

    Args:
        remote: The place.
        now: The time, by its clock.
        grace: In seconds.
        lease: That keeps pushes away; None to only look.
        stopping: Tells whether a stop was asked for.
    """
    found = Swept()
    keep = needed(remote)
    for one in list(remote.listing(keys.OBJECTS)):
        digest = keys.digest_of(one.key)
        if not digest:
            continue
        if bytes.fromhex(digest) in keep:
            found.kept += 1
        elif now - one.modified < grace:
            found.waiting += 1
            found.waiting_size += one.size
        elif stopping():
            found.stopped = True
            break
        else:
            if lease is not None:
                lease.check()
                remote.delete([one.key])
            found.objects += 1
            found.size += one.size
    return found
