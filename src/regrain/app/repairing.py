"""The facade of ``verify --repair``: what is damaged is healed, and looked at once more."""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from regrain.app.floors import floors_of
from regrain.app.recovery import check_owner
from regrain.app.undoing import ignore, single_run
from regrain.app.verification import Verdict, verify
from regrain.errors import (
    CorruptionError,
    HaltedError,
    LedgerLostError,
    NoSpaceError,
    RegrainError,
    UnknownFormatError,
)
from regrain.ledger import open_ledger
from regrain.ledger.elsewhere import lies_elsewhere
from regrain.ledger.upkeep import inspection_of
from regrain.maintain import repair as repairing
from regrain.maintain.audit import Audit, Level
from regrain.maintain.books import Books, check_books, compare_books
from regrain.maintain.need import ways_of
from regrain.maintain.rebuild import rebuild
from regrain.maintain.repaired import Outcome, Repair, Report, Subject
from regrain.migrate.added import no_claim, record
from regrain.migrate.backed_up import last_backup, path_in
from regrain.migrate.recover import adopt_strangers, whole
from regrain.model import layout
from regrain.model.digest import is_package_hash
from regrain.model.layout import parse_carrier
from regrain.model.place import is_url
from regrain.remote.vault import UrlVault
from regrain.store import dual
from regrain.store.locks import StoreLock, dead_runs, publish_lock, run_lock
from regrain.store.packages import is_published, published
from regrain.store.vault import Vault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from regrain.ledger import Ledger
    from regrain.maintain.sources import Backup
    from regrain.settings import Settings
    from regrain.store.root import StoreRoot

