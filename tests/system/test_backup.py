"""Backups: made, checked, damaged, restored from; and what the gate thinks of them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from random import Random

import pytest

from regrain.ledger import open_ledger
from regrain.migrate.backed_up import (
    BACKUP_CHECKED,
    BACKUP_CREATED,
    BACKUP_DAMAGED,
    detail_of,
    last_backup,
)
from regrain.model.phase import Phase
from regrain.store.root import StoreRoot, write_store_file
from tests import mounts
from tests.command import Regrain
from tests.compare import Snapshot, differences, snapshot
from tests.reader import check_store
from tests.stores import migrate_all, read_ledger, record, statuses
from tests.trees import ACL_DEFAULT, Abilities, LegacyPackage, acl

pytestmark = pytest.mark.both_databases

AT_ONCE = {
    "REGRAIN_MIGRATION__SETTLE": "0",
    "REGRAIN_MIGRATION__FREE_BYTES_MIN": "1000000",
    "REGRAIN_MIGRATION__FREE_INODES_MIN": "10",
}


@pytest.fixture
def place(workplace: Path) -> Path:
    return workplace / "backup"


@pytest.fixture
def migrated(store_path: Path, plain_store: dict[str, LegacyPackage]) -> Regrain:
    """A small store, all of it at the file level, legacy directories still there."""
    regrain = Regrain(store_path, AT_ONCE)
    migrate_all(regrain, plain_store)
    return regrain


@pytest.fixture
def before(plain_store: dict[str, LegacyPackage]) -> dict[str, Snapshot]:
    return record(plain_store)


def carriers(path: Path) -> dict[str, os.stat_result]:
    return {p.name: p.lstat() for p in (path / "objects").glob("*/*")}


def checked_out(path: Path, names: Mapping[str, Snapshot], folder: Path) -> list[str]:
    """How the packages of a store differ from what they were."""
    regrain, found = Regrain(path, AT_ONCE), []
    for name, tree in names.items():
        target = folder / f"{path.name}-{name}"
        regrain("checkout", name, target)
        found += [f"{name}: {line}" for line in differences(tree, snapshot(target), holes=True)]
    return found


def garble(path: Path) -> None:
    """Change one byte of a file and nothing else."""
    status, raw = path.stat(), bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    with path.open("r+b") as stream:
        stream.write(raw)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def an_object(path: Path, number: int = 0) -> Path:
    return sorted((path / "objects").glob("*/*"))[number]


# create


def test_a_backup_is_independent_and_whole(
    migrated: Regrain, before: dict[str, Snapshot], place: Path, workplace: Path
) -> None:
    foreseen = migrated("backup", "create", "-n", "--json", place).document
    assert not place.exists()
    done = migrated("backup", "create", "--json", place).of_type("summary")[0]
    assert done["packages"] == foreseen["packages"] == len(before)
    assert done["objects"] == foreseen["objects"] == len(carriers(place)) > 0
    assert done["failed"] == {}
    assert all(status.st_nlink == 1 for status in carriers(place).values())
    assert check_store(place).problems == []
    shutil.rmtree(migrated.store)  # nothing of it is needed any more
    assert checked_out(place, before, workplace) == []
    Regrain(place)("verify", "--level", "deep")


@pytest.mark.root
@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_nothing_is_shared_where_it_could_be(
    kind: str, plain_store: dict[str, LegacyPackage], workplace: Path
) -> None:
    with mounts.mounted(kind, workplace) as point:
        store, place = point / "store", point / "backup"
        store.mkdir()
        for package in plain_store.values():
            subprocess.run(["cp", "-a", package.path, store], check=True)
        (store / next(iter(plain_store)) / "large").write_bytes(Random(1).randbytes(8 << 20))
        regrain = Regrain(store, AT_ONCE)
        regrain("init")
        regrain("migrate")
        os.sync()
        free = os.statvfs(point)
        regrain("backup", "create", place)
        os.sync()
        taken = (free.f_bfree - os.statvfs(point).f_bfree) * free.f_frsize
        assert taken >= 8 << 20


def test_only_what_is_new_is_copied(
    migrated: Regrain, place: Path, workplace: Path, before: dict[str, Snapshot]
) -> None:
    migrated("backup", "create", place)
    old = carriers(place)
    again = migrated("backup", "create", "--json", place).of_type("summary")[0]
    assert (again["packages"], again["objects"]) == (0, 0)
    assert again["present_packages"] == len(before)
    tree = workplace / "new"
    tree.mkdir()
    (tree / "manifest.toml").write_text('[package]\nname = "new"\nversion = "1"\n')
    (tree / "data").write_text("only here")
    name = migrated("add", "--json", tree).of_type("package")[0]["package_hash"]
    migrated("remove", min(before), "--execute")
    more = migrated("backup", "create", "--json", place).of_type("summary")[0]
    assert (more["packages"], more["objects"]) == (1, 2)
    now = carriers(place)
    assert {key: now[key].st_ino for key in old} == {key: old[key].st_ino for key in old}
    there = {d["package_hash"] for d in Regrain(place)("list", "--json").document["packages"]}
    assert {name, *before} <= there  # what was removed stays in the backup


def test_no_carrier_takes_on_the_access_list_of_its_directory(
    migrated: Regrain, place: Path, able: Abilities
) -> None:
    if not able.acls:
        pytest.skip("no access lists here")
    place.mkdir()
    os.setxattr(place, ACL_DEFAULT, acl(54321, 7))
    migrated("backup", "create", place)
    found = [path for path in (place / "objects").glob("*/*") if os.listxattr(path)]
    assert found == []
    Regrain(place)("verify")


def test_packages_that_are_only_legacy_are_covered(
    store_path: Path, plain_store: dict[str, LegacyPackage], place: Path, workplace: Path
) -> None:
    before, regrain = record(plain_store), Regrain(store_path, AT_ONCE)
    regrain("init")
    regrain("migrate", "--limit", "1")
    pending = max(name for name, status in statuses(store_path).items() if status == "pending")
    broken = store_path / pending / "queue"
    then = broken.parent.stat().st_mtime_ns
    os.mkfifo(broken)
    done = regrain("backup", "create", "--json", place, code=3).of_type("summary")[0]
    assert list(done["failed"]) == [pending]
    assert done["packages"] == len(before) - 1
    broken.unlink()
    os.utime(broken.parent, ns=(then, then))
    done = regrain("backup", "create", "--json", place).of_type("summary")[0]
    assert (done["packages"], done["legacy_packages"]) == (1, 1)
    assert checked_out(place, before, workplace) == []


@pytest.mark.parametrize("inside", ["backup in store", "store in backup", "itself"])
def test_store_and_backup_are_apart(inside: str, migrated: Regrain) -> None:
    store = migrated.store
    dest = {
        "backup in store": store / "backup",
        "store in backup": store.parent,
        "itself": store,
    }[inside]
    names = sorted(os.listdir(store))
    migrated("backup", "create", dest, code=2)
    migrated("backup", "restore", dest, code=2)
    assert sorted(os.listdir(store)) == names


def test_what_is_no_backup_of_this_store_is_refused(
    migrated: Regrain, place: Path, workplace: Path
) -> None:
    place.mkdir()
    (place / "letter").write_text("mine")
    migrated("backup", "create", place, code=2)
    migrated("backup", "check", place, code=10)
    migrated("backup", "restore", place, code=10)
    assert os.listdir(place) == ["letter"]
    other = workplace / "other"
    other.mkdir()
    Regrain(other)("init")
    migrated("backup", "create", other, code=2)
    theirs = workplace / "theirs"
    Regrain(other)("backup", "create", theirs)
    for verb in ("create", "check", "restore"):
        migrated("backup", verb, theirs, code=5)
    (place / "letter").unlink()
    migrated("backup", "create", place)  # an empty directory serves


@pytest.mark.root
def test_a_small_disk_is_refused_with_figures(migrated: Regrain, workplace: Path) -> None:
    (migrated.store / "one").mkdir()
    with mounts.mounted("ext4", workplace, "-N", "300") as point:
        before = os.statvfs(point).f_ffree
        refused = migrated("backup", "create", point, code=5)
        assert "inodes" in refused.stderr
        assert before - os.statvfs(point).f_ffree < 300


def test_killed_at_any_moment_it_goes_on(
    migrated: Regrain, before: dict[str, Snapshot], place: Path, workplace: Path, seed: int
) -> None:
    random, fired, longest = Random(f"{seed}:backup"), 0, 1.2
    for _ in range(20):
        with migrated.running("backup", "create", place) as process:
            wait = random.uniform(0, longest)
            time.sleep(wait)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                fired += 1
            else:
                longest = wait  # it takes no longer than that here
            process.wait()
        if fired == 3:
            break
    migrated("backup", "create", place)
    assert fired
    Regrain(place)("verify", "--level", "deep")
    migrated("backup", "check", place)
    assert checked_out(place, before, workplace) == []
    assert os.listdir(place / "temp") == []


def test_a_damaged_source_is_told_and_copied_once_healed(migrated: Regrain, place: Path) -> None:
    one = an_object(migrated.store)
    raw = one.read_bytes()
    one.unlink()
    one.write_bytes(raw[:-1] + b"?")
    done = migrated("backup", "create", "--json", place, code=3).of_type("summary")[0]
    assert done["failed"]
    assert all("verify --repair" in why for why in done["failed"].values())
    assert one.name not in carriers(place)
    migrated("verify", "--repair")
    migrated("backup", "create", place)
    assert one.name in carriers(place)


# check


def test_damage_is_found_and_the_next_create_heals_it(migrated: Regrain, place: Path) -> None:
    migrated("backup", "create", place)
    migrated("backup", "check", place)
    garble(an_object(place))
    found = migrated("backup", "check", "--json", place, code=4).of_type("summary")[0]
    assert found["damages"]
    refused = migrated("cutover", "--json", code=5).document
    assert [f["check"] for f in refused["failures"]] == ["backup"]
    assert "found damage" in refused["failures"][0]["reason"]
    migrated("backup", "create", place)
    migrated("backup", "check", place)
    assert list((place / "quarantine").iterdir())
    migrated("cutover")


def test_a_backup_alone_can_be_checked(migrated: Regrain, place: Path) -> None:
    migrated("backup", "create", place)
    done = subprocess.run(
        [migrated.command()[0], "-m", "regrain", "backup", "check", place],
        capture_output=True,
        env=migrated.clean_environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr


# the gate


def test_the_gate_is_content_with_a_backup_that_covers_all(
    migrated: Regrain, place: Path, workplace: Path
) -> None:
    def failures() -> list[str]:
        found = migrated("cutover", "-n", "--json", code=None).document
        return [f["reason"] for f in found["failures"]]

    assert failures() == ["no backup was marked, and none was made with 'regrain backup create'"]
    migrated("backup", "create", place)
    assert failures() == []
    assert migrated("status", "--json").document["is_backed_up"]
    tree = workplace / "new"
    tree.mkdir()
    (tree / "manifest.toml").write_text('[package]\nname = "new"\nversion = "1"\n')
    migrated("add", tree)
    (reason,) = failures()
    assert "does not hold" in reason
    migrated("backup", "create", place)
    assert failures() == []
    place.rename(workplace / "gone")
    (reason,) = failures()
    assert "cannot be opened" in reason


def test_of_several_words_in_a_second_the_last_one_counts(migrated: Regrain) -> None:
    ledger = open_ledger(str(migrated.store))
    try:
        for event in (BACKUP_DAMAGED, BACKUP_CREATED, BACKUP_DAMAGED, BACKUP_CHECKED):
            ledger.remember(event, detail=detail_of("/somewhere", 1))
            last = last_backup(ledger)
            assert last is not None
            assert last.event == event
    finally:
        ledger.close()


# restore


def test_a_store_that_is_gone_comes_back_and_rolls_back(
    migrated: Regrain, before: dict[str, Snapshot], place: Path, workplace: Path
) -> None:
    migrated("backup", "create", place)
    store = migrated.store
    store_id = StoreRoot(str(store)).store_id
    shutil.rmtree(store)
    dry = migrated("backup", "restore", "-n", "--json", place).of_type("summary")[0]
    assert not store.exists()
    done = migrated("backup", "restore", "--json", place).of_type("summary")[0]
    assert done["created"]
    assert done["packages"] == dry["packages"] == len(before)
    assert StoreRoot(str(store)).store_id == store_id
    assert check_store(store).problems == []
    assert checked_out(store, before, workplace) == []
    migrated("backup", "create", place)  # it is the same store to its backup
    migrated("rollback")
    for name, tree in before.items():
        assert differences(tree, snapshot(store / name), holes=True) == []


def test_objects_and_lists_that_are_gone_come_back(
    migrated: Regrain, before: dict[str, Snapshot], place: Path, workplace: Path
) -> None:
    migrated("backup", "create", place)
    root = StoreRoot(str(migrated.store))
    write_store_file(root.fd, root.store_id, Phase.FILE_LEVEL)
    migrated("cleanup", "--execute")
    shutil.rmtree(migrated.store / "objects")
    (migrated.store / "packages" / min(before) / "files.json").write_text("{")
    migrated("backup", "restore", place)
    migrated("verify", "--level", "deep")
    assert checked_out(migrated.store, before, workplace) == []
    again = migrated("backup", "restore", "--json", place).of_type("summary")[0]
    assert (again["packages"], again["healed"], again["lost"]) == (0, 0, [])


def test_what_was_removed_comes_back_only_when_asked(
    migrated: Regrain, before: dict[str, Snapshot], place: Path
) -> None:
    migrated("backup", "create", place)
    gone = min(before)
    migrated("remove", gone, "--execute")
    done = migrated("backup", "restore", "--json", place).of_type("summary")[0]
    assert (done["packages"], done["left_packages"]) == (0, [gone])
    done = migrated("backup", "restore", "--all", "--json", place).of_type("summary")[0]
    assert (done["packages"], done["left_packages"]) == (1, [])
    assert gone in {d["package_hash"] for d in migrated("list", "--json").document["packages"]}
    assert read_ledger(migrated.store, "SELECT 1 FROM store_refs WHERE hash = ?", gone)


def test_a_restore_that_was_killed_goes_on(
    migrated: Regrain, before: dict[str, Snapshot], place: Path, workplace: Path, seed: int
) -> None:
    migrated("backup", "create", place)
    shutil.rmtree(migrated.store)
    random, fired = Random(f"{seed}:restore"), 0
    for _ in range(3):
        with migrated.running("backup", "restore", place) as process:
            time.sleep(random.uniform(0.2, 1.0))
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                fired += 1
            process.wait()
    assert fired
    migrated("backup", "restore", "--all", place)
    migrated("verify", "--level", "deep")
    assert checked_out(migrated.store, before, workplace) == []
