"""What Alembic runs: upgrade over the connection it is handed."""

from __future__ import annotations

from alembic import context

from regrain.ledger.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
