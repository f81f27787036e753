"""Compare two listings of a package's tree, entry by entry."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from regrain.model.entry import Entry

_FIELDS = (
    ("kind", "type"),
    ("mode", "mode"),
    ("uid", "owner"),
    ("gid", "group"),
    ("mtime_ns", "modification time"),
    ("size", "size"),
    ("digest", "content"),
    ("target", "target"),
    ("hardlink", "hard links"),
)


def first_difference(
    listed: Iterable[Entry], found: Iterable[Entry], *, content: bool = True
) -> tuple[bytes, str] | None:
    """Return path and nature of the first difference; None if the trees are equal.

    Args:
        listed: What should be there, in order of paths.
        found: What is there, in order of paths, with digests.
        content: Whether digests are compared, too.
    """
    fields = _FIELDS if content else [field for field in _FIELDS if field[0] != "digest"]
    for wanted, seen in itertools.zip_longest(listed, found):
        if wanted is None or (seen is not None and seen.path < wanted.path):
            return seen.path, "it appeared"
        if seen is None or wanted.path < seen.path:
            return wanted.path, "it vanished"
        for name, words in fields:
            if getattr(wanted, name) != getattr(seen, name):
                return wanted.path, f"its {words} changed"
        if (wanted.xattrs or {}) != (seen.xattrs or {}):
            return wanted.path, "its extended attributes changed"
    return None
