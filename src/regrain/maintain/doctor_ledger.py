"""Doctor: the ledger itself, and the ledger against the disk."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from regrain.errors import CorruptionError, RegrainError, UnknownFormatError
from regrain.ledger import open_ledger
from regrain.ledger.elsewhere import lies_elsewhere
from regrain.ledger.rebuilding import NO_OWNED, OwnerSum, owner_sum
from regrain.ledger.schema import REVISION
from regrain.ledger.upkeep import inspection_of
from regrain.maintain.books import Books, alone, check_books
from regrain.maintain.doctor_findings import Finding, Weight, listed, several, some
from regrain.model import layout
from regrain.model.entry import Kind
from regrain.model.status import Status
from regrain.store.locks import is_running
from regrain.store.packages import FileLevelPackage, is_published
from regrain.store.root import legacy_names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regrain.ledger import Ledger
    from regrain.store.root import StoreRoot

_CHECK = "ledger"
_REBUILD = "Run 'regrain doctor --rebuild-ledger'."
_LOOK_FIRST = (
    "See that [store] database names the right database, and that what it holds is no old copy. "
    "If the ledger is lost: 'regrain doctor --rebuild-ledger'."
)
_WAL_BYTES_MAX = 256 << 20


def check_ledger(root: StoreRoot) -> Iterator[Finding]:
    """Look into the ledger as far as it lets us, then compare it with the disk."""
    if lies_elsewhere(root.path):
        yield from _check_inside(root, None)
        return
    path = os.path.join(root.path, layout.LEDGER)
    status = _lstat(root)
    if status is None or not stat.S_ISREG(status.st_mode):
        what = "is missing" if status is None else "is not a regular file"
        yield _broken(f"the ledger {what}; packages can be read, nothing else works")
        return
    if not os.access(path, os.R_OK):
        advice = "Run as the store's owner, or as root."
        yield Finding(_CHECK, Weight.ADVICE, "the ledger may not be read by this user", advice)
        return
    if stat.S_IMODE(status.st_mode) & 0o022 or (status.st_uid, status.st_gid) != root.owner:
        yield Finding(
            _CHECK,
            Weight.WARNING,
            f"the ledger has mode {stat.S_IMODE(status.st_mode):04o} and belongs to "
            f"{status.st_uid}:{status.st_gid}",
            f"Give it to {root.owner.uid}:{root.owner.gid} and take writing from others.",
        )
    yield from _check_inside(root, status)


def _check_inside(root: StoreRoot, status: os.stat_result | None) -> Iterator[Finding]:
    """Look at what is in it.

    Args:
        root: The store.
        status: Of its file; None where it is in a server.
    """
    advice = _LOOK_FIRST if status is None else _REBUILD
    try:
        with inspection_of(root.path) as inspection:
            problems, revision = inspection.problems(), inspection.revision()
            server = inspection.description()
        if problems:
            yield _broken(f"the ledger is damaged: {problems[0]}", problems=problems)
            return
        if revision != REVISION:
            yield _other_schema(revision, advice)
            return
        ledger = open_ledger(root.path, read_only=True)
    except RegrainError as error:
        words = ": ".join([error.what, *([error.why] if error.why else [])])
        if isinstance(error, CorruptionError) or status is not None:
            yield _broken(words, advice)
        else:
            yield Finding(_CHECK, Weight.ERROR, words, error.advice)
        return
    try:
        if status is None:
            yield _in_server(server)
        else:
            yield from _sizes(os.path.join(root.path, layout.LEDGER), status.st_size)
        yield from _compare(root, ledger)
    except CorruptionError as error:
        yield _broken(": ".join([error.what, *([error.why] if error.why else [])]))
    finally:
        ledger.close()


def _lstat(root: StoreRoot) -> os.stat_result | None:
    try:
        return os.stat(layout.LEDGER, dir_fd=root.fd, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _broken(message: str, advice: str = _REBUILD, **figures: object) -> Finding:
    return Finding(_CHECK, Weight.ERROR, message, advice, figures, corrupt=True)


def _other_schema(revision: str | None, advice: str) -> Finding:
    if revision is None:
        return _broken("the ledger is a database, but no ledger of regrain", advice)
    if revision < REVISION:
        return Finding(
            _CHECK,
            Weight.WARNING,
            f"the ledger has the older schema {revision}, this version works with {REVISION}",
            "Run 'regrain init', which brings it up to date.",
            {"revision": revision},
        )
    message = f"the ledger has the schema {revision}, which this version does not know"
    advice = "Use the version that made it, or run 'regrain doctor --rebuild-ledger'."
    return Finding(_CHECK, Weight.ERROR, message, advice, {"revision": revision}, corrupt=True)


def _in_server(figures: dict[str, object]) -> Finding:
    words = (
        f"the ledger is in PostgreSQL {figures['postgresql']}, schema {figures['schema']}, "
        f"{figures['bytes']:,} bytes; that server keeps the store's locks, too"
    )
    return Finding(_CHECK, Weight.OK, words, figures=figures)


def _sizes(path: str, size: int) -> Iterator[Finding]:
    try:
        log = os.stat(f"{path}-wal").st_size
    except FileNotFoundError:
        log = 0
    figures: dict[str, object] = {"bytes": size, "wal_bytes": log}
    words = f"the ledger is sound in itself; {size:,} bytes, and {log:,} in its log"
    yield Finding(_CHECK, Weight.OK, words, figures=figures)
    if log > _WAL_BYTES_MAX:
        yield Finding(
            _CHECK,
            Weight.WARNING,
            f"the ledger's log has grown to {log:,} bytes",
            "End the process that keeps an old state of the ledger open; the next run shortens it.",
            figures,
        )


def _compare(root: StoreRoot, ledger: Ledger) -> Iterator[Finding]:
    """Compare ledger and disk; what does not agree is looked at again while nobody writes."""
    books = check_books(root, ledger)
    new, gone = _unlike_rows(root, ledger)
    wrong, nameless = _unlike_owners(root, books)
    if books.disagree or gone or wrong or nameless:
        with alone(root):
            books = check_books(root, ledger, among=books)
            gone = sorted(set(gone) & set(_unlike_rows(root, ledger)[1]))
            wrong, nameless = _unlike_owners(root, books, among=wrong)
    found = [
        *_judge_books(books),
        *_judge_carriers(books),
        *_judge_rows(new, gone),
        *_judge_owners(wrong, nameless),
    ]
    busy = os.geteuid() in (0, root.owner.uid) and bool(is_running(root))
    if busy and found:
        found.append(
            Finding(
                _CHECK,
                Weight.ADVICE,
                "a run is under way, so that what was found may be about packages on their way",
                "Run it again when that run has ended.",
            )
        )
    if not found:
        found = [Finding(_CHECK, Weight.OK, "the ledger agrees with the disk")]
    yield from found


def _judge_books(books: Books) -> Iterator[Finding]:
    rows = [
        (
            books.unpublished,
            "package is recorded that is not in packages/",
            "packages are recorded that are not in packages/",
            (
                "Run 'regrain verify --level deep --repair': it brings back what a legacy "
                "directory or a backup still has, and tells what is lost."
            ),
            True,
        ),
        (
            books.changed_lists,
            "package has another file list than was recorded",
            "packages have another file list than was recorded",
            "Run 'regrain verify --level deep --repair' on them.",
            True,
        ),
        (
            books.missing_carriers,
            "object has a row and is not there",
            "objects have a row and are not there",
            (
                "Run 'regrain verify --level deep --repair': it restores them, and tells which "
                "packages need what is lost."
            ),
            True,
        ),
        (
            books.unrecorded,
            "published package has no row",
            "published packages have no row",
            (
                "Run 'regrain migrate', which records what a killed run published; "
                "if they are still there afterwards, run 'regrain doctor --rebuild-ledger'."
            ),
            False,
        ),
        (
            books.unknown_carriers,
            "object has no row",
            "objects have no row",
            (
                "Run 'regrain migrate', which looks at what a killed run left; "
                "if they are still there afterwards, run 'regrain doctor --rebuild-ledger'."
            ),
            False,
        ),
    ]
    for names, one, more, advice, corrupt in rows:
        if names:
            yield Finding(
                _CHECK,
                Weight.ERROR if corrupt else Weight.WARNING,
                f"{several(len(names), one, more)}: {some(names)}",
                advice,
                {"names": listed(names)},
                corrupt=corrupt,
            )


def _judge_carriers(books: Books) -> Iterator[Finding]:
    """Judge carriers that are not what they were when they were recorded."""
    if books.resized:
        yield Finding(
            _CHECK,
            Weight.ERROR,
            several(len(books.resized), "object has", "objects have")
            + f" another size than was recorded: {some(books.resized)}",
            "Run 'regrain verify --level deep --repair': it restores them, and tells which "
            "packages need what is lost.",
            {"names": listed(books.resized)},
            corrupt=True,
        )
    if books.touched:
        yield Finding(
            _CHECK,
            Weight.ADVICE,
            several(len(books.touched), "object has", "objects have")
            + " another time than was recorded, so that somebody touched or wrote to what is "
            f"named here: {some(books.touched)}",
            "Run 'regrain verify', which reads them and tells whether they are damaged.",
            {"names": listed(books.touched)},
        )


def _unlike_rows(root: StoreRoot, ledger: Ledger) -> tuple[list[str], list[str]]:
    """Return legacy packages without a row, and rows of packages in neither layout."""
    legacy = set(legacy_names(root.fd)[0])
    unserved = (Status.PENDING, Status.IN_PROGRESS, Status.FAILED)
    gone = [
        row.package_hash
        for row in ledger.package_rows()
        if row.status in unserved
        and row.package_hash not in legacy
        and not is_published(root.packages, row.package_hash)
    ]
    return sorted(legacy - ledger.known_packages()), gone


def _judge_rows(new: list[str], gone: list[str]) -> Iterator[Finding]:
    """Judge what differs between the legacy directories and the rows of the migration."""
    if new:
        yield Finding(
            _CHECK,
            Weight.ADVICE,
            several(len(new), "legacy directory is", "legacy directories are")
            + f" not queued yet: {some(new)}",
            "Run 'regrain migrate', which queues those that have settled.",
            {"names": listed(new)},
        )
    if gone:
        yield Finding(
            _CHECK,
            Weight.WARNING,
            several(len(gone), "package is", "packages are")
            + f" in neither layout, though to be migrated: {some(gone)}",
            "Get their legacy directories from a backup, or remove the packages.",
            {"names": listed(gone)},
        )


def _unlike_owners(
    root: StoreRoot, books: Books, *, among: list[str] | None = None
) -> tuple[list[str], int]:
    """Return packages that own other objects than their file lists name; rows of nobody.

    Args:
        root: The store.
        books: Says which packages have no row at all.
        among: Look at no other packages.
    """
    with inspection_of(root.path) as inspection:
        recorded = inspection.owner_sums()
    nameless = recorded.pop("", NO_OWNED)
    names = recorded.keys() | (set(os.listdir(root.packages)) - set(books.unrecorded))
    if among is not None:
        names &= set(among)
    wrong = [
        name
        for name in names
        if named_objects(root, name) not in (None, recorded.get(name, NO_OWNED))
    ]
    return sorted(wrong), nameless.number


def _judge_owners(wrong: list[str], nameless: int) -> Iterator[Finding]:
    """Judge what differs between who owns objects and what file lists name."""
    if wrong or nameless:
        yield Finding(
            _CHECK,
            Weight.ERROR,
            "who owns which objects is wrong for "
            f"{several(len(wrong), 'package', 'packages')}, and "
            f"{several(nameless, 'row belongs', 'rows belong')} to no package: {some(wrong)}",
            "Run 'regrain doctor --rebuild-ledger', and no 'regrain gc' before.",
            {"names": listed(wrong), "rows_of_nobody": nameless},
            corrupt=True,
        )


def named_objects(root: StoreRoot, package_hash: str) -> OwnerSum | None:
    """Return what a published package's file list names; None where it cannot be read."""
    try:
        package = FileLevelPackage(root.packages, root.objects, package_hash)
        digests = {
            entry.digest for entry in package.entries() if entry.kind is Kind.FILE and entry.size
        }
    except (CorruptionError, UnknownFormatError, OSError):
        return None  # gone, or damaged: reported as such elsewhere
    return owner_sum(map(bytes.fromhex, digests))
