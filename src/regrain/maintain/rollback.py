"""Roll a store back: compare what is to be read again, and take it up again afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from regrain.errors import (
    CorruptionError,
    FinishedWithFailuresError,
    PackageError,
    RefusedError,
    UnknownFormatError,
)
from regrain.ledger.keeping import Intent
from regrain.maintain.audit import Audit, Level, Scope, audit
from regrain.maintain.rebuild import measured
from regrain.maintain.restore import Failure
from regrain.maintain.withdraw import note, unpublish
from regrain.model import layout
from regrain.model.layout import SHARDS
from regrain.model.status import Status
from regrain.store.compare import first_difference
from regrain.store.legacy import LegacyPackage
from regrain.store.locks import StoreLock, publish_lock
from regrain.store.objects import carriers_of, hash_carrier, object_path
from regrain.store.packages import FileLevelPackage, is_published, published
from regrain.store.quarantine import quarantine
from regrain.store.root import legacy_names
from regrain.store.twins import Doubt

if TYPE_CHECKING:
    from collections.abc import Callable

    from regrain.ledger import Ledger
    from regrain.store.root import StoreRoot

PACKAGES_A_PIECE = 1000


# the whole store


def check_legacy(
    root: StoreRoot,
    package_hashes: list[str],
    *,
    jobs: int,
    on_result: Callable[[Audit], None],
    stopping: Callable[[], bool],
) -> tuple[list[Failure], bool]:
    """Compare legacy directories with the published file lists, every byte.

    Returns:
        Those that differ, or that nothing can be compared with; and whether it was stopped.
    """
    if not package_hashes:
        return [], False
    scope = Scope(package_hashes, [], Level.DEEP, whole=False)
    found = audit(root, scope, jobs=jobs, on_result=on_result, stopping=stopping)
    failures = [
        Failure(change.package_hash, str(Doubt(change.path, change.reason, in_legacy=True)))
        for change in found.changes
    ]
    # An object that is missing does no harm here: its package is read from legacy again.
    failures += [
        Failure(damage.package_hash, damage.reason, is_damage=True)
        for damage in found.damages
        if not damage.object
    ]
    return [one for one in failures if is_published(root.packages, one.package_hash)], found.stopped


def rotten_among(
    root: StoreRoot,
    failures: list[Failure],
    *,
    jobs: int,
    stopping: Callable[[], bool],
) -> tuple[dict[str, str], list[Failure], bool]:
    """Tell legacy directories that rotted from those that somebody changed.

    Who writes to a file moves its time. Where all metadata is what it was, bytes alone are
    not, and every object of the package is good, the directory rotted: it can be made anew.

    Returns:
        What is wrong with each that rotted; the failures that are left, of which those whose
        objects are not good either are damage now; and whether it was stopped.
    """
    suspects = [
        failure.package_hash
        for failure in failures
        if not failure.is_damage and _only_bytes_differ(root, failure.package_hash)
    ]
    if not suspects:
        return {}, failures, False
    scope = Scope(suspects, list(SHARDS), Level.FULL, whole=False)
    found = audit(root, scope, jobs=jobs, on_result=lambda _: None, stopping=stopping)
    if found.stopped:
        return {}, failures, True
    damaged = {one.package_hash: f"object {one.object}: {one.reason}" for one in found.damages}
    rotten, rest = {}, []
    for failure in failures:
        name, why = failure.package_hash, failure.why
        if name in suspects and name not in damaged:
            rotten[name] = why
        elif name in damaged:
            words = f"{damaged[name]}; its legacy directory: {why}"
            rest.append(Failure(name, words, is_damage=True))
        else:
            rest.append(failure)
    return rotten, rest, False


def _only_bytes_differ(root: StoreRoot, name: str) -> bool:
    """Tell whether a legacy directory has all the metadata of the published file list."""
    try:
        package = FileLevelPackage(root.packages, root.objects, name)
        legacy = LegacyPackage(root.fd, name)
        return first_difference(package.entries(), legacy.tree(), content=False) is None
    except (PackageError, CorruptionError, UnknownFormatError, OSError):
        return False


def with_both(root: StoreRoot) -> list[str]:
    """Return the packages that lie in both layouts."""
    legacy = set(legacy_names(root.fd)[0])
    return [name for name in published(root.packages) if name in legacy]


def record_unknown(root: StoreRoot, ledger: Ledger) -> None:
    """Record legacy directories beside published packages that the ledger has none of.

    Others made them, or we did and were killed before we wrote it down.
    """
    known = ledger.standings()
    strangers = [
        name for name in with_both(root) if name not in known or known[name].cleaned_at is not None
    ]
    if strangers:
        ledger.restored(measured(root, strangers, lambda _: None))


# single packages


def roll_back_packages(root: StoreRoot, ledger: Ledger, package_hashes: list[str]) -> list[str]:
    """Unpublish packages whose legacy directories are there, and equal.

    Returns:
        Those that were published, and are not any more.

    Raises:
        RefusedError: One has no legacy directory; nothing was changed.
        FinishedWithFailuresError: The legacy directory of one differs; nothing was changed.
    """
    names = [name for name in package_hashes if is_published(root.packages, name)]
    for name in names:
        _check_equal(root, name)
    with StoreLock(root, exclusive=False), publish_lock(root):
        there = [name for name in names if is_published(root.packages, name)]
        alone = unpublish(root, ledger, there, Intent.ROLLBACK)
    return [name for name in there if name not in alone]


def check_has_legacy(root: StoreRoot, name: str) -> None:
    """See to it that a package has a legacy directory to go back to.

    Raises:
        RefusedError: It has none.
    """
    if not is_published(root.fd, name):
        raise RefusedError(
            "the package has no legacy directory",
            package=name,
            why="it was added at file level, or its directory vanished",
            advice="Only the rollback of the whole store gives it one.",
        )


def _check_equal(root: StoreRoot, name: str) -> None:
    check_has_legacy(root, name)
    package = FileLevelPackage(root.packages, root.objects, name)
    found = first_difference(package.entries(), LegacyPackage(root.fd, name).entries())
    if found is None:
        return
    path, how = found
    advice = (
        f"It rotted, since no time moved: put what 'regrain checkout {name}' gives in its place"
        if _only_bytes_differ(root, name)
        else "'regrain exclude' serves the package as that directory is; 'regrain migrate "
        "--accept-legacy' takes it in"
    )
    raise FinishedWithFailuresError(
        "the legacy directory is not what was migrated",
        package=name,
        path=path,
        why=how,
        advice=f"Nothing was rolled back. {advice}.",
    )


# forward again


@dataclass(frozen=True, slots=True)
class TakenUp:
    """What became of packages that had been undone.

    Attributes:
        completed: Those whose published copy was proved to equal the legacy directory.
        pending: Those that are to be migrated again.
        stopped: Whether it was ended early.
    """

    completed: int
    pending: int
    stopped: bool


def take_up(
    root: StoreRoot,
    ledger: Ledger,
    *,
    jobs: int,
    stopping: Callable[[], bool],
    on_result: Callable[[Audit], None] = lambda _: None,
) -> TakenUp:
    """Compare what an undone store still has published, before readers see it again.

    What is equal in everything is completed without being read in again; the rest goes, and
    is pending. What has no legacy directory any more stays published: absence never deletes.
    So does what has one that rotted, which is noted: rot never replaces a good copy.
    """
    undone = ledger.in_status(Status.ROLLED_BACK)
    there = [name for name in undone if is_published(root.packages, name)]
    gone = sorted(set(undone) - set(there))
    ledger.queue_again(gone)
    completed, pending = 0, len(gone)
    for at in range(0, len(there), PACKAGES_A_PIECE):
        piece = there[at : at + PACKAGES_A_PIECE]
        scope = Scope(piece, list(SHARDS), Level.DEEP, whole=False)
        found = audit(root, scope, jobs=jobs, on_result=on_result, stopping=stopping)
        if found.stopped:
            return TakenUp(completed, pending, stopped=True)
        _put_aside(root, sorted({damage.object for damage in found.damages} - {""}))
        bad = {damage.package_hash for damage in found.damages}
        rotten = _rotten_of(root, found, bad)
        bad |= {change.package_hash for change in found.changes} - rotten.keys()
        good = [name for name in piece if name not in bad]
        ledger.taken_up([name for name in good if name not in rotten])
        ledger.taken_up(rotten, equal=False)
        for name, doubt in rotten.items():
            note(ledger, name, doubt)
        with publish_lock(root):
            wrong = [name for name in piece if name in bad and is_published(root.packages, name)]
            alone = unpublish(root, ledger, wrong, Intent.PURGE)
        for name in alone:
            ledger.concern(name, "it is damaged, and has no legacy directory")
        completed, pending = completed + len(good), pending + len(wrong) - len(alone)
    return TakenUp(completed, pending, stopped=False)


def _rotten_of(root: StoreRoot, found: Audit, damaged: set[str]) -> dict[str, Doubt]:
    """Return the packages whose legacy directory rotted, and what of it."""
    return {
        change.package_hash: Doubt(change.path, change.reason, in_legacy=True)
        for change in found.changes
        if change.package_hash not in damaged and _only_bytes_differ(root, change.package_hash)
    }


def _put_aside(root: StoreRoot, digests: list[str]) -> None:
    """Move carriers that do not hold the bytes of their name to quarantine."""
    for digest in digests:
        for carrier in list(carriers_of(root.objects, digest)):
            try:
                is_good = hash_carrier(root.objects, carrier)[0] == carrier.digest
            except OSError:
                is_good = False
            if not is_good:
                quarantine(root.fd, layout.OBJECTS, object_path(carrier.name))
