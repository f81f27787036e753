"""A backup at a URL: made, checked, damaged, healed, restored from; what the gate thinks of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from regrain.store.root import StoreRoot
from tests.command import Regrain
from tests.compare import Snapshot, differences, snapshot
from tests.remotes import fill
from tests.stores import migrate_all, record, statuses
from tests.trees import Abilities, LegacyPackage
from tests.waiting import until
from tests.weed import BUCKET, Weed

AT_ONCE = {
    "REGRAIN_MIGRATION__SETTLE": "0",
    "REGRAIN_MIGRATION__FREE_BYTES_MIN": "1000000",
    "REGRAIN_MIGRATION__FREE_INODES_MIN": "10",
}


@pytest.fixture
def place(workplace: Path) -> Path:
    return workplace / "remote"


@pytest.fixture
def url(place: Path) -> str:
    return f"file://{place}"


@pytest.fixture
def migrated(store_path: Path, plain_store: dict[str, LegacyPackage]) -> Regrain:
    regrain = Regrain(store_path, AT_ONCE)
    migrate_all(regrain, plain_store)
    return regrain


@pytest.fixture
def before(plain_store: dict[str, LegacyPackage]) -> dict[str, Snapshot]:
    return record(plain_store)


def checked_out(regrain: Regrain, names: dict[str, Snapshot], folder: Path) -> list[str]:
    """How the packages of a store differ from what they were."""
    found = []
    folder.mkdir()
    for name, tree in names.items():
        regrain("checkout", name, folder / name)
        found += [f"{name}: {line}" for line in differences(tree, snapshot(folder / name))]
    return found


def failures(regrain: Regrain) -> list[str]:
    """Why the gate of the cutover refuses."""
    found = regrain("cutover", "-n", "--json", code=None).document
    return [f["reason"] for f in found["failures"]]


def objects(place: Path) -> list[Path]:
    return sorted((place / "objects").glob("*/*"))


def garble(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def test_made_checked_lost_and_restored_identical(
    migrated: Regrain, before: dict[str, Snapshot], url: str, place: Path, workplace: Path
) -> None:
    migrated("verify", "--level", "deep")
    foreseen = migrated("backup", "create", "-n", "--json", url).document
    assert not place.exists()
    done = migrated("backup", "create", "--json", url).of_type("summary")[0]
    assert done["packages"] == foreseen["packages"] == len(before)
    assert done["objects"] == foreseen["objects"] == len(objects(place)) > 0
    assert f"backup check {url}" in done["next_command"]
    assert "was not checked" in failures(migrated)[0]
    assert not migrated("status", "--json").document["is_backed_up"]
    found = migrated("backup", "check", "--json", url).of_type("summary")[0]
    assert (found["packages"], found["objects"]) == (len(before), len(objects(place)))
    assert failures(migrated) == []
    assert migrated("status", "--json").document["backup_path"] == url
    again = migrated("backup", "create", "--json", url).of_type("summary")[0]
    assert (again["packages"], again["objects"]) == (0, 0)

    store_id = StoreRoot(str(migrated.store)).store_id
    shutil.rmtree(migrated.store)
    dry = migrated("backup", "restore", "-n", "--json", url).of_type("summary")[0]
    assert not migrated.store.exists()
    back = migrated("backup", "restore", "--json", url).of_type("summary")[0]
    assert back["created"]
    assert back["packages"] == dry["packages"] == len(before)
    assert back["objects"] >= dry["objects"] > 0
    assert StoreRoot(str(migrated.store)).store_id == store_id
    assert checked_out(migrated, before, workplace / "out") == []
    migrated("verify", "--level", "deep")
    migrated("backup", "check", url)  # it is the same store to its backup, to the byte
    migrated("rollback")
    for name, tree in before.items():
        assert differences(tree, snapshot(migrated.store / name)) == []


def test_the_gate_asks_for_every_package_and_every_object(
    migrated: Regrain, url: str, place: Path, workplace: Path
) -> None:
    migrated("backup", "create", url)
    migrated("backup", "check", url)
    one = objects(place)[0]
    one.rename(workplace / "kept")
    assert "does not hold" in failures(migrated)[0]
    (workplace / "kept").rename(one)
    assert failures(migrated) == []
    tree = workplace / "new"
    tree.mkdir()
    (tree / "manifest.toml").write_text('[package]\nname = "new"\nversion = "1"\n')
    name = migrated("add", "--json", tree).of_type("package")[0]["package_hash"]
    assert f"does not hold {name}" in failures(migrated)[0]
    found = migrated("backup", "check", "--json", url, code=3).of_type("summary")[0]
    assert found["absent_packages"] == [name]
    migrated("backup", "create", url)
    assert "was not checked" in failures(migrated)[0]
    migrated("backup", "check", url)
    place.rename(workplace / "gone")
    assert "cannot be read" in failures(migrated)[0]
    (workplace / "gone").rename(place)
    migrated("cutover")


@pytest.mark.parametrize("what", ["object", "list"])
def test_damage_closes_the_gate_until_it_is_healed_and_checked(
    migrated: Regrain, url: str, place: Path, what: str
) -> None:
    migrated("backup", "create", url)
    lists = sorted(place.glob("packages/*/files.json.zst"))
    garble(objects(place)[0] if what == "object" else lists[0])
    found = migrated("backup", "check", "--json", url, code=4).of_type("summary")[0]
    assert len(found["damages"]) == 1
    assert "found damage" in failures(migrated)[0]
    done = migrated("backup", "create", "--json", url).of_type("summary")[0]
    assert (done["objects"], done["packages"]) == ((1, 0) if what == "object" else (0, 1))
    assert failures(migrated)
    migrated("backup", "check", url)
    assert failures(migrated) == []


def test_a_damaged_store_is_healed_from_a_url(
    migrated: Regrain, before: dict[str, Snapshot], url: str, workplace: Path
) -> None:
    migrated("backup", "create", url)
    migrated("backup", "check", url)
    migrated("cutover")
    migrated("cleanup", "--execute")
    shutil.rmtree(migrated.store / "objects")
    (migrated.store / "packages" / min(before) / "files.json").write_text("{")
    gone = max(before)
    shutil.rmtree(migrated.store / "packages" / gone)
    done = migrated("backup", "restore", "--json", url).of_type("summary")[0]
    assert done["lost"] == []
    migrated("verify", "--level", "deep")
    assert checked_out(migrated, before, workplace / "out") == []


def test_packages_that_are_only_legacy_are_in_it(
    store_path: Path, plain_store: dict[str, LegacyPackage], url: str, workplace: Path
) -> None:
    before, regrain = record(plain_store), Regrain(store_path, AT_ONCE)
    regrain("init")
    regrain("migrate", "--limit", "1")
    pending = sum(status == "pending" for status in statuses(store_path).values())
    done = regrain("backup", "create", "--json", url).of_type("summary")[0]
    assert done["legacy_packages"] == pending > 0
    regrain("backup", "check", url)
    fresh = Regrain(workplace / "fresh", AT_ONCE)
    fresh("backup", "restore", url)
    assert checked_out(fresh, before, workplace / "out") == []


def test_what_is_no_backup_of_this_store_is_refused(
    migrated: Regrain, url: str, place: Path, workplace: Path
) -> None:
    migrated("push", "--all", url)
    assert "backup.json" in migrated("backup", "check", url, code=10).stderr
    migrated("backup", "restore", url, code=10)
    other = Regrain(workplace / "other", AT_ONCE)
    other.store.mkdir()
    other("init")
    other("backup", "create", url)
    for verb in ("create", "check", "restore"):
        migrated("backup", verb, url, code=5)
    marker = place / "backup.json"
    told = json.loads(marker.read_text())
    for key, value in (("backup_of", 'x"\nphase = "dual'), ("uid", -1), ("mode", "7777777")):
        marker.write_text(json.dumps({**told, key: value}))
        migrated("backup", "check", url, code=4)
    marker.write_text(json.dumps({**told, "format": 2}))
    migrated("backup", "check", url, code=2)


@pytest.mark.parametrize(
    "bad",
    [
        "s3://me:hunter2hunter2@bucket/x",
        "s3://me:hunter2hunter2/x",
        "s3://bucket/x?sig=hunter2hunter2",
    ],
)
def test_a_password_in_a_url_goes_nowhere(migrated: Regrain, bad: str) -> None:
    for verb in ("create", "check", "restore"):
        refused = migrated("backup", verb, bad, "--json", code=2)
        assert "hunter2" not in refused.stderr + refused.text
    for path in migrated.store.rglob("*"):
        if path.is_file() and path.parent.name != "bin":
            assert b"hunter2" not in path.read_bytes(), path


# with a service


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["create", "check", "restore", "server"])
def test_killed_in_the_middle_it_goes_on(
    workplace: Path, seed: int, weed: Weed, victim: str
) -> None:
    import obstore

    before = fill(workplace / "store", seed, packages=3)
    prefix = f"backups/kill-{victim}-{seed}"
    url = f"s3://{BUCKET}/{prefix}"
    environment = {**AT_ONCE, **weed.environment}
    regrain = Regrain(workplace / "store", environment)
    regrain("init")
    regrain("migrate", "--limit", "2")

    def sent() -> int:
        return sum(len(page) for page in obstore.list(weed.store(), f"{prefix}/objects"))

    if victim in {"create", "server"}:
        with regrain.running("backup", "create", url) as process:
            until(lambda: sent() > 20, "the backup sends")
            if victim == "server":
                weed.kill()
                assert process.wait(timeout=100) == 1  # it gives up, and says so
                weed.start()
            else:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
        assert 20 < sent() < len(before) * 61
        assert "no backup" in failures(regrain)[-1]
    done = regrain("backup", "create", "--json", url).of_type("summary")[0]
    assert done["packages"] + done["present_packages"] == len(before)
    if victim == "check":
        with regrain.running("backup", "check", "--json", url) as process:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        assert any("was not checked" in why for why in failures(regrain))
    regrain("backup", "check", url)
    target = Regrain(workplace / "again", environment)
    if victim == "restore":
        with target.running("backup", "restore", url) as process:
            until(lambda: any(target.store.glob("temp/*/fetched/*/*")), "the restore fetches")
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
    target("backup", "restore", "--all", url)
    target("verify", "--level", "deep")
    assert checked_out(target, before, workplace / "out") == []
    target("backup", "check", url)


@pytest.mark.slow
def test_the_awkward_store_comes_back_from_s3(
    workplace: Path, seed: int, able: Abilities, weed: Weed
) -> None:
    from tests.awkward import make_legacy_store

    packages = make_legacy_store(workplace / "store", seed, able, large=40 << 20)
    before = {name: snapshot(package.path) for name, package in packages.items()}
    url = f"s3://{BUCKET}/backups/awkward-{seed}"
    environment = {**AT_ONCE, **weed.environment}
    regrain = Regrain(workplace / "store", environment)
    regrain("init")
    regrain("migrate", "--limit", "4")
    regrain("backup", "create", url)
    regrain("backup", "check", url)
    fresh = Regrain(workplace / "fresh", environment)
    fresh("backup", "restore", url)
    assert checked_out(fresh, before, workplace / "out") == []
    secrets = [value for key, value in weed.environment.items() if "KEY" in key]
    for path in (p for p in workplace.glob("*/migration/**/*") if p.is_file()):
        assert not any(secret.encode() in path.read_bytes() for secret in secrets), path
