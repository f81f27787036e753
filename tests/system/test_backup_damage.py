"""Backups that are damaged, read-only, or beside other runs."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from regrain.app.store import PackageStore
from regrain.store.locks import run_lock
from tests.command import Regrain
from tests.compare import differences, snapshot
from tests.reader import check_store
from tests.stores import migrate_all, read_ledger
from tests.system.test_backup import AT_ONCE, an_object, carriers, garble
from tests.trees import LegacyPackage


@pytest.fixture
def place(workplace: Path) -> Path:
    return workplace / "backup"


@pytest.fixture
def migrated(store_path: Path, plain_store: dict[str, LegacyPackage]) -> Regrain:
    """A small store, all of it at the file level, legacy directories still there."""
    regrain = Regrain(store_path, AT_ONCE)
    migrate_all(regrain, plain_store)
    return regrain


def relist(path: Path, name: str) -> None:
    """Change a file list so that it can be read still."""
    listed = path / "packages" / name / "files.json"
    raw = listed.read_bytes()
    changed = raw.replace(b'"mode":"0644"', b'"mode":"0604"', 1)
    assert changed != raw
    listed.write_bytes(changed)


def test_a_damaged_list_of_a_backup_is_healed_unasked(
    migrated: Regrain, place: Path, plain_store: dict[str, LegacyPackage]
) -> None:
    migrated("backup", "create", place)
    relist(place, min(plain_store))
    migrated("backup", "create", place)
    migrated("backup", "check", place)
    assert len(os.listdir(place / "quarantine")) == 1


def test_a_damaged_list_of_the_store_does_not_speak_against_the_backup(
    migrated: Regrain, place: Path, plain_store: dict[str, LegacyPackage]
) -> None:
    """Nobody is told to remove the good copy to make room for the damaged one."""
    migrated("backup", "create", place)
    good = snapshot(place / "packages")
    relist(migrated.store, min(plain_store))
    (done,) = migrated("backup", "create", "--json", place, code=3).of_type("summary")
    assert set(done["failed"]) == {min(plain_store)}
    assert "do not give its tree_hash" in done["failed"][min(plain_store)]
    assert "remove" not in done["failed"][min(plain_store)]
    assert differences(good, snapshot(place / "packages")) == []


def test_a_backup_that_cannot_be_healed_is_not_taken_for_one(
    migrated: Regrain, place: Path
) -> None:
    migrated("cutover", "--no-backup")
    migrated("cleanup", "--execute")
    migrated("backup", "create", place)
    garble(an_object(place))
    garble(an_object(migrated.store))
    migrated("backup", "check", place, code=4)
    for _ in range(2):  # it is not forgotten either
        (done,) = migrated("backup", "create", "--json", place, code=3).of_type("summary")
        assert done["failed"]
        assert "damaged in the backup" in "".join(done["failed"].values())
    made = read_ledger(migrated.store, "SELECT 1 FROM history WHERE event = 'backup_created'")
    assert len(made) == 1


@pytest.mark.parametrize("is_there", [True, False])
def test_a_ledger_of_a_backup_that_is_lost(migrated: Regrain, place: Path, is_there: bool) -> None:
    migrated("backup", "create", place)
    ledger = place / "state.sqlite"
    if is_there:
        ledger.write_bytes(b"x" * 9000)
    else:
        ledger.unlink()
    migrated("backup", "check", place, code=4)
    migrated("backup", "create", place)
    migrated("backup", "check", place)


@pytest.mark.root
def test_a_store_comes_back_from_a_disk_that_is_read_only(
    migrated: Regrain, place: Path, plain_store: dict[str, LegacyPackage]
) -> None:
    migrated("backup", "create", place)
    subprocess.run(["mount", "--bind", place, place], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", place], check=True)
        shutil.rmtree(migrated.store)
        (done,) = migrated("backup", "restore", "--json", place).of_type("summary")
    finally:
        subprocess.run(["umount", place], check=True)
    assert done["packages"] == len(plain_store)
    assert check_store(migrated.store).problems == []


def test_one_run_a_store(migrated: Regrain, place: Path) -> None:
    with run_lock(PackageStore.open(migrated.store).root, "regrain migrate"):
        assert "regrain migrate" in migrated("backup", "create", place, code=11).stderr
    assert not place.exists()


def test_events_of_a_copy(
    migrated: Regrain, place: Path, plain_store: dict[str, LegacyPackage]
) -> None:
    copied = migrated("backup", "create", place, "--json").of_type("package")
    assert {one["package_hash"] for one in copied if one["status"] == "copied"} == set(plain_store)


def test_only_damage_is_replaced(migrated: Regrain, place: Path) -> None:
    migrated("cutover", "--no-backup")
    migrated("cleanup", "--execute")
    migrated("backup", "create", place)
    broken = an_object(migrated.store)
    before = {name: status.st_ino for name, status in carriers(migrated.store).items()}
    garble(broken)
    (done,) = migrated("backup", "restore", place, "--json").of_type("summary")
    assert (done["healed"], done["lost"]) == (1, [])
    after = {name: status.st_ino for name, status in carriers(migrated.store).items()}
    assert {name for name in before if after[name] != before[name]} == {broken.name}
    migrated("verify", "--level", "deep")
