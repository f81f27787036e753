"""``doctor --rebuild-ledger``: the disk is the truth, and the rebuilt ledger says the same."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests import awkward, trees
from tests.command import Regrain
from tests.conftest import remove
from tests.reader import check_store
from tests.stores import legacy_changes, migrate_all, read_ledger, record, statuses

TABLES = {
    "objects": "SELECT digest, size, unreferenced_since IS NULL FROM objects",
    "carriers": "SELECT digest, mode, is_bare, mtime_seconds, mtime_nanoseconds, allocated_bytes"
    " FROM carriers JOIN objects ON id = object_id",
    "owners": "SELECT digest, package_hash FROM object_owners"
    " JOIN objects ON objects.id = object_id LEFT JOIN packages ON packages.id = package_id",
    "packages": "SELECT package_hash, tree_hash, list_hash FROM packages",
    "store_refs": "SELECT hash, ref_count, size FROM store_refs",
    "store_migration": "SELECT package_hash, status, file_count, byte_count, tree_hash, name,"
    " version, allocated_bytes, inode_count, cuts, error_message, attempts FROM store_migration",
    "sums": "SELECT SUM(space_saved), SUM(added_bytes), SUM(deduplicated_files)"
    " FROM store_migration",
}
HISTORY = "SELECT at, event, package_hash, detail FROM history ORDER BY id"
CLAIMED = "UPDATE store_migration SET status = 'in_progress' WHERE package_hash = ?"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, seed: int) -> Iterator[Path]:
    """A small store after ``migrate``, to be copied."""
    place = tmp_path_factory.mktemp("rebuild") / "store"
    awkward.make_plain_store(place, seed, packages=4, files=8)
    for command in ("init", "migrate"):
        Regrain(place)(command)
    yield place
    remove(place)


@pytest.fixture
def store(model: Path, store_path: Path) -> Path:
    """A copy of it, hard links between objects and legacy files included."""
    subprocess.run(["cp", "-a", "--", model, store_path], check=True)
    return store_path


def tables(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    return {name: sorted(read_ledger(path, query), key=repr) for name, query in TABLES.items()}


def assert_deeply_sound(regrain: Regrain) -> None:
    found = regrain("verify", "--level", "deep", "--json").of_type("summary")[0]
    ignored = {"quarantined", "schema", "not_migrated"}  # the old ledger is in quarantine
    bad = {k: v for k, v in found.items() if isinstance(v, list) and v and k not in ignored}
    assert (bad, found["ledger_problem"]) == ({}, None)
    levels = {f["level"] for f in regrain("doctor", "--json").document["findings"]}
    assert levels <= {"ok", "advice"}


def aside(path: Path) -> list[str]:
    return sorted(os.listdir(path / "quarantine"))


def test_the_awkward_store_gets_the_ledger_it_had(
    store_path: Path, regrain: Regrain, seed: int, able: trees.Abilities
) -> None:
    packages = awkward.make_legacy_store(store_path, seed, able)
    made = migrate_all(regrain, packages)
    before, history = tables(store_path), read_ledger(store_path, HISTORY)
    assert all(before.values())
    assert [(len(packages),)] == read_ledger(
        store_path, "SELECT COUNT(*) FROM store_migration WHERE status = 'completed'"
    )
    (store_path / "state.sqlite").write_bytes(b"")
    regrain("doctor", "--rebuild-ledger", "--json")
    assert tables(store_path) == before
    assert_deeply_sound(regrain)
    assert legacy_changes(made.before, packages) == []
    assert history  # an empty file had none to take over
    assert [row[1] for row in read_ledger(store_path, HISTORY)] == ["ledger_rebuilt", "verified"]


def to_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "fine": lambda path: None,
    "missing": Path.unlink,
    "garbage": lambda path: path.write_bytes(b"no database " * 500),
    "cut off": lambda path: os.truncate(path, 4096 * 3 + 100),
    "a directory": to_directory,
    "with a log of another": lambda path: Path(f"{path}-wal").write_bytes(b"x" * 5000),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_whatever_the_old_ledger_is(regrain: Regrain, store: Path, what: str) -> None:
    before, history = tables(store), read_ledger(store, HISTORY)
    ledger = store / "state.sqlite"
    DAMAGE[what](ledger)
    old = {
        path.name.replace("state.sqlite", "state.sqlite.0"): path.is_file() and path.read_bytes()
        for path in store.glob("state.sqlite*")
    }
    status = regrain("doctor", "--rebuild-ledger", "--json").document
    assert tables(store) == before
    assert sorted(status["moved_aside"]) == sorted(old)
    assert {
        name: (store / "quarantine" / name).is_file() and (store / "quarantine" / name).read_bytes()
        for name in aside(store)
        if not name.endswith("-shm")  # SQLite's own scratch, made when the log was read
    } == {name: content for name, content in old.items() if not name.endswith("-shm")}
    kept = read_ledger(store, HISTORY)
    assert kept[-1][1] == "ledger_rebuilt"
    if what == "fine":
        assert kept[:-1] == history
        assert status["history"] == len(history) > 0
    assert_deeply_sound(regrain)
    mode = (store.stat().st_mode & 0o044) | 0o600
    assert (ledger.stat().st_mode & 0o777, ledger.stat().st_uid) == (mode, store.stat().st_uid)
    assert [name for name in os.listdir(store) if name.startswith("state.sqlite-")] == []
    assert os.listdir(store / "temp") == []


def test_a_log_that_was_not_written_back_is_taken_along(regrain: Regrain, store: Path) -> None:
    """A killed run leaves its last commits in the log: these belong to the old ledger."""
    code = (
        "import os, sys; from regrain.ledger import open_ledger\n"
        "open_ledger(sys.argv[1]).remember('the last word')\n"
        "os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, store], check=True)
    assert (store / "state.sqlite-wal").stat().st_size > 0
    regrain("doctor", "--rebuild-ledger")
    assert "the last word" in [row[1] for row in read_ledger(store, HISTORY)]
    assert {"state.sqlite.0", "state.sqlite.0-wal"} <= set(aside(store))
    with closing(sqlite3.connect(store / "quarantine" / "state.sqlite.0")) as old:
        assert ("the last word",) in old.execute("SELECT event FROM history").fetchall()


def test_again_and_again(regrain: Regrain, store: Path) -> None:
    before = tables(store)
    for _ in range(3):
        regrain("doctor", "--rebuild-ledger")
    assert tables(store) == before
    databases = [name for name in aside(store) if not name.endswith(("-shm", "-wal"))]
    assert databases == ["state.sqlite.0", "state.sqlite.1", "state.sqlite.2"]
    events = [row[1] for row in read_ledger(store, HISTORY)]
    assert events.count("ledger_rebuilt") == 3
    regrain("migrate")
    assert tables(store) == before


def test_what_was_set_aside_and_begun_is_taken_over(regrain: Regrain, store: Path) -> None:
    """A removal that was cut before anything moved is finished with the new ledger, too.

    What stands against a package is taken back by a clean verification, and by nothing else.
    """
    first, second, third = sorted(statuses(store))[:3]
    regrain("exclude", first)
    with closing(sqlite3.connect(store / "state.sqlite")) as ledger, ledger:
        ledger.execute(
            "INSERT INTO intents(package_hash, action, created_at) VALUES (?, 'remove', 1)",
            (second,),
        )
        rows = [(name, "what was found", 7) for name in (third, "ab" * 32)]
        ledger.executemany("INSERT INTO integrity VALUES (?, ?, ?)", rows)
    regrain("doctor", "--rebuild-ledger")
    assert read_ledger(store, "SELECT * FROM integrity") == [(third, "what was found", 7)]
    regrain("migrate")
    left = statuses(store)
    assert left[first] == "pending"
    assert second not in left
    assert not (store / second).exists()
    assert not (store / "packages" / second).exists()


def test_a_dry_run_changes_nothing(regrain: Regrain, store: Path) -> None:
    before = (store / "state.sqlite").read_bytes(), (store / "state.sqlite").stat().st_ino
    said = regrain("doctor", "--rebuild-ledger", "-n", "--json").document
    assert (said["dry_run"], said["published_packages"], said["pending_packages"]) == (True, 4, 0)
    assert said["objects"] == len(list((store / "objects").glob("*/*")))
    assert (store / "state.sqlite").read_bytes() == before[0]
    assert (store / "state.sqlite").stat().st_ino == before[1]
    assert aside(store) == []


def test_what_is_not_migrated_is_pending(regrain: Regrain, store_path: Path, seed: int) -> None:
    """Failed, claimed and pending ones, as ``init`` would measure them."""
    packages = awkward.make_plain_store(store_path, seed, packages=5, files=6)
    regrain("init")
    expected = tables(store_path)["store_migration"]
    regrain("migrate", "--limit", "2")
    done = [name for name, status in statuses(store_path).items() if status == "completed"]
    with closing(sqlite3.connect(store_path / "state.sqlite")) as ledger, ledger:
        left = sorted(set(packages) - set(done))
        ledger.execute(CLAIMED, (left[0],))
        ledger.execute(CLAIMED, (left[1],))
        ledger.execute("UPDATE store_migration SET status = 'failed' WHERE status = 'in_progress'")
    regrain("doctor", "--rebuild-ledger")
    found = statuses(store_path)
    assert {name for name, status in found.items() if status == "completed"} == set(done)
    assert {found[name] for name in left} == {"pending"}
    rows = tables(store_path)["store_migration"]
    assert [r for r in rows if r[0] in left] == [r for r in expected if r[0] in left]
    regrain("migrate")
    assert set(statuses(store_path).values()) == {"completed"}
    assert_deeply_sound(regrain)


def test_a_published_package_without_a_legacy_directory(regrain: Regrain, store: Path) -> None:
    name = min(os.listdir(store / "packages"))
    remove(store / name)
    regrain("doctor", "--rebuild-ledger")
    assert name not in statuses(store)
    assert (name,) in read_ledger(store, "SELECT hash FROM store_refs")
    assert (name,) in read_ledger(store, "SELECT package_hash FROM packages")
    assert_deeply_sound(regrain)


@pytest.mark.parametrize("damage", ["cut off", "gone", "a byte"])
def test_a_damaged_file_list(regrain: Regrain, store: Path, damage: str) -> None:
    name = sorted(os.listdir(store / "packages"))[1]
    path = store / "packages" / name / "files.json"
    content = path.read_bytes()
    path.unlink()
    if damage == "cut off":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "a byte":
        path.write_bytes(content.replace(b'"mode":"0644"', b'"mode":"0600"', 1))
    said = regrain("doctor", "--rebuild-ledger", "--json", code=4).document
    [problem] = said["problems"]
    assert problem["package_hash"] == name
    assert "file list" in problem["reason"]
    assert (said["published_packages"], said["pending_packages"]) == (3, 1)
    assert (name,) not in read_ledger(store, "SELECT package_hash FROM packages")
    assert statuses(store)[name] == "pending"
    regrain("migrate")
    assert_deeply_sound(regrain)


def the_only_owner(store: Path) -> tuple[Path, str]:
    """A carrier that only one package needs, and that package."""
    [(digest, name)] = read_ledger(
        store,
        "SELECT lower(hex(digest)), MAX(package_hash) FROM objects JOIN object_owners ON"
        " object_id = objects.id JOIN packages ON packages.id = package_id"
        " GROUP BY 1 HAVING COUNT(*) = 1 AND size > 1 LIMIT 1",
    )
    return store / "objects" / digest[:2] / digest, name


@pytest.mark.parametrize("damage", ["gone", "shorter"])
def test_an_object_that_a_package_lacks(regrain: Regrain, store: Path, damage: str) -> None:
    """Its package is brought in anew; it keeps its other objects until then."""
    carrier, name = the_only_owner(store)
    content = carrier.read_bytes()
    carrier.unlink()
    if damage == "shorter":
        carrier.write_bytes(content[:-1])
    said = regrain("doctor", "--rebuild-ledger", "--json", code=4).document
    [problem] = said["problems"]
    assert (problem["package_hash"], problem["object"]) == (name, carrier.name)
    assert statuses(store)[name] == "pending"
    digests = read_ledger(store, "SELECT lower(hex(digest)) FROM objects")
    assert (carrier.name,) not in digests
    owned = "SELECT 1 FROM object_owners JOIN packages ON id = package_id WHERE package_hash = ?"
    assert read_ledger(store, owned, name)
    regrain("migrate")
    assert carrier.read_bytes() == content
    assert_deeply_sound(regrain)


def test_an_object_with_a_wrong_mode_is_kept_and_told(regrain: Regrain, store: Path) -> None:
    carrier, name = the_only_owner(store)
    before = tables(store)["owners"]
    carrier.chmod(0o666)
    said = regrain("doctor", "--rebuild-ledger", "--json", code=4).document
    assert [p["object"] for p in said["problems"]] == [carrier.name]
    assert tables(store)["owners"] == before
    assert statuses(store)[name] == "completed"


def test_objects_that_no_package_names_are_hashed(regrain: Regrain, store: Path) -> None:
    name = min(os.listdir(store / "packages"))
    remove(store / "packages" / name)
    bad = store / "objects" / "ab" / ("ab" * 32)
    bad.write_bytes(b"something else")
    bad.chmod(0o644)
    shutil.chown(bad, store.stat().st_uid, store.stat().st_gid)
    said = regrain("doctor", "--rebuild-ledger", "--json", code=4).document
    assert [(p["package_hash"], p["object"]) for p in said["problems"]] == [(None, bad.name)]
    assert said["orphans"] > 0
    unreferenced = "SELECT COUNT(*) FROM objects WHERE unreferenced_since > 0"
    assert read_ledger(store, unreferenced) == [(said["orphans"],)]
    without_owner = "SELECT COUNT(*) FROM objects WHERE id NOT IN (SELECT object_id FROM"
    assert read_ledger(store, f"{without_owner} object_owners)") == [(said["orphans"],)]
    bad.unlink()
    regrain("migrate")
    assert read_ledger(store, unreferenced) == [(0,)]
    assert_deeply_sound(regrain)


def test_in_a_store_that_was_rolled_back(regrain: Regrain, store: Path) -> None:
    text = (store / "store.toml").read_text()
    (store / "store.toml").write_text(text.replace('"dual"', '"rolled_back"'))
    regrain("doctor", "--rebuild-ledger")
    assert set(statuses(store).values()) == {"rolled_back"}


KILLED_AT = """
import os, signal, sys
from regrain import disk
from regrain.app.care import rebuild_ledger
calls = 0
def dying(work):
    def call(*arguments):
        global calls
        calls += 1
        if calls == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        return work(*arguments)
    return call
