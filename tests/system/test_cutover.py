"""The cutover: every refusal of its gate, one by one and all at once; then the switch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Self

import pytest

from regrain import PackageStore
from regrain.app import lifecycle
from regrain.errors import LockedError, RefusedError
from regrain.ledger import open_ledger
from regrain.ledger.keeping import Intent
from regrain.migrate import cutover, shadow
from regrain.migrate.cutover import GateError
from regrain.model.phase import Layout, Phase
from regrain.settings import Migration as MigrationSettings
from regrain.settings import Settings
from regrain.store.locks import StoreLock, run_lock
from regrain.store.packages import FileLevelPackage
from regrain.store.root import StoreRoot, write_store_file
from tests import awkward
from tests.command import Regrain
from tests.conftest import remove
from tests.faults.inline import initialise, migrate
from tests.faults.small import Scene, copy_of
from tests.reader import check_store
from tests.stores import (
    legacy_changes,
    new_layout_differences,
    read_ledger,
    record,
)
from tests.trees import LegacyPackage

pytestmark = pytest.mark.both_databases
Packages = dict[str, LegacyPackage]
AT_ONCE = Settings(migration=MigrationSettings(settle=0.0))
LOOK = """
import sys
from regrain import PackageStore
store = PackageStore.open(sys.argv[1])
package = sys.argv[2]
for _ in sys.stdin:
    print(store.get_package(package).layout, store.phase, flush=True)
