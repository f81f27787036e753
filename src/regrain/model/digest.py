"""Names that are checked when they are made, so that an invalid one cannot exist."""

from __future__ import annotations

import re
from typing import Self

from regrain.errors import MalformedHashError

_DIGEST = re.compile(r"\A[0-9a-f]{64}\Z")
_PACKAGE_HASH = re.compile(r"\A(?:[0-9a-f]{32}|[0-9a-f]{64})\Z")
_PREFIX = re.compile(r"\A[0-9a-f]{8,64}\Z")

EMPTY = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
"""The BLAKE3 digest of no bytes. Such a file has a hash and no object."""


class Digest(str):
    """The BLAKE3-256 of a file's bytes: 64 lower-case hexadecimal digits."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Check ``text``; raise MalformedHashError if it is no digest."""
        if not _DIGEST.match(text):
            raise MalformedHashError(
                f"'{text[:80]}' is not a digest",
                why="64 lower-case hexadecimal digits are wanted",
                advice="'regrain files HASH --json' shows the digests of a package.",
            )
        return super().__new__(cls, text)


class PackageHash(str):
    """The name of a package: 64 or 32 lower-case hexadecimal digits."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Check ``text``; raise MalformedHashError if it is no package hash."""
        if not _PACKAGE_HASH.match(text):
            raise MalformedHashError(
                f"'{text[:80]}' is not a package hash",
                why="64 or 32 lower-case hexadecimal digits are wanted",
                advice="'regrain list' shows the hashes there are; 8 digits or more will do.",
            )
        return super().__new__(cls, text)


def is_package_hash(text: str) -> bool:
    """Tell whether ``text`` could name a package."""
    return _PACKAGE_HASH.match(text) is not None


def is_prefix(text: str) -> bool:
    """Tell whether ``text`` could begin a package hash: 8 digits or more."""
    return _PREFIX.match(text) is not None
