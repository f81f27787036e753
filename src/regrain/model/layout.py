"""Where things lie in a store: names below its top directory, and names of carriers."""

from __future__ import annotations

import re

STORE_FILE = "store.toml"
OBJECTS = "objects"
PACKAGES = "packages"
TEMP = "temp"
TRASH = "trash"
QUARANTINE = "quarantine"
MIGRATION = "migration"
LEDGER = "state.sqlite"
LEDGER_MARK = "migration/ledger.toml"
FILE_LIST = "files.json"
MANIFEST = "manifest.toml"
RUN_LOCK = "migration/run.lock"
STORE_LOCK = "migration/store.lock"
TURNSTILE = "migration/turnstile.lock"
PUBLISH_LOCK = "migration/publish.lock"
LOCKS = (RUN_LOCK, STORE_LOCK, TURNSTILE, PUBLISH_LOCK)
STATE_FILE = "migration/state.json"
LOGS = "migration/logs"

DIRECTORIES = (OBJECTS, PACKAGES, TEMP, TRASH, QUARANTINE, MIGRATION)
OWN_NAMES = frozenset(
    {STORE_FILE, LEDGER, f"{LEDGER}-wal", f"{LEDGER}-shm", f"{LEDGER}-journal", *DIRECTORIES}
)
"""Every name regrain itself uses at the top of a store."""

PRIVATE_DIRECTORIES = frozenset({TEMP, TRASH, QUARANTINE})

FORMAT = 1
SHARDS = tuple(f"{number:02x}" for number in range(256))

_CARRIER = re.compile(r"\A([0-9a-f]{64})(?:\.m([0-7]{4})|(\.zst))?\Z")
_CARRIER_BITS = 0o755


def carrier_mode(mode: int) -> int:
    """Return the mode of the carrier that holds a file of ``mode``.

    No set-id, no sticky bit, no write for group or world: what is left is never more
    permissive than the file.
    """
    return mode & _CARRIER_BITS


def further_carrier(digest: str, mode: int) -> str:
    """Return the name of a further carrier: same bytes as the bare name, other mode."""
    return f"{digest}.m{mode:04o}"


def compressed_carrier(name: str) -> str:
    """Return the name of the carrier that holds the bytes of the one named ``name`` compressed.

    In ``objects/`` an object has at the most one, named by the digest.
    """
    return f"{name}.zst"


def staged_path(name: str) -> str:
    """Return where the staged carrier ``name`` waits below ``temp/<run>/objects``.

    In one of sixteen directories: every change of a directory has it to itself, and workers
    that make and move files in a single one wait for each other.
    """
    return f"{name[0]}/{name}"


def parse_carrier(name: str) -> tuple[str, int | None, bool] | None:
    """Split a name found in ``objects/ab/`` into digest, mode (None: bare), compressed.

    Returns None for a name that is no carrier's.
    """
    match = _CARRIER.match(name)
    if match is None:
        return None
    digest, mode, compressed = match.groups()
    return digest, None if mode is None else int(mode, 8), compressed is not None
