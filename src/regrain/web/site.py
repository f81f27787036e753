"""What is served, address by address. A page, its files and its events are further routes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from regrain.app.observing import Overview
from regrain.model.document import encode
from regrain.web.exposition import CONTENT_TYPE, render
from regrain.web.gate import Gate
from regrain.web.metrics import families

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from starlette.requests import Request
    from starlette.routing import BaseRoute

    from regrain.errors import RegrainError
    from regrain.web.lookout import Lookout

CRITICAL = "critical"
INDEX = "regrain: /metrics /healthz /api/status\n"


class Answers:
    """The answers, each from what the lookout sees.

    Args:
        lookout: It.
    """

    def __init__(self, lookout: Lookout) -> None:
        self._lookout = lookout

    async def metrics(self, _: Request) -> Response:
        """Answer Prometheus; a store that cannot be read is no reason not to say so."""
        seen = await self._lookout.look()
        text = render(families(seen if isinstance(seen, Overview) else None))
        return Response(text, media_type=None, headers={"content-type": CONTENT_TYPE})

    async def healthz(self, _: Request) -> Response:
        """Answer a probe: 200, or 503 where health is critical or cannot be known."""
        seen = await self._lookout.look()
        if not isinstance(seen, Overview):
            return _unreadable(seen)
        status = 503 if seen.health.status == CRITICAL else 200
        return _json(status, "health", seen.health.document())

    async def status(self, _: Request) -> Response:
        """Answer what ``status --json`` prints."""
        seen = await self._lookout.look()
        if not isinstance(seen, Overview):
            return _unreadable(seen)
        return _json(200, "status", seen.figures)

    async def index(self, _: Request) -> Response:
        """Say what there is."""
        return PlainTextResponse(INDEX)


def make_app(
    lookout: Lookout,
    names: frozenset[str],
    on_error: Callable[[str], None],
    more: Sequence[BaseRoute] = (),
) -> Gate:
    """Return the application.

    Args:
        lookout: What sees the store.
        names: Host names that are answered beside addresses and ``localhost``.
        on_error: Told, in words, of a defect.
        more: Further routes; they come first, so that a page may take the place of the index.
    """
    answers = Answers(lookout)
    routes = [
        *more,
        Route("/", answers.index),
        Route("/metrics", answers.metrics),
        Route("/healthz", answers.healthz),
        Route("/api/status", answers.status),
    ]
    app = Starlette(routes=routes)
    app.router.redirect_slashes = False  # an address is what it is, or is not there
    return Gate(app, names, on_error)


def _json(status: int, message_type: str, fields: dict[str, object]) -> Response:
    body = encode(message_type, fields) + b"\n"
    return Response(body, status, media_type="application/json")


def _unreadable(error: RegrainError) -> Response:
    return _json(503, "exit_error", error.document())
