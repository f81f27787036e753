"""What was seen of the store, for everybody who asks within the same second."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from regrain.errors import LockedError, RegrainError
from regrain.model.clock import monotonic

if TYPE_CHECKING:
    from regrain.app.observing import Observer, Overview

FRESH_SECONDS = 1.0
PATIENCE_SECONDS = 10.0
"""How long somebody waits for a look: a disk that hangs must not hang those who ask."""

_T = TypeVar("_T")


async def within_patience(asked: asyncio.Future[_T]) -> _T | RegrainError:
    """Return what a thread found out about the store, or why it found nothing in time."""
    try:
        return await asyncio.wait_for(asyncio.shield(asked), PATIENCE_SECONDS)
    except RegrainError as error:
        return error
    except TimeoutError:  # an OSError, too, so it comes first
        return LockedError(
            "the store does not answer",
            why=f"it was asked over {PATIENCE_SECONDS:g} s ago",
            advice="See whether its disk works.",
        )
    except OSError as error:
        return _cannot_look(error)


def _cannot_look(error: OSError) -> RegrainError:
    return RegrainError(
        "cannot look at the store",
        path=error.filename,
        why=error.strerror or str(error),
        advice="Mend the cause; the server goes on asking.",
    )


class Lookout:
    """Looks at the store when somebody asks, once a second at the most, in one thread.

    Args:
        observer: What looks.
    """

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._thread = ThreadPoolExecutor(1, "regrain-look")
        self._looking: asyncio.Future[Overview | RegrainError] | None = None
        self._seen: Overview | RegrainError | None = None
        self._seen_at = 0.0

    async def look(self) -> Overview | RegrainError:
        """Return what there is to see, or why nothing can be seen."""
        if self._seen is not None and monotonic() - self._seen_at < FRESH_SECONDS:
            return self._seen
        if self._looking is None:
            loop = asyncio.get_running_loop()
            self._looking = loop.run_in_executor(self._thread, self._look)
            self._looking.add_done_callback(self._take)
        return await within_patience(self._looking)

    def _look(self) -> Overview | RegrainError:
        try:
            return self._observer.look()
        except RegrainError as error:
            return error
        except OSError as error:
            return _cannot_look(error)

    def _take(self, looking: asyncio.Future[Overview | RegrainError]) -> None:
        self._looking = None
        if not looking.cancelled() and looking.exception() is None:
            self._seen, self._seen_at = looking.result(), monotonic()
