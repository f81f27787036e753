"""regrain: a package manager's store, from one directory a package to one object a file."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from regrain.app.migration import Migration
    from regrain.app.store import Package, PackageStore
    from regrain.errors import (
        ArchiveError,
        ConfigurationError,
        CorruptionError,
        FinishedWithFailuresError,
        HaltedError,
        LedgerLostError,
        LockedError,
        MalformedHashError,
        NoSpaceError,
        NotAStoreError,
        PackageError,
        RefusedError,
        RegrainError,
        RemoteError,
        UnknownFormatError,
        UnknownPackageError,
        UsageError,
    )
    from regrain.model.entry import Entry, Kind
    from regrain.model.events import (
        PackageCompleted,
        PackageFailed,
        PackageGivenUp,
        Progress,
        Recovered,
    )
    from regrain.model.phase import Layout, Phase

__version__ = "0.1.0"

__all__ = [
    "ArchiveError",
    "ConfigurationError",
    "CorruptionError",
    "Entry",
    "FinishedWithFailuresError",
    "HaltedError",
    "Kind",
    "Layout",
    "LedgerLostError",
    "LockedError",
    "MalformedHashError",
    "Migration",
    "NoSpaceError",
    "NotAStoreError",
    "Package",
    "PackageCompleted",
    "PackageError",
    "PackageFailed",
    "PackageGivenUp",
    "PackageStore",
    "Phase",
    "Progress",
    "Recovered",
    "RefusedError",
    "RegrainError",
    "RemoteError",
    "UnknownFormatError",
    "UnknownPackageError",
    "UsageError",
]

_HOMES = {
    "Migration": "regrain.app.migration",
    "Package": "regrain.app.store",
    "PackageStore": "regrain.app.store",
    "PackageCompleted": "regrain.model.events",
    "PackageFailed": "regrain.model.events",
    "PackageGivenUp": "regrain.model.events",
    "Progress": "regrain.model.events",
    "Recovered": "regrain.model.events",
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
