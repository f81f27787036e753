"""The facade of ``remote``: what lies at a URL is listed, checked, collected; without a store."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from regrain.errors import CorruptionError
from regrain.model.clock import now
from regrain.remote.crew import StoppedError
from regrain.remote.lease import Lease
from regrain.remote.lists import check_form, chosen, fetch_list, listed, scratch
from regrain.remote.place import Remote
from regrain.remote.pulling import check_objects
from regrain.remote.sweeping import Swept, sweep
from regrain.store.packages import FileLevelPackage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

JOBS = 8
GRACE_SECONDS = 24 * 3600


def _never() -> bool:
    return False


def list_packages(url: str) -> list[str]:
    """Return the packages that are listed at a URL."""
    remote = Remote(url)
    check_form(remote)
    return [str(name) for name in listed(remote)]


@dataclass(slots=True)
class Checked:
    """What a check of a URL found.

    Attributes:
        packages: Whose file list was read.
        objects: That were checked.
        damaged: What is wrong, by package hash or digest.
        stopped: Whether it was stopped before its end.
    """

    packages: int = 0
    objects: int = 0
    damaged: dict[str, CorruptionError] = field(default_factory=dict)
    stopped: bool = False


def verify(
    url: str,
    words: Iterable[str],
    *,
    jobs: int = JOBS,
    stopping: Callable[[], bool] = _never,
    on_object: Callable[[Checked], None] = lambda _: None,
) -> Checked:
    """Read every file list and every byte that packages need at a URL.

    Args:
        url: Where.
        words: Hashes or beginnings of them; none for all packages.
        jobs: Requests at once.
        stopping: Tells whether a stop was asked for.
        on_object: Called after each object.
    """
    remote = Remote(url)
    check_form(remote)
    asked = list(words)
    found = Checked()
    sizes: dict[str, int] = {}
    for name in chosen(remote, asked) if asked else listed(remote):
        with scratch() as directory:
            try:
                if fetch_list(remote, name, directory):
                    found.packages += 1
                    package = FileLevelPackage(directory, directory, name)
                    sizes.update(package.contents().sizes)
            except CorruptionError as error:
                found.damaged[name] = error
    try:
        for digest, flaw in check_objects(remote, sizes.items(), jobs, stopping):
            found.objects += 1
            if flaw is not None:
                found.damaged[digest] = flaw
            on_object(found)
    except StoppedError:
        found.stopped = True
    return found


def collect(
    url: str,
    *,
    execute: bool,
    grace: float = GRACE_SECONDS,
    stopping: Callable[[], bool] = _never,
) -> Swept:
    """Delete at a URL what no listed package needs and is older than ``grace`` seconds.

    Raises:
        LockedError: A push or another collection is under way there.
        RefusedError: A file list there is damaged, so that nobody knows what is needed.
    """
    remote = Remote(url)
    check_form(remote)
    if not execute:
        # To the end of this second: what was put there within it is not from the future.
        return sweep(remote, now() + 1.0, grace, None, stopping)
    with Lease(remote, "gc") as lease:
        return sweep(remote, lease.began, grace, lease, stopping)