COMMAND = "regrain verify --repair"


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be verified and repaired.

    Attributes:
        texts: Packages, by hash or prefix; all of them where there are none.
        level: How closely to look.
        subset: Which part of the objects, as ``verify`` takes it.
        places: Directories or URLs of backups, beside the last one that regrain made.
        dry_run: Say what would be done; change nothing.
    """

    texts: list[str] = field(default_factory=list)
    level: Level = Level.FULL
    subset: str | None = None
    places: tuple[str, ...] = ()
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Repaired:
    """What a repair found and did.

    Attributes:
        first: What was found before.
        report: What was done about it, or would be.
        last: What is found afterwards of all that was concerned; with ``dry_run`` as before.
    """

    first: Verdict
    report: Report
    last: Verdict

    @property
    def is_damaged(self) -> bool:
        """Whether anything stored is still not what was stored."""
        return bool(self.report.lost) or self.last.is_damaged

    @property
    def is_pending(self) -> bool:
        """Whether a package is to be migrated again."""
        return any(one.outcome is Outcome.PENDING for one in self.report.repairs)


def repair(
    root: StoreRoot,
    settings: Settings,
    order: Order,
    *,
    on_result: Callable[[Audit], None] = ignore,
    on_repair: Callable[[Repair], None] = ignore,
    stopping: Callable[[], bool] = lambda: False,
) -> Repaired:
    """Verify, heal what is damaged, and verify once more what that concerned.

    Looking takes no lock. Healing is a run like any other, and keeps collections out.

    Args:
        root: The store.
        settings: The settings in force.
        order: What to look at, and how.
        on_result: Told how far the first look is.
        on_repair: Told each damaged thing when it is done with.
        stopping: Asked before each; True ends the run, which may be given again.

    Raises:
        LockedError: Another run holds the store.
        UnknownPackageError: A package that was named is not there.
        CorruptionError: The ledger is in a database server, and cannot be used.
    """
    backups = [_vault(root, place) for place in order.places]
    if not order.dry_run:
        check_owner(root)
        with run_lock(root, COMMAND):
            pass  # better now than after a look that takes hours
    mended = _heal_ledger(root, dry_run=order.dry_run)
    for one in mended:
        on_repair(one)

    def look(names: list[str], level: Level, subset: str | None = None) -> Verdict:
        return verify(
            root,
            settings,
            names,
            level=level,
            subset=subset,
            on_result=on_result,
            stopping=stopping,
        )

    first = look(order.texts, order.level, order.subset)
    report = Report(list(mended), stopped=first.audit.stopped)
    if report.stopped or (order.dry_run and mended):
        return Repaired(first, report, first)
    with contextlib.closing(open_ledger(root.path, read_only=True)) as ledger:
        seen = replace(first, books=_books(root, order, ledger))
        task = _task(root, settings, order, seen, ledger, backups)
        is_needed = bool(task.digests or task.legacy or _part(seen) or dead_runs(root))
        # Who heals looks again by himself: only where it is open is it worth a look before.
        is_open = order.dry_run or not is_needed
        foreseen = repairing.foresee(root, ledger, task).repairs if is_open else []
    if order.dry_run:
        report.repairs += foreseen
        return Repaired(first, report, first)
    if not (is_needed or foreseen):
        # The look may have taken hours: whoever holds the store by now is not in its way.
        return Repaired(first, report, _look_again(root, look, order, seen, report))
    with _told_as_repair(), single_run(root, COMMAND) as ledger:
        seen = replace(first, books=_books(root, order, ledger))
        task = _task(root, settings, order, seen, ledger, backups)
        done = repairing.repair(root, ledger, task, on_repair=on_repair, stopping=stopping)
        report.repairs += done.repairs
        report.stopped = done.stopped
        if not order.texts:
            seen = replace(seen, books=_mend_books(root, ledger))
    return Repaired(first, report, _look_again(root, look, order, seen, report))


@contextlib.contextmanager
def _told_as_repair() -> Iterator[None]:
    """Say of a disk that is full, or fails, what to do next here."""
    try:
        yield
    except LedgerLostError:
        raise
    except (NoSpaceError, HaltedError) as error:
        error.advice = (
            "What was healed is healed. Free space, or check the disk, then run "
            "'regrain verify --repair' again; it goes on."
        )
        raise


# the ledger


def _heal_ledger(root: StoreRoot, *, dry_run: bool) -> list[Repair]:
    """Make the ledger anew where it cannot be used, as ``doctor --rebuild-ledger`` does.

    Not one in a server, unasked: that it is missing may mean that another database is set, or
    that an old dump was restored, and then the ledger is not lost at all.

    Raises:
        CorruptionError: It is in a server, and cannot be used.
    """
    why = _flaw_of_ledger(root)
    if not why:
        return []
    if lies_elsewhere(root.path):
        raise CorruptionError(
            "the ledger cannot be used, and is in a database server",
            path=root.path,
            why=why,
            advice="See that [store] database names the right database, and that what it holds is "
            "not an old copy. If the ledger is lost: 'regrain doctor --rebuild-ledger', then this "
            "again.",
        )
    if dry_run:
        return [_of_ledger(why, "")]
    with run_lock(root, COMMAND), StoreLock(root, exclusive=True):
        done = rebuild(root, lambda _: None)
    return [_of_ledger(why, ", ".join(done.aside))]


def _of_ledger(why: str, aside: str) -> Repair:
    return Repair(Subject.LEDGER, layout.LEDGER, why, Outcome.HEALED, "what lies on disk", aside)


def _flaw_of_ledger(root: StoreRoot) -> str:
    """Say why the ledger cannot be used; empty if it can, or if another version can use it."""
    if lies_elsewhere(root.path):
        return _flaw_inside(root)
    try:
        status = os.stat(layout.LEDGER, dir_fd=root.fd, follow_symlinks=False)
    except FileNotFoundError:
        return "it is missing"
    if not stat.S_ISREG(status.st_mode):
        return "it is not a regular file"
    return _flaw_inside(root)


def _flaw_inside(root: StoreRoot) -> str:
    try:
        with inspection_of(root.path) as inspection:
            problems, revision = inspection.problems(), inspection.revision()
    except CorruptionError as error:
        return error.why or error.what
    if problems:
        return problems[0]
    return "it is a database, but no ledger of regrain" if revision is None else ""


# what is to be healed


def _task(
    root: StoreRoot,
    settings: Settings,
    order: Order,
    seen: Verdict,
    ledger: Ledger,
    backups: list[Backup],
) -> repairing.Task:
    store, floors = settings.store, floors_of(root.fd, settings)
    return repairing.Task(
        digests=sorted(_digests(seen.audit, seen.books or Books())),
        packages=_packages(root, order, ledger),
        legacy=sorted({change.package_hash for change in seen.audit.changes}),
        ways=ways_of(root, store.ingest, link_outside=store.link_outside),
        backups=[*backups, *_known_backup(root, ledger, order.places)],
        jobs=store.migration_parallel_files,
        bytes_min=floors.size,
        inodes_min=floors.inodes,
    )


def _vault(root: StoreRoot, place: str) -> Backup:
    """Open a backup that was named.

    Raises:
        UsageError: There is none.
        RefusedError: It is the store itself.
        RemoteError: The service does not answer.
    """
    if not is_url(place):
        return Vault(place, root)
    vault = UrlVault(place)
    vault.check()
    return vault


def _known_backup(root: StoreRoot, ledger: Ledger, given: tuple[str, ...]) -> list[Backup]:
    """Return the last backup that regrain made, if it can be reached."""
    made = last_backup(ledger)
    path = "" if made is None else path_in(made)
    if not path or path in (place.rstrip("/") for place in given):
        return []
    try:
        return [_vault(root, path)]
    except RegrainError:
        return []


def _books(root: StoreRoot, order: Order, ledger: Ledger) -> Books | None:
    """Compare ledger and disk, unless some packages alone are looked at."""
    return None if order.texts else check_books(root, ledger)


def _part(seen: Verdict) -> bool:
    """Tell whether anything is not what was stored, or ledger and disk part."""
    return seen.is_damaged or (seen.books is not None and seen.books.disagree)


def _digests(found: Audit, books: Books) -> set[str]:
    """Return the objects about which anything was said."""
    names = {
        *(damage.object for damage in found.damages if damage.object),
        *books.unknown_carriers,
        *books.missing_carriers,
        *books.resized,
        *books.touched,
    }
    return {parsed[0] for name in names if (parsed := parse_carrier(name)) is not None}


def _packages(root: StoreRoot, order: Order, ledger: Ledger) -> list[str]:
    if order.texts:
        return [str(dual.find_hash(root, text)) for text in order.texts]
    there = {name for name in published(root.packages) if is_package_hash(name)}
    return sorted(there | ledger.recorded_packages().keys())


# ledger and disk


def _mend_books(root: StoreRoot, ledger: Ledger) -> Books:
    """Record what lies on disk without a row, once it is proven; return what is left to say."""
    with StoreLock(root, exclusive=False):
        found = check_books(root, ledger)
        if found.unknown_carriers:
            adopt_strangers(root, ledger)
        for name in found.unrecorded:
            with publish_lock(root), contextlib.suppress(CorruptionError, UnknownFormatError):
                if _is_nobodys(root, ledger, name):
                    record(root, ledger, whole(root, no_claim(name), verified=False)[0], [])
    return compare_books(root) if found.disagree else found


def _is_nobodys(root: StoreRoot, ledger: Ledger, name: str) -> bool:
    """Tell whether a published package has neither a row nor a directory to migrate it from."""
    return (
        is_published(root.packages, name)
        and not is_published(root.fd, name)
        and ledger.package_row(name) is None
        and name not in ledger.recorded_packages()
    )


# the last look


def _look_again(
    root: StoreRoot,
    look: Callable[[list[str], Level], Verdict],
    order: Order,
    seen: Verdict,
    report: Report,
) -> Verdict:
    """Verify what was concerned, which takes back what no longer stands against it."""
    names = {*report.packages, *_named(seen.audit)}
    there = [n for n in sorted(names) if is_package_hash(n) and dual.has_package(root, n)]
    found = Audit()
    if there:
        level = Level.FULL if order.level is Level.QUICK else order.level
        found = look(there, level).audit
    return Verdict(found, seen.books, "", seen.not_migrated)


def _named(found: Audit) -> Iterable[str]:
    yield from (damage.package_hash for damage in found.damages if damage.package_hash)
    yield from (change.package_hash for change in found.changes)