for name in ("fsync", "rename_noreplace", "remove_tree", "make_directory"):
    setattr(disk, name, dying(getattr(disk, name)))
rebuild_ledger(sys.argv[1])
print(calls)
"""


@pytest.mark.parametrize("stride", [pytest.param(1, marks=pytest.mark.slow), 5])
def test_killed_anywhere(regrain: Regrain, model: Path, seed: int, stride: int) -> None:
    """At steps that change names or flush; the log of a killed run is there as well."""
    expected, number, ended = tables(model), seed % stride + 1 - stride, False
    while not ended:
        number += stride
        remove(regrain.store)
        subprocess.run(["cp", "-a", "--", model, regrain.store], check=True)
        Path(f"{regrain.store}/state.sqlite-wal").write_bytes(b"")
        done = subprocess.run(
            [sys.executable, "-c", KILLED_AT, regrain.store, str(number)],
            check=False,
            capture_output=True,
        )
        ended = done.returncode == 0
        assert ended or done.returncode == -signal.SIGKILL, done.stderr
        aside_or_there = [regrain.store / "state.sqlite", regrain.store / "quarantine"]
        assert any(
            path.exists() and (path.is_file() or os.listdir(path)) for path in aside_or_there
        )
        regrain("doctor", "--rebuild-ledger")
        assert tables(regrain.store) == expected, number
        assert "initialised" in [row[1] for row in read_ledger(regrain.store, HISTORY)], number
        assert [n for n in os.listdir(regrain.store) if n.startswith("state.sqlite-")] == []
    assert number > 8
    regrain("migrate")
    assert set(os.listdir(regrain.store / "temp")) == set()
    names = [row[0] for row in expected["packages"]]
    [problem] = check_store(regrain.store, legacy=names).problems
    assert problem.startswith("quarantine/ is not empty")


def test_nothing_but_the_ledger_is_touched(regrain: Regrain, store: Path) -> None:
    legacy = {
        name: trees.LegacyPackage(name, store / name, "", "", "")
        for name in os.listdir(store / "packages")
    }
    before = record(legacy)
    objects = sorted((p.name, p.stat().st_ino) for p in (store / "objects").glob("*/*"))
    regrain("doctor", "--rebuild-ledger")
    assert legacy_changes(before, legacy) == []
    assert sorted((p.name, p.stat().st_ino) for p in (store / "objects").glob("*/*")) == objects


def test_not_a_store(regrain: Regrain, store_path: Path) -> None:
    store_path.mkdir()
    regrain("doctor", "--rebuild-ledger", code=10)
    assert os.listdir(store_path) == []
