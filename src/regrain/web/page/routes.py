"""The addresses of the page: itself, its events, its packages, its files."""

from __future__ import annotations

import asyncio
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING

import msgspec
from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from regrain import __version__
from regrain.errors import RegrainError, UnknownPackageError
from regrain.model.digest import is_package_hash
from regrain.web.page import course, document, packages, parts
from regrain.web.page.markup import Html, tag
from regrain.web.page.watching import Desk, Watch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.requests import Request

    from regrain.app.browsing import Browser
    from regrain.web.gate import Message, Receive, Send
    from regrain.web.lookout import Lookout
    from regrain.web.page.glimpse import Glimpse
    from regrain.web.page.packages import Wanted

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
STREAMS_MAX = 32
"""So many watch at the same time, half of the connections that are answered."""

LOOK_SECONDS = 1.0
QUIET_SECONDS = 15
"""So often something is said to who watches while nothing changes, or a proxy cuts it off."""

_TYPES = {
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "uplot.css": "text/css; charset=utf-8",
    "uplot.js": "text/javascript; charset=utf-8",
    "uplot.LICENSE.txt": "text/plain; charset=utf-8",
}
_encode = msgspec.json.Encoder(enc_hook=str).encode


class _Counted(StreamingResponse):
    """A stream that says when it ends, also where nobody ever took a piece of it.

    Args:
        content: Of it.
        on_end: Told, once.
        media_type: Of it.
    """

    def __init__(
        self, content: AsyncIterator[bytes], on_end: Callable[[], None], media_type: str
    ) -> None:
        super().__init__(content, media_type=media_type)
        self._on_end = on_end

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._on_end()


class Page:
    """The answers.

    Args:
        lookout: Sees the store.
        browser: Looks through it.
        is_ending: Whether the server was told to end; then no stream goes on.
    """

    def __init__(
        self, lookout: Lookout, browser: Browser, is_ending: Callable[[], bool] = lambda: False
    ) -> None:
        self._browser = browser
        self._desk = Desk()
        self._watch = Watch(lookout, browser, self._desk)
        self._is_ending = is_ending
        self._streams = 0
        static = files("regrain.web") / "static"
        self._files = {name: (static / name).read_bytes() for name in _TYPES}
        known = (__version__.encode(), *self._files.values())
        self._token = sha256(b"\0".join(known)).hexdigest()[:16]
        self._written: tuple[Glimpse | None, dict[str, str]] = (None, {})

    def routes(self) -> list[Route]:
        """Return the addresses."""
        return [
            Route("/", self.whole),
            Route("/events", self.events),
            Route("/packages", self.listed),
            Route("/package/{package_hash}", self.package),
            Route("/static/{name}", self.static),
        ]

    async def whole(self, request: Request) -> Response:
        """Answer with the page; 503 where the store cannot be seen, which the page then tells."""
        glimpse = await self._watch.glimpse()
        asked = packages.wanted(dict(request.query_params))
        listed = await self._list(asked)
        content = document.page(glimpse, asked, listed, self._token)
        return _html(content, 200 if glimpse.trouble is None else 503)

    async def listed(self, request: Request) -> Response:
        """Answer with one page of packages, to be put into the page."""
        return _html(await self._list(packages.wanted(dict(request.query_params))))

    async def _list(self, asked: Wanted) -> Html:
        found = await self._desk.ask(
            lambda: self._browser.packages(
                kind=asked.kind, text=asked.text, first=asked.first, rows_max=packages.ROWS_MAX
            )
        )
        if isinstance(found, RegrainError):
            return tag("p", f"The packages cannot be listed: {found}", class_="soft")
        return packages.results(asked, found)

    async def package(self, request: Request) -> Response:
        """Answer with all that is known of a package."""
        name = request.path_params["package_hash"]
        if not is_package_hash(name):
            return PlainTextResponse("No such package.\n", 404)
        found = await self._desk.ask(lambda: self._browser.account(name))
        if isinstance(found, RegrainError):
            status = 404 if isinstance(found, UnknownPackageError) else 503
            content, title = parts.trouble(found), "regrain: a package"
        else:
            status, content, title = 200, packages.account(found), f"regrain: {name[:12]}"
        return _html(document.of_package(title, content, self._token), status)

    async def static(self, request: Request) -> Response:
        """Answer with a file of the page."""
        name = request.path_params["name"]
        content = self._files.get(name)
        if content is None:
            return PlainTextResponse("No such file.\n", 404)
        return Response(content, headers={"content-type": _TYPES[name]})

    async def events(self, request: Request) -> Response:
        """Tell what changes, as it changes."""
        kind = "text/event-stream"
        if request.method == "HEAD":
            return Response(media_type=kind)
        if self._streams >= STREAMS_MAX:
            return PlainTextResponse("Too many watch already.\n", 503)
        self._streams += 1
        return _Counted(self._stream(), self._left, kind)

    def _left(self) -> None:
        self._streams -= 1

    async def _stream(self) -> AsyncIterator[bytes]:
        yield b"retry: 2000\n\n"
        known: dict[str, str] = {}
        after = quiet = 0
        while not self._is_ending():
            glimpse = await self._watch.glimpse()
            told, known, after = self._news(glimpse, known, after)
            quiet = 0 if told else quiet + 1
            if told:
                yield b"event: update\ndata: " + _encode(told) + b"\n\n"
            elif quiet >= QUIET_SECONDS:
                quiet = 0
                yield b": still here\n\n"
            await asyncio.sleep(LOOK_SECONDS)

    def _news(
        self, glimpse: Glimpse, known: dict[str, str], after: int
    ) -> tuple[dict[str, object], dict[str, str], int]:
        """Return what to tell who knows so much, what is known then, and up to when."""
        now = self._write(glimpse)
        told: dict[str, object] = {}
        changed = {name: text for name, text in now.items() if known.get(name) != text}
        if changed:
            told["parts"] = changed
        points = course.in_rows(glimpse.points, after)
        if points:
            told["points"] = points
            told["anew"] = after == 0
            after = glimpse.points[-1].at
        if told:
            told["token"] = self._token
            told["trouble"] = glimpse.trouble is not None
            if glimpse.seen is not None:
                figures = glimpse.seen.figures
                told["announce"] = parts.announcement(glimpse.seen)
                told["title"] = parts.title(glimpse.seen)
                told["packages"] = [figures[name] for name in _COUNTS]
        return told, now, after

    def _write(self, glimpse: Glimpse) -> dict[str, str]:
        """Return the parts of the page; written once for all who watch."""
        if self._written[0] is not glimpse:
            self._written = (glimpse, document.changing(glimpse))
        return self._written[1]


_COUNTS = (
    "total_packages",
    "migrated_packages",
    "failed_packages",
    "pending_packages",
    "in_progress_packages",
    "rolled_back_packages",
    "excluded_packages",
)
"""When one of these changes, the list of packages is another."""


def _html(content: str, status: int = 200) -> Response:
    return HTMLResponse(content, status, headers={"content-security-policy": POLICY})
