"""The server: its socket, its limits, its end."""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING

import uvicorn

from regrain.errors import RegrainError, UsageError, reason
from regrain.web.connections import ANSWERED_MAX, Impatient
from regrain.web.gate import split_host
from regrain.web.lookout import Lookout
from regrain.web.page.routes import Page
from regrain.web.site import make_app

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from regrain.app.browsing import Browser
    from regrain.app.observing import Observer

HEAD_BYTES_MAX = 16 << 10
IDLE_SECONDS = 15
"""An idle connection is kept so long: a little more than a scrape interval of ten seconds."""

END_SECONDS = 3
"""Answers under way have so long when the server is told to end."""

_BACKLOG = 128


def listen(text: str) -> socket.socket:
    """Return a socket that listens at ``HOST:PORT``.

    Raises:
        UsageError: The text is no such thing.
        RegrainError: It cannot be listened there.
    """
    host, port = _place(text)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        found = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _cannot_listen(text, error) from error
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(_BACKLOG)
    except OSError as error:
        found.close()
        raise _cannot_listen(text, error) from error
    return found


def _place(text: str) -> tuple[str, int]:
    try:
        host, port = split_host(text)
        number = int(port) if port.isdecimal() else -1
    except ValueError:
        host, number = "", -1
    if not 0 <= number < 1 << 16:
        raise UsageError(
            "a bad address to listen at",
            why=f"'{text}' is not HOST:PORT",
            advice="Say 127.0.0.1:9470, [::1]:9470 or 0.0.0.0:9470.",
        )
    return host, number


def _cannot_listen(text: str, error: OSError) -> RegrainError:
    return RegrainError(
        f"cannot listen at {text}",
        why=reason(error),
        advice="Name another address with --listen.",
    )


def address_of(listening: socket.socket) -> str:
    """Return where a socket listens, as an address for a browser."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(
    observer: Observer,
    browser: Browser,
    listening: socket.socket,
    names: Iterable[str],
    on_error: Callable[[str], None],
) -> None:
    """Answer until SIGINT or SIGTERM, which are passed on when the last answer is given.

    Args:
        observer: What sees the store.
        browser: What looks through it.
        listening: Where to answer; closed at the end.
        names: Host names that are answered beside addresses and ``localhost``.
        on_error: Told, in words, of a defect.
    """
    log = logging.getLogger("uvicorn")  # whoever sends nonsense must not fill our log
    log.addHandler(logging.NullHandler())
    log.propagate = False
    known = frozenset(name.lower().removesuffix(".") for name in names)
    lookout = Lookout(observer)
    page = Page(lookout, browser, lambda: server.should_exit)
    config = uvicorn.Config(
        make_app(lookout, known, on_error, page.routes()),
        http=Impatient,
        loop="asyncio",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=ANSWERED_MAX,
        backlog=_BACKLOG,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=END_SECONDS,
        h11_max_incomplete_event_size=HEAD_BYTES_MAX,
    )
    server = uvicorn.Server(config)
    server.run(sockets=[listening])
