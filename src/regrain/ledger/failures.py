"""The database's errors in our words."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from regrain import disk
from regrain.errors import (
    CorruptionError,
    HaltedError,
    LockedError,
    NoSpaceError,
    RegrainError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import sqlalchemy as sa

    Words = Callable[[sa.exc.DatabaseError | UnicodeDecodeError], RegrainError]
    """Says in our words what a database's error means."""

_SHARED_MEMORY_BYTES = 32 << 10
_NEW_FILE_BYTES = 1 << 20
"""Below this a new file may be refused: xfs wants room for inodes and directories first."""


def translated(
    error: sa.exc.DatabaseError | UnicodeDecodeError, path: str | None = None
) -> RegrainError:
    """Return what a database error means: no space, busy, a bad disk, or corruption.

    Args:
        error: The error; one of decoding, where what the database says is garbled, too.
        path: Where the ledger is.
    """
    words = "it is garbled" if isinstance(error, UnicodeDecodeError) else str(error.orig)
    if path is not None and _is_for_want_of_space(words, path):
        words = "the disk is full"
    if "full" in words:
        return NoSpaceError(
            "no space left for the ledger",
            path=path,
            why=words,
            advice="Free some space and run the command again; it goes on where it was.",
        )
    if "locked" in words or "busy" in words:
        return LockedError(
            "the ledger is busy",
            path=path,
            why=words,
            advice="Run the command again in a moment.",
        )
    if "I/O" in words or "readonly" in words or "read-only" in words:
        return HaltedError(
            "cannot write to the ledger",
            path=path,
            why=words,
            advice="Check the disk, then run again.",
        )
    if "unable to open" in words:
        return RegrainError(
            "cannot open the ledger",
            path=path,
            why=words,
            advice="Check who may read and write it, and how many files may be open.",
        )
    return CorruptionError(
        "the ledger cannot be used",
        path=path,
        why=words,
        advice="Readers are not concerned. Run 'regrain doctor --rebuild-ledger'.",
    )


def _is_for_want_of_space(words: str, path: str) -> bool:
    """Tell what SQLite does not: that a file could not grow, or be made, for want of space."""
    if "I/O" in words:  # what it keeps in memory has a file on disk, too
        return _free_bytes(path) < _SHARED_MEMORY_BYTES
    if "unable to open" in words:
        return _free_bytes(path) < _NEW_FILE_BYTES or _refusal(path) in disk.NO_SPACE
    return False


def _free_bytes(path: str) -> int:
    space = os.statvfs(os.path.dirname(path))
    return space.f_bavail * space.f_frsize


def _refusal(path: str) -> int:
    """Try to make a file without a name beside the ledger; return the errno, 0 if it can be."""
    try:
        os.close(os.open(os.path.dirname(path), os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except OSError as error:
        return error.errno or errno.EIO
    return 0
