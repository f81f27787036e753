"""What a rehearsal is made with: all packages measured, a sample of them, a place, space."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, NamedTuple

from regrain import disk
from regrain.app.floors import floors_of
from regrain.app.migration import plan
from regrain.errors import RefusedError, RegrainError, reason
from regrain.ledger import open_ledger
from regrain.migrate.estimate import Total
from regrain.migrate.plan import FIXED_BYTES, FIXED_INODES, INODES_A_PACKAGE
from regrain.migrate.sample import Candidate, Share, choose
from regrain.migrate.specimen import Source
from regrain.model import layout
from regrain.model.digest import is_package_hash
from regrain.model.entry import Kind
from regrain.store import destination
from regrain.store.packages import FileLevelPackage, published
from regrain.store.root import StoreRoot
from regrain.store.scan import Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from regrain.settings import Settings

_BLOCK = 4096


class Wanted(NamedTuple):
    """What is asked for.

    Attributes:
        share: How much of the store.
        seed: Of the draw.
        scratch: A directory to make the copy in; empty: inside the store, or beside what is
            none yet.
        keep: Leave the copy there.
    """

    share: Share = Share()
    seed: int = 0
    scratch: str = ""
    keep: bool = False


class Foreseen(NamedTuple):
    """What a rehearsal would do.

    Attributes:
        known: All packages.
        sample: Those of them it takes.
        chosen: What they hold.
        whole: What all packages hold.
        needed_bytes: What it takes on disk, at the most.
        needed_inodes: Likewise inodes.
        free_bytes: What there is.
        free_inodes: Likewise; None where the file system has no limit.
        place: The directory the copy is made in.
        problems: What is known to speak against a migration before anything was copied.
    """

    known: list[Candidate]
    sample: list[Candidate]
    chosen: Total
    whole: Total
    needed_bytes: int
    needed_inodes: int
    free_bytes: int
    free_inodes: int | None
    place: str
    problems: list[str]


def survey(
    source: Source,
    path: str,
    settings: Settings,
    wanted: Wanted,
    on_package: Callable[[Usage], None],
) -> Foreseen:
    """Measure all packages, draw the sample, and see to it that there is a place and space.

    Args:
        source: Where the packages are.
        path: That directory.
        settings: The settings in force.
        wanted: What is asked for.
        on_package: Told each package that was measured.

    Raises:
        RefusedError: There is too little space, no package, or no place.
    """
    usages: list[Usage] = []

    def add(usage: Usage) -> None:
        usages.append(usage)
        on_package(usage)

    planned = plan(path, settings, add)
    excluded = _excluded(source, path)
    known = [_of_usage(usage) for usage in usages if usage.package_hash not in excluded]
    known += _published_only(source, {usage.package_hash for usage in usages})
    if not known:
        raise RefusedError(
            "there is no package to rehearse with",
            path=path,
            advice="Name a directory that holds legacy packages, or a store.",
        )
    sample = choose(known, wanted.share, wanted.seed)
    chosen, whole = Total.of(sample), Total.of(known)
    place = _place(source, path, wanted)
    problems = [f"package {name}: {why}" for name, why in planned.problems if name not in excluded]
    if source.root is None:
        problems += planned.blockers
    space = os.statvfs(place)
    floors = floors_of(place, settings)
    found = Foreseen(
        known,
        sample,
        chosen,
        whole,
        2 * chosen.allocated + sum(one.further for one in sample) + FIXED_BYTES,
        2 * chosen.inodes + INODES_A_PACKAGE * chosen.packages + FIXED_INODES,
        max(0, space.f_bavail * space.f_frsize - floors.size),
        max(0, space.f_favail - floors.inodes) if space.f_files else None,
        place,
        problems,
    )
    _check_space(found, settings)
    return found


def _check_space(found: Foreseen, settings: Settings) -> None:
    too_few = found.free_inodes is not None and found.needed_inodes > found.free_inodes
    if found.needed_bytes <= found.free_bytes and not too_few:
        return
    floors = floors_of(found.place, settings)
    inodes = "" if found.free_inodes is None else f" and {found.free_inodes} inodes"
    raise RefusedError(
        "too little space to rehearse",
        path=found.place,
        why=f"the sample needs up to {found.needed_bytes} bytes and "
        f"{found.needed_inodes} inodes; {found.free_bytes} bytes{inodes} can be used, with "
        f"{floors.size} bytes and {floors.inodes} inodes to be left free",
        advice="Take a smaller --sample, or free some.",
    )


def _excluded(source: Source, path: str) -> set[str]:
    """Return the packages that are set aside: no migration takes them."""
    if source.root is None:
        return set()
    ledger = open_ledger(path, read_only=True)
    try:
        return ledger.excluded()
    finally:
        ledger.close()


def _of_usage(usage: Usage) -> Candidate:
    return Candidate(
        usage.package_hash,
        usage.name,
        usage.version,
        usage.files,
        usage.inodes,
        usage.size,
        usage.allocated,
        usage.list_bytes + usage.ledger_bytes,
    )


def _published_only(source: Source, legacy: set[str]) -> list[Candidate]:
    """Return the packages that have no legacy directory, measured by their file lists."""
    if source.root is None:
        return []
    found = []
    for name in published(source.root.packages):
        if is_package_hash(name) and name not in legacy:
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                found.append(_of_list(source.root, name))
    return found


def _of_list(root: StoreRoot, name: str) -> Candidate:
    package = FileLevelPackage(root.packages, root.objects, name)
    usage = Usage(name)
    for entry in package.entries():
        usage.path_bytes += len(entry.path)
        if entry.kind is Kind.FILE:
            usage.files += 1
            usage.size += entry.size
        elif entry.kind is Kind.DIRECTORY:
            usage.directories += 1
        else:
            usage.symlinks += 1
        if entry.hardlink is None:
            usage.inodes += 1
            is_directory = entry.kind is Kind.DIRECTORY
            usage.allocated += _BLOCK if is_directory else -(-entry.size // _BLOCK) * _BLOCK
    with contextlib.suppress(RegrainError, OSError):  # one without a manifest is a package, too
        manifest = package.manifest()
        usage.name, usage.version = manifest.name, manifest.version
    return _of_usage(usage)


# where the copy lies


def is_inside(source: Source, wanted: Wanted) -> bool:
    """Tell whether the copy lies in the store: there the next command sweeps what is left."""
    return source.root is not None and not (wanted.scratch or wanted.keep)


def _place(source: Source, path: str, wanted: Wanted) -> str:
    """Return the directory to make the copy in: on the same file system, or it proves nothing.

    Raises:
        RefusedError: There is none.
    """
    if source.root is not None and is_inside(source, wanted):
        return f"{source.root.path}/{layout.TEMP}"
    place = os.path.abspath(wanted.scratch or os.path.dirname(os.path.realpath(path)))
    why = ""
    try:
        if os.stat(place).st_dev != os.fstat(source.top).st_dev:
            why = "it lies on another file system than the packages"
        elif not os.path.isdir(place):
            why = "it is no directory"
        elif not os.access(place, os.W_OK | os.X_OK):
            why = "this user may not write there"
        elif _is_among_packages(place, source):
            why = "it lies in the directory that is to be left as it is"
    except OSError as error:
        why = reason(error)
    if why:
        raise RefusedError(
            "no place for a rehearsal",
            path=place,
            why=why,
            advice="Name another directory on the packages' file system with --scratch.",
        )
    return place


def _is_among_packages(place: str, source: Source) -> bool:
    """Tell whether a copy made there would change a package, or the top of the store."""
    with disk.Closing(os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as fd:
        return destination.is_inside(fd, source.top)
