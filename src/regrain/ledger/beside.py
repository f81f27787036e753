"""Reading the ledger beside whoever writes to it, without writing a byte: for who only watches.

Other readers take part in SQLite's locking as writers do, and the last one out tidies up: it moves
the log into the database. Who watches a store for days must leave no trace in it, and may not be
allowed to write at all. (As root, SQLite sets the owner of a log to what it is, which moves its
change time.)
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

from regrain.errors import LockedError, RegrainError
from regrain.ledger.connection import open_ledger, watching_uri
from regrain.ledger.elsewhere import place_of
from regrain.model import layout

if TYPE_CHECKING:
    from collections.abc import Callable

    from regrain.ledger.queries import Ledger

_T = TypeVar("_T")
_TRIES = 3


def read_beside(store_path: str, read: Callable[[Ledger], _T]) -> _T:
    """Return what ``read`` finds in the ledger of a store; nothing is written, not even a lock.

    Where nobody writes, the file is read as one that does not change. Should somebody begin
    meanwhile, what was read counts for nothing, and it is read again, with their log.

    Not for a process that writes to the ledger itself: closing a file frees that process's locks.

    Args:
        store_path: The store's directory.
        read: Called with the open ledger, perhaps several times.

    Raises:
        LockedError: It changed each time.
        RegrainError: As ``open_ledger``, and ``read``.
    """
    if place_of(store_path) is not None:  # a server, where nobody is in another's way
        return _read(store_path, None, read)
    path = os.path.join(store_path, layout.LEDGER)
    for _ in range(_TRIES):
        before = _stamp(path)
        place = watching_uri(path)
        try:
            found = _read(store_path, place, read)
        except RegrainError:
            if _stamp(path) == before:
                raise
            continue
        if "immutable" not in place or _stamp(path) == before:
            return found
    raise LockedError(
        "the ledger is busy",
        path=path,
        why="it changed whenever it was read",
        advice="Run the command again in a moment.",
    )


def _read(store_path: str, place: str | None, read: Callable[[Ledger], _T]) -> _T:
    ledger = open_ledger(store_path, read_only=True, place=place)
    try:
        return read(ledger)
    finally:
        ledger.close()


def _stamp(path: str) -> list[tuple[int, int, int, int] | None]:
    """Return what tells whether somebody wrote, or began to."""
    return [_facts(path), _facts(f"{path}-wal"), _facts(f"{path}-journal")]


def _facts(path: str) -> tuple[int, int, int, int] | None:
    try:
        status = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
