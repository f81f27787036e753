"""Remove legacy directories whose packages are proved to be published, one after the other."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from regrain import disk
from regrain.errors import PackageError, RefusedError, reason
from regrain.ledger.keeping import Intent
from regrain.maintain.withdraw import clean, condemned, note
from regrain.model import clock, layout
from regrain.model.status import Status
from regrain.store.legacy import freed_with
from regrain.store.locks import StoreLock, publish_lock
from regrain.store.packages import FileLevelPackage, is_published
from regrain.store.root import legacy_names
from regrain.store.scan import open_files, processes_using
from regrain.store.trash import empty_discarded
from regrain.store.twins import Doubt, Twins, mark

if TYPE_CHECKING:
    from collections.abc import Callable

    from regrain.ledger import Ledger, PackageRow
    from regrain.store.root import StoreRoot

_PROCESSES_MAX = 5
_MOMENT_SECONDS = 0.25
_HELD = frozenset({errno.EPERM, errno.EACCES, errno.EBUSY, errno.EXDEV, errno.ENOTEMPTY})
"""What the system answers where something is immutable, or a mount."""

_HALF_GONE = "compared and condemned, but something in it cannot be unlinked"
_NOT_ANY_MORE = "removed, set aside or published anew meanwhile"


@dataclass(frozen=True, slots=True)
class Staying:
    """A legacy directory that is kept.

    Attributes:
        package_hash: The package.
        why: In one clause.
        in_doubt: Whether something is wrong with it, rather than that it is not its turn.
        path: Where in the package, if that is known.
    """

    package_hash: str
    why: str
    in_doubt: bool = False
    path: bytes = b""


@dataclass(slots=True)
class Cleaning:
    """What a cleanup takes.

    Attributes:
        going: Packages whose legacy directory is to go.
        freed_bytes: What that frees on disk, if it was asked for.
        staying: The others that have one.
        processes: Processes that have files there open.
    """

    going: list[str] = field(default_factory=list)
    freed_bytes: int = 0
    staying: list[Staying] = field(default_factory=list)
    processes: list[tuple[int, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A legacy directory is gone.

    Attributes:
        package_hash: The package.
        freed_bytes: What that freed on disk.
    """

    package_hash: str
    freed_bytes: int


@dataclass(slots=True)
class Cleanup:
    """What a cleanup did.

    Attributes:
        packages: Legacy directories that are gone.
        freed_bytes: What that freed on disk.
        kept: Those kept, since something was off.
        stopped: Whether it was ended early.
    """

    packages: int = 0
    freed_bytes: int = 0
    kept: list[Staying] = field(default_factory=list)
    stopped: bool = False

    def take(self, event: Cleaned | Staying) -> None:
        """Count what became of a package."""
        if isinstance(event, Staying):
            self.kept.append(event)
        else:
            self.packages += 1
            self.freed_bytes += event.freed_bytes


def foresee(
    root: StoreRoot,
    ledger: Ledger,
    *,
    older_than: float | None = None,
    limit: int | None = None,
    measured: bool = True,
) -> Cleaning:
    """Say which legacy directories a cleanup takes, and why others stay; change nothing.

    Args:
        root: The store.
        ledger: Its ledger.
        older_than: Only packages completed so many seconds ago or longer.
        limit: Only so many, by hash.
        measured: Whether to find what that frees, and who has files open there.
    """
    rows = {row.package_hash: row for row in ledger.package_rows()}
    excluded, concerns = ledger.excluded(), ledger.concerns()
    before = None if older_than is None else clock.now() - older_than
    found = Cleaning()
    for name in legacy_names(root.fd)[0]:
        why, in_doubt = _why_not(root, name, rows.get(name), excluded, before)
        if not why and name in concerns:
            why, in_doubt = concerns[name].what, True
        if not why and limit is not None and len(found.going) >= limit:
            why = "beyond the limit that was given"
        if why:
            found.staying.append(Staying(name, why, in_doubt))
        else:
            found.going.append(name)
    if measured:
        found.staying += [
            Staying(name, f"it lies in {layout.TRASH}/, condemned, not unlinked yet", in_doubt=True)
            for name in condemned(root, ledger)
        ]
        found.freed_bytes = sum(_measure(root, name) for name in found.going)
        found.processes = list(processes_using(root.path, frozenset(found.going)))
    return found


def _why_not(
    root: StoreRoot,
    name: str,
    row: PackageRow | None,
    excluded: set[str],
    before: float | None,
) -> tuple[str, bool]:
    """Return why a directory stays, empty if it may go; and whether something is off."""
    if row is None:
        return "it is not queued yet: 'regrain migrate' does that once it is settled", False
    if name in excluded:
        return "the package is set aside", False
    if row.status is not Status.COMPLETED:
        return f"the package is {row.status.value}: 'regrain migrate' takes it", False
    if not is_published(root.packages, name):
        return "the package is completed, yet not published", True
    if before is not None and (row.completed_at is None or row.completed_at > before):
        return "it was completed too short a time ago", False
    return "", False


def _measure(root: StoreRoot, name: str) -> int:
    try:
        with disk.Closing(disk.open_directory(name, root.fd)) as fd:
            return freed_with(fd)
    except OSError:  # it goes at this moment, or cannot be read, which is found out later
        return 0


