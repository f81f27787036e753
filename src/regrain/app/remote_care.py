"""The facade of ``remote``: what lies at a URL is listed, checked, collected; without a store."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from regrain.errors import CorruptionError
from regrain.model.clock import now
from regrain.remote.crew import StoppedError, side_by_side
from regrain.remote.keys import list_key
from regrain.remote.lease import Lease
from regrain.remote.lists import check_form, chosen, fetch_list, listed, scratch
from regrain.remote.place import Remote, damaged
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
        size: Their bytes.
        damaged: What is wrong, by package hash or digest.
        needed_by: Of each object, a package that needs it.
        stopped: Whether it was stopped before its end.
    """

    packages: int = 0
    objects: int = 0
    size: int = 0
    damaged: dict[str, CorruptionError] = field(default_factory=dict)
    needed_by: dict[str, str] = field(default_factory=dict)
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
    remote = Remote(url, cold=True)
    check_form(remote)
    asked = list(words)
    names = chosen(remote, asked) if asked else listed(remote)
    return look(remote, names, jobs=jobs, stopping=stopping, on_object=on_object)


def look(
    remote: Remote,
    names: Iterable[str],
    *,
    jobs: int = JOBS,
    stopping: Callable[[], bool] = _never,
    on_object: Callable[[Checked], None] = lambda _: None,
    on_list: Callable[[str, int], None] = lambda *_: None,
) -> Checked:
    """Fetch the file lists of packages, and fetch and hash every object that they name.

    Args:
        remote: Where.
        names: The packages; those that are not listed any more are left out.
        jobs: Requests at once.
        stopping: Tells whether a stop was asked for.
        on_object: Called after each object.
        on_list: Called with a package and an open directory that has its list, in any thread.
    """
    found = Checked()

    def read(name: str) -> tuple[str, dict[str, int] | CorruptionError | None]:
        with scratch() as directory:
            try:
                if not fetch_list(remote, name, directory):
                    return name, None
                package = FileLevelPackage(directory, directory, name)
                sizes = package.contents().sizes
            except CorruptionError as error:
                return name, error
            on_list(name, directory)
            return name, sizes

    wanted: dict[str, int] = {}
    try:
        for name, sizes in side_by_side(read, names, jobs, stopping):
            if isinstance(sizes, CorruptionError):
                found.damaged[name] = sizes
            elif sizes is not None:
                found.packages += 1
                _take(remote, name, sizes, wanted, found)
        for digest, flaw in check_objects(remote, wanted.items(), jobs, stopping):
            found.objects += 1
            found.size += wanted[digest]
            if flaw is not None:
                found.damaged[digest] = flaw
            on_object(found)
    except StoppedError:
        found.stopped = True
    return found


def _take(
    remote: Remote, name: str, sizes: dict[str, int], wanted: dict[str, int], found: Checked
) -> None:
    """Take note of what a package needs; no object has two sizes."""
    for digest, size in sizes.items():
        if wanted.setdefault(digest, size) != size:
            found.damaged[name] = damaged(
                remote.url,
                list_key(name),
                f"it says that object {digest} has {size} bytes, another that {wanted[digest]}",
            )
        found.needed_by.setdefault(digest, name)


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