"""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, seed: int) -> Scene:
    """A store that lacks nothing but the mark of a backup."""
    place = tmp_path_factory.mktemp("cutover") / "store"
    made = [awkward.add_ordinary(place, "jq", version, seed) for version in ("1.6", "1.7")]
    made.append(awkward.add_ordinary(place, "curl", "8.4.0", seed, digits=32))
    packages = {package.hash: package for package in made}
    initialise(place)
    migrate(place)
    return Scene(place, packages, record(packages))


@pytest.fixture
def scene(template: Scene, store_path: Path) -> Scene:
    return copy_of(template, store_path)


@pytest.fixture
def ready(scene: Scene) -> Regrain:
    return Regrain(scene.path, {"REGRAIN_MIGRATION__SETTLE": "0"})


@pytest.fixture
def plain_store(scene: Scene) -> Packages:
    return scene.packages


def execute(regrain: Regrain, statement: str, *values: object) -> None:
    ledger = open_ledger(str(regrain.store))
    with ledger._transaction() as connection:
        connection.exec_driver_sql(statement, values)
    ledger.close()


def failures(regrain: Regrain, *options: str, code: int = 5) -> dict[str, list[dict[str, Any]]]:
    """What the gate says, by check; that it changed nothing, and says so in words, too."""
    before = (regrain.store / "store.toml").read_bytes()
    result = regrain("cutover", "--json", *options, code=code)
    document = result.documents[-1]
    assert (regrain.store / "store.toml").read_bytes() == before
    assert document["message_type"] == "summary"
    assert document["exit_code"] == code
    assert document["switched"] is False
    assert document["next_command"].startswith("regrain ")
    found: dict[str, list[dict[str, Any]]] = {}
    for failure in document["failures"]:
        assert failure["reason"]
        assert failure["advice"]
        found.setdefault(failure["check"], []).append(failure)
    return found


def assert_only(found: dict[str, list[dict[str, Any]]], check: str, *words: str) -> None:
    assert found.keys() == {check}, str(found)
    text = str(found)
    assert all(word in text for word in words), text


def assert_switches(regrain: Regrain, *options: str) -> None:
    document = regrain("cutover", "--json", *options).document
    assert document["switched"] is True
    assert document["failures"] == []
    assert regrain("status", "--json").document["phase"] == "file_level"


# one by one


def test_no_backup(ready: Regrain) -> None:
    assert_only(
        failures(ready),
        "backup",
        "no backup was marked",
        "backup create",
        "backup mark",
        "--no-backup",
    )
    assert_switches(ready, "--no-backup")


@pytest.mark.parametrize(("age", "closed"), [(23 * 3600, False), (25 * 3600, True), (-60, True)])
def test_a_backup_is_good_for_a_day(ready: Regrain, age: int, closed: bool) -> None:
    ready("backup", "mark", "tape 17")
    assert read_ledger(ready.store, "SELECT detail FROM history WHERE event = 'backup_marked'") == [
        ("tape 17",)
    ]
    execute(ready, "UPDATE history SET at = at - ? WHERE event = 'backup_marked'", age)
    if closed:
        assert_only(failures(ready), "backup", "marked")
    else:
        assert_switches(ready)


@pytest.mark.parametrize("status", ["pending", "in_progress", "failed"])
def test_an_unfinished_package(
    ready: Regrain, plain_store: Packages, seed: int, status: str
) -> None:
    new = awkward.add_ordinary(ready.store, "late", "1", seed)
    if status == "failed":
        os.mkfifo(new.path / "fifo")
        ready("migrate", code=3)
    else:
        ready("init")
    if status == "in_progress":  # by a run that was killed: it is recovered first
        execute(ready, "UPDATE store_migration SET status = 'in_progress' WHERE status = 'pending'")
        assert_only(failures(ready, "--no-backup", "-n"), "packages", "in progress", new.hash)
        status = "pending"
    assert_only(failures(ready, "--no-backup"), "packages", status, new.hash)
    ready("exclude", new.hash)
    assert_switches(ready, "--no-backup")
    assert PackageStore.open(ready.store).get_package(new.hash).layout is Layout.LEGACY


def test_a_new_directory_that_is_not_settled(ready: Regrain, seed: int) -> None:
    new = awkward.add_ordinary(ready.store, "late", "1", seed)
    slow = Regrain(ready.store, {"REGRAIN_MIGRATION__SETTLE": "3600"})
    assert_only(failures(slow, "--no-backup"), "reconciliation", new.hash, "3600 s")
    (new.path / "manifest.toml").unlink()
    assert_only(failures(ready, "--no-backup"), "reconciliation", new.hash, "manifest.toml")
    remove(new.path)
    assert_switches(ready, "--no-backup")


def test_a_new_directory_that_is_settled(ready: Regrain, seed: int) -> None:
    new = awkward.add_ordinary(ready.store, "late", "1", seed)
    assert_only(failures(ready, "--no-backup", "-n"), "reconciliation", new.hash, "migrate")
    assert_only(failures(ready, "--no-backup"), "packages", "pending", new.hash)
    ready("migrate")
    assert_switches(ready, "--no-backup")


def test_a_changed_legacy_directory(ready: Regrain, plain_store: Packages) -> None:
    name = min(plain_store)
    manifest = plain_store[name].path / "manifest.toml"
    before = manifest.stat()
    manifest.chmod(0o600)
    found = failures(ready, "--no-backup", "-n")
    assert found["integrity"][0]["packages"] == [name]
    assert not read_ledger(ready.store, "SELECT * FROM integrity")
    found = failures(ready, "--no-backup")
    assert "its mode changed" in str(found["integrity"])
    ready("status", "--check", code=7)
    manifest.chmod(before.st_mode)
    # noted is noted: only a clean verification takes it back, and one that looks there
    assert_only(failures(ready, "--no-backup"), "integrity", name)
    ready("verify")
    assert_only(failures(ready, "--no-backup"), "integrity", name)
    ready("verify", name, "--level", "deep")
    ready("status", "--check")
    assert_switches(ready, "--no-backup")


def test_packages_that_were_never_verified_are(ready: Regrain, seed: int) -> None:
    store_path = ready.store
    environment = {"REGRAIN_STORE__VERIFY_AFTER_MIGRATION": "false"}
    regrain = Regrain(store_path, {"REGRAIN_MIGRATION__SETTLE": "0", **environment})
    execute(ready, "UPDATE store_migration SET verified_at = NULL")
    awkward.add_ordinary(store_path, "late", "1", seed)
    regrain("migrate")
    verified = "SELECT COUNT(verified_at) FROM store_migration"
    assert read_ledger(store_path, verified) == [(0,)]
    assert regrain("status", "--json").document["unverified_packages"] == 4
    regrain("cutover", "-n", "--no-backup")
    assert read_ledger(store_path, verified) == [(0,)]
    assert_switches(regrain, "--no-backup")
    assert read_ledger(store_path, verified) == [(4,)]


def test_a_package_that_proves_wrong_when_verified(ready: Regrain, plain_store: Packages) -> None:
    name, file = damage(ready, plain_store)
    execute(ready, "UPDATE store_migration SET verified_at = NULL")
    for options in (("-n",), ()):
        found = failures(ready, "--no-backup", *options)
        assert found["verification"][0]["packages"] == [name], file
    assert found["integrity"][0]["packages"] == [name]


def damage(regrain: Regrain, packages: Packages) -> tuple[str, Path]:
    """Change the bytes of a legacy file that is no link of an object, and of nothing else."""
    for name, package in sorted(packages.items()):
        for path in sorted(package.path.rglob("*")):
            status = path.lstat()
            if path.is_file() and not path.is_symlink() and status.st_size:
                copy = path.read_bytes()
                path.unlink()
                path.write_bytes(bytes(byte ^ 1 for byte in copy))
                os.chmod(path, status.st_mode)
                os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
                parent = path.parent.stat()
                del parent
                restore_times(regrain, name, path)
                return name, path
    raise AssertionError("no file")


def restore_times(regrain: Regrain, name: str, path: Path) -> None:
    """Set the time of the directory back that making the file anew moved."""
    inside = os.fsencode(path.parent.relative_to(regrain.store / name))
    for entry in PackageStore.open(regrain.store).get_package(name).files():
        if entry.path == (b"" if inside == b"." else inside):
            os.utime(path.parent, ns=(entry.mtime_ns, entry.mtime_ns))


def test_health_that_is_critical(ready: Regrain) -> None:
    poor = {"REGRAIN_MIGRATION__FREE_BYTES_MIN": str(1 << 60)}
    found = failures(Regrain(ready.store, {**(ready.environment or {}), **poor}), "--no-backup")
    assert_only(found, "health", "bytes are free")
    poor = {"REGRAIN_MIGRATION__FREE_INODES_MIN": str(1 << 50)}
    if os.statvfs(ready.store).f_files:
        found = failures(Regrain(ready.store, {**(ready.environment or {}), **poor}), "--no-backup")
        assert_only(found, "health", "inodes are free")


def test_layouts_that_differ_in_bytes(ready: Regrain, plain_store: Packages) -> None:
    """Equal in all metadata: only reading both shows it."""
    name, _ = damage(ready, plain_store)
    assert_only(failures(ready, "--no-backup"), "comparison", name, "its content differs")


def test_a_new_layout_that_is_slower(ready: Regrain, monkeypatch: pytest.MonkeyPatch) -> None:
    original = FileLevelPackage.open_content

    def slow(self: Any, entry: Any) -> int:
        for _ in range(200):
            os.stat("/")
        return original(self, entry)

    monkeypatch.setattr(FileLevelPackage, "open_content", slow)
    root = PackageStore.open(ready.store).root
    found = lifecycle.cutover(root, AT_ONCE, no_backup=True).failures
    assert [failure.check for failure in found] == ["comparison"]
    assert "times as long" in found[0].reason
    monkeypatch.undo()
    assert lifecycle.cutover(root, AT_ONCE, no_backup=True).switched


@pytest.mark.parametrize("where", ["_pair", "_seconds"])
def test_a_package_removed_under_the_comparison_is_no_difference(
    ready: Regrain, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Its legacy directory is open, and is being emptied."""
    original = getattr(shadow, where)
    removed: list[object] = []

    def remove_first(*arguments: Any) -> Any:
        if not removed:
            name = arguments[1] if where == "_pair" else arguments[0].new.hash
            removed.append(PackageStore.open(ready.store).remove_package(name))
        return original(*arguments)

    monkeypatch.setattr(shadow, where, remove_first)
    root = PackageStore.open(ready.store).root
    assert lifecycle.cutover(root, AT_ONCE, no_backup=True).switched
    assert removed


