"""Which database a store's ledger is in: what the settings say, told to the rooms below."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING

from regrain.model import whereabouts
from regrain.store import beyond

if TYPE_CHECKING:
    from regrain.settings import Settings


def use_database(path: str, settings: Settings) -> None:
    """Keep the ledger of the store at ``path``, and its locks, where the settings say.

    Nothing is opened: who only reads needs no database.
    """
    place = os.path.abspath(path)
    url = settings.store.database or None
    whereabouts.choose(place, url)

    @cache
    def keeper(store_id: str) -> beyond.Beyond:
        from regrain.ledger.postgres_locks import PostgresLocks

        return PostgresLocks(place, store_id, url or "")

    beyond.entrust(place, keeper if url else None)
