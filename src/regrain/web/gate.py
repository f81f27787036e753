"""Who is answered, and with which headers: nothing a page of another origin could use.

A page somewhere in the web may point its own name at this machine (DNS rebinding) and have a
browser here read what is served. Its requests carry that name in ``Host``: only addresses,
``localhost`` and names that were allowed are answered. ``Origin`` must be the server's own.
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, NamedTuple

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

TARGET_BYTES_MAX = 2048
METHODS = ("GET", "HEAD")

STRICT: Headers = [
    (b"cache-control", b"no-store"),
    (
        b"content-security-policy",
        b"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
]
"""On every answer; one that needs another value brings it along."""


class Refusal(NamedTuple):
    """Why a request is not answered.

    Attributes:
        status: Of HTTP.
        words: For whoever asked.
        headers: That belong to it.
    """

    status: int
    words: str
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Gate:
    """Stands before everything that answers.

    Args:
        app: What answers.
        names: Host names that are answered beside addresses and ``localhost``.
        on_error: Told, in words, of a defect.
    """

    def __init__(self, app: App, names: frozenset[str], on_error: Callable[[str], None]) -> None:
        self._app = app
        self._names = names
        self._on_error = on_error

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        has_begun = False

        async def send_strictly(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                message = {**message, "headers": _with_strict(message.get("headers", []))}
            await send(message)

        refusal = refuse(scope, self._names)
        if refusal is not None:
            await _answer(refusal, send_strictly)
            return
        try:
            await self._app(scope, receive, send_strictly)
        except Exception as error:
            self._on_error(
                f"an unforeseen error while answering {scope['path']!r}, which is a defect of "
                f"regrain: {type(error).__name__}: {error}"
            )
            if has_begun:
                raise  # the connection is closed: half an answer must not look whole
            await _answer(Refusal(500, "An unforeseen error; the server's log says more."), send)


def refuse(scope: Message, names: frozenset[str]) -> Refusal | None:
    """Say why a request is not answered; None if it is.

    Args:
        scope: The request, as ASGI describes it.
        names: Host names that are answered beside addresses and ``localhost``.
    """
    if scope["method"] not in METHODS:
        allow = (b"allow", ", ".join(METHODS).encode())
        return Refusal(405, "This server is read-only: GET and HEAD.", (allow,))
    if len(scope["raw_path"]) + len(scope["query_string"]) > TARGET_BYTES_MAX:
        return Refusal(414, "The address is too long.")
    headers: Headers = scope["headers"]
    if _all(headers, b"transfer-encoding") or any(
        length.strip(b"0") for length in _all(headers, b"content-length")
    ):
        return Refusal(413, "A request has no body here.", ((b"connection", b"close"),))
    hosts = _all(headers, b"host")
    if len(hosts) != 1 or not is_allowed(hosts[0], names):
        return Refusal(
            403,
            "This name is not answered: use an address or localhost, or let the server allow the "
            "name with --allow-host.",
        )
    own = scope["scheme"].encode() + b"://" + hosts[0].lower()
    if any(origin.lower() != own for origin in _all(headers, b"origin")):
        return Refusal(403, "Pages of other origins are not answered.")
    return None


def is_allowed(host: bytes, names: frozenset[str]) -> bool:
    """Tell whether a ``Host`` is an address, ``localhost`` or one of the names."""
    with contextlib.suppress(ValueError):
        name, port = split_host(host.decode("ascii"))
        return (not port or port.isdecimal()) and (
            name.lower().removesuffix(".") in {"localhost", *names} or _is_address(name)
        )
    return False


def split_host(text: str) -> tuple[str, str]:
    """Return the name or address, without brackets, and the port, which may be empty.

    Raises:
        ValueError: It is neither ``HOST``, ``HOST:PORT`` nor ``[ADDRESS]:PORT``.
    """
    if text.startswith("["):
        name, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and rest[0] != ":") or ":" not in name:
            raise ValueError("a '[' that does not enclose an address")
        return name, rest[1:]
    name, _, port = text.partition(":")
    if not name or ":" in port:
        raise ValueError("no host, or an address without its brackets")
    return name, port


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _all(headers: Headers, wanted: bytes) -> list[bytes]:
    return [value for name, value in headers if name == wanted]


def _with_strict(headers: Headers) -> Headers:
    there = {name.lower() for name, _ in headers}
    return [*headers, *(header for header in STRICT if header[0] not in there)]


async def _answer(refusal: Refusal, send: Send) -> None:
    body = f"{refusal.words}\n".encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        *refusal.headers,
    ]
    start = {"type": "http.response.start", "status": refusal.status}
    await send({**start, "headers": _with_strict(headers)})
    await send({"type": "http.response.body", "body": body})
