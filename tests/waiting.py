"""Waiting for what another process does: looked for again and again, with an end."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import Any

from tests.command import Regrain

SECONDS_MAX = 60.0
_TICK_SECONDS = 0.05


def until(is_so: Callable[[], bool], what: str, seconds: float = SECONDS_MAX) -> float:
    """Wait until it is so; return how many seconds that took."""
    begun = time.monotonic()
    while not is_so():
        assert time.monotonic() - begun < seconds, f"waited {seconds} s in vain: {what}"
        time.sleep(_TICK_SECONDS)
    return time.monotonic() - begun


def until_status(
    regrain: Regrain,
    process: subprocess.Popen[bytes],
    is_so: Callable[[dict[str, Any]], bool],
    what: str,
) -> dict[str, Any]:
    """Wait until ``status`` of a store where ``process`` works says so; return what it says."""
    found: dict[str, Any] = {}

    def look() -> bool:
        assert process.poll() is None, f"it ended with {process.returncode}: {what}"
        found.update(regrain("status", "--json").document)
        return is_so(found)

    until(look, what)
    return found
