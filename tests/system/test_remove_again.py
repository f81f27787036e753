"""A ``remove`` that was killed, given again: it finishes, says so, and ends with 0."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from regrain.app import keeping
from regrain.app.store import PackageStore
from tests.command import Regrain
from tests.faults.crash_driver import Moment
from tests.faults.keeping_scenes import LEDGER, killed
from tests.stores import read_ledger
from tests.trees import LegacyPackage

MOMENTS = {
    "intended": Moment(f"{LEDGER}.intend", "after"),
    "one layout is out": Moment("regrain.maintain.remove:discard", "after", 1),
    "both are out": Moment("regrain.maintain.remove:discard", "after", 2),
    "forgotten": Moment(f"{LEDGER}.forget_package", "after"),
}


def cut(store: Path, name: str, moment: Moment) -> None:
    def remove(path: Path) -> object:
        return keeping.remove_package(PackageStore.open(path).root, name)

    assert killed(remove, store, moment)


@pytest.mark.parametrize("short", [False, True], ids=["hash", "prefix"])
@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_a_killed_removal_is_finished(
    store_path: Path, plain_store: dict[str, LegacyPackage], moment: Moment, short: bool
) -> None:
    regrain = Regrain(store_path, {"REGRAIN_STORE__MIGRATION_PARALLEL_FILES": "1"})
    regrain("init")
    regrain("migrate")
    name = next(iter(plain_store))
    cut(store_path, name, moment)
    word = name[:12] if short else name
    done = regrain("remove", word, "--execute", "--json").document
    assert (done["package_hash"], done["executed"], done["finished"]) == (name, True, True)
    assert not (store_path / name).exists()
    assert not (store_path / "packages" / name).exists()
    assert os.listdir(store_path / "trash") == []
    assert read_ledger(store_path, "SELECT * FROM store_refs WHERE hash = ?", name) == []
    assert "no such package" in regrain("remove", name, "--execute", code=1).stderr


def test_what_is_said(store_path: Path, plain_store: dict[str, LegacyPackage]) -> None:
    regrain = Regrain(store_path)
    regrain("init")
    first, second, _ = plain_store
    cut(store_path, first, MOMENTS["intended"])
    said = regrain("remove", first, "--execute").text
    assert said.startswith(f"finished the removal of {first}, which was begun before\n")
    # another package is removed as ever, and what was begun is finished on the way
    cut(store_path, second, MOMENTS["intended"])
    third = next(name for name in plain_store if name not in {first, second})
    assert regrain("remove", third, "--execute", "--json").document["finished"] is False
    assert regrain("list", "--json").document["packages"] == []
