"""The facade of ``push`` and ``pull``: packages of a store at a URL, and back."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from regrain import disk
from regrain.app.keeping import brought_in_as, writes_legacy
from regrain.app.recovery import check_owner, storage_error, writing
from regrain.errors import (
    CorruptionError,
    NoSpaceError,
    PackageError,
    RegrainError,
    RemoteError,
    UnknownFormatError,
    UnknownPackageError,
    reason,
)
from regrain.maintain.remove import finish_one
from regrain.migrate.add import UNPACKED, Added, Adder, Tree, check_root, same
from regrain.model import layout
from regrain.remote.crew import StoppedError
from regrain.remote.lease import Lease
from regrain.remote.lists import check_form, chosen, fetch_list, listed, scratch, write_form
from regrain.remote.place import Remote
from regrain.remote.pulling import (
    Arrival,
    check_room,
    fetch_objects,
    make_shards,
)
from regrain.remote.pushing import Pushed, Pusher
from regrain.store import dual
from regrain.store.checkout import checkout
from regrain.store.compare import first_difference
from regrain.store.legacy import LegacyPackage
from regrain.store.locks import RunDirectory
from regrain.store.source import MovedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from regrain.settings import Settings
    from regrain.store.root import StoreRoot

JOBS = 8
_ARRIVING = "arriving"
_FETCHED = "fetched"


def _never() -> bool:
    return False


# push


def push(
    root: StoreRoot,
    words: Iterable[str] | None,
    url: str,
    *,
    jobs: int = JOBS,
    again: bool = False,
    stopping: Callable[[], bool] = _never,
) -> Iterator[Pushed | RegrainError]:
    """Push packages of a store, of either layout; yield what became of each.

    Args:
        root: The store; it is only read.
        words: Hashes or beginnings of them; None for all packages.
        url: Where to.
        jobs: Requests at once.
        again: Put everything anew, which mends what is damaged there.
        stopping: Tells whether a stop was asked for; then it ends early.

    Raises:
        LockedError: A collection is under way there.
        RemoteError: The service refused, or did not answer.
    """
    names = _names(root, words)
    remote = Remote(url, makes=True)
    write_form(remote)
    with Lease(remote, "push") as lease:
        pusher = Pusher(remote, lease, jobs, again=again, stopping=stopping)
        yield from each_pushed(pusher, root, names, stopping)


def each_pushed(
    pusher: Pusher, root: StoreRoot, names: Iterable[str], stopping: Callable[[], bool]
) -> Iterator[Pushed | RegrainError]:
    """Push packages one after the other; yield what became of each until it is stopped."""
    for name in names:
        if stopping():
            return
        try:
            yield _pushed(pusher, root, name)
        except StoppedError:
            return
        except OSError as error:
            yield PackageError(
                "cannot read the package",
                package=name,
                why=reason(error),
                advice="Push it again.",
            )
        except (
            PackageError,
            CorruptionError,
            UnknownPackageError,
            UnknownFormatError,
        ) as error:
            error.package = error.package or name
            yield error


def _pushed(pusher: Pusher, root: StoreRoot, name: str) -> Pushed:
    """Push a package; once more if it moved to the other layout meanwhile."""
    try:
        return pusher.push(dual.open_package(root, name))
    except MovedError:
        return pusher.push(dual.open_package(root, name))


def foresee_push(
    root: StoreRoot, words: Iterable[str] | None, url: str
) -> Iterator[tuple[str, bool]]:
    """Yield the packages that would be pushed, each with whether one of its name is listed."""
    names = _names(root, words)
    try:
        there = set(listed(Remote(url)))
    except RemoteError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise
        there = set()  # a directory that the push will make
    for name in names:
        yield name, name in there


def _names(root: StoreRoot, words: Iterable[str] | None) -> list[str]:
    if words is None:
        return [str(name) for name in dual.package_hashes(root)]
    names = [str(dual.find_hash(root, word)) for word in words]
    for name in names:
        if not dual.has_package(root, name):
            raise UnknownPackageError(
                "no such package", package=name, advice="'regrain list' shows what there is."
            )
    return list(dict.fromkeys(names))


# pull


@dataclass(frozen=True, slots=True)
class Pulled:
    """What became of a package.

    Attributes:
        package_hash: It.
        already_present: Whether the store had it, the same in everything.
        objects: Objects that were fetched.
        fetched_bytes: What they took there.
        added: What came to the store; None where nothing did.
    """

    package_hash: str
    already_present: bool
    objects: int = 0
    fetched_bytes: int = 0
    added: Added | None = None


def pull(
    root: StoreRoot,
    settings: Settings,
    words: Iterable[str] | None,
    url: str,
    *,
    jobs: int = JOBS,
    stopping: Callable[[], bool] = _never,
) -> Iterator[Pulled | RegrainError]:
    """Pull packages into a store; yield what became of each.

    Only objects that the store lacks are fetched. A package is put together in private space,
    compared with its list, and added as a directory is.

    Args:
        root: The store.
        settings: Say which layout it goes to, and how files are brought in.
        words: Hashes or beginnings of them; None for all that are listed.
        url: Where from.
        jobs: Requests at once.
        stopping: Tells whether a stop was asked for; then it ends early.

    Raises:
        NotAStoreError: No packages are there.
        RemoteError: The service refused, or did not answer.
    """
    check_owner(root)
    remote = Remote(url)
    check_form(remote)
    with writing(root):
        pass  # a ledger that cannot be written to ends it before anything is fetched
    names = listed(remote) if words is None else chosen(remote, words)
    yield from each_pulled(root, settings, remote, names, jobs=jobs, stopping=stopping)


def each_pulled(
    root: StoreRoot,
    settings: Settings,
    remote: Remote,
    names: Iterable[str],
    *,
    jobs: int,
    stopping: Callable[[], bool],
) -> Iterator[Pulled | RegrainError]:
    """Pull packages one after the other; yield what became of each until it is stopped."""
    for name in names:
        if stopping():
            return
        try:
            yield _Pull(root, settings, remote, name).pull(jobs, stopping)
        except StoppedError:
            return
        except (PackageError, CorruptionError, UnknownPackageError, UnknownFormatError) as error:
            error.package = error.package or name
            yield error
        except OSError as error:
            raise storage_error(error, root) from error


class _Pull:
    """One package on its way into a store."""

    def __init__(self, root: StoreRoot, settings: Settings, remote: Remote, name: str) -> None:
        self._root = root
        self._settings = settings
        self._remote = remote
        self._name = name

    def pull(self, jobs: int, stopping: Callable[[], bool]) -> Pulled:
        with RunDirectory(self._root, marks_errors=False) as run:
            for part in (_ARRIVING, _FETCHED):
                disk.make_directory(part, run.fd, 0o700)
            with (
                disk.Closing(disk.open_directory(_ARRIVING, run.fd)) as arriving,
                disk.Closing(disk.open_directory(_FETCHED, run.fd)) as fetched,
            ):
                if not fetch_list(self._remote, self._name, arriving):
                    raise _not_listed(self._remote, self._name)
                arrival = Arrival(arriving, fetched, self._root.objects, self._name)
                if self._is_present(arrival):
                    return Pulled(self._name, already_present=True)
                make_shards(fetched)
                objects, size = self._fetch(arrival, fetched, jobs, stopping)
                # Nothing is collected from here on; what was meanwhile is fetched now.
                with writing(self._root) as ledger:
                    more, more_size = self._fetch(arrival, fetched, jobs, stopping)
                    options = brought_in_as(run, self._settings)
                    finish = partial(finish_one, self._root, ledger)
                    adder = Adder(self._root, run, ledger, options, finish)
                    added = self._add(adder, self._put_together(run, arrival))
                return Pulled(
                    self._name, added.already_present, objects + more, size + more_size, added
                )

    def _is_present(self, arrival: Arrival) -> bool:
        if not dual.has_package(self._root, self._name):
            return False
        try:
            same(dual.open_package(self._root, self._name), arrival, self._name)
        except UnknownPackageError:  # removed meanwhile
            return False
        return True

    def _fetch(
        self, arrival: Arrival, fetched: int, jobs: int, stopping: Callable[[], bool]
    ) -> tuple[int, int]:
        lacking = arrival.lacking()
        check_room(fetched, lacking)
        return len(lacking), fetch_objects(self._remote, lacking, fetched, jobs, stopping)

    def _put_together(self, run: RunDirectory, arrival: Arrival) -> Tree:
        """Make the tree, and compare it with its list; every byte is read for that."""
        path = os.path.join(self._root.path, layout.TEMP, run.name, UNPACKED)
        try:
            checkout(arrival, path)
        except RegrainError as error:
            if not isinstance(error, NoSpaceError | CorruptionError):
                error = PackageError(
                    "cannot put the package together",
                    why=error.why or error.what,
                    advice="Check the store's disk, then pull it again.",
                )
            raise error from error.__cause__
        tree = Tree(run.fd, UNPACKED, is_ours=True)
        difference = first_difference(
            arrival.entries(), LegacyPackage(tree.parent, tree.name).entries()
        )
        if difference is not None:
            place, how = difference
            raise PackageError(
                "what was put together is not what the list says",
                package=self._name,
                path=place,
                why=how,
                advice="Run as root where owners differ; 'regrain verify --repair' heals objects "
                "of this store.",
            )
        return tree

    def _add(self, adder: Adder, tree: Tree) -> Added:
        with disk.Closing(disk.open_directory(tree.name, tree.parent)) as fd:
            check_root(fd)
        if writes_legacy(self._root, self._settings):
            return adder.add_as_legacy(tree, self._name)
        return adder.add(tree, self._name)


def _not_listed(remote: Remote, name: str) -> UnknownPackageError:
    return UnknownPackageError(
        "no such package there",
        package=name,
        path=remote.url,
        advice="'regrain remote list URL' shows what there is.",
    )


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What would be pulled: objects that are lacking, and the bytes of their content."""

    package_hash: str
    is_taken: bool
    objects: int
    size: int


def foresee_pull(root: StoreRoot, words: Iterable[str] | None, url: str) -> Iterator[Foreseen]:
    """Say of packages what would be fetched; write nothing to the store."""
    remote = Remote(url)
    check_form(remote)
    with writing(root):
        pass  # a ledger that cannot be written to ends it before anything is fetched
    for name in listed(remote) if words is None else chosen(remote, words):
        with scratch() as directory:
            if not fetch_list(remote, name, directory):
                raise _not_listed(remote, name)
            lacking = Arrival(directory, directory, root.objects, name).lacking()
        taken = dual.has_package(root, name)
        yield Foreseen(
            name, taken, 0 if taken else len(lacking), 0 if taken else sum(lacking.values())
        )
