"""regrain: a package manager's store, from one directory a package to one object a file."""

from regrain.app.store import Package, PackageStore
from regrain.errors import (
    CorruptionError,
    LockedError,
    MalformedHashError,
    NotAStoreError,
    RefusedError,
    RegrainError,
    UnknownPackageError,
    UsageError,
)
from regrain.model.entry import Entry, Kind
from regrain.model.phase import Layout, Phase

__version__ = "0.1.0"

__all__ = [
    "CorruptionError",
    "Entry",
    "Kind",
    "Layout",
    "LockedError",
    "MalformedHashError",
    "NotAStoreError",
    "Package",
    "PackageStore",
    "Phase",
    "RefusedError",
    "RegrainError",
    "UnknownPackageError",
    "UsageError",
]
