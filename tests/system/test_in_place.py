"""A migration in place: what it asks for, what goes, what stays, and life without directories."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from regrain import PackageStore
from regrain.store.locks import StoreLock, is_running
from tests.command import Regrain
from tests.compare import Snapshot, differences, snapshot
from tests.reader import check_store
from tests.stores import read_ledger, record, statuses
from tests.trees import LegacyPackage
from tests.waiting import until

IN_PLACE = {
    "REGRAIN_STORE__KEEP_OLD_PACKAGES": "false",
    "REGRAIN_MIGRATION__SETTLE": "0",
    "REGRAIN_MIGRATION__FREE_BYTES_MIN": "1000000",
    "REGRAIN_MIGRATION__FREE_INODES_MIN": "10",
}
NOW = ("migrate", "--delete-legacy", "--no-backup")


@pytest.fixture
def before(plain_store: dict[str, LegacyPackage]) -> dict[str, Snapshot]:
    return record(plain_store)


@pytest.fixture
def regrain(store_path: Path, before: dict[str, Snapshot]) -> Regrain:
    """A small legacy store, initialised, and the settings of a migration in place."""
    regrain = Regrain(store_path, IN_PLACE)
    regrain("init")
    return regrain


def legacy_left(path: Path, before: dict[str, Snapshot]) -> list[str]:
    return sorted(name for name in before if (path / name).exists())


def put_time_back(directory: Path, tree: Snapshot) -> None:
    os.utime(directory, ns=(0, tree[b""].mtime_ns))


def check_identical(regrain: Regrain, before: dict[str, Snapshot], place: Path) -> None:
    for name, tree in before.items():
        regrain("checkout", name, place / name)
        assert differences(tree, snapshot(place / name), holes=True) == []


def test_it_has_to_be_said_by_setting_and_command(
    regrain: Regrain, before: dict[str, Snapshot]
) -> None:
    keep = {"REGRAIN_STORE__KEEP_OLD_PACKAGES": "true"}
    assert "--delete-legacy" in regrain("migrate", code=5).stderr
    assert "--delete-legacy" in regrain("migrate", "-n", code=5).stderr
    assert "keep_old_packages = true" in regrain(*NOW, env={**IN_PLACE, **keep}, code=5).stderr
    regrain("migrate", "--no-backup", env={**IN_PLACE, **keep}, code=2)
    assert set(statuses(regrain.store).values()) == {"pending"}
    assert legacy_left(regrain.store, before) == sorted(before)


def test_it_asks_for_a_backup(regrain: Regrain, before: dict[str, Snapshot]) -> None:
    assert regrain("status", "--json").document["next_command"] == "regrain backup mark NOTE"
    refused = regrain("migrate", "--delete-legacy", code=5)
    assert "no backup was marked" in refused.stderr
    assert "--no-backup" in refused.stderr
    assert legacy_left(regrain.store, before) == sorted(before)
    regrain("backup", "mark", "on tape")
    assert regrain("status", "--json").document["next_command"] == "regrain migrate --delete-legacy"
    regrain("migrate", "--delete-legacy")
    assert legacy_left(regrain.store, before) == []


def test_each_directory_goes_and_every_verb_copes(
    regrain: Regrain, before: dict[str, Snapshot], workplace: Path
) -> None:
    store = regrain.store
    plan = regrain("plan", "--json").document
    assert plan["in_place"]
    assert plan["next_command"] == "regrain migrate --delete-legacy"
    done = regrain(*NOW, "--json")
    summary = done.documents[-1]
    assert (summary["removed_directories"], summary["kept_directories"]) == (len(before), 0)
    removed = [one for one in done.of_type("package") if one["status"] == "removed"]
    assert {one["package_hash"] for one in removed} == before.keys()
    assert sum(one["freed_bytes"] for one in removed) == summary["freed_bytes"] > 0
    assert legacy_left(store, before) == []
    assert not list((store / "trash").iterdir())

    status = regrain("status", "--json").document
    assert (status["phase"], status["integrity"]) == ("dual", [])
    assert status["space_freed_bytes"] == summary["freed_bytes"]
    assert status["undo_bytes"] > 0
    name = min(before)
    assert regrain("why", name, "--json").document["cleaned_at"] is not None
    regrain("verify", "--level", "deep")
    regrain("doctor")
    assert "no legacy directory" in regrain("rollback", name, code=5).stderr
    assert "no legacy directory" in regrain("exclude", name, code=5).stderr
    regrain(*NOW, "--rescan")
    assert read_ledger(store, "SELECT 1 FROM history WHERE event = 'legacy_vanished'") == []

    regrain("cutover", "--no-backup")
    assert regrain("cleanup", "--json").document["next_command"] == "regrain cleanup --execute"
    regrain("cleanup", "--execute")
    assert regrain("status", "--json").document["phase"] == "clean"
    check_identical(regrain, before, workplace)
    assert check_store(store).problems == []


def test_rollback_from_dual_builds_them_anew(regrain: Regrain, before: dict[str, Snapshot]) -> None:
    regrain(*NOW)
    regrain("rollback")
    for name, tree in before.items():
        assert differences(tree, snapshot(regrain.store / name), holes=True) == []
    regrain(*NOW)
    assert legacy_left(regrain.store, before) == []
    regrain("verify", "--level", "deep")
    assert set(statuses(regrain.store).values()) == {"completed"}


def test_a_rebuilt_ledger_knows_the_packages(
    regrain: Regrain, before: dict[str, Snapshot], workplace: Path
) -> None:
    regrain(*NOW)
    regrain("doctor", "--rebuild-ledger")
    regrain("verify", "--level", "deep")
    regrain(*NOW)
    check_identical(regrain, before, workplace)


def test_what_is_in_use_stays_until_the_next_run(
    regrain: Regrain, before: dict[str, Snapshot]
) -> None:
    used = min(before)
    path = next(p for p in (regrain.store / used).rglob("*") if p.is_file())
    code = "import sys; f = open(sys.argv[1]); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        done = regrain(*NOW, "--json", code=3)
        kept = [one for one in done.of_type("package") if one["status"] == "kept"]
        assert [one["package_hash"] for one in kept] == [used]
        assert f"process {holder.pid} has" in kept[0]["reason"]
        holder.communicate()
    assert set(statuses(regrain.store).values()) == {"completed"}
    assert legacy_left(regrain.store, before) == [used]
    assert regrain("status", "--json").document["health"]["status"] == "healthy"
    regrain(*NOW)
    assert legacy_left(regrain.store, before) == []


def test_what_is_in_doubt_stays_and_is_noted(regrain: Regrain, before: dict[str, Snapshot]) -> None:
    """It was migrated before, and changed since: neither what is published nor it may go."""
    regrain("migrate", env={**IN_PLACE, "REGRAIN_STORE__KEEP_OLD_PACKAGES": "true"})
    changed = min(before)
    (regrain.store / changed / "appeared").write_text("new")
    put_time_back(regrain.store / changed, before[changed])
    done = regrain(*NOW, "--json", code=3)
    assert legacy_left(regrain.store, before) == [changed]
    kept = [one for one in done.of_type("package") if one["status"] == "kept"]
    assert [(one["package_hash"], one["path"]) for one in kept] == [(changed, "appeared")]
    status = regrain("status", "--json").document
    assert [one["package_hash"] for one in status["integrity"]] == [changed]
    regrain(*NOW, code=3)
    assert (regrain.store / changed / "appeared").exists()
    (regrain.store / changed / "appeared").unlink()
    put_time_back(regrain.store / changed, before[changed])
    regrain("verify", "--level", "deep")
    regrain(*NOW)
    assert legacy_left(regrain.store, before) == []


def test_a_damaged_object_keeps_the_directory_whose_bytes_are_good(
    regrain: Regrain, before: dict[str, Snapshot]
) -> None:
    copies = {**IN_PLACE, "REGRAIN_STORE__INGEST": "copy"}
    regrain("migrate", env={**copies, "REGRAIN_STORE__KEEP_OLD_PACKAGES": "true"})
    victim = max((regrain.store / "objects").glob("*/*"), key=lambda path: path.stat().st_size)
    status = victim.stat()
    victim.write_bytes(bytes(status.st_size))
    os.utime(victim, ns=(status.st_atime_ns, status.st_mtime_ns))
    regrain(*NOW, env=copies, code=3)
    left = legacy_left(regrain.store, before)
    holders = {
        name
        for name, tree in before.items()
        if any(entry.digest == victim.name[:64] for entry in tree.values())
    }
    assert set(left) == holders != set()


def test_only_bounds_what_goes(regrain: Regrain, before: dict[str, Snapshot]) -> None:
    regrain("migrate", env={**IN_PLACE, "REGRAIN_STORE__KEEP_OLD_PACKAGES": "true"})
    first = min(before)
    regrain(*NOW, "--only", first)
    assert legacy_left(regrain.store, before) == sorted(before.keys() - {first})


def test_immutable_files_are_told_and_the_run_goes_on(
    regrain: Regrain, before: dict[str, Snapshot]
) -> None:
    held = min(before)
    path = next(p for p in (regrain.store / held).rglob("*") if p.is_file())
    if subprocess.run(["chattr", "+i", path], capture_output=True, check=False).returncode:
        pytest.skip("needs root, and a file system with immutable files")
    try:
        copies = {**IN_PLACE, "REGRAIN_STORE__INGEST": "copy"}
        done = regrain(*NOW, "--json", env=copies, code=3)
        kept = [one for one in done.of_type("package") if one["status"] == "kept"]
        assert [one["package_hash"] for one in kept] == [held]
        assert "half unlinked" in kept[0]["reason"]
        (rest,) = (regrain.store / "trash").iterdir()
        assert rest.name == f"{held}.removed.0"
    finally:
        for found in (regrain.store / "trash").glob("*/**/*"):
            subprocess.run(["chattr", "-i", found], capture_output=True, check=False)
    regrain(*NOW)
    assert not list((regrain.store / "trash").iterdir())
    assert legacy_left(regrain.store, before) == []


def test_a_stop_leaves_the_rest_to_the_next_run(
    regrain: Regrain, before: dict[str, Snapshot], workplace: Path
) -> None:
    with regrain.running(*NOW, "--batch", "1", "--jobs", "1", "--json") as process:
        process.send_signal(signal.SIGTERM)
        process.wait()
    regrain(*NOW)
    assert legacy_left(regrain.store, before) == []
    check_identical(regrain, before, workplace)


def test_a_pause_holds_the_removal_of_what_is_there_already(
    regrain: Regrain, before: dict[str, Snapshot]
) -> None:
    regrain("migrate", env={**IN_PLACE, "REGRAIN_STORE__KEEP_OLD_PACKAGES": "true"})
    root = PackageStore.open(regrain.store).root
    with StoreLock(root, exclusive=True) as lock, regrain.running(*NOW) as process:
        until(lambda: bool(is_running(root)), "it has the run's lock")
        regrain("pause")
        lock.let_go()
        logs = regrain.store / "migration/logs"
        until(lambda: any("waiting: paused" in log.read_text() for log in logs.iterdir()), "waits")
        assert legacy_left(regrain.store, before) == sorted(before)
        regrain("exclude", min(before))
        regrain("resume")
        assert process.wait() == 0
    assert legacy_left(regrain.store, before) == [min(before)], "it was set aside meanwhile"
