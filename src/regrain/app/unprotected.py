"""Whether a backup stands for a store, wherever it lies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regrain.migrate.backed_up import why_not_backed_up

if TYPE_CHECKING:
    from regrain.ledger import Ledger
    from regrain.store.root import StoreRoot


def why_unprotected(root: StoreRoot, ledger: Ledger) -> str:
    """Say why no backup stands for all packages of a store; empty where one does."""
    return why_not_backed_up(root, ledger, _why_not_at_url)


def _why_not_at_url(root: StoreRoot, url: str) -> str:
    # What speaks to object storage takes a while to load, and few runs ask it.
    from regrain.app.url_backups import why_not_covered

    return why_not_covered(root, url)
