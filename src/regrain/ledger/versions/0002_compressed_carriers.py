"""Carriers have a representation: plain, or compressed."""

from __future__ import annotations

from alembic import op

from regrain.ledger import schema

revision = "0002"
down_revision = "0001"

_KEPT = "object_id, mode, is_bare, mtime_seconds, mtime_nanoseconds, allocated_bytes"


def upgrade() -> None:
    """Make the table of carriers anew, since its key changes; those there are plain."""
    op.rename_table("carriers", "carriers_before")
    if op.get_bind().dialect.name == "postgresql":  # where names of keys are a schema's, too
        op.execute("ALTER INDEX carriers_pkey RENAME TO carriers_before_pkey")
    schema.carriers.create(op.get_bind())
    op.execute(
        f"INSERT INTO carriers(is_compressed, {_KEPT}) SELECT FALSE, {_KEPT} FROM carriers_before"  # noqa: S608 -- constants
    )
    op.drop_table("carriers_before")


def downgrade() -> None:
    """Refuse: an older version would not see what is compressed; there is a backup."""
    raise NotImplementedError
