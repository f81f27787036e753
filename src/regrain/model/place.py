"""Where a backup lies: in a directory, or at a URL."""

from __future__ import annotations


def is_url(place: str) -> bool:
    """Tell whether a place is given by a URL; what is no known one is refused when it is used."""
    return "://" in place
