"""Locks that other machines see, too, beside those of the file system.

A store on a network file system cannot trust file locks. Where its ledger is in a database
server, that server keeps its locks; how is not known here. See ``docs/locks.md``.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from regrain.store.root import StoreRoot


class Holding(Protocol):
    """A lock that is held."""

    def let_go(self) -> None:
        """Let go of it; done twice it changes nothing."""

    def is_wanted(self) -> bool:
        """Tell whether somebody waits for it."""


class Beyond(Protocol):
    """Keeps the locks of one store."""

    def hold(
        self, name: str, *, exclusive: bool, patience: float | None, who: str = ""
    ) -> Holding | None:
        """Take a lock.

        Args:
            name: Which.
            exclusive: Alone, or shared with others.
            patience: Seconds to wait; None: as long as it takes.
            who: Told to those who come second.

        Returns:
            What holds it; None if it was not to be had in time.
        """

    def holder(self, name: str) -> str:
        """Return who holds a lock alone; empty if nobody does."""


_keepers: dict[str, Callable[[str], Beyond]] = {}


def entrust(store_path: str, keeper: Callable[[str], Beyond] | None) -> None:
    """Say who keeps the locks of a store beyond this machine; None: nobody.

    Args:
        store_path: The store's directory, from the root.
        keeper: Told the store's id, which stays what it is whatever becomes of the ledger.
    """
    if keeper is None:
        _keepers.pop(store_path, None)
    else:
        _keepers[store_path] = keeper


def keeper_of(root: StoreRoot) -> Beyond | None:
    """Return who keeps the locks of a store beyond this machine."""
    found = _keepers.get(os.path.abspath(root.path))
    return None if found is None else found(root.store_id)


AT_ONCE = 0.2


@contextlib.contextmanager
def held(
    root: StoreRoot, name: str, *, patience: float | None = AT_ONCE, who: str = ""
) -> Iterator[tuple[bool, str]]:
    """Hold a lock alone beyond this machine, if somebody keeps it; say whether, or who does."""
    keeper = keeper_of(root)
    if keeper is None:
        yield True, ""
        return
    taken = keeper.hold(name, exclusive=True, patience=patience, who=who)
    if taken is None:
        yield False, keeper.holder(name) or "it did not say who it is"
        return
    try:
        yield True, ""
    finally:
        taken.let_go()
