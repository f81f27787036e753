"""Runs ``regrain serve`` as a stranger would, and asks it over a plain connection."""

from __future__ import annotations

import contextlib
import json
import re
import select
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any

from tests.command import Regrain

SECONDS_MAX = 30


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    @property
    def document(self) -> dict[str, Any]:
        """The body as a document of ours."""
        found = json.loads(self.body)
        assert found["schema"] == 1
        assert isinstance(found, dict)
        return found

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics, by name and labels as they are written."""
        lines = (line for line in self.text.splitlines() if line[0] != "#")
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


@dataclass(frozen=True, slots=True)
class Server:
    """One that answers."""

    process: subprocess.Popen[str]
    port: int

    def get(self, path: str, *, method: str = "GET", **headers: str) -> Answer:
        """Ask, on a connection of its own."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=SECONDS_MAX)
        with contextlib.closing(connection):
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read())

    def connect(self) -> socket.socket:
        """Connect, and say nothing."""
        return socket.create_connection(("127.0.0.1", self.port), SECONDS_MAX)


@contextlib.contextmanager
def serving(regrain: Regrain, *options: str) -> Iterator[Server]:
    """Serve a store at a free port until the end."""
    command = regrain.command("serve", "--listen", "127.0.0.1:0", *options)
    with subprocess.Popen(
        command,
        env=regrain.clean_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            ready, _, _ = select.select([process.stderr], [], [], SECONDS_MAX)
            assert ready, "it says nothing"
            line = process.stderr.readline()
            found = re.search(r":(\d+)/metrics", line)
            assert found is not None, line + process.stderr.read()
            yield Server(process, int(found[1]))
        finally:
            process.kill()
