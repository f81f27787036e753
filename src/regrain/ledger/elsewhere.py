"""Whether a store's ledger is a file of its own, or a schema in a database server.

A store whose ledger is in a server says so itself, in ``migration/ledger.toml``: who comes
without that setting must not take the ledger for lost, and make another. The file names the
schema, which has a name nobody else's has; it holds no address and no password.
"""

from __future__ import annotations

import os
import re
import secrets
import tomllib
from typing import NamedTuple

from regrain import disk
from regrain.errors import (
    ConfigurationError,
    CorruptionError,
    HaltedError,
    RegrainError,
    reason,
)
from regrain.model import layout
from regrain.model.whereabouts import server_of

_SCHEMA = re.compile(r"\Aregrain_[0-9a-f]{32}\Z")
_SET_IT = "Set [store] database, or $REGRAIN_STORE__DATABASE; docs/scale.md tells more."
_REBUILD = "Run 'regrain doctor --rebuild-ledger'."
_FOLDER, _, _MARK = layout.LEDGER_MARK.rpartition("/")


class Place(NamedTuple):
    """Where a ledger is that is no file.

    Attributes:
        store_path: The store, from the root.
        url: Of the database, perhaps with a password.
        schema: Its own in there; empty before it has one.
    """

    store_path: str
    url: str
    schema: str

    @property
    def shown(self) -> str:
        """What may be shown of it: the schema alone, no address."""
        return f"PostgreSQL, schema {self.schema}" if self.schema else "PostgreSQL"


def place_of(store_path: str, *, create: bool = False) -> Place | None:
    """Return where the ledger of a store is, None where it is the store's own file.

    Args:
        store_path: The store's directory.
        create: Choose a schema if none was chosen yet.

    Raises:
        ConfigurationError: The settings and the store do not agree on it.
        CorruptionError: Nothing says where it is, or nothing that can be read.
    """
    path = os.path.abspath(store_path)
    url, schema = server_of(path), schema_of(path)
    if url is None:
        if schema is None:
            return None
        raise ConfigurationError(
            "the ledger of this store is in PostgreSQL, and no database is set",
            path=path,
            why=f"'{layout.LEDGER_MARK}' names the schema {schema}",
            advice=_SET_IT,
        )
    if schema is None:
        if os.path.lexists(os.path.join(path, layout.LEDGER)):
            raise ConfigurationError(
                "a database is set, and the ledger of this store is a file",
                path=os.path.join(path, layout.LEDGER),
                advice="Take [store] database away, or move the ledger there with "
                "'regrain doctor --rebuild-ledger'.",
            )
        if not create:
            raise CorruptionError("the ledger is missing", path=path, advice=_REBUILD)
        schema = _first_mark(path)
    return Place(path, url, schema)


def lies_elsewhere(store_path: str) -> bool:
    """Tell whether the ledger of a store is, or is said to be, no file of its own."""
    path = os.path.abspath(store_path)
    return server_of(path) is not None or os.path.lexists(os.path.join(path, layout.LEDGER_MARK))


def schema_of(store_path: str) -> str | None:
    """Return the schema that a store says its ledger is in; None if it says nothing.

    Raises:
        CorruptionError: What it says cannot be understood.
    """
    path = os.path.join(store_path, layout.LEDGER_MARK)
    try:
        with open(path, "rb") as stream:
            schema = tomllib.load(stream).get("schema")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise RegrainError(
            "cannot tell where the ledger is",
            path=path,
            why=reason(error),
            advice="Run as the store's owner, or as a user who may read it.",
        ) from error
    except ValueError:
        schema = None
    if isinstance(schema, str) and _SCHEMA.match(schema):
        return schema
    raise CorruptionError(
        "where the ledger is cannot be understood",
        path=path,
        advice=f"Move that file away. {_REBUILD}",
    )


def check_current(place: Place) -> None:
    """See that a store's ledger is still where it was when this process looked.

    Raises:
        HaltedError: It was made anew meanwhile, perhaps by another machine.
    """
    now = schema_of(place.store_path)
    if now != place.schema:
        raise HaltedError(
            "the ledger was made anew meanwhile",
            path=place.shown,
            why=f"'{layout.LEDGER_MARK}' names {f'the schema {now}' if now else 'no schema'}",
            advice="Run the command again; it goes on where it was.",
        )


def fresh_place(store_path: str) -> Place | None:
    """Return a place for another ledger of a store, of which ``mark`` makes the ledger.

    None where it is to be a file.

    Raises:
        ConfigurationError: The ledger is in a server, and none is set.
    """
    path = os.path.abspath(store_path)
    url = server_of(path)
    if url is None:
        return place_of(path)
    return Place(path, url, _new_schema())


def mark(store_path: str, schema: str) -> None:
    """Write down which schema the ledger of a store is in: from now on it is."""
    with _folder(store_path) as at:
        disk.write_atomic(_MARK, _text(schema), at)


def _first_mark(store_path: str) -> str:
    """Choose a schema for a store that has none, or take what another machine chose meanwhile."""
    schema = _new_schema()
    with _folder(store_path) as at:
        try:
            disk.write_new(_MARK, _text(schema), at, via=at)
        except FileExistsError:
            return schema_of(store_path) or _first_mark(store_path)
    return schema


def _folder(store_path: str) -> disk.Closing:
    """Open the directory that the mark is in."""
    return disk.Closing(disk.open_directory(os.path.join(store_path, _FOLDER)))


def _new_schema() -> str:
    return f"regrain_{secrets.token_hex(16)}"


def _text(schema: str) -> bytes:
    return f'database = "postgresql"\nschema = "{schema}"\n'.encode()
