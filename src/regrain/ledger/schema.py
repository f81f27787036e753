"""The ledger's tables. Status words and legal moves come from ``model.status``."""

from __future__ import annotations

import sqlalchemy as sa

from regrain.ledger.checked import (
    BigWhole,
    HashText,
    PlainText,
    RawBytes,
    RawDigest,
    StatusText,
    Whole,
)
from regrain.model.status import NEXT, Status

REVISION = "0002"
"""The revision of the schema this version works with; see ``versions/``."""

_Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
"""SQLite has one kind of whole number, and counts up only what is called so."""

metadata = sa.MetaData()

store_refs = sa.Table(
    "store_refs",
    metadata,
    sa.Column("hash", HashText, primary_key=True),
    sa.Column("ref_count", Whole, nullable=False, server_default="1"),
    sa.Column("size", BigWhole, nullable=False, server_default="0"),
    sa.Column("created_at", Whole, nullable=False),
)

_words = ", ".join(f"'{status.value}'" for status in Status)

store_migration = sa.Table(
    "store_migration",
    metadata,
    sa.Column("id", _Number, primary_key=True),
    sa.Column(
        "package_hash", HashText, sa.ForeignKey("store_refs.hash"), nullable=False, unique=True
    ),
    sa.Column("status", StatusText, sa.CheckConstraint(f"status IN ({_words})"), nullable=False),
    sa.Column("started_at", Whole),
    sa.Column("completed_at", Whole),
    sa.Column("error_message", PlainText),
    sa.Column("file_count", Whole),
    sa.Column("space_saved", BigWhole),
    sa.Column("name", PlainText, nullable=False, server_default=""),
    sa.Column("version", PlainText, nullable=False, server_default=""),
    sa.Column("byte_count", BigWhole, nullable=False, server_default="0"),
    sa.Column("allocated_bytes", BigWhole, nullable=False, server_default="0"),
    sa.Column("inode_count", Whole, nullable=False, server_default="0"),
    sa.Column("added_bytes", BigWhole),
    sa.Column("cuts", RawBytes),
    sa.Column("deduplicated_files", Whole),
    sa.Column("tree_hash", PlainText),
    sa.Column("verified_at", Whole),
    sa.Column("attempts", Whole, nullable=False, server_default="0"),
    sa.Column("error_path", RawBytes),
    sa.Column("excluded", Whole, nullable=False, server_default="0"),
    sa.Column("cleaned_at", Whole),
    sa.Column("freed_bytes", BigWhole),
    sa.Index("store_migration_by_status", "status", "byte_count", "id"),
)

objects = sa.Table(
    "objects",
    metadata,
    sa.Column("id", _Number, primary_key=True),
    sa.Column("digest", RawDigest(32), nullable=False, unique=True),
    sa.Column("size", BigWhole, nullable=False),
    sa.Column("created_at", Whole, nullable=False),
    sa.Column("unreferenced_since", _Number),
)


@sa.event.listens_for(objects, "after_create")
def _index_unreferenced(_: sa.Table, connection: sa.Connection, **_options: object) -> None:
    # In words, which both understand: naming an option of one database in an ``sa.Index`` loads
    # all that SQLAlchemy has for it, 50 ms of every command that opens a ledger.
    connection.exec_driver_sql(
        "CREATE INDEX objects_unreferenced ON objects (unreferenced_since)"
        " WHERE unreferenced_since IS NOT NULL"
    )


carriers = sa.Table(
    "carriers",
    metadata,
    sa.Column("object_id", _Number, sa.ForeignKey("objects.id"), primary_key=True),
    sa.Column("mode", sa.Integer, primary_key=True),
    sa.Column("is_compressed", sa.Boolean, primary_key=True),
    sa.Column("is_bare", sa.Boolean, nullable=False),
    sa.Column("mtime_seconds", sa.BigInteger, nullable=False),
    sa.Column("mtime_nanoseconds", sa.Integer, nullable=False),
    sa.Column("allocated_bytes", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

object_owners = sa.Table(
    "object_owners",
    metadata,
    sa.Column("object_id", _Number, sa.ForeignKey("objects.id"), primary_key=True),
    sa.Column("package_id", _Number, primary_key=True),
    sqlite_with_rowid=False,
)

packages = sa.Table(
    "packages",
    metadata,
    sa.Column("id", _Number, primary_key=True),
    sa.Column("package_hash", HashText, nullable=False, unique=True),
    sa.Column("tree_hash", PlainText, nullable=False),
    sa.Column("list_hash", PlainText, nullable=False),
    sa.Column("published_at", _Number, nullable=False),
)

intents = sa.Table(
    "intents",
    metadata,
    sa.Column("id", _Number, primary_key=True),
    sa.Column("package_hash", HashText, nullable=False, unique=True),
    sa.Column("action", PlainText, nullable=False),
    sa.Column("created_at", Whole, nullable=False),
)

integrity = sa.Table(
    "integrity",
    metadata,
    sa.Column("package_hash", HashText, primary_key=True),
    sa.Column("what", PlainText, nullable=False),
    sa.Column("found_at", Whole, nullable=False),
)

history = sa.Table(
    "history",
    metadata,
    sa.Column("id", _Number, primary_key=True),
    sa.Column("at", Whole, nullable=False),
    sa.Column("event", PlainText, nullable=False),
    sa.Column("package_hash", PlainText),
    sa.Column("detail", PlainText, nullable=False, server_default=""),
)


def create_schema(connection: sa.Connection) -> None:
    """Make an empty database what all upgrades together would make of it."""
    metadata.create_all(connection)
    for statement in move_triggers(connection.dialect.name):
        connection.exec_driver_sql(statement)
    connection.exec_driver_sql("CREATE TABLE alembic_version (version_num TEXT PRIMARY KEY)")
    connection.exec_driver_sql("INSERT INTO alembic_version VALUES (?)", (REVISION,))


def move_triggers(database: str) -> list[str]:
    """Return what makes the trigger that refuses every move of status not in ``NEXT``."""
    legal = ", ".join(
        f"'{before.value}>{after.value}'"
        for before, afters in NEXT.items()
        for after in sorted(afters)
    )
    return _TRIGGERS[database](legal)


def _in_postgresql(legal: str) -> list[str]:
    return [
        """
        CREATE FUNCTION store_migration_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'illegal move of a package''s status' USING ERRCODE = '23514';
        END
        $$
        """,
        f"""
        CREATE TRIGGER store_migration_moves BEFORE UPDATE OF status ON store_migration
        FOR EACH ROW WHEN (OLD.status <> NEW.status
         AND OLD.status || '>' || NEW.status NOT IN ({legal}))
        EXECUTE FUNCTION store_migration_refuse()
        """,
    ]


def _in_sqlite(legal: str) -> list[str]:
    return [
        f"""
        CREATE TRIGGER store_migration_moves BEFORE UPDATE OF status ON store_migration
        WHEN OLD.status <> NEW.status
         AND OLD.status || '>' || NEW.status NOT IN ({legal})
        BEGIN
            SELECT RAISE(ABORT, 'illegal move of a package''s status');
        END
        """
    ]


_TRIGGERS = {"postgresql": _in_postgresql, "sqlite": _in_sqlite}