class Watch:
    """Sees to it that no process has files of legacy directories open that are to go.

    All processes are looked at for all packages together, and anew where the last look is
    not from this moment: with many small packages the looking would else take all the time.

    Args:
        root: The store.
        package_hashes: The packages whose directories are to go.
    """

    def __init__(self, root: StoreRoot, package_hashes: list[str]) -> None:
        self._root = root
        self._packages = frozenset(package_hashes)
        self._looked_at = float("-inf")
        self._found: list[tuple[str, int, str]] = []

    def users(self) -> dict[str, tuple[int, str]]:
        """Return the packages that are in use, each with a process and a path it has open."""
        if clock.monotonic() - self._looked_at >= _MOMENT_SECONDS:
            self._found = list(open_files(self._root.path, self._packages))
            self._looked_at = clock.monotonic()
        return {name: (pid, path) for name, pid, path in self._found}

    def check(self) -> None:
        """Look.

        Raises:
            RefusedError: Some have.
        """
        if self.users():
            found = list({pid: path for _, pid, path in reversed(self._found)}.items())[::-1]
            named = ", ".join(f"process {pid}: {path}" for pid, path in found[:_PROCESSES_MAX])
            raise RefusedError(
                f"{len(found)} processes have files of legacy packages open",
                path=found[0][1],
                why=named,
                advice="End or restart them, then run 'regrain cleanup --execute' again.",
            )


def clean_up(
    root: StoreRoot,
    ledger: Ledger,
    package_hashes: list[str],
    *,
    on_event: Callable[[Cleaned | Staying], None],
    stopping: Callable[[], bool],
) -> Cleanup:
    """Prove of each package that it is published whole, then remove its legacy directory.

    Whenever anything is off both layouts stay, and what it was stands in the ledger.

    Args:
        root: The store.
        ledger: Its ledger.
        package_hashes: Packages, see ``foresee``.
        on_event: Told what became of each.
        stopping: Asked before each package.

    Raises:
        RefusedError: A process has files open there.
    """
    watch = Watch(root, package_hashes)
    watch.check()
    recorded, twins, done = ledger.recorded_packages(), Twins(root), Cleanup()
    for name in package_hashes:
        if stopping():
            done.stopped = True
            break
        watch.check()
        with StoreLock(root, exclusive=False):
            event = clean_one(root, ledger, twins, name, recorded.get(name))
        if event is not None:
            done.take(event)
            on_event(event)
    return done


def clean_one(
    root: StoreRoot, ledger: Ledger, twins: Twins, name: str, list_hash: str | None
) -> Cleaned | Staying | None:
    """Prove of one package that it is published whole, then remove its legacy directory.

    Args:
        root: The store, whose lock the caller shares.
        ledger: Its ledger.
        twins: Who compares.
        name: The package.
        list_hash: What the ledger knows its file list by.

    Returns:
        What became of it; None where it was somebody else's turn, or what is left of it in
        the trash cannot be unlinked (see ``unlink_rest``).
    """
    found = _clean_one(root, ledger, twins, name, list_hash)
    if isinstance(found, Doubt):
        return Staying(name, found.why, in_doubt=True, path=found.path)
    return None if found else Cleaned(name, ledger.freed_by(name))


def _clean_one(
    root: StoreRoot, ledger: Ledger, twins: Twins, name: str, list_hash: str | None
) -> Doubt | str:
    """Return what kept a directory from going; empty if it is gone."""
    try:
        with disk.Closing(disk.open_directory(name, root.fd)) as legacy:
            proved = mark(legacy)
            doubt = twins.doubt(name, legacy, list_hash)
    except FileNotFoundError:
        return _NOT_ANY_MORE
    except PackageError as error:
        doubt = Doubt((error.path or "").encode(), error.why or error.what, in_legacy=True)
    except OSError as error:
        doubt = Doubt(b"", f"it cannot be read: {reason(error)}", in_legacy=True)
    if doubt is not None and is_published(root.packages, name):
        note(ledger, name, doubt)
        return doubt
    with publish_lock(root):
        if not _is_published_as(root, name, list_hash) or not is_published(root.fd, name):
            return _NOT_ANY_MORE
        try:
            doubt = clean(root, ledger, twins, name, list_hash, proved)
        except OSError as error:
            return _held(root, ledger, name, error)
    return _unlink(root, name) if doubt is None else doubt


def _unlink(root: StoreRoot, name: str) -> str:
    """Free what a directory took that is gone already; this keeps nobody waiting."""
    try:
        empty_discarded(root, name)
    except OSError as error:
        if error.errno not in _HELD:
            raise
        return _HALF_GONE
    return ""


def _held(root: StoreRoot, ledger: Ledger, name: str, error: OSError) -> Doubt:
    """Return why a directory could not be moved.

    Raises:
        OSError: It is not about that directory.
    """
    if error.errno not in _HELD or not is_published(root.fd, name):
        raise error
    ledger.fulfilled(name, Intent.CLEANUP)
    return Doubt(b"", f"it cannot be moved: {reason(error)}", in_legacy=True)


def _is_published_as(root: StoreRoot, name: str, list_hash: str | None) -> bool:
    """Tell whether what was compared is still what is published."""
    try:
        return FileLevelPackage(root.packages, root.objects, name).list_hash() == list_hash
    except FileNotFoundError:
        return False


def remaining(root: StoreRoot, ledger: Ledger) -> list[str]:
    """Return the packages that have a legacy directory and are not set aside."""
    excluded = ledger.excluded()
    return [name for name in legacy_names(root.fd)[0] if name not in excluded]
