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
    sa.Column("id", sa.Integer, primary_key=True),
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
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("digest", RawDigest(32), nullable=False, unique=True),
    sa.Column("size", BigWhole, nullable=False),
    sa.Column("created_at", Whole, nullable=False),
    sa.Column("unreferenced_since", sa.Integer),
)
sa.Index(
    "objects_unreferenced",
    objects.c.unreferenced_since,
    sqlite_where=objects.c.unreferenced_since.is_not(None),
)

carriers = sa.Table(
    "carriers",
    metadata,
    sa.Column("object_id", sa.Integer, sa.ForeignKey("objects.id"), primary_key=True),
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
    sa.Column("object_id", sa.Integer, sa.ForeignKey("objects.id"), primary_key=True),
    sa.Column("package_id", sa.Integer, primary_key=True),
    sqlite_with_rowid=False,
)

packages = sa.Table(
    "packages",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("package_hash", HashText, nullable=False, unique=True),
    sa.Column("tree_hash", PlainText, nullable=False),
    sa.Column("list_hash", PlainText, nullable=False),
    sa.Column("published_at", sa.Integer, nullable=False),
)

intents = sa.Table(
    "intents",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
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
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("at", Whole, nullable=False),
    sa.Column("event", PlainText, nullable=False),
    sa.Column("package_hash", PlainText),
    sa.Column("detail", PlainText, nullable=False, server_default=""),
)


def create_schema(connection: sa.Connection) -> None:
    """Make an empty database what all upgrades together would make of it."""
    metadata.create_all(connection)
    connection.exec_driver_sql(move_trigger())
    connection.exec_driver_sql("CREATE TABLE alembic_version (version_num TEXT PRIMARY KEY)")
    connection.exec_driver_sql("INSERT INTO alembic_version VALUES (?)", (REVISION,))


def move_trigger() -> str:
    """Return the SQLite trigger that refuses every move of status not in ``NEXT``."""
    legal = ", ".join(
        f"'{before.value}>{after.value}'"
        for before, afters in NEXT.items()
        for after in sorted(afters)
    )
    return f"""
        CREATE TRIGGER store_migration_moves BEFORE UPDATE OF status ON store_migration
        WHEN OLD.status <> NEW.status
         AND OLD.status || '>' || NEW.status NOT IN ({legal})
        BEGIN
            SELECT RAISE(ABORT, 'illegal move of a package''s status');
        END
    """
