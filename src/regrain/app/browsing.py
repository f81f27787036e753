"""A store looked through by people who only watch: its packages, its logs, its space.

As ``observing``, it reads beside whoever writes, and writes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from regrain.app.account import account_of
from regrain.app.observing import Seldom
from regrain.app.space import QUICK_NAMES_MAX, measure_beside
from regrain.ledger import read_beside
from regrain.ledger.browsing import Kind, Leaf, browse
from regrain.migrate.chronicle import sample_in
from regrain.migrate.log_tail import LogTail
from regrain.model import clock
from regrain.model.clock import monotonic
from regrain.store.root import StoreRoot

if TYPE_CHECKING:
    from collections.abc import Callable

    from regrain.app.account import Account
    from regrain.app.space import Space
    from regrain.migrate.chronicle import Sample

LOG_BYTES = 2 << 20
"""So much of the logs is read back for what a run did before somebody watched."""

LINES_MAX = 40
SPACE_SHARE_MAX = 0.02
"""Measuring looks at every inode of a store; it is done for at most this share of the time."""


class Past(NamedTuple):
    """What the logs tell.

    Attributes:
        lines: The last ones, the oldest of these first.
        samples: How runs went, in order.
    """

    lines: list[bytes]
    samples: list[Sample]


class Measured(NamedTuple):
    """What a store takes on disk, and when that was measured."""

    space: Space
    at: int


class Browser:
    """Looks through a store. The store is opened anew each time: it may be replaced.

    Args:
        path: The store's directory, from the root.
        clock_: Says how long measuring took.
    """

    def __init__(self, path: str, clock_: Callable[[], float] = monotonic) -> None:
        self._path = path
        self._tail = LogTail(LOG_BYTES)
        self._read: list[bytes] = []
        self._past = Past([], [])
        self._space: Seldom[Measured] = Seldom(clock_, SPACE_SHARE_MAX)

    def packages(self, *, kind: Kind, text: str, first: int, rows_max: int) -> Leaf:
        """Return one page of the packages.

        Raises:
            RegrainError: The ledger cannot be read.
        """
        return read_beside(
            self._path,
            lambda one: browse(one, kind=kind, text=text, first=first, rows_max=rows_max),
        )

    def account(self, package_hash: str) -> Account:
        """Return all that is known of a package.

        Raises:
            UnknownPackageError: Nothing is.
            RegrainError: The ledger cannot be read.
        """
        root = StoreRoot(self._path)
        return read_beside(self._path, lambda one: account_of(root, one, package_hash))

    def past(self) -> Past:
        """Return what the logs tell.

        Raises:
            RegrainError: There is no store any more.
        """
        lines = self._tail.lines(StoreRoot(self._path))
        if lines is not self._read:
            samples = [sample for line in lines if (sample := sample_in(line)) is not None]
            self._read, self._past = lines, Past(lines[-LINES_MAX:], samples)
        return self._past

    def space(self, circumstances: object, names: int) -> Measured | None:
        """Return what the store takes; measured a while ago, and not at all where it is large.

        Args:
            circumstances: When these are others, it is measured anew.
            names: Files and objects of the store, about.

        Raises:
            RegrainError: The ledger cannot be read.
        """
        if names > QUICK_NAMES_MAX:
            return None

        def measure() -> Measured:
            return Measured(measure_beside(StoreRoot(self._path)), clock.now())

        return self._space.get(circumstances, measure)[0]
