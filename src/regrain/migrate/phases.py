"""The change of a store's phase: legal, alone, at once, and written down."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regrain.errors import RefusedError
from regrain.model.phase import NEXT, Phase
from regrain.store.root import write_store_file

if TYPE_CHECKING:
    from regrain.ledger import Ledger
    from regrain.store.root import StoreRoot

EVENT = "phase"


def switch(root: StoreRoot, ledger: Ledger, target: Phase) -> None:
    """Replace the phase, which is the commit point, and remember it.

    The caller holds the run lock, and the store lock alone.

    Raises:
        RefusedError: No such move is legal.
    """
    now = root.phase()
    if target not in NEXT[now]:
        raise RefusedError(
            f"a store in the phase '{now.label}' cannot go to '{target.label}'",
            path=root.path,
            advice="'regrain status' names the command that can be given.",
        )
    catch_up(root, ledger)
    write_store_file(root.fd, root.store_id, target, backup_of=root.backup_of)
    ledger.remember(EVENT, detail=target.value)


def catch_up(root: StoreRoot, ledger: Ledger) -> None:
    """Write down a change of phase that a killed process had no time to write down."""
    last = ledger.last_event(EVENT)
    known = Phase.DUAL.value if last is None else last.detail
    if known != root.phase().value:
        ledger.remember(EVENT, detail=root.phase().value)
