"""A service that speaks enough S3 to lie with: it serves a directory, and does what it is told."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest

BUCKET = "b"
_DATE = "Mon, 01 Jan 2024 00:00:00 GMT"


class Liar(ThreadingHTTPServer):
    """The server.

    Attributes:
        directory: What it serves.
        heads: The headers it was sent.
        listed: Pages of keys that it lists instead of the directory.
    """

    daemon_threads = True

    def __init__(self, directory: Path, handler: type[Honest]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.directory = directory
        self.heads: list[dict[str, str]] = []
        self.listed: Iterator[list[str]] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: Any) -> None:
        """Say nothing of who went away in the middle."""


class Honest(BaseHTTPRequestHandler):
    """Answers as S3 does; liars override a part of it."""

    protocol_version = "HTTP/1.1"
    server: Liar

    def log_message(self, *_: object) -> None:
        pass

    def _key(self) -> str:
        return unquote(urlsplit(self.path).path).removeprefix(f"/{BUCKET}").lstrip("/")

    def do_HEAD(self) -> None:
        path = self.server.directory / self._key()
        if path.is_file():
            self.say(200, b"", length=path.stat().st_size)
        else:
            self.say(404, b"")

    def do_GET(self) -> None:
        self.server.heads.append(dict(self.headers))
        if "list-type" in self.path:
            self.list_keys()
            return
        path = self.server.directory / self._key()
        if not path.is_file():
            self.say(404, b"")
            return
        first, last = self.headers["Range"].removeprefix("bytes=").split("-")
        raw = path.read_bytes()
        self.send_range(int(first), int(last), len(raw), raw[int(first) : int(last) + 1])

    def send_range(self, first: int, last: int, whole: int, piece: bytes) -> None:
        where = {"Content-Range": f"bytes {first}-{min(last, whole - 1)}/{whole}"}
        self.say(206, piece, where)

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.say(200, b"")

    do_DELETE = do_PUT  # noqa: N815 -- as the library calls it

    def list_keys(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        if self.server.listed is None:
            top = self.server.directory
            found = sorted(str(p.relative_to(top)) for p in top.rglob("*") if p.is_file())
            prefix = query.get("prefix", [""])[0]
            page, more = [key for key in found if key.startswith(prefix)], False
        else:
            told = next(self.server.listed, None)
            page, more = told or [], told is not None
        rows = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>2024-01-01T00:00:00.000Z"
            "</LastModified><ETag>&quot;x&quot;</ETag><Size>5</Size></Contents>"
            for key in page
        )
        ending = "<NextContinuationToken>more</NextContinuationToken>" * more
        self.say(
            200,
            '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult><Name>b</Name>'
            f"<KeyCount>{len(page)}</KeyCount><IsTruncated>{str(more).lower()}</IsTruncated>"
            f"{rows}{ending}</ListBucketResult>".encode(),
        )

    def say(
        self, code: int, body: bytes, more: dict[str, str] | None = None, length: int | None = None
    ) -> None:
        self.send_response(code)
        self.send_header("Last-Modified", _DATE)
        self.send_header("ETag", '"x"')
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in (more or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def lying(directory: Path, handler: type[Honest], patch: pytest.MonkeyPatch) -> Iterator[Liar]:
    """Have S3 be a liar, for this process."""
    with Liar(directory, handler) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        patch.setenv("AWS_ACCESS_KEY_ID", "an-access-key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2hunter2")
        patch.setenv("AWS_REGION", "us-east-1")
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
