"""Connections that cannot hold the server up: uvicorn's, with the deadlines it lacks.

Uvicorn cuts off who is idle between requests, but neither who sends a request byte by byte nor
who does not take the answer, and it accepts any number of them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

REQUEST_SECONDS = 10.0
"""A request must have come in, from its first byte or the beginning of the connection."""

WRITE_SECONDS = 20.0
"""Who takes nothing of an answer for so long is cut off."""

ANSWERED_MAX = 64
"""Beyond so many connections the answer is 503."""

CONNECTIONS_MAX = 256
"""Beyond so many there is none."""


class Deadline:
    """Does something unless it is stopped in time; may be started again.

    Args:
        loop: Keeps the time.
        seconds: How long there is.
        act: What to do then.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, seconds: float, act: Callable[[], None]
    ) -> None:
        self._loop, self._seconds, self._act = loop, seconds, act
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to count, unless that has begun."""
        if self._timer is None:
            self._timer = self._loop.call_later(self._seconds, self._act)

    def stop(self) -> None:
        """Forget it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Impatient(H11Protocol):
    """One connection."""

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401 -- as uvicorn has it
        """Begin, unless there are too many."""
        super().connection_made(transport)
        self._request = Deadline(self.loop, REQUEST_SECONDS, transport.abort)
        self._reader = Deadline(self.loop, WRITE_SECONDS, transport.abort)
        if len(self.connections) > CONNECTIONS_MAX:
            transport.abort()
        else:
            self._request.start()

    def data_received(self, data: bytes) -> None:
        """Take a piece of a request."""
        if self.conn.their_state is h11.IDLE:
            self._request.start()
        super().data_received(data)
        if self.conn.their_state not in {h11.IDLE, h11.SEND_BODY}:
            self._request.stop()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._request.stop()
        self._reader.stop()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Wait until the other end takes more; not for ever."""
        super().pause_writing()
        self._reader.start()

    def resume_writing(self) -> None:
        """Go on."""
        self._reader.stop()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection; what was not taken by then is given a last while."""
        super().timeout_keep_alive_handler()
        self._reader.start()
