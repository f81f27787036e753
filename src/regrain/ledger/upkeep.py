"""A ledger looked into, or made anew: whichever database it is in."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from regrain.ledger.elsewhere import place_of
from regrain.ledger.rebuilding import Inspection, NewLedger
from regrain.model import layout

if TYPE_CHECKING:
    from regrain.ledger.elsewhere import Place


def inspection_of(store_path: str) -> Inspection:
    """Look into the ledger of a store, wherever it is.

    Raises:
        CorruptionError: It is missing, or cannot be read.
    """
    server = place_of(store_path)
    if server is None:
        return Inspection(os.path.join(store_path, layout.LEDGER))
    from regrain.ledger.postgres_upkeep import ServerInspection

    return ServerInspection(server)


def new_ledger(path: str, server: Place | None) -> NewLedger:
    """Make an empty ledger: a file at ``path``, or a schema in a server."""
    if server is None:
        return NewLedger.create(path)
    from regrain.ledger.postgres_upkeep import ServerNewLedger

    return ServerNewLedger.begin(server)
