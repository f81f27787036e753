"""What a tab does, watched: what it asks for, what it complains of, what it shows."""

from __future__ import annotations

from dataclasses import dataclass, field
from re import Pattern
from typing import Any

from tests.system.serving import Server

SERVER_ENDS = ("ERR_INCOMPLETE_CHUNKED", "ERR_CONNECTION_REFUSED", "ERR_EMPTY_RESPONSE")
"""What a browser says where the server is killed under it, as at the end of most tests."""


@dataclass(slots=True)
class Watched:
    """A tab.

    Attributes:
        page: Playwright's.
        complaints: Errors of scripts, breaches of the policy, what the console says.
        asked: Addresses that were asked for.
        allowed: Words of complaints that a test brings about itself.
    """

    page: Any
    complaints: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    allowed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.page.on("console", lambda said: self.complaints.append(f"{said.type}: {said.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(f"script: {error}"))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("dialog", lambda dialog: self.complaints.append(f"dialog: {dialog.message}"))

    def open(self, server: Server, path: str = "/", *, is_live: bool = True) -> None:
        """Open an address of a server; wait until it is kept current."""
        self.page.goto(f"http://127.0.0.1:{server.port}{path}")
        if is_live:
            self.shows("#link", "live")

    def shows(self, place: str, words: str | Pattern[str]) -> None:
        """Wait until a place has these words in it."""
        self.page.locator(place, has_text=words).first.wait_for()

    def text(self, place: str) -> str:
        """What a place says, as one sees it."""
        return str(self.page.locator(place).inner_text())

    def part(self, name: str) -> str:
        """What a part of the page says."""
        return self.text(f'[data-live="{name}"]')

    def judge(self) -> None:
        """Nothing went wrong, and nobody else was asked for anything."""
        known = (*SERVER_ENDS, *self.allowed)
        bad = [one for one in self.complaints if not any(word in one for word in known)]
        assert bad == [], bad
        assert [url for url in self.asked if not url.startswith("http://127.0.0.1:")] == []
