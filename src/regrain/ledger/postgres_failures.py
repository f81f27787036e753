"""PostgreSQL's errors in our words; what the server says may be shown, a URL never."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regrain.errors import (
    CorruptionError,
    LedgerLostError,
    LockedError,
    NoSpaceError,
    RegrainError,
)

if TYPE_CHECKING:
    import psycopg
    import sqlalchemy as sa

_BUSY = frozenset({"55P03", "57014", "40001", "40P01", "53300"})
_NO_SPACE = frozenset({"53100", "53200"})
_GONE = ("08", "57P", "58")
_NOT_ALLOWED = frozenset({"42501", "25006"})
_COMES_BACK = ("starting up", "shutting down", "recovery mode", "not yet accepting")


def translated(error: sa.exc.DatabaseError | UnicodeDecodeError, where: str) -> RegrainError:
    """Return what a database error means: busy, no space, gone, or corruption."""
    if isinstance(error, UnicodeDecodeError):
        return _broken("it is garbled", where)
    code = getattr(error.orig, "sqlstate", None) or ""
    words = first_line(error.orig)
    if error.connection_invalidated or code.startswith(_GONE) or not code:
        return halted(words, where)
    if code in _BUSY:
        return LockedError(
            "the ledger is busy", path=where, why=words, advice="Run the command again in a moment."
        )
    if code in _NO_SPACE:
        return NoSpaceError(
            "no space left for the ledger",
            path=where,
            why=words,
            advice="Free some space on the server and run the command again; it goes on.",
        )
    if code in _NOT_ALLOWED:
        return RegrainError(
            "the ledger may not be used so",
            path=where,
            why=words,
            advice="Give this user of the database the right to it.",
        )
    return _broken(words, where)


def halted(why: str, where: str) -> LedgerLostError:
    """Return what to say when the server went away while it was worked with."""
    return LedgerLostError(
        "the connection to the ledger was lost",
        path=where,
        why=why,
        advice="What was recorded is kept. When the server is there again, run the command again; "
        "it goes on where it was.",
    )


def lost(error: psycopg.Error, where: str) -> RegrainError:
    """Return what to say of a server that cannot be reached, or refuses."""
    kind = LedgerLostError if is_on_its_way(error) else RegrainError
    return kind(
        "cannot reach the ledger's database",
        path=where,
        why=first_line(error),
        advice="Readers are not concerned. See that the server runs, and that [store] database "
        "is right.",
    )


def is_on_its_way(error: psycopg.Error) -> bool:
    """Tell whether a server that refused may take a connection in a moment."""
    import psycopg

    if not isinstance(error, psycopg.OperationalError):  # it was not even asked
        return False
    words = str(error)
    return "FATAL" not in words or any(part in words for part in _COMES_BACK)


def first_line(error: object) -> str:
    """Return the first line of what the server, or the driver, said."""
    return (str(error).strip().splitlines() or ["it said nothing"])[0]


def _broken(words: str, where: str) -> CorruptionError:
    return CorruptionError(
        "the ledger cannot be used",
        path=where,
        why=words,
        advice="Readers are not concerned. Run 'regrain doctor --rebuild-ledger'.",
    )
