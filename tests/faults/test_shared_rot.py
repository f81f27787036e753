"""Which copy is the whole one? Of a file that both layouts share; of one that is to be dropped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from regrain.app.store import Package, PackageStore
from regrain.errors import CorruptionError, RefusedError
from regrain.model.phase import Layout
from tests.conftest import remove
from tests.faults import undoing
from tests.faults.inline import Way, migrate
from tests.faults.small import Scene, copy_of
from tests.repairs import INSIDE, cut, lose, turn_over

FILE = f"{INSIDE}/bin/linkable"


def append(file: Path) -> None:
    """More than there was, behind what there was."""
    with file.open("ab") as stream:
        stream.write(b"more")


@pytest.fixture(params=["hardlink", "copy"])
def migrated(request: pytest.FixtureRequest, template: Scene) -> Iterator[tuple[Scene, bool]]:
    made = copy_of(template, template.path.with_name("shared"))
    migrate(made.path, Way(ingest="auto" if request.param == "hardlink" else "copy"))
    yield made, request.param == "hardlink"
    remove(made.path)


def ways_to_read(package: Package, out: Path) -> list[Callable[[], object]]:
    return [
        lambda: package.read(FILE),
        lambda: package.checkout(out, "exact"),
        lambda: package.checkout(out, "shared"),
        lambda: package.checkout(out, subtree=FILE),
    ]


@pytest.mark.parametrize("damage", [turn_over, cut, append, lose])
def test_a_legacy_directory_stands_in_only_with_the_right_bytes(
    migrated: tuple[Scene, bool], damage: Callable[[Path], None], tmp_path: Path
) -> None:
    scene, shares = migrated
    known = scene.named("linkable")
    legacy = known.path / FILE
    content, links = legacy.read_bytes(), legacy.stat().st_nlink
    assert (links > 1) is shares
    digest = scene.before[known.hash][FILE.encode()].digest
    damage(scene.path / "objects" / digest[:2] / digest)
    store = PackageStore.open(scene.path)
    for number, read in enumerate(ways_to_read(store.get_package(known.hash), tmp_path / "out")):
        if shares and damage is not lose:
            with pytest.raises(CorruptionError):
                read()
        else:
            assert read() in {content, number and len(scene.before[known.hash]), 1}
        remove(tmp_path / "out")
    package = store.get_package(known.hash)
    if not shares or damage is lose:
        assert package.read(FILE) == content
        assert package.layout is Layout.LEGACY


@pytest.mark.parametrize("damage", [turn_over, cut, lose])
def test_purge_does_not_drop_what_may_be_the_last_whole_copy(
    template: Scene, damage: Callable[[Path], None]
) -> None:
    """Rot, and whatever else befell a legacy directory since the rollback compared it."""
    scene = copy_of(template, template.path.with_name("purged"))
    try:
        migrate(scene.path, Way(ingest="copy"))
        undoing.rollback(scene.path)
        damage(scene.named("linkable").path / FILE)
        with pytest.raises(RefusedError, match="not what is published"):
            undoing.purge(scene.path)
        assert len(list((scene.path / "packages").iterdir())) == len(scene.packages)
        assert list((scene.path / "objects").glob("*/*"))
    finally:
        remove(scene.path)
