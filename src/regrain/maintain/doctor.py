"""The work of ``doctor``: every check runs, whatever the others found; nothing is changed.

What has to be tried by writing is tried in a run directory of its own below ``temp/``.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING

from regrain import disk
from regrain.errors import NotAStoreError, RegrainError, path_of, reason
from regrain.ledger.elsewhere import lies_elsewhere
from regrain.ledger.rebuilding import SqliteVersion, sqlite_in_use
from regrain.maintain.doctor_disk import abilities, file_system, space
from regrain.maintain.doctor_findings import Finding, Weight
from regrain.maintain.doctor_ledger import check_ledger
from regrain.maintain.doctor_objects import check_objects
from regrain.maintain.doctor_places import check_leftovers, check_places, check_runs
from regrain.model import layout
from regrain.store.root import StoreRoot, open_top

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_SYNCFS_REPORTS = (5, 8)


@dataclass(frozen=True, slots=True)
class Examination:
    """What to look at, and how.

    Attributes:
        path: The store's directory.
        version: Of regrain.
        free_bytes_min: What should be left on the file system.
        free_inodes_min: Likewise.
        may_try: Whether abilities may be tried by writing below ``temp/``.
        on_shard: Told how many shards of ``objects/`` were looked at.
    """

    path: str
    version: str
    free_bytes_min: int
    free_inodes_min: int
    may_try: bool
    on_shard: Callable[[int], None]


def examine(wanted: Examination) -> list[Finding]:
    """Look at everything.

    Raises:
        NotAStoreError: There is no directory, or nothing in it was ever a store's.
    """
    with disk.Closing(open_top(wanted.path)) as fd:
        found = versions(wanted.version, sqlite_in_use())
        found += _guarded("file system", lambda: _file_system(fd, wanted.path))
        found += _guarded("space", lambda: space(fd, wanted.free_bytes_min, wanted.free_inodes_min))
        root, problems = _open(fd, wanted.path)
        found += problems
        found += _guarded("places", lambda: check_places(fd))
        if root is None:
            return found
        opened = root
        found += _guarded("file system", lambda: abilities(opened, may_try=wanted.may_try))
        found += _guarded("locks", lambda: check_runs(opened))
        found += _guarded("leftovers", lambda: check_leftovers(opened))
        found += _guarded("objects", lambda: check_objects(opened, wanted.on_shard))
        found += _guarded("ledger", lambda: check_ledger(opened))
        return found


def _file_system(fd: int, path: str) -> Iterable[Finding]:
    return file_system(fd, server_keeps_locks=lies_elsewhere(path))


def _guarded(check: str, work: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """Run one check; what it cannot do is a finding, too."""
    found = []
    try:
        for finding in work():
            found.append(finding)  # noqa: PERF402 -- those before an error are kept
    except PermissionError as error:
        found.append(_not_made(check, reason(error), "Run as the store's owner, or as root."))
    except OSError as error:
        where = f"'{os.fsdecode(path_of(error))}': " if path_of(error) else ""
        found.append(_not_made(check, where + reason(error), "Mend the cause and run it again."))
    except RegrainError as error:
        found.append(_not_made(check, str(error), error.advice or "Mend it and run it again."))
    return found


def _not_made(check: str, why: str, advice: str) -> Finding:
    return Finding(check, Weight.WARNING, f"the check could not be finished: {why}", advice)


def _open(fd: int, path: str) -> tuple[StoreRoot | None, list[Finding]]:
    """Open the store; where that is impossible, say why."""
    try:
        root = StoreRoot(path)
    except NotAStoreError as error:
        if not {layout.STORE_FILE, layout.OBJECTS, layout.PACKAGES} & set(os.listdir(fd)):
            raise
        advice = (
            "Restore store.toml from a backup; 'regrain init' writes one with the phase 'dual', "
            "which is right only if no phase was switched."
            if layout.STORE_FILE not in os.listdir(fd)
            else "Restore it from a backup; 'regrain init' makes an empty one, "
            "which brings back nothing."
        )
        return None, [_unusable(error, advice, corrupt=True)]
    except RegrainError as error:
        return None, [_unusable(error, error.advice or "Mend the cause and run it again.")]
    message = f"the store {root.store_id} is in the phase '{root.phase().label}'"
    return root, [Finding("store", Weight.OK, message, figures={"phase": root.phase().value})]


def _unusable(error: RegrainError, advice: str, *, corrupt: bool = False) -> Finding:
    words = ": ".join([error.what, *([error.why] if error.why else [])])
    return Finding(
        "store",
        Weight.ERROR,
        f"the store cannot be opened, and much was not looked at: {words}",
        advice,
        corrupt=corrupt,
    )


def versions(regrain: str, sqlite: SqliteVersion) -> list[Finding]:
    """Judge what regrain runs on."""
    kernel = platform.release()
    figures: dict[str, object] = {
        "regrain": regrain,
        "python": platform.python_version(),
        "sqlite": sqlite.text,
        "journal_mode": sqlite.journal_mode,
        "kernel": kernel,
    }
    words = (
        f"regrain {regrain}, Python {platform.python_version()}, SQLite {sqlite.text} "
        f"(journal mode {sqlite.journal_mode}), Linux {kernel}"
    )
    found = [Finding("versions", Weight.OK, words, figures=figures)]
    if not sqlite.is_safe:
        found.append(
            Finding(
                "versions",
                Weight.WARNING,
                f"SQLite {sqlite.text} can corrupt a database when its write-ahead log is reset "
                f"(3.7.0 to 3.51.2); the ledger is therefore written with journal mode "
                f"{sqlite.journal_mode}, which is slower",
                "Install pysqlite3, which brings a newer SQLite, and open the ledger with no "
                "older one.",
            )
        )
    if kernel_numbers(kernel) < _SYNCFS_REPORTS:
        found.append(
            Finding(
                "versions",
                Weight.WARNING,
                f"Linux {kernel} does not report errors of write-back to syncfs",
                'Set sync = "fsync" under [store], or take Linux 5.8 or later.',
            )
        )
    return found


def kernel_numbers(release: str) -> tuple[int, int]:
    """Return the first two numbers of a kernel's release."""
    parts = [*release.partition("-")[0].split("."), "0", "0"][:2]
    major, minor = (int(part) if part.isdigit() else 0 for part in parts)
    return major, minor
