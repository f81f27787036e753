"""What everybody who watches the page is shown: one glimpse a second, however many they are."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from regrain.app.browsing import Past
from regrain.app.observing import Overview
from regrain.errors import RegrainError
from regrain.web.lookout import within_patience
from regrain.web.page.course import merged, observed
from regrain.web.page.glimpse import Glimpse

if TYPE_CHECKING:
    from collections.abc import Callable

    from regrain.app.browsing import Browser, Measured
    from regrain.migrate.chronicle import Sample
    from regrain.web.lookout import Lookout

_WATCHED_MAX = 900
_T = TypeVar("_T")


class Desk:
    """Asks a browser of the store, in a thread, with patience and errors in our words."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "regrain-browse")

    async def ask(self, find: Callable[[], _T]) -> _T | RegrainError:
        """Return what there is to find, or why it cannot be found."""
        loop = asyncio.get_running_loop()
        return await within_patience(loop.run_in_executor(self._thread, find))


class Watch:
    """Puts together what is seen.

    Args:
        lookout: Sees the store as a whole.
        browser: Reads its logs, and measures it.
        desk: Where the logs are asked for.
    """

    def __init__(self, lookout: Lookout, browser: Browser, desk: Desk) -> None:
        self._lookout = lookout
        self._browser = browser
        self._desk = desk
        self._scales = Desk()  # of its own: measuring a store takes seconds, and nobody waits
        self._last: Overview | None = None
        self._past = Past([], [])
        self._watched: list[Sample] = []
        self._measured: Measured | None = None
        self._measuring: asyncio.Task[None] | None = None
        self._glimpse: Glimpse | None = None

    async def glimpse(self) -> Glimpse:
        """Return what there is to see."""
        found = await self._lookout.look()
        if self._glimpse is not None and found is (self._glimpse.trouble or self._glimpse.seen):
            return self._glimpse
        seen = found if isinstance(found, Overview) else None
        if seen is not None:
            past = await self._desk.ask(self._browser.past)
            self._past = past if isinstance(past, Past) else self._past
            self._watch(seen)
            self._last = seen
            self._measure(seen)
        self._glimpse = Glimpse(
            self._last,
            found if isinstance(found, RegrainError) else None,
            self._past,
            merged(self._past.samples, self._watched),
            self._measured,
        )
        return self._glimpse

    def _watch(self, seen: Overview) -> None:
        point = observed(seen)
        if point is not None and (not self._watched or self._watched[-1].at < point.at):
            self._watched = [*self._watched[-_WATCHED_MAX:], point]

    def _measure(self, seen: Overview) -> None:
        """Let the store be measured, unless that is under way."""
        if self._measuring is None or self._measuring.done():
            self._measuring = asyncio.ensure_future(self._weigh(seen))

    async def _weigh(self, seen: Overview) -> None:
        state = seen.state
        names = state.totals.files + state.totals.objects
        circumstances = (state.phase, bool(state.running))
        found = await self._scales.ask(lambda: self._browser.space(circumstances, names))
        if not isinstance(found, RegrainError):
            self._measured = found
