"""A package that is removed under its reader: gone, never in part."""

from __future__ import annotations

from pathlib import Path

import pytest

from regrain import CorruptionError, PackageStore, UnknownPackageError, disk
from regrain.store.legacy import LegacyPackage
from regrain.store.packages import FileLevelPackage
from regrain.store.source import MovedError
from tests.command import Regrain
from tests.trees import LegacyPackage as Made


@pytest.fixture
def store(regrain: Regrain, plain_store: dict[str, Made]) -> PackageStore:
    regrain("init")
    regrain("migrate", "--limit", "1")
    return PackageStore.open(regrain.store)


def of_layout(store: PackageStore, layout: str) -> str:
    return next(p.hash for p in store.packages() if p.layout.value == layout)


def take_away(store: PackageStore, place: Path, *gone: str) -> None:
    """Rename a directory to trash and begin to empty it, as a removal does."""
    target = Path(store.path, "trash", f"{place.name}.x.0")
    place.rename(target)
    for name in gone:
        (target / name).unlink()


def test_a_legacy_tree_is_not_listed_in_part(store: PackageStore) -> None:
    name = of_layout(store, "legacy")
    package = LegacyPackage(store.root.fd, name)
    take_away(store, Path(store.path, name), "sbom.spdx.json")
    with pytest.raises(MovedError):
        list(package.tree())
    with pytest.raises(MovedError):
        package.lookup(b"sbom.spdx.json")


def test_a_legacy_manifest_is_not_empty_all_at_once(store: PackageStore) -> None:
    name = of_layout(store, "legacy")
    package = LegacyPackage(store.root.fd, name)
    take_away(store, Path(store.path, name), "manifest.toml")
    with pytest.raises(MovedError):
        package.manifest()


def test_a_checkout_of_what_is_removed_meanwhile_ends_without_a_trace(
    store: PackageStore, workplace: Path
) -> None:
    name = of_layout(store, "legacy")
    seen: list[object] = []

    def remove(entry: object) -> None:
        if not seen:
            take_away(store, Path(store.path, name), "sbom.spdx.json")
        seen.append(entry)

    with pytest.raises(UnknownPackageError, match="no such package"):
        store.get_package(name).checkout(workplace / "out", on_entry=remove)
    assert seen
    assert not (workplace / "out").exists()


def test_what_is_open_is_known_by_its_name(store: PackageStore) -> None:
    """By this a list that is being removed is told from one that is missing."""
    name = of_layout(store, "file_level")
    place = Path(store.path, "packages", name)
    with disk.Closing(disk.open_directory(name, store.root.packages)) as package:
        assert disk.is_at(package, name, store.root.packages)
        take_away(store, place, "files.json")
        assert not disk.is_at(package, name, store.root.packages)
        place.mkdir()  # added again
        assert not disk.is_at(package, name, store.root.packages)


def test_a_package_without_its_list_is_damaged(store: PackageStore) -> None:
    name = of_layout(store, "file_level")
    Path(store.path, "packages", name, "files.json").unlink()
    with pytest.raises(CorruptionError, match="without its file list"):
        FileLevelPackage(store.root.packages, store.root.objects, name)
