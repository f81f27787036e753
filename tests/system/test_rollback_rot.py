"""Rot, and what else is in the way of a rollback: healed from the good side, or told."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from regrain.store import quarantine
from tests import awkward
from tests.command import Regrain
from tests.compare import Snapshot, differences, snapshot
from tests.conftest import remove
from tests.stores import is_linked, migrate_all, put_copy, read_ledger, record, statuses
from tests.trees import LegacyPackage

pytestmark = pytest.mark.both_databases

AT_ONCE = {
    "REGRAIN_MIGRATION__SETTLE": "0",
    "REGRAIN_STORE__MIGRATION_PARALLEL_FILES": "1",
}


COPYING = AT_ONCE | {"REGRAIN_STORE__INGEST": "copy"}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, seed: int) -> Iterator[Path]:
    """A migrated store; its objects are copies, so that rot hits one side."""
    place = tmp_path_factory.mktemp("rot") / "store"
    migrate_all(Regrain(place, COPYING), awkward.make_three(place, seed))
    yield place
    remove(place)


@pytest.fixture
def ready(template: Path, store_path: Path, plain_store: dict[str, LegacyPackage]) -> Regrain:
    """The same in the place of the plain store."""
    put_copy(template, store_path)
    return Regrain(store_path, COPYING)


@pytest.fixture
def before(plain_store: dict[str, LegacyPackage]) -> dict[str, Snapshot]:
    return record(plain_store)


def changes(path: Path, before: Mapping[str, Snapshot]) -> list[str]:
    return [
        f"{name}: {line}"
        for name, tree in before.items()
        for line in differences(tree, snapshot(path / name), holes=True)
    ]


def rot(path: Path, before: Mapping[str, Snapshot], name: str) -> Path:
    """Turn the bytes of one file of a package over; nothing else of it moves."""
    (inside,) = [
        p for p, e in before[name].items() if e.kind == "file" and e.size and p.endswith(b".toml")
    ]
    file = path / name / os.fsdecode(inside)
    turn_over(file)
    return file


def turn_over(file: Path) -> None:
    status = file.stat()
    with file.open("r+b") as stream:
        content = stream.read()
        stream.seek(0)
        stream.write(bytes(255 - byte for byte in content))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def concerns(path: Path) -> dict[str, str]:
    return dict(read_ledger(path, "SELECT package_hash, what FROM integrity"))


@pytest.mark.parametrize("phase", ["dual", "file_level"])
def test_rot_in_legacy_is_healed(ready: Regrain, before: dict[str, Snapshot], phase: str) -> None:
    name, other, _ = before
    if phase == "file_level":
        ready("cutover", "--no-backup")
    rot(ready.store, before, name)
    seen = snapshot(ready.store / name)
    untouched = snapshot(ready.store / other)
    ready("verify", "--level", "deep", code=3)
    assert name in concerns(ready.store)
    result = ready("rollback", "--json")
    (healed,) = result.of_type("package")
    assert (healed["status"], healed["package_hash"]) == ("restored", name)
    assert "manifest.toml" in healed["reason"]
    assert changes(ready.store, before) == []
    assert differences(untouched, snapshot(ready.store / other), identity=True) == []
    (aside,) = (ready.store / "quarantine").iterdir()
    assert differences(seen, snapshot(aside), identity=True) == []
    assert concerns(ready.store) == {}
    assert set(statuses(ready.store).values()) == {"rolled_back"}
    assert "legacy_healed" in ready("why", name).text
    assert not list((ready.store / "temp").iterdir())


def test_what_somebody_changed_is_not_healed(ready: Regrain, before: dict[str, Snapshot]) -> None:
    """With the bytes a time moved, so it was no rot; and what rotted beside it is healed."""
    name, other, _ = before
    file = rot(ready.store, before, name)
    os.utime(file, ns=(0, 1))
    rot(ready.store, before, other)
    ready("rollback", code=3)
    assert ready("status", "--json").document["phase"] == "rolling_back"
    assert concerns(ready.store).keys() == {name}
    assert changes(ready.store, {other: before[other]}) == []
    ready("cat", name, "manifest.toml")
    remove(ready.store / name)
    ready("rollback")
    assert changes(ready.store, before) == []


def test_rot_on_both_sides_is_a_loss(ready: Regrain, before: dict[str, Snapshot]) -> None:
    name = next(iter(before))
    file = rot(ready.store, before, name)
    digest = before[name][os.fsencode(file.relative_to(ready.store / name))].digest
    carrier = ready.store / "objects" / digest[:2] / digest
    assert not is_linked(ready.store, file)
    turn_over(carrier)
    result = ready("rollback", "--json", code=4)
    (lost,) = result.of_type("package")
    assert (lost["status"], lost["damaged"]) == ("failed", True)
    assert digest in lost["reason"]
    assert "content changed" in lost["reason"]
    assert not list((ready.store / "quarantine").iterdir())
    turn_over(carrier)
    ready("rollback")
    assert changes(ready.store, before) == []


def test_rot_does_not_go_forward(ready: Regrain, before: dict[str, Snapshot]) -> None:
    """What rots in a rolled-back store replaces nothing that is good."""
    name = next(iter(before))
    good = ready("cat", name, "manifest.toml").stdout
    ready("rollback")
    rot(ready.store, before, name)
    ready("migrate", code=5)  # a trigger: that is news
    assert set(statuses(ready.store).values()) == {"completed"}
    assert ready("cat", name, "manifest.toml").stdout == good
    assert concerns(ready.store).keys() == {name}
    ready("cutover", "--no-backup", code=5)
    ready("rollback")
    assert changes(ready.store, before) == []
    ready("migrate")
    assert concerns(ready.store) == {}


def test_killed_while_it_heals(
    ready: Regrain, before: dict[str, Snapshot], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the two renames both directories are there, the rotted one in its place."""
    name = next(iter(before))
    rot(ready.store, before, name)

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    from regrain.app.store import PackageStore

    with monkeypatch.context() as patch:
        patch.setattr(quarantine, "exchange_directories", die)
        with pytest.raises(KeyboardInterrupt):
            PackageStore.open(ready.store).migration().rollback()
    assert (ready.store / name).is_dir()
    assert len(list((ready.store / "quarantine").iterdir())) == 1
    ready("rollback")
    assert changes(ready.store, before) == []
    assert len(list((ready.store / "quarantine").iterdir())) == 2


def test_rot_and_change_are_told_apart_for_a_single_package(
    ready: Regrain, before: dict[str, Snapshot]
) -> None:
    name = next(iter(before))
    file = rot(ready.store, before, name)
    heal = ("verify", name, "--level", "deep", "--repair")
    assert f"regrain {' '.join(heal)}" in ready("rollback", name, code=3).stderr
    ready(*heal)
    ready("rollback", name)
    assert changes(ready.store, before) == []
    ready("migrate")
    rot(ready.store, before, name)
    file.touch()
    assert "--accept-legacy" in ready("rollback", name, code=3).stderr


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_name_that_is_taken_is_told(
    ready: Regrain, before: dict[str, Snapshot], kind: str
) -> None:
    name = next(iter(before))
    ready("cutover", "--no-backup")
    ready("cleanup", "--execute")
    taken = ready.store / name
    if kind == "file":
        taken.touch()
    else:
        taken.symlink_to(ready.store.parent)
    result = ready("rollback", code=3)
    assert name in result.stderr
    assert "no directory" in result.stderr
    taken.unlink()
    ready("rollback")
    assert changes(ready.store, before) == []
