"""The files of a ledger: the old ones moved aside, the new one put into their place."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from regrain import disk
from regrain.errors import CorruptionError
from regrain.ledger.elsewhere import mark, schema_of
from regrain.ledger.rebuilding import Inspection
from regrain.ledger.upkeep import inspection_of
from regrain.model import layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from regrain.ledger.elsewhere import Place
    from regrain.store.locks import RunDirectory
    from regrain.store.root import StoreRoot

_T = TypeVar("_T")
_PIECES = ("", "-wal", "-shm", "-journal")
"""What SQLite appends to a database's name; all of them belong together."""

_ASIDE = re.compile(rf"\A{re.escape(layout.LEDGER)}\.(\d+)(-wal|-shm|-journal)?\Z")


def put_into_place(root: StoreRoot, run: RunDirectory) -> list[str]:
    """Flush the new ledger in ``run``, move the old one aside, rename the new one.

    Returns:
        Where the old one went, names in ``quarantine/``.
    """
    _finish_file(root, run)
    aside = set_aside(root)
    disk.rename_noreplace(layout.LEDGER.encode(), run.fd, layout.LEDGER.encode(), root.fd)
    disk.fsync(root.fd)
    return aside


@dataclass(slots=True)
class Remembered:
    """What only a ledger knows.

    Attributes:
        history: Its lines: when, which event, which package, details.
        excluded: Packages set aside.
        intents: What was to be done to packages and is not known to have been.
        integrity: What stands against packages, since when.
        lost: Why the rest of it, or all, could not be read; empty if it could.
    """

    history: list[tuple[int, str, str | None, str]] = field(default_factory=list)
    excluded: list[str] = field(default_factory=list)
    intents: list[tuple[str, str, int]] = field(default_factory=list)
    integrity: list[tuple[str, str, int]] = field(default_factory=list)
    lost: str = ""


def remembered(root: StoreRoot) -> Remembered:
    """Return what the ledger in place still tells, else the last one moved aside.

    What can be read of it, that is: what is damaged is lost, which the disk does not mind.

    Raises:
        RegrainError: It is not damaged, but cannot be read now: its server went away, or another
            process works with it. Nothing of it may be taken for lost.
    """
    found = Remembered()
    if schema_of(root.path) is not None:
        with _as_far_as_it_goes(found), inspection_of(root.path) as old:
            old.problems()  # a ledger that is missing is told so, not by what it lacks
            _remember(found, old)
        return found
    if lies_there(root, layout.LEDGER):
        path = os.path.join(root.path, layout.LEDGER)
    else:
        numbers = _aside_numbers(root)
        if not numbers:
            return found
        path = os.path.join(root.path, layout.QUARANTINE, f"{layout.LEDGER}.{max(numbers)}")
    with _as_far_as_it_goes(found), Inspection(path, leave_log=True) as old:
        _remember(found, old)
    return found


@contextlib.contextmanager
def _as_far_as_it_goes(found: Remembered) -> Iterator[None]:
    """End quietly where the old ledger is damaged, and only there."""
    try:
        yield
    except CorruptionError as error:
        found.lost = found.lost or error.why or error.what


def _remember(found: Remembered, old: Inspection) -> None:
    _extend(found, found.history, old.history)
    _extend(found, found.excluded, old.excluded)
    _extend(found, found.intents, old.intents)
    _extend(found, found.integrity, old.integrity)


def mark_place(root: StoreRoot, place: Place) -> list[str]:
    """Let a finished schema in a server be the ledger; a ledger that is a file goes aside.

    Returns:
        Where a file went, names in ``quarantine/``. A schema stays where it is.
    """
    mark(root.path, place.schema)
    return set_aside(root)


def _extend(found: Remembered, listed: list[_T], read: Callable[[], Iterator[_T]]) -> None:
    """Add what can be read, up to where it breaks off."""
    with _as_far_as_it_goes(found):
        for row in read():
            listed.append(row)  # noqa: PERF402 -- what came before an error is kept


def _finish_file(root: StoreRoot, run: RunDirectory) -> None:
    """Give the new ledger the owner and mode of a ledger, and flush it."""
    with disk.Closing(disk.open_file(layout.LEDGER, run.fd)) as fd:
        os.fchown(fd, *root.owner)
        os.fchmod(fd, os.fstat(root.fd).st_mode & 0o044 | 0o600)
        disk.fsync(fd)


def set_aside(root: StoreRoot) -> list[str]:
    """Move the ledger to quarantine as it is, with what SQLite keeps beside it.

    The database goes first: without it nothing takes its log for another's. A log that a
    killed rebuilding left behind follows the database it belongs to.
    """
    pieces = pieces_there(root)
    if not pieces:
        return []
    with disk.Closing(disk.open_directory(layout.QUARANTINE, root.fd)) as target:
        number = _free_number(root, pieces)
        moved = []
        for piece in pieces:
            new = f"{layout.LEDGER}.{number}{piece}"
            name = f"{layout.LEDGER}{piece}"
            disk.rename_noreplace(name.encode(), root.fd, new.encode(), target)
            moved.append(new)
        disk.fsync(target)
        disk.fsync(root.fd)
    return moved


def pieces_there(root: StoreRoot) -> list[str]:
    """Return what of a ledger lies at the top: the database as ``""``, and what is beside it."""
    return [piece for piece in _PIECES if lies_there(root, f"{layout.LEDGER}{piece}")]


def lies_there(root: StoreRoot, name: str) -> bool:
    """Tell whether there is something of that name at the top."""
    try:
        os.stat(name, dir_fd=root.fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _aside_numbers(root: StoreRoot) -> dict[int, set[str]]:
    """Return which pieces of which earlier ledgers lie in quarantine."""
    found: dict[int, set[str]] = {}
    with disk.Closing(disk.open_directory(layout.QUARANTINE, root.fd)) as fd:
        for name in os.listdir(fd):
            match = _ASIDE.match(name)
            if match:
                found.setdefault(int(match[1]), set()).add(match[2] or "")
    return found


def _free_number(root: StoreRoot, pieces: list[str]) -> int:
    there = _aside_numbers(root)
    last = max(there, default=-1)
    follows = "" not in pieces and last >= 0 and not there[last] & set(pieces)
    return last if follows else last + 1
