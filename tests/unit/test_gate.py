"""Who is answered over HTTP: no page of another origin, whatever name it gives this machine."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from regrain.web.gate import STRICT, TARGET_BYTES_MAX, Gate, Message, is_allowed, refuse, split_host

NAMES = frozenset({"regrain.example"})


def request(*headers: tuple[bytes, bytes], method: str = "GET", target: bytes = b"/") -> Message:
    has_host = any(name == b"host" for name, _ in headers)
    return {
        "type": "http",
        "method": method,
        "scheme": "http",
        "path": target.decode(),
        "raw_path": target,
        "query_string": b"",
        "headers": [*headers] if has_host else [(b"host", b"[::1]:9470"), *headers],
    }


def status(scope: Message) -> int | None:
    """What a request is refused with; None if it is answered."""
    found = refuse(scope, NAMES)
    return None if found is None else found.status


ANSWERED = b"""
localhost localhost:9470 LOCALHOST:1 localhost. 127.0.0.1 127.0.0.1:9470 10.0.0.5:9470
[::1] [::1]:9470 [fe80::1]:80 regrain.example:443
""".split()
REFUSED = [
    *b"""
    :9470 evil.example evil.example:9470 127.0.0.1.evil.example localhost.evil localhost/
    evil.example#localhost localhost@evil.example localhost:9470:1 ::1 [::1 [] [localhost]
    [evil.example:1] localhost:port localhost:-1 0x7f.1 127.1 not-regrain.example
    """.split(),
    *(b"", b"\xff", b" localhost", b"localhost, evil.example"),
]


@pytest.mark.parametrize("host", ANSWERED, ids=repr)
def test_hosts_that_are_answered(host: bytes) -> None:
    assert is_allowed(host, NAMES)
    assert status(request((b"host", host))) is None


@pytest.mark.parametrize("host", REFUSED, ids=repr)
def test_hosts_that_are_not(host: bytes) -> None:
    assert not is_allowed(host, NAMES)
    assert status(request((b"host", host))) == 403


def test_there_is_one_host() -> None:
    twice = request((b"host", b"localhost"), (b"host", b"evil.example"))
    none = {**request(), "headers": []}
    assert [status(twice), status(none)] == [403, 403]


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        (b"http://localhost:9470", None),
        (b"HTTP://LOCALHOST:9470", None),
        (b"http://localhost", 403),
        (b"https://localhost:9470", 403),
        (b"http://127.0.0.1:9470", 403),
        (b"http://evil.example", 403),
        (b"null", 403),
        (b"", 403),
    ],
)
def test_origins(origin: bytes, expected: int | None) -> None:
    assert status(request((b"host", b"localhost:9470"), (b"origin", origin))) == expected


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "X"])
def test_nothing_but_reading(method: str) -> None:
    found = refuse(request(method=method), NAMES)
    assert found is not None
    assert (found.status, dict(found.headers)[b"allow"]) == (405, b"GET, HEAD")
    assert status(request(method="HEAD")) is None


def test_no_body_and_no_long_address() -> None:
    assert status(request((b"content-length", b"0"))) is None
    for length in (b"1", b"x"):
        assert status(request((b"content-length", length))) == 413
    assert status(request((b"transfer-encoding", b"chunked"))) == 413
    assert status(request(target=b"/" * TARGET_BYTES_MAX)) is None
    assert status(request(target=b"/" * (TARGET_BYTES_MAX + 1))) == 414


@pytest.mark.parametrize("text", ["", ":1", "[", "[]:1", "[::1]x", "::1", "a:1:2"])
def test_what_is_no_place(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        split_host(text)


# the gate before an application


def ask(app: Any, scope: Message) -> tuple[list[Message], list[str]]:
    """What is sent, and what is told of defects."""
    sent: list[Message] = []
    told: list[str] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    asyncio.run(Gate(app, NAMES, told.append)(scope, receive, send))
    return sent, told


async def plain(scope: Message, receive: Any, send: Any) -> None:
    mine = [(b"Cache-Control", b"max-age=60"), (b"content-type", b"text/css")]
    await send({"type": "http.response.start", "status": 200, "headers": mine})
    await send({"type": "http.response.body", "body": b"body"})


def test_every_answer_is_strict() -> None:
    for scope, code in ((request(), 200), (request(method="POST"), 405)):
        (start, _), told = ask(plain, scope)
        assert (start["status"], told) == (code, [])
        names = [name.lower() for name, _ in start["headers"]]
        assert len(names) == len(set(names)), names
        assert {name for name, _ in STRICT} <= set(names)
    assert (b"Cache-Control", b"max-age=60") in ask(plain, request())[0][0]["headers"]


def test_what_is_refused_reaches_nobody() -> None:
    async def never(scope: Message, receive: Any, send: Any) -> None:
        raise AssertionError("it was asked")

    (start, body), told = ask(never, request((b"host", b"evil.example")))
    assert (start["status"], told) == (403, [])
    assert b"--allow-host" in body["body"]
    assert ask(never, {"type": "websocket"}) == ([], [])


def test_a_defect_is_told_in_words_and_not_shown() -> None:
    async def broken(scope: Message, receive: Any, send: Any) -> None:
        raise KeyError("secret")

    (start, body), told = ask(broken, request(target=b"/x\n"))
    assert start["status"] == 500
    assert b"secret" not in body["body"]
    assert {name for name, _ in STRICT} <= {name for name, _ in start["headers"]}
    assert len(told) == 1
    assert "KeyError: 'secret'" in told[0]
    assert "\n" not in told[0]
