"""The first schema."""

from __future__ import annotations

from alembic import op

from regrain.ledger import schema

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create every table and the trigger that guards moves of status."""
    schema.metadata.create_all(op.get_bind())
    op.execute(schema.move_trigger())


def downgrade() -> None:
    """Refuse: there is nothing before the first schema."""
    raise NotImplementedError
