"""A ledger in a server looked into whatever state it is in, and one made anew beside it."""

from __future__ import annotations

import contextlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import sqlalchemy as sa

from regrain.errors import CorruptionError, RegrainError
from regrain.ledger.postgres import engine_for, make_schema, revision_in
from regrain.ledger.postgres_failures import translated
from regrain.ledger.postgres_locks import check_held
from regrain.ledger.rebuilding import Inspection, NewLedger

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regrain.ledger.elsewhere import Place


class ServerInspection(Inspection):
    """A schema in a server looked into read-only.

    Args:
        place: It.

    Raises:
        CorruptionError: From every method: it cannot be read.
        RegrainError: The server does not answer.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._engine = engine_for(place, read_only=True)
        with self._translated():
            self._server = self._engine.connect()

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self._server.close()
        self._engine.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sa.exc.DatabaseError, UnicodeDecodeError) as error:
            raise translated(error, self._place.shown) from error

    def _rows(self, query: str) -> Iterator[tuple[Any, ...]]:
        with self._translated(), self._server.begin():
            yield from map(tuple, self._server.exec_driver_sql(query).all())

    def revision(self) -> str | None:
        """Return the revision of its schema, None where it is no ledger."""
        with self._translated(), self._server.begin():
            return revision_in(self._server, self._place.schema)

    def problems(self) -> list[str]:
        """Return what is wrong with it; a server checks its own pages and references.

        Raises:
            CorruptionError: It is missing.
        """
        if self.revision() is None:
            raise CorruptionError(
                "the ledger is missing",
                path=self._place.shown,
                why="the database that is set has no such schema",
            )
        return []

    def description(self) -> dict[str, object]:
        """Return what ``doctor`` tells of it."""
        ((version, size),) = self._rows(
            "SELECT current_setting('server_version'),"  # noqa: S608 -- our own name
            " COALESCE(SUM(pg_total_relation_size(pg_class.oid)), 0) FROM pg_class"
            " JOIN pg_namespace ON pg_namespace.oid = relnamespace"
            f" WHERE relkind = 'r' AND nspname = '{self._place.schema}'"
        )
        return {"postgresql": version, "bytes": size, "schema": self._place.schema}


class ServerNewLedger(NewLedger):
    """A ledger in the making in a schema of its own, of which nobody knows yet."""

    _place: Place

    @classmethod
    def begin(cls, place: Place) -> Self:
        """Make an empty one."""
        engine = engine_for(place)
        new = cls(engine, lambda error: translated(error, place.shown))
        new._place = place
        with new._transaction() as connection:
            make_schema(connection, place.schema)
        return new

    def finish(self) -> None:
        """See that the locks under which it was made are still held.

        Raises:
            HaltedError: One is not, so that somebody else may be changing the store.
        """
        with self._transaction() as connection:
            check_held(connection, self._place)

    def discard(self) -> None:
        """Drop its schema, if the server still listens."""
        with contextlib.suppress(RegrainError), self._transaction() as connection:
            connection.exec_driver_sql(f"DROP SCHEMA {self._place.schema} CASCADE")
