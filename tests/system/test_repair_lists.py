"""``verify --repair``: file lists, copies for people, the ledger, and rows that disagree."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from regrain.app.store import PackageStore
from tests.command import Regrain
from tests.compare import differences, snapshot
from tests.conftest import remove
from tests.faults.inline import Way, initialise, migrate
from tests.faults.small import Scene, copy_of, make_legacy, quick_place
from tests.repairs import (
    assert_whole,
    carrier,
    changes,
    object_of_one,
    quarantined,
    repair,
    told,
    turn_over,
)
from tests.stores import read_ledger, statuses

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, seed: int) -> Iterator[Scene]:
    """A small migrated store, to be copied."""
    with quick_place(tmp_path_factory.mktemp("repair")) as folder:
        scene = make_legacy(folder / "model", seed)
        initialise(scene.path)
        migrate(scene.path, Way(batch=10, ingest="copy"))
        yield scene


@pytest.fixture
def scene(model: Scene) -> Iterator[Scene]:
    made = copy_of(model, model.path.with_name("store"))
    yield replace(made, before=model.before)
    for path in made.path.parent.iterdir():
        if path != model.path:
            remove(path)


@pytest.fixture
def backup(model: Scene) -> str:
    place = model.path.with_name("backup")
    subprocess.run(["cp", "-a", "--", model.path, place], check=True)
    return os.fspath(place)


def garble(folder: Path) -> None:
    turn_over(folder / "files.json")


def cut_short(folder: Path) -> None:
    content = (folder / "files.json").read_bytes()
    (folder / "files.json").write_bytes(content[: len(content) // 2])


def lose_list(folder: Path) -> None:
    (folder / "files.json").unlink()


def lose_all(folder: Path) -> None:
    remove(folder)


def become_file(folder: Path) -> None:
    remove(folder)
    folder.write_bytes(b"not a directory")


def forge(folder: Path) -> None:
    """A list that can be read, of the same tree, and is not the one that was published."""
    content = (folder / "files.json").read_bytes()
    at = content.index(b'"mtime_ns":') + len(b'"mtime_ns":')
    (folder / "files.json").write_bytes(content[:at] + b"2" + content[at + 1 :])


DAMAGES = [garble, cut_short, lose_list, lose_all, become_file, forge]
ListDamage = Callable[[Path], None]


def grouped(scene: Scene) -> str:
    """A package with hard links and an empty directory."""
    return scene.named("grouped").hash


def changed_tree(path: Path) -> list[str]:
    return sorted(line for line in os.listdir(path))


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("source", ["legacy", "backup", "nowhere"])
def test_a_file_list(scene: Scene, backup: str, damage: ListDamage, source: str) -> None:
    name = grouped(scene)
    folder = scene.path / "packages" / name
    before = snapshot(folder)
    damage(folder)
    if source != "legacy":
        remove(scene.path / name)
    done = repair(scene, "deep", places=(backup,) if source == "backup" else ())
    if source == "nowhere":
        assert told(done) == [("file_list", "lost")]
        assert done.is_damaged
        return
    assert told(done) == [("file_list", "healed")]
    assert not done.is_damaged
    for tree in (before, after := snapshot(folder)):  # only times of what was made anew moved
        for path, entry in tree.items():
            tree[path] = replace(entry, mtime_ns=0)
    assert differences(before, after) == []
    if damage is not lose_all:
        assert quarantined(scene)
    if source == "legacy":
        assert_whole(scene)


def test_a_list_that_lost_its_exact_form_is_migrated_anew(scene: Scene) -> None:
    """Bytes and modes of the legacy tree are the recorded ones; a time moved since."""
    name = grouped(scene)
    (file,) = (scene.path / name).glob("**/first")
    os.utime(file, ns=(1, 1))
    lose_list(scene.path / "packages" / name)
    done = repair(scene)
    assert told(done) == [("file_list", "pending")]
    assert not done.is_damaged
    assert statuses(scene.path)[name] == "pending"
    read = PackageStore.open(scene.path).get_package(name).read(f"{INSIDE}/share/first")
    assert read == b"one inode, two names\n"
    migrate(scene.path, Way(ingest="copy"))
    assert set(statuses(scene.path).values()) == {"completed"}
    assert repair(scene, "deep").report.repairs == []


def test_a_backup_of_another_list_is_passed_over(scene: Scene, backup: str) -> None:
    name = grouped(scene)
    forge(Path(backup) / "packages" / name)
    lose_list(scene.path / "packages" / name)
    (one,) = repair(scene, places=(backup,)).report.repairs
    assert one.source == f"the legacy directory {name}"
    assert_whole(scene)


INSIDE = "opt/pm/live"


def test_a_legacy_directory_of_another_tree_is_no_source(scene: Scene) -> None:
    name = grouped(scene)
    (file,) = (scene.path / name).glob("**/first")
    file.write_bytes(b"another")
    lose_list(scene.path / "packages" / name)
    assert told(repair(scene)) == [("file_list", "lost")]


@pytest.mark.parametrize("what", ["manifest.toml", "sbom.spdx.json"])
@pytest.mark.parametrize("lost", [True, False])
def test_copies_for_people(scene: Scene, what: str, lost: bool) -> None:
    name = scene.named("linkable").hash
    copy = scene.path / "packages" / name / what
    before = snapshot(scene.path / "packages" / name)
    if lost:
        copy.unlink()
    else:
        turn_over(copy)
    done = repair(scene)
    assert told(done) == [("copies", "healed")]
    assert [
        line for line in changes(before, scene.path / "packages" / name) if "mtime" not in line
    ] == []
    assert_whole(scene)


def test_list_object_and_copy_of_one_package_at_once(scene: Scene, backup: str) -> None:
    name, path, digest = object_of_one(scene)
    remove(scene.path / "packages" / name)
    remove(scene.path / name)
    carrier(scene, digest).unlink()
    done = repair(scene, places=(backup,))
    assert told(done) == [("file_list", "healed"), ("object", "healed")]
    assert done.report.repairs[1].concerns == ((name, path.encode()),)
    assert_whole(scene)


# the ledger


def no_ledger(path: Path) -> None:
    for piece in path.glob("state.sqlite*"):
        piece.unlink()


def broken_ledger(path: Path) -> None:
    ledger = path / "state.sqlite"
    content = ledger.read_bytes()
    ledger.write_bytes(content[:4096] + bytes(len(content) - 4096))


def no_database(path: Path) -> None:
    (path / "state.sqlite").write_bytes(b"nothing of the kind")


def torn_ledger(path: Path) -> None:
    with closing(sqlite3.connect(path / "state.sqlite")) as connection, connection:
        connection.execute("INSERT INTO object_owners(object_id, package_id) VALUES (9999, 1)")


@pytest.mark.parametrize("damage", [no_ledger, broken_ledger, no_database, torn_ledger])
def test_a_ledger(scene: Scene, damage: Callable[[Path], None]) -> None:
    damage(scene.path)
    assert told(repair(scene, dry_run=True)) == [("ledger", "healed")]
    turn_over(carrier(scene, object_of_one(scene)[2]))
    done = repair(scene, "deep")
    assert told(done) == [("ledger", "healed"), ("object", "healed")]
    assert not done.is_damaged
    assert any(p.name.startswith("state.sqlite") for p in quarantined(scene)) is (
        damage is not no_ledger
    )
    assert_whole(scene)


def test_a_ledger_of_a_newer_version_is_left_alone(scene: Scene) -> None:
    with closing(sqlite3.connect(scene.path / "state.sqlite")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    result = Regrain(scene.path)("verify", "--repair", code=4)
    assert "does not know" in result.stderr
    assert quarantined(scene) == []


def change(scene: Scene, *statements: str) -> None:
    with closing(sqlite3.connect(scene.path / "state.sqlite")) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def test_rows_that_disagree(scene: Scene) -> None:
    change(
        scene,
        "DELETE FROM carriers WHERE object_id IN (SELECT MIN(id) FROM objects)",
        "UPDATE carriers SET mtime_seconds = 5 WHERE object_id IN (SELECT MAX(id) FROM objects)",
        "INSERT INTO objects(digest, size, created_at) VALUES (zeroblob(32), 5, 5)",
        "INSERT INTO carriers(object_id, mode, is_compressed, is_bare, mtime_seconds,"
        " mtime_nanoseconds, allocated_bytes) SELECT id, 420, 0, 1, 5, 5, 5 FROM objects"
        " WHERE digest = zeroblob(32)",
    )
    done = repair(scene, "deep")
    assert (done.report.repairs, done.is_damaged) == ([], False)
    assert_whole(scene)


def test_a_package_without_a_row(scene: Scene) -> None:
    """Added at file level, and the ledger is older than that."""
    place = scene.path.with_name("new")
    subprocess.run(["cp", "-a", scene.named("linkable").path, place], check=True)
    (place / "new").write_bytes(b"new")
    old = scene.path.with_name("old.sqlite")
    subprocess.run(["cp", "-a", scene.path / "state.sqlite", old], check=True)
    name = PackageStore.open(scene.path).add_package(place).package_hash
    no_ledger(scene.path)
    old.rename(scene.path / "state.sqlite")
    done = repair(scene, "deep")
    assert not done.is_damaged
    assert (name,) in read_ledger(scene.path, "SELECT package_hash FROM packages")
    assert_whole(replace(scene, packages=scene.packages))
