"""What lies at a URL under which key; what is written differently is not ours, and left alone."""

from __future__ import annotations

import re

FORMAT_KEY = "regrain.json"
BACKUP_KEY = "backup.json"
OBJECTS = "objects"
PACKAGES = "packages"
LEASES = "leases"

_OBJECT = re.compile(r"\Aobjects/([0-9a-f]{2})/(\1[0-9a-f]{62})\.zst\Z")
_LIST = re.compile(r"\Apackages/([0-9a-f]{64}|[0-9a-f]{32})/files\.json\.zst\Z")
_LEASE = re.compile(r"\Aleases/(push|gc)-[0-9a-f]{32}\Z")


def object_key(digest: str) -> str:
    """Return the key of an object's frame."""
    return f"{OBJECTS}/{digest[:2]}/{digest}.zst"


def list_key(package_hash: str) -> str:
    """Return the key of a package's file list, which makes it listed."""
    return f"{PACKAGES}/{package_hash}/files.json.zst"


def lease_key(kind: str, token: str) -> str:
    """Return the key by which others see that somebody writes there."""
    return f"{LEASES}/{kind}-{token}"


def digest_of(key: str) -> str:
    """Return the digest in an object's key; empty for another key."""
    match = _OBJECT.match(key)
    return match[2] if match else ""


def package_of(key: str) -> str:
    """Return the package hash in a list's key; empty for another key."""
    match = _LIST.match(key)
    return match[1] if match else ""


def holder_of(key: str) -> str:
    """Return what a lease is for; empty for another key."""
    match = _LEASE.match(key)
    return match[1] if match else ""