# all at once


def test_all_failures_at_once(ready: Regrain, plain_store: Packages, seed: int) -> None:
    names = sorted(plain_store)
    pending = awkward.add_ordinary(ready.store, "pending", "1", seed)
    failed = awkward.add_ordinary(ready.store, "failed", "1", seed)
    os.mkfifo(failed.path / "fifo")
    ready("migrate", "--only", "failed", code=3)
    new = awkward.add_ordinary(ready.store, "unsettled", "1", seed)
    (new.path / "manifest.toml").unlink()
    (plain_store[names[0]].path / "manifest.toml").chmod(0o600)
    execute(ready, "UPDATE store_migration SET verified_at = NULL")
    poor = {**(ready.environment or {}), "REGRAIN_MIGRATION__FREE_BYTES_MIN": str(1 << 60)}
    found = failures(Regrain(ready.store, poor))
    assert found.keys() == {
        "packages",
        "reconciliation",
        "integrity",
        "verification",
        "backup",
        "health",
        "comparison",
    }
    words = ready("cutover", code=5).text
    assert all(f["reason"] in words for check in ("packages", "backup") for f in found[check])
    assert all(f["advice"] in words for f in found["integrity"])
    said = {name for f in found["packages"] for name in f["packages"]}
    assert said == {pending.hash, failed.hash}


