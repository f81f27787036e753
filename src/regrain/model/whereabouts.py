"""Which stores were said to keep their ledger in a database server, and in which.

Kept by path, for the process: rooms that know a store by its path alone ask here. A store that
nobody named keeps its ledger in a file.
"""

from __future__ import annotations

_servers: dict[str, str] = {}


def choose(store_path: str, url: str | None) -> None:
    """Say where the ledger of a store is.

    Args:
        store_path: The store's directory, from the root.
        url: Of the database; None for the store's own file.
    """
    if url:
        _servers[store_path] = url
    else:
        _servers.pop(store_path, None)


def server_of(store_path: str) -> str | None:
    """Return the URL of the database a store's ledger is in; None for its own file."""
    return _servers.get(store_path)
