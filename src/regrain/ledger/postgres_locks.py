"""A store's locks, kept by the server its ledger is in: advisory locks, each on its session.

A session is a connection of its own; the server lets go of its locks when that ends, however it
ends. A transaction that writes first asks the server whether every lock this process believes to
hold is still held: after a restart of the server somebody else may have it.

A lock is the store's, known by its id: a ledger made anew has another schema, and who waited
meanwhile must get the lock that all others take from then on.
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING, Self

from blake3 import blake3

from regrain.ledger.elsewhere import Place, schema_of
from regrain.ledger.postgres import connect
from regrain.ledger.postgres_failures import first_line, halted, lost

if TYPE_CHECKING:
    import psycopg
    import sqlalchemy as sa

_NOTE_BYTES_MAX = 63
_held: dict[str, set[Held]] = {}
"""What this process holds, by the path of the store."""

_GRANTED = (
    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND pid = %(pid)s AND classid = %(high)s AND objid = %(low)s"
)
_WAITING = (
    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objsubid = 1"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND classid = %(high)s AND objid = %(low)s"
)
_HOLDER = (
    "SELECT application_name FROM pg_locks JOIN pg_stat_activity USING (pid)"
    " WHERE locktype = 'advisory' AND granted AND mode = 'ExclusiveLock' AND objsubid = 1"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND classid = %(high)s AND objid = %(low)s"
)


class Held:
    """One lock, on a session of its own."""

    def __init__(self, place: Place, session: psycopg.Connection, key: int) -> None:
        self._place, self._session = place, session
        self.pid, self.key = session.info.backend_pid, key
        _held.setdefault(place.store_path, set()).add(self)

    def let_go(self) -> None:
        """Let go of it; done twice it changes nothing."""
        _held.get(self._place.store_path, set()).discard(self)
        self._session.close()

    def is_wanted(self) -> bool:
        """Tell whether somebody waits for it.

        Raises:
            HaltedError: It is lost.
        """
        import psycopg

        try:
            row = self._session.execute(_WAITING, _halves(self.key)).fetchone()
        except psycopg.Error as error:
            raise halted(first_line(error), self._place.shown) from None
        return row is not None and row[0] > 0

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of it."""
        self.let_go()


class PostgresLocks:
    """The locks of one store.

    Args:
        store_path: Its directory, from the root.
        store_id: What tells it from every other.
        url: Of the database.
    """

    def __init__(self, store_path: str, store_id: str, url: str) -> None:
        self._store_path, self._store_id, self._url = store_path, store_id, url

    def hold(
        self, name: str, *, exclusive: bool, patience: float | None, who: str = ""
    ) -> Held | None:
        """Take a lock; None if it was not to be had in time.

        Raises:
            RegrainError: The server does not answer, or went away meanwhile.
        """
        import psycopg

        place = self._place()
        key = key_of(self._store_id, name)
        session = connect(place, who=_introduced(who))
        try:
            if not _taken(session, key, patience, exclusive=exclusive):
                session.close()
                return None
        except psycopg.Error as error:
            session.close()
            raise halted(first_line(error), place.shown) from None
        except BaseException:
            session.close()
            raise
        return Held(place, session, key)

    def holder(self, name: str) -> str:
        """Return who holds a lock alone; empty if nobody does.

        Raises:
            RegrainError: The server does not answer, or went away meanwhile.
        """
        import psycopg

        place = self._place()
        key = key_of(self._store_id, name)
        with contextlib.closing(connect(place)) as session:
            try:
                row = session.execute(_HOLDER, _halves(key)).fetchone()
            except psycopg.Error as error:
                raise lost(error, place.shown) from None
        return "" if row is None else str(row[0]).removeprefix("regrain: ")

    def _place(self) -> Place:
        """Return where they are, whether the ledger is there yet or not."""
        return Place(self._store_path, self._url, schema_of(self._store_path) or "")


def check_held(connection: sa.Connection, place: Place) -> None:
    """See that every lock this process took for a store is still held.

    Raises:
        HaltedError: One is not: the server was restarted, or the connection broke.
    """
    for held in list(_held.get(place.store_path, ())):
        found = connection.exec_driver_sql(
            _GRANTED, {"pid": held.pid, **_halves(held.key)}
        ).scalar_one()
        if not found:
            raise halted("its locks were lost with the session that held them", place.shown)


def key_of(store_id: str, name: str) -> int:
    """Return the number that stands for a lock: 64 bits that no other has."""
    return int.from_bytes(blake3(f"{store_id}/{name}".encode()).digest(8))


def _halves(key: int) -> dict[str, int]:
    """Return a key as ``pg_locks`` shows it."""
    return {"high": key >> 32, "low": key & 0xFFFFFFFF}


def _taken(
    session: psycopg.Connection, key: int, patience: float | None, *, exclusive: bool
) -> bool:
    """Wait for a lock in the server's queue, so that nobody overtakes; tell whether it came."""
    import psycopg

    signed = key - (1 << 64) if key >> 63 else key
    kind = "" if exclusive else "_shared"
    if patience is None:
        session.execute(f"SELECT pg_advisory_lock{kind}(%s)", (signed,))
        return True
    session.execute(f"SET lock_timeout = {max(1, int(patience * 1000))}")
    try:
        session.execute(f"SELECT pg_advisory_lock{kind}(%s)", (signed,))
    except psycopg.errors.LockNotAvailable:
        return False
    return True


def _introduced(who: str) -> str:
    """Return the name under which the server shows a session; it keeps 63 bytes."""
    if not who:
        return "regrain"
    words = f"regrain: {who}, process {os.getpid()} on {socket.gethostname()}"
    return words.encode("ascii", "replace").decode()[:_NOTE_BYTES_MAX]
