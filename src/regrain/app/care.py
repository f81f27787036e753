"""The facade of ``doctor``: the examination, and the ledger made anew."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from regrain import __version__
from regrain.app.recovery import check_owner
from regrain.app.undoing import single_run
from regrain.errors import RefusedError, RegrainError, path_of, reason
from regrain.maintain.doctor import Examination, examine
from regrain.maintain.doctor_findings import Finding, Weight
from regrain.maintain.quarantined import Emptied, Thing, empty, things
from regrain.maintain.rebuild import Rebuilt, foresee
from regrain.maintain.rebuild import rebuild as rebuild_from_disk
from regrain.settings import DEFAULT_FILE, Settings, chosen_file
from regrain.store.locks import StoreLock, run_lock
from regrain.store.root import StoreRoot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from regrain.store.scan import Usage


class Source(NamedTuple):
    """Where settings came from.

    Attributes:
        file: The configuration file, empty if none was read.
        variables: Variables of the environment that were used.
        problem: Why the configuration could not be used, empty if it could.
    """

    file: str
    variables: tuple[str, ...]
    problem: str = ""


def source_of(config: str | None, environment: Mapping[str, str], problem: str = "") -> Source:
    """Say where ``settings.load`` looks, for the same arguments."""
    file = chosen_file(config, environment)
    if file is None and os.path.exists(DEFAULT_FILE):
        file = DEFAULT_FILE
    used = (name for name in environment if name.startswith("REGRAIN_") and "__" in name)
    return Source(file or "", tuple(sorted(used)), problem)


def doctor(
    path: str,
    settings: Settings,
    source: Source,
    *,
    may_try: bool = True,
    on_shard: Callable[[int], None] = lambda _: None,
) -> list[Finding]:
    """Examine the store at ``path``, sound or not; change nothing.

    Args:
        path: Its directory.
        settings: The settings in force.
        source: Where they came from.
        may_try: Whether abilities of the file system may be tried by writing in ``temp/``.
        on_shard: Told how many of the 256 directories of ``objects/`` were looked at.

    Raises:
        NotAStoreError: There is no directory, or nothing in it was ever a store's.
    """
    wanted = Examination(
        path,
        __version__,
        settings.migration.free_bytes_min,
        settings.migration.free_inodes_min,
        may_try,
        on_shard,
    )
    return [*examine(wanted), *configuration(source)]


def configuration(source: Source) -> Iterator[Finding]:
    """Say where the settings came from."""
    if source.problem:
        yield Finding(
            "configuration",
            Weight.ERROR,
            f"the configuration cannot be used: {source.problem}",
            "Mend it; until then every other command that reads it ends with 2.",
        )
        return
    parts = [f"'{source.file}'"] if source.file else []
    parts += source.variables
    yield Finding(
        "configuration",
        Weight.OK,
        f"settings come from {' and '.join(parts)}" if parts else "all settings are the defaults",
        figures={"file": source.file or None, "variables": list(source.variables)},
    )


def exit_code(findings: list[Finding]) -> int:
    """Return the exit code that findings ask for.

    4 where the ledger, a file list or objects are broken or missing, as ``verify`` says it;
    1 for any other warning or error: the store works, yet somebody should do something, and
    a script that asks ``doctor`` must not have to read its words to know; 0 where there is
    nothing above advice, since leftovers and shared inodes are part of a healthy life.
    """
    if any(finding.corrupt for finding in findings):
        return 4
    return int(any(finding.level in (Weight.WARNING, Weight.ERROR) for finding in findings))


def rebuild_ledger(
    path: str, *, dry_run: bool = False, on_package: Callable[[Usage], None] = lambda _: None
) -> Rebuilt:
    """Make the ledger of the store at ``path`` anew from what lies on disk.

    Args:
        path: The store's directory.
        dry_run: Only count what is there.
        on_package: Told each legacy package that was measured.

    Raises:
        NotAStoreError: No store is there, or it lacks a directory of its own.
        LockedError: A run is under way.
    """
    root = StoreRoot(path)
    if dry_run:
        return foresee(root)
    check_owner(root)
    with run_lock(root, "regrain doctor --rebuild-ledger"), StoreLock(root, exclusive=True):
        try:
            return rebuild_from_disk(root, on_package)
        except OSError as error:
            raise RegrainError(
                "cannot rebuild the ledger",
                path=path_of(error, path),
                why=reason(error),
                advice="Mend the cause and run it again; the old ledger is in place, "
                "or in quarantine/.",
            ) from error


def plan_emptying(root: StoreRoot) -> list[Thing]:
    """Say what lies in quarantine; change nothing."""
    return things(root)


def empty_quarantine(root: StoreRoot) -> Emptied:
    """Remove what lies in quarantine, for good.

    Raises:
        RefusedError: Something stands against a package: what lies there may be the last of it.
        LockedError: Another run holds the store.
    """
    with single_run(root, "regrain doctor --empty-quarantine") as ledger:
        concerns = ledger.concerns()
        if concerns:
            first = min(concerns)
            raise RefusedError(
                "what lies in quarantine may still be needed",
                package=first,
                why=concerns[first].what,
                advice="Heal the packages with 'regrain verify --level deep --repair', or "
                "'regrain remove' those that are lost.",
            )
        return empty(root, ledger)
