"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from regrain.ledger import schema

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create every table and the trigger that guards moves of status."""
    tables = [table for table in schema.metadata.sorted_tables if table.name != "carriers"]
    schema.metadata.create_all(op.get_bind(), tables)
    op.create_table(  # as it was before there were compressed carriers
        "carriers",
        sa.Column("object_id", sa.Integer, sa.ForeignKey("objects.id"), primary_key=True),
        sa.Column("mode", sa.Integer, primary_key=True),
        sa.Column("is_bare", sa.Boolean, nullable=False),
        sa.Column("mtime_seconds", sa.BigInteger, nullable=False),
        sa.Column("mtime_nanoseconds", sa.Integer, nullable=False),
        sa.Column("allocated_bytes", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    for statement in schema.move_triggers(op.get_bind().dialect.name):
        op.execute(statement)


def downgrade() -> None:
    """Refuse: there is nothing before the first schema."""
    raise NotImplementedError
