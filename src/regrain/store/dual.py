"""Both layouts as one: where a package is read from follows the phase alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regrain.errors import CorruptionError, UnknownPackageError, UsageError
from regrain.model.digest import PackageHash, is_package_hash, is_prefix
from regrain.model.phase import Layout, Phase
from regrain.store.legacy import LegacyPackage
from regrain.store.packages import FileLevelPackage, is_published, published
from regrain.store.root import legacy_names
from regrain.store.standin import StandIn

if TYPE_CHECKING:
    from regrain.store.root import StoreRoot
    from regrain.store.source import PackageSource


def open_package(root: StoreRoot, package_hash: str) -> PackageSource:
    """Open a package from the layout the phase names first among those that have it.

    A package moves from one layout to the other under a reader: the new place exists
    before the old one goes, so looking twice never misses it.

    Raises:
        UnknownPackageError: Neither layout has it.
    """
    for _ in range(2):
        for place in root.phase().read_order:
            try:
                if place is Layout.FILE_LEVEL:
                    return FileLevelPackage(root.packages, root.objects, package_hash)
                return LegacyPackage(root.fd, package_hash)
            except FileNotFoundError:
                continue
            except CorruptionError:
                legacy = open_legacy(root, package_hash)
                if legacy is None:
                    raise
                return legacy
    raise UnknownPackageError(
        "no such package", package=package_hash, advice="'regrain list' shows what there is."
    )


def open_legacy(root: StoreRoot, package_hash: str) -> PackageSource | None:
    """Open a package's legacy directory as a way out of damage; None outside ``dual``.

    In ``dual`` it is still there and untouched, unless the migration is one in place. What was
    published says what its bytes must be, for as long as that file list is whole.
    """
    if root.phase() is not Phase.DUAL:
        return None
    try:
        legacy = LegacyPackage(root.fd, package_hash)
    except FileNotFoundError:
        return None
    listed = _with_whole_list(root, package_hash)
    return legacy if listed is None else StandIn(listed, legacy)


def _with_whole_list(root: StoreRoot, package_hash: str) -> FileLevelPackage | None:
    try:
        listed = FileLevelPackage(root.packages, root.objects, package_hash)
        for _ in listed.entries():  # its end proves the list
            pass
    except (FileNotFoundError, CorruptionError):
        return None
    return listed


def has_package(root: StoreRoot, package_hash: str) -> bool:
    """Tell whether any layout that is read in this phase has the package."""
    for place in root.phase().read_order * 2:
        if place is Layout.FILE_LEVEL and is_published(root.packages, package_hash):
            return True
        if place is Layout.LEGACY and is_published(root.fd, package_hash):
            return True
    return False


def package_hashes(root: StoreRoot) -> list[PackageHash]:
    """Return the hashes of all packages that can be read, sorted, each once.

    The layout a package may leave is listed first, so that one on the move is not missed.
    """
    names = set(legacy_names(root.fd)[0])
    if Layout.FILE_LEVEL in root.phase().read_order:
        names.update(name for name in published(root.packages) if is_package_hash(name))
    return [PackageHash(name) for name in sorted(names)]


def find_hash(root: StoreRoot, text: str) -> PackageHash:
    """Return the package that ``text`` names: a whole hash, or a prefix only one has.

    Raises:
        MalformedHashError: ``text`` is neither.
        UnknownPackageError: No package begins with it.
        UsageError: Several do.
    """
    if is_package_hash(text) and has_package(root, text):
        return PackageHash(text)
    if not is_prefix(text):
        return PackageHash(text)
    matches = [name for name in package_hashes(root) if name.startswith(text)]
    if len(matches) > 1:
        raise UsageError(
            f"'{text}' begins the hash of {len(matches)} packages",
            why=", ".join(name[:16] + "…" for name in matches[:4]),
            advice="Give more digits.",
        )
    if not matches:
        raise UnknownPackageError(
            "no such package", package=text, advice="'regrain list' shows what there is."
        )
    return matches[0]


def layouts_of(root: StoreRoot, package_hash: str) -> list[Layout]:
    """Return the layouts that hold the package, whatever the phase reads."""
    found = []
    if is_published(root.packages, package_hash):
        found.append(Layout.FILE_LEVEL)
    if is_published(root.fd, package_hash):
        found.append(Layout.LEGACY)
    return found
