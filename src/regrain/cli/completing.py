"""What a shell offers when the user presses TAB where a package is to be named, or a setting.

click writes the shells' scripts and asks the functions here. They read the store as any reader
does: no ledger, no lock. Whatever goes wrong, there is nothing to offer, and not a word about it:
the user is in the middle of a line.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from click.shell_completion import CompletionItem

from regrain.errors import RegrainError, shown

if TYPE_CHECKING:
    import click

    from regrain.app.store import PackageStore

_NAMED_MAX = 40
"""So many packages at the most are offered with name and version, which are read from each."""


def package_hashes(
    ctx: click.Context,
    param: click.Parameter,  # noqa: ARG001 -- click's signature
    incomplete: str,
) -> list[CompletionItem]:
    """Offer the packages of the store whose hash begins so."""
    from regrain.store import dual

    try:
        store = _open_store(ctx)
        names = [n for n in dual.package_hashes(store.root) if n.startswith(incomplete)]
        are_few = len(names) <= _NAMED_MAX
        return [CompletionItem(n, help=_title(store, n) if are_few else None) for n in names]
    except (OSError, RegrainError):
        return []


def settings_of_a_run(
    ctx: click.Context,  # noqa: ARG001 -- click's signature
    param: click.Parameter,  # noqa: ARG001
    incomplete: str,
) -> list[CompletionItem]:
    """Offer what ``set`` takes, with the sign that a value follows."""
    from regrain.migrate.control import KEYS

    words = [f"{key.replace('_', '-')}=" for key in KEYS]
    return [CompletionItem(word) for word in words if word.startswith(incomplete)]


def _open_store(ctx: click.Context) -> PackageStore:
    """Open the store that the words before name, or the configuration does.

    Nothing but the words were looked at so far, so that there is no ``Context`` yet.
    """
    from regrain.cli.context import Context

    words = ctx.find_root().params
    path = words.get("path")
    return Context(os.path.expanduser(path) if path else None, words.get("config"), 0).store


def _title(store: PackageStore, name: str) -> str | None:
    """Name and version, fit for a terminal; None where its manifest cannot say."""
    try:
        package = store.get_package(name)
        return shown(f"{package.name} {package.version}".strip()) or None
    except (OSError, RegrainError):
        return None
