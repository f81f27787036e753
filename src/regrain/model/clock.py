"""The one place that asks for the time."""

from __future__ import annotations

import time

monotonic = time.monotonic


def now() -> int:
    """Return the time in whole Unix seconds."""
    return int(time.time())


def day_name(seconds: int) -> str:
    """Return the day (UTC) of a Unix time, as ``2026-11-22``."""
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))
