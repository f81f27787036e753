"""regrain: a package manager's store, from one directory a package to one object a file."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from regrain.app.store import Package, PackageStore
    from regrain.errors import (
        ArchiveError,
        CorruptionError,
        LockedError,
        MalformedHashError,
        NotAStoreError,
        PackageError,
        RefusedError,
        RegrainError,
        UnknownPackageError,
        UsageError,
    )
    from regrain.model.entry import Entry, Kind
    from regrain.model.phase import Layout, Phase

__version__ = "0.1.0"

__all__ = [
    "ArchiveError",
    "CorruptionError",
    "Entry",
    "Kind",
    "Layout",
    "LockedError",
    "MalformedHashError",
    "NotAStoreError",
    "Package",
    "PackageError",
    "PackageStore",
    "Phase",
    "RefusedError",
    "RegrainError",
    "UnknownPackageError",
    "UsageError",
]

_HOMES = {
    "Package": "regrain.app.store",
    "PackageStore": "regrain.app.store",
    "Entry": "regrain.model.entry",
    "Kind": "regrain.model.entry",
    "Layout": "regrain.model.phase",
    "Phase": "regrain.model.phase",
}


def __getattr__(name: str) -> object:
    """Load a public name when it is first wanted: the command line starts without them."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "regrain.errors")), name)