# the switch


@pytest.mark.both_databases(everyday=True)
def test_the_switch(ready: Regrain, plain_store: Packages) -> None:
    before = record(plain_store)
    ready("backup", "mark", "tape")
    assert "the gate is open" in ready("cutover", "-n").text
    assert ready("status", "--json").document["next_command"] in {
        "regrain cutover",
        "regrain verify --level deep",
    }
    assert_switches(ready)
    store = check_store(ready.store, legacy=plain_store)
    assert (store.problems, store.phase) == ([], "file_level")
    assert legacy_changes(before, plain_store) == []
    assert new_layout_differences(store, before, store.packages) == []
    assert ready("cutover", "--json").document["already"] is True
    assert "already" in ready("cutover").text
    assert ready("status").text.endswith("Next: regrain cleanup\n")
    phases = "SELECT detail FROM history WHERE event = 'phase'"
    assert read_ledger(ready.store, phases) == [("file_level",)]
    assert ready("status", "--json").document["phase"] == "file_level"


def test_readers_in_other_processes_follow(ready: Regrain, plain_store: Packages) -> None:
    """A package in both layouts and an excluded one: where they are read from, at once."""
    name = min(plain_store)
    with subprocess.Popen(
        [sys.executable, "-c", LOOK, ready.store, name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def ask() -> str:
            process.stdin.write("\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
            return process.stdout.readline().strip()  # type: ignore[union-attr]

        assert ask() == "file_level dual"
        ready("cutover", "--no-backup")
        assert ask() == "file_level file_level"
        process.stdin.close()
        assert process.wait(30) == 0


@pytest.mark.parametrize("phase", [Phase.CLEAN, Phase.ROLLING_BACK, Phase.ROLLED_BACK])
def test_no_cutover_from_other_phases(ready: Regrain, phase: Phase) -> None:
    root = StoreRoot(str(ready.store))
    write_store_file(root.fd, root.store_id, phase)
    said = ready("cutover", "--no-backup", code=5).stderr
    assert phase.label in said
    assert root.phase() is phase
    with pytest.raises(RefusedError):
        PackageStore.open(ready.store).migration().cutover()


def test_the_api_says_all_that_is_open(ready: Regrain) -> None:
    migration = PackageStore.open(ready.store, AT_ONCE).migration()
    with pytest.raises(GateError) as error:
        migration.cutover()
    assert [failure.check for failure in error.value.failures] == ["backup"]
    assert error.value.exit_code == 5
    assert migration.health().status == "healthy"
    assert migration.cutover(no_backup=True) is True
    assert migration.cutover() is False
    assert migration.state().phase is Phase.FILE_LEVEL


# waiting, and others at work


def test_it_waits_until_the_gate_is_open(ready: Regrain) -> None:
    with ready.running("cutover", "--wait", "100") as process:
        while not read_ledger(ready.store, "SELECT 1 FROM history WHERE event = 'backup_marked'"):
            assert process.poll() is None
            ready("backup", "mark", "while it waits")
        assert process.wait(60) == 0
    assert ready("status", "--json").document["phase"] == "file_level"


def test_waiting_has_an_end(ready: Regrain) -> None:
    assert_only(failures(ready, "--wait", "1.5"), "backup")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_waiting(ready: Regrain, number: signal.Signals, code: int) -> None:
    with ready.running("cutover", "--wait", "100") as process:
        until(lambda: (ready.store / "migration/run.lock").read_bytes() != b"")
        os.kill(process.pid, number)
        assert process.wait(30) == code
    assert ready("status", "--json").document["phase"] == "dual"


def until(condition: Callable[[], bool]) -> None:
    while not condition():
        pass


def test_a_second_run_is_refused(ready: Regrain) -> None:
    root = StoreRoot(str(ready.store))
    with run_lock(root, "regrain migrate"):
        for options in ((), ("--wait", "0.5")):
            assert "regrain migrate" in ready("cutover", "--no-backup", *options, code=11).stderr
    assert root.phase() is Phase.DUAL


def test_writers_are_waited_for(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The switch needs the store alone; one who writes on and on is not overrun."""
    monkeypatch.setattr(cutover, "StoreLock", partial(StoreLock, patience=0.1))
    root = StoreRoot(str(scene.path))
    with StoreLock(root, exclusive=False), pytest.raises(LockedError):
        lifecycle.cutover(root, AT_ONCE, no_backup=True)
    assert root.phase() is Phase.DUAL
    assert lifecycle.cutover(root, AT_ONCE, no_backup=True).switched


def test_what_appears_before_the_switch_stops_it(
    scene: Scene, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the gate and the lock a new package comes in: the last look sees it."""

    class Late(StoreLock):
        def __enter__(self) -> Self:
            if self._exclusive:
                awkward.add_ordinary(scene.path, "late", "1", seed)
            return super().__enter__()

    monkeypatch.setattr(cutover, "StoreLock", Late)
    root = StoreRoot(str(scene.path))
    done = lifecycle.cutover(root, AT_ONCE, no_backup=True)
    assert [failure.check for failure in done.failures] == ["reconciliation"]
    assert root.phase() is Phase.DUAL


def test_an_older_intent_is_finished_first(ready: Regrain, plain_store: Packages) -> None:
    name = min(plain_store)
    ledger = open_ledger(str(ready.store))
    ledger.intend(name, Intent.REMOVE)
    ledger.close()
    assert_switches(ready, "--no-backup")
    assert not (ready.store / name).exists()
    assert not (ready.store / "packages" / name).exists()


@pytest.mark.root
def test_a_stranger_is_refused(ready: Regrain) -> None:
    os.chmod(ready.store.parent, 0o755)
    strange = Regrain(
        ready.store, ready.environment, ("setpriv", "--reuid", "1234", "--clear-groups")
    )
    for words in (("cutover", "--no-backup"), ("backup", "mark", "x")):
        done = strange(*words, code=None)
        assert done.code == 1, done
    assert ready("status", "--json").document["phase"] == "dual"
