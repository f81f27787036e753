"""What every command that changes a store does first: whether it may, and what was begun."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from regrain.errors import RegrainError
from regrain.maintain.remove import finish
from regrain.migrate.add import finish_adds

if TYPE_CHECKING:
    from regrain.ledger import Ledger
    from regrain.store.root import StoreRoot


def check_owner(root: StoreRoot) -> None:
    """Refuse whoever may not write.

    Raises:
        RegrainError: The store belongs to somebody else.
    """
    if os.geteuid() not in (0, root.owner.uid):
        raise RegrainError(
            "the store belongs to another user",
            path=root.path,
            why=f"user {root.owner.uid}",
            advice="Run as that user, or as root.",
        )


def finish_begun(root: StoreRoot, ledger: Ledger) -> None:
    """Carry out the intents of processes that were killed; doing it twice changes nothing.

    Args:
        root: The store, whose lock the caller shares.
        ledger: Its ledger.
    """
    finish(root, ledger)
    finish_adds(root, ledger)
