"""What every command that changes a store does first: finish what killed ones had begun."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regrain.maintain.remove import finish
from regrain.migrate.added import finish_adds

if TYPE_CHECKING:
    from regrain.ledger import Ledger
    from regrain.store.root import StoreRoot


def finish_begun(root: StoreRoot, ledger: Ledger) -> None:
    """Carry out the intents of processes that were killed; doing it twice changes nothing.

    Args:
        root: The store, whose lock the caller shares.
        ledger: Its ledger.
    """
    finish(root, ledger)
    finish_adds(root, ledger)
