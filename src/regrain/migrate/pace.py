"""What holds a run back: brakes that are asked again and again, and the reason they give."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable


class Brake(Protocol):
    """Something that may hold a run back for a while."""

    def reason(self) -> str:
        """Say why nothing new is to be begun now; empty if it may be.

        Asked several times a second: whoever has to look at something that is not there at
        once keeps what it saw last.
        """


class Pace:
    """All brakes of a run together; any one holds it.

    Args:
        brakes: In the order of their weight: the first that holds is the one that is told.
    """

    def __init__(self, brakes: Iterable[Brake] = ()) -> None:
        self._brakes = tuple(brakes)

    def held_by(self) -> str:
        """Say what holds the run now; empty if nothing does."""
        return next((why for brake in self._brakes if (why := brake.reason())), "")
