"""``doctor``: a sound store has no finding above advice; each thing broken is found."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests import awkward, databases, mounts
from tests.command import FOR_TESTS, Regrain, Result
from tests.compare import differences, snapshot
from tests.conftest import remove

REBUILD = "doctor --rebuild-ledger"
REPAIR = "verify --level deep --repair"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, seed: int) -> Iterator[Path]:
    """A small store after ``migrate``, to be copied."""
    place = tmp_path_factory.mktemp("doctor") / "store"
    awkward.make_plain_store(place, seed, packages=3, files=8)
    for command in ("init", "migrate"):
        Regrain(place)(command)
    yield place
    remove(place)


@pytest.fixture
def store(model: Path, store_path: Path) -> Path:
    """A copy of it, hard links between objects and legacy files included."""
    subprocess.run(["cp", "-a", "--", model, store_path], check=True)
    databases.follow(store_path)
    return store_path


def findings(result: Result) -> list[dict[str, Any]]:
    document = result.document
    assert document["message_type"] == "doctor"
    found: list[dict[str, Any]] = document["findings"]
    for finding in found:
        assert {"check", "level", "message", "advice"} <= finding.keys(), finding
        assert finding["level"] in {"ok", "advice", "warning", "error"}, finding
        assert bool(finding["advice"]) == (finding["level"] != "ok"), finding
    return found


def the_one(result: Result, check: str, words: str) -> dict[str, Any]:
    """The one finding of a check whose message has these words."""
    found = [f for f in findings(result) if f["check"] == check and words in f["message"]]
    assert len(found) == 1, result
    return found[0]


def assert_found(
    regrain: Regrain, check: str, words: str, level: str, advice: str, code: int
) -> dict[str, Any]:
    """It is found, at this level, with this advice, and nothing was changed."""
    before = snapshot(regrain.store)
    found = the_one(regrain("doctor", "--json", code=code), check, words)
    assert (found["level"], advice in found["advice"]) == (level, True), found
    after = snapshot(regrain.store)
    for tree in (before, after):
        tree.pop(b"temp")  # its mtime: what the file system can do is tried in there
        tree.pop(b"")  # likewise: SQLite keeps its locks beside the ledger while that is open
    assert differences(before, after, identity=True) == []
    return found


def carriers(store: Path) -> list[Path]:
    return sorted((store / "objects").glob("*/*"))


def change(store: Path, *statements: str) -> None:
    with closing(sqlite3.connect(store / "state.sqlite")) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def test_a_sound_store_has_no_finding_above_advice(regrain: Regrain, store: Path) -> None:
    result = regrain("doctor", "--json")
    found = findings(result)
    assert {f["level"] for f in found} <= {"ok", "advice"}, result
    checks = {"versions", "file system", "space", "store", "places", "locks", "leftovers"}
    assert {f["check"] for f in found} == checks | {"objects", "ledger", "configuration"}
    versions = the_one(result, "versions", "SQLite")
    assert versions["python"] == sys.version.split()[0]
    assert versions["kernel"] == os.uname().release
    assert versions["journal_mode"] == "WAL"
    assert the_one(result, "ledger", "agrees")["level"] == "ok"
    assert list((store / "temp").iterdir()) == []


def test_people_read_the_same(regrain: Regrain, store: Path) -> None:
    (store / "state.sqlite").unlink()
    found = findings(regrain("doctor", "--json", code=4))
    lines = [line.strip() for line in regrain("doctor", code=4).text.splitlines()]
    for finding in found:
        heads = [line for line in lines if line.startswith(f"{finding['level']} ")]
        assert any(finding["message"] in line for line in heads) or finding["check"] == "space"
        assert not finding["advice"] or finding["advice"] in lines


def test_the_whole_awkward_store_is_sound(migrated: Any) -> None:
    found = findings(migrated.regrain("doctor", "--json"))
    assert {f["level"] for f in found} <= {"ok", "advice"}, found


def test_shared_inodes_are_told_with_their_figures(regrain: Regrain, store: Path) -> None:
    shared = [path for path in carriers(store) if path.stat().st_nlink > 1]
    taken = sum(path.stat().st_blocks * 512 for path in shared)
    if not shared:
        pytest.skip("reflinks here: nothing is shared")
    advice = "Keep a backup"
    found = assert_found(regrain, "objects", "only a backup protects", "advice", advice, 0)
    assert (found["objects"], found["bytes"]) == (len(shared), taken)


def test_objects_that_were_changed(regrain: Regrain, store: Path) -> None:
    carrier = carriers(store)[0]
    carrier.chmod(0o666)
    found = assert_found(regrain, "objects", "1 object was", "error", "put owner and mode back", 4)
    assert found["objects"] == [{"name": carrier.name, "reason": "its mode is 0666"}]


@pytest.mark.root
def test_objects_of_another_owner(regrain: Regrain, store: Path) -> None:
    os.chown(carriers(store)[0], 12345, 12345)
    assert_found(regrain, "objects", "it belongs to 12345:12345", "error", "owner and mode", 4)


def test_objects_that_are_none(regrain: Regrain, store: Path) -> None:
    carrier = carriers(store)[0]
    data = carrier.read_bytes()
    carrier.unlink()
    carrier.symlink_to("/dev/null")
    assert data
    assert_found(regrain, "objects", "it is not a regular file", "error", "regrain verify", 4)


@pytest.mark.parametrize("place", ["objects/note", "objects/ab/note", f"objects/ab/{'cd' * 32}"])
def test_strangers_among_the_objects(regrain: Regrain, store: Path, place: str) -> None:
    (store / place).write_text("?")
    code = 4 if len(place) > 30 else 1  # the name of an object in the wrong directory
    result = regrain("doctor", "--json", code=None)
    found = the_one(result, "objects", "1 name in objects/ of no object")
    assert found["names"] == [place.removeprefix("objects/")]
    assert found["level"] == "warning"
    assert result.code in {1, code}


def test_objects_near_the_link_limit(regrain: Regrain, store: Path, workplace: Path) -> None:
    """Nine tenths of what ext4 allows; every other kind here allows far more."""
    kind = subprocess.run(["stat", "-f", "-c", "%T", store], capture_output=True, check=True)
    if b"ext" not in kind.stdout:
        pytest.skip("needs ext4")
    carrier, names = carriers(store)[0], workplace / "names"
    names.mkdir()
    for number in range(carrier.stat().st_nlink, 58_499):
        os.link(carrier, names / str(number))
    assert not [f for f in findings(regrain("doctor", "--json")) if "nearly" in f["message"]]
    os.link(carrier, names / "last")
    found = assert_found(regrain, "objects", "nearly the 65,000", "warning", "copies are made", 1)
    assert found["names"] == [carrier.name]


def test_strangers_among_the_packages(regrain: Regrain, store: Path) -> None:
    (store / "packages" / "note").write_text("?")
    assert_found(regrain, "packages", "of no package: 'note'", "warning", "out of the store", 1)


def test_shards_that_are_missing_or_closed(regrain: Regrain, store: Path) -> None:
    empty = next(path for path in sorted((store / "objects").iterdir()) if not any(path.iterdir()))
    empty.rmdir()
    assert_found(regrain, "objects", f"missing: '{empty.name}'", "error", "from a backup", 4)
    regrain("init")
    empty.chmod(0o700)
    found = assert_found(
        regrain, "objects", "wrong owner, mode", "warning", "owner and the mode", 1
    )
    assert found["shards"] == [empty.name]


@pytest.mark.parametrize(
    ("name", "mode", "advice"),
    [
        ("", 0o777, "chmod go-w"),
        ("objects", 0o777, "chmod 0755"),
        ("packages", 0o700, "chmod 0755"),
        ("temp", 0o755, "chmod 0700"),
        ("quarantine", 0o711, "chmod 0700"),
        ("store.toml", 0o646, "chmod 0600"),
        ("state.sqlite", 0o666, "writing"),
    ],
)
def test_modes_of_the_stores_own(
    regrain: Regrain, store: Path, name: str, mode: int, advice: str
) -> None:
    (store / name).chmod(mode)
    check = "ledger" if name == "state.sqlite" else "places"
    assert_found(regrain, check, f"{mode:04o}", "warning", advice, 1)


@pytest.mark.parametrize("name", ["trash", "migration", "temp"])
def test_own_directories_that_are_missing(regrain: Regrain, store: Path, name: str) -> None:
    remove(store / name)
    found = the_one(regrain("doctor", "--json", code=1), "places", f"'{name}' is missing")
    assert found["level"] == "error"
    assert "regrain init" in found["advice"]


@pytest.mark.parametrize("name", ["objects", "packages", "store.toml"])
def test_a_store_that_cannot_be_opened(regrain: Regrain, store: Path, name: str) -> None:
    remove(store / name)
    found = assert_found(regrain, "store", "cannot be opened", "error", "from a backup", 4)
    assert name in found["message"] or name == "store.toml"
    the_one(regrain("doctor", "--json", code=4), "versions", "Python")


def test_a_store_of_another_format(regrain: Regrain, store: Path) -> None:
    (store / "store.toml").write_text('format = 9\nhash = "blake3"\n')
    assert_found(regrain, "store", "format 9", "error", "version of regrain that made it", 1)


@pytest.mark.parametrize("make", [False, True])
def test_no_store_is_no_patient(regrain: Regrain, store_path: Path, make: bool) -> None:
    if make:
        store_path.mkdir()
    assert regrain("doctor", "--json", code=10).of_type("exit_error")


def test_foreign_names_at_the_top(regrain: Regrain, store: Path) -> None:
    (store / "lost+found").mkdir()
    found = assert_found(regrain, "places", "of no package", "advice", "leaves them alone", 0)
    assert found["foreign"] == ["lost+found"]


def test_what_dead_runs_left(regrain: Regrain, store: Path) -> None:
    (store / "temp" / ("d" * 16)).mkdir()
    (store / "temp" / ".store.toml.1").write_text("")
    found = assert_found(regrain, "leftovers", "a run that was killed", "advice", "migrate", 0)
    assert found["dead_runs"] == ["d" * 16]
    found = assert_found(regrain, "leftovers", "in temp/ itself", "advice", "migrate", 0)
    assert found["stray_files"] == [".store.toml.1"]


@pytest.mark.parametrize("place", ["trash", "quarantine"])
def test_what_waits_to_be_looked_at(regrain: Regrain, store: Path, place: str) -> None:
    (store / place / "tree" / "deep").mkdir(parents=True)
    (store / place / "tree" / "deep" / "file").write_bytes(bytes(9000))
    advice = {"trash": "regrain migrate", "quarantine": "--empty-quarantine"}[place]
    found = assert_found(regrain, "leftovers", f"lies in {place}/", "advice", advice, 0)
    assert (found["count"], found["names"]) == (1, ["tree"])
    assert found["bytes"] >= 9000
    assert (store / place / "tree" / "deep" / "file").exists()


def test_who_holds_the_run_lock(regrain: Regrain, store: Path) -> None:
    hold = (
        "import sys; from regrain.store.root import StoreRoot\n"
        "from regrain.store.locks import run_lock\n"
        "with run_lock(StoreRoot(sys.argv[1]), 'regrain migrate'): print(flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, store], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        found = the_one(regrain("doctor", "--json"), "locks", "a run is under way")
        refused = regrain("doctor", "--rebuild-ledger", code=11)
        holder.communicate(b"\n")
    assert found["running"] == f"regrain migrate, process {holder.pid}"
    assert f"process {holder.pid}" in refused.stderr


LEDGER = {
    "an object's row": (
        (
            "DELETE FROM object_owners WHERE object_id = 1",
            "DELETE FROM carriers WHERE object_id = 1",
            "DELETE FROM objects WHERE id = 1",
        ),
        {"1 object has no row": ("warning", REBUILD), "who owns": ("error", REBUILD)},
    ),
    "an owner": (
        ("DELETE FROM object_owners WHERE object_id = 1",),
        {"who owns": ("error", REBUILD)},
    ),
    "all owners of a package": (
        ("DELETE FROM object_owners WHERE package_id = 1",),
        {"wrong for 1 package, ": ("error", REBUILD)},
    ),
    "a bogus owner": (
        ("INSERT INTO object_owners(object_id, package_id) VALUES (1, 999)",),
        {"1 row belongs to no package": ("error", REBUILD)},
    ),
    "a bogus object": (
        (
            (
                "INSERT INTO objects(id, digest, size, created_at)"
                f" VALUES (9999, x'{'ab' * 32}', 5, 1)"
            ),
            "INSERT INTO carriers VALUES (9999, 420, 0, 1, 0, 0, 4096)",
        ),
        {"1 object has a row and is not there": ("error", REPAIR)},
    ),
    "a package's row": (
        (
            "DELETE FROM object_owners WHERE package_id = 1",
            "DELETE FROM packages WHERE id = 1",
        ),
        {"1 published package has no row": ("warning", "regrain migrate")},
    ),
    "a bogus package": (
        (f"INSERT INTO packages VALUES (99, '{'ef' * 32}', 't', 'l', 1)",),
        {"1 package is recorded that is not in packages/": ("error", REPAIR)},
    ),
    "another list": (
        (f"UPDATE packages SET list_hash = '{'0' * 64}' WHERE id = 1",),
        {"another file list than was recorded": ("error", REPAIR)},
    ),
    "a row of the migration": (
        ("DELETE FROM store_migration WHERE id = 1",),
        {"1 legacy directory is not queued yet": ("advice", "regrain migrate")},
    ),
    "a pending package in neither layout": (
        (
            f"INSERT INTO store_refs VALUES ('{'ef' * 32}', 1, 0, 1)",
            (
                "INSERT INTO store_migration(package_hash, status, file_count)"
                f" VALUES ('{'ef' * 32}', 'pending', 1)"
            ),
        ),
        {"1 package is in neither layout": ("warning", "from a backup")},
    ),
    "a row that refers to nothing": (
        (
            (
                "INSERT INTO store_migration(package_hash, status, file_count)"
                f" VALUES ('{'ef' * 32}', 'pending', 1)"
            ),
        ),
        {"refers to a row of store_refs": ("error", REBUILD)},
    ),
    "an older schema": (
        ("UPDATE alembic_version SET version_num = '0000'",),
        {"older schema 0000": ("warning", "regrain init")},
    ),
    "a newer schema": (
        ("UPDATE alembic_version SET version_num = '9999'",),
        {"schema 9999": ("error", REBUILD)},
    ),
    "no schema": (
        ("DROP TABLE alembic_version",),
        {"no ledger of regrain": ("error", REBUILD)},
    ),
}


@pytest.mark.parametrize("what", LEDGER)
def test_the_ledger_against_the_disk(regrain: Regrain, store: Path, what: str) -> None:
    statements, expected = LEDGER[what]
    change(store, *statements)
    levels = {level for level, _ in expected.values()}
    code = 4 if "error" in levels else 1 if "warning" in levels else 0
    for words, (level, advice) in expected.items():
        assert_found(regrain, "ledger", words, level, advice, code)
    others = [
        f["message"]
        for f in findings(regrain("doctor", "--json", code=code))
        if f["check"] == "ledger" and f["level"] != "ok"
    ]
    assert len(others) == len(expected), others


def to_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


BROKEN: dict[str, tuple[str, Callable[[Path], object]]] = {
    "missing": ("is missing", Path.unlink),
    "garbage": ("not a database", lambda path: path.write_bytes(b"garbage " * 1000)),
    "a directory": ("not a regular file", to_directory),
    "empty": ("no ledger of regrain", lambda path: path.write_bytes(b"")),
    "cut off": ("", lambda path: os.truncate(path, path.stat().st_size // 2)),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_ledger_that_is_none(regrain: Regrain, store: Path, what: str) -> None:
    words, damage = BROKEN[what]
    damage(store / "state.sqlite")
    assert_found(regrain, "ledger", words, "error", REBUILD, 4)


def test_objects_and_packages_that_are_gone(regrain: Regrain, store: Path) -> None:
    carriers(store)[0].unlink()
    assert_found(regrain, "ledger", "1 object has a row and is not", "error", "verify", 4)
    remove(min((store / "packages").iterdir()))
    assert_found(regrain, "ledger", "1 package is recorded that", "error", REPAIR, 4)


def test_where_settings_come_from(regrain: Regrain, store: Path, workplace: Path) -> None:
    file = workplace / "regrain.toml"
    file.write_text("[migration]\nspace_wait = 5\nsettle = 3\n")
    env = {"REGRAIN_CONFIG": str(file), "REGRAIN_MIGRATION__PAUSE_MS": "7"}
    result = regrain("doctor", "--json", env=env)
    (found,) = [f for f in findings(result) if f["check"] == "configuration"]
    assert found["file"] == str(file)
    assert set(found["variables"]) - FOR_TESTS.keys() == {"REGRAIN_MIGRATION__PAUSE_MS"}


def test_a_configuration_that_is_wrong_is_a_finding(regrain: Regrain, store: Path) -> None:
    result = regrain("doctor", "--json", env={"REGRAIN_STORE__NONSENSE": "1"}, code=1)
    assert the_one(result, "configuration", "NONSENSE".lower())["level"] == "error"
    the_one(result, "ledger", "agrees")


def test_too_little_space(regrain: Regrain, store: Path) -> None:
    env = {
        "REGRAIN_MIGRATION__FREE_BYTES_MIN": str(1 << 60),
        "REGRAIN_MIGRATION__FREE_INODES_MIN": str(1 << 60),
    }
    result = regrain("doctor", "--json", env=env, code=1)
    assert the_one(result, "space", "free_bytes_min")["level"] == "warning"
    if os.statvfs(store).f_files:
        assert "more inodes" in the_one(result, "space", "free_inodes_min")["advice"]


def test_a_dry_run_tries_nothing(regrain: Regrain, store: Path) -> None:
    before = snapshot(store)
    found = the_one(regrain("doctor", "-n", "--json"), "file system", "was not tried")
    assert found["level"] == "advice"
    after = snapshot(store)
    for tree in (before, after):
        tree.pop(b"")  # its mtime: SQLite keeps its locks beside the ledger
    assert differences(before, after, identity=True) == []


@pytest.mark.root
@pytest.mark.parametrize(("kind", "reflink"), [("ext4", False), ("xfs", True), ("btrfs", True)])
def test_abilities_are_measured(workplace: Path, seed: int, kind: str, reflink: bool) -> None:
    with mounts.mounted(kind, workplace) as point:
        regrain = Regrain(point / "store with blanks")
        awkward.make_plain_store(regrain.store, seed, packages=1, files=4)
        regrain("init")
        env = {"REGRAIN_MIGRATION__FREE_BYTES_MIN": "0"}
        result = regrain("doctor", "--json", env=env)
        found = the_one(result, "file system", "tried and found")
        assert the_one(result, "file system", "the store lies on")["kind"] == kind
    assert found["reflink"] is reflink
    for ability in ("hard_links", "rename_noreplace", "rename_exchange", "unnamed_files", "syncfs"):
        assert found[ability] is True
    assert (found["folds_case"], found["normalises"]) == (False, False)
    assert found["time_step_ns"] == 1
    assert found["time_max"] > 15_000_000_000


@pytest.mark.root
def test_names_that_are_folded(workplace: Path) -> None:
    with mounts.mounted("ext4", workplace, "-O", "casefold") as point:
        regrain = Regrain(point / "store")
        regrain.store.mkdir()
        if subprocess.run(["chattr", "+F", regrain.store], check=False).returncode:
            pytest.skip("no case folding here")
        regrain("init")
        env = {"REGRAIN_MIGRATION__FREE_BYTES_MIN": "0"}
        result = regrain("doctor", "--json", env=env, code=1)
    assert the_one(result, "file system", "differ only in case")["level"] == "warning"


@pytest.mark.root
def test_an_unprivileged_reader_is_told_what_was_skipped(model: Path) -> None:
    if shutil.which("setpriv") is None:
        pytest.skip("needs setpriv, to be another user")
    place = Path(tempfile.mkdtemp(prefix="regrain-doctor-"))
    try:
        place.chmod(0o755)
        subprocess.run(["cp", "-a", "--", model, place / "store"], check=True)
        nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        importable = [*nobody, sys.executable, "-c", "import regrain"]
        if subprocess.run(importable, capture_output=True, check=False).returncode:
            pytest.skip("another user cannot import regrain from here")
        result = Regrain(place / "store", prefix=nobody)("doctor", "--json", code=1)
    finally:
        remove(place)
    assert "its owner" in the_one(result, "file system", "was not tried")["advice"]
    assert "owner" in the_one(result, "leftovers", "could not be finished")["advice"]
    assert the_one(result, "objects", "was not read")["level"] == "ok"
