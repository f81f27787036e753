"""Connections that cannot hold the server up: uvicorn's, with the deadlines it lacks.

Uvicorn cuts off who is idle between requests, but neither who sends a request byte by byte nor
who does not take the answer, and it accepts any number of them.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_SECONDS = 10.0
"""A request must have come in, from its first byte or the beginning of the connection."""

WRITE_SECONDS = 20.0
"""Who takes nothing of an answer for so long is cut off."""

ANSWERED_MAX = 64
"""Beyond so many connections the answer is 503."""

CONNECTIONS_MAX = 256
"""Beyond so many there is none."""


class Impatient(H11Protocol):
    """One connection."""

    _request_due: asyncio.TimerHandle | None = None
    _write_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401 -- as uvicorn has it
        """Begin, unless there are too many."""
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS_MAX:
            transport.abort()
            return
        self._await_request()

    def data_received(self, data: bytes) -> None:
        """Take a piece of a request."""
        if self._request_due is None and self.conn.their_state is h11.IDLE:
            self._await_request()
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE and self.conn.their_state is not h11.SEND_BODY:
            self._request_due = _cancelled(self._request_due)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._request_due = _cancelled(self._request_due)
        self._write_due = _cancelled(self._write_due)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Wait until the other end takes more; not for ever."""
        super().pause_writing()
        self._await_reader()

    def resume_writing(self) -> None:
        """Go on."""
        self._write_due = _cancelled(self._write_due)
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection; what was not taken by then is given a last while."""
        super().timeout_keep_alive_handler()
        self._await_reader()

    def _await_request(self) -> None:
        self._request_due = self.loop.call_later(REQUEST_SECONDS, self.transport.abort)

    def _await_reader(self) -> None:
        if self._write_due is None:
            self._write_due = self.loop.call_later(WRITE_SECONDS, self.transport.abort)


def _cancelled(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
