"""Cleanup, rollback and purge as the store's owner who is not root, and under signals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random

import pytest

from regrain.model.phase import Phase
from regrain.store.root import StoreRoot, write_store_file
from tests import awkward, databases
from tests.command import Regrain
from tests.compare import Snapshot, differences, snapshot
from tests.conftest import remove
from tests.stores import migrate_all, read_ledger
from tests.system.calling import Said, call, judge
from tests.trees import LIVE, Tree, describe
from tests.verbs import NOBODY, another_user

PACKAGES = 24
AT_ONCE = {
    "REGRAIN_MIGRATION__SETTLE": "0",
    "REGRAIN_STORE__MIGRATION_PARALLEL_FILES": "1",
}


def changes(path: Path, before: Mapping[str, Snapshot]) -> list[str]:
    return [
        f"{name}: {line}"
        for name, tree in before.items()
        for line in differences(tree, snapshot(path / name), holes=True)
    ]


def phase_of(path: Path) -> Phase:
    return StoreRoot(str(path)).phase()


# the owner


@pytest.fixture(scope="module")
def nobody() -> Mapping[str, str]:
    found = another_user() if os.geteuid() == 0 else None
    if found is None:
        pytest.skip("no other user can run regrain from here")
    return found


@pytest.fixture
def owned() -> Iterator[Path]:
    """A store of another user, with directories that user may not write to."""
    place = Path(tempfile.mkdtemp(prefix="regrain-owned-"))
    place.chmod(0o755)
    store = place / "store"
    for number, mode in enumerate((0o755, 0o555, 0o500)):
        path = store / (f"{number:02x}" * 32)
        with Tree(path, Random(number)) as tree:
            describe(tree, f"mode-{mode:o}", "1.0")
            tree.file(LIVE + b"/bin/run", b"run\n" * 9, 0o755)
            tree.file(LIVE + b"/lib/secret", b"secret\n", 0o400)
        os.link(path / "opt/pm/live/bin/run", path / "opt/pm/live/bin/again")
        (path / "opt/pm/live/lib").chmod(0o555)
        os.utime(path / "opt/pm/live/lib", ns=(0, 10**18 + number))
        path.chmod(mode)
    subprocess.run(["chown", "-hR", f"{NOBODY}:{NOBODY}", store], check=True)
    yield store
    remove(place)


@pytest.mark.root
def test_the_circle_of_an_owner_who_is_not_root(owned: Path, nobody: Mapping[str, str]) -> None:
    """Moving a directory rewrites its `..`, which takes the right to write to it."""
    before = {path.name: snapshot(path) for path in owned.iterdir()}

    def run(*words: str, code: int = 0) -> Said:
        said = call(owned, words, nobody={**nobody, **AT_ONCE})
        judge(said, code)
        return said

    run("init")
    run("migrate")
    run("cutover", "--no-backup")
    assert b"3 legacy directories" in run("cleanup").stdout
    run("cleanup", "--execute")
    assert phase_of(owned) is Phase.CLEAN
    assert not any((owned / name).exists() for name in before)
    run("rollback")
    assert phase_of(owned) is Phase.ROLLED_BACK
    assert changes(owned, before) == []
    run("migrate")
    name = min(before)
    run("rollback", name)
    run("migrate")
    run("rollback")
    run("rollback", "--purge", "--execute")
    assert changes(owned, before) == []
    assert {path.stat().st_uid for path in owned.iterdir()} == {NOBODY}


@pytest.mark.root
def test_what_is_off_goes_back_to_its_place(owned: Path, nobody: Mapping[str, str]) -> None:
    """A killed cleanup had moved a read-only directory, which then is not what it was."""
    run = {**nobody, **AT_ONCE}
    for words in (["init"], ["migrate"], ["cutover", "--no-backup"]):
        judge(call(owned, words, nobody=run), 0)
    name = "01" * 32
    (owned / name / "opt" / "new").touch()
    trash = owned / "trash" / f"{name}.legacy.0"
    (owned / name).rename(trash)
    assert os.stat(trash).st_mode & 0o777 == 0o555
    intend(owned, name)
    said = call(owned, ["cleanup", "--execute"], nobody=run)
    assert said.code == 3, said
    assert said.stderr.startswith(f"kept {name}: "), said
    assert (owned / name / "opt" / "new").exists()
    assert os.stat(owned / name).st_mode & 0o777 == 0o555
    assert not list((owned / "trash").iterdir())


@pytest.mark.root
@pytest.mark.parametrize("where", ["in its place", "in the trash", "rolling back", "nothing begun"])
def test_the_right_to_write_was_lent(owned: Path, nobody: Mapping[str, str], where: str) -> None:
    """As a process leaves it that is killed while it moves a read-only directory."""
    before = {path.name: snapshot(path) for path in owned.iterdir()}
    run = {**nobody, **AT_ONCE}
    for words in (["init"], ["migrate"], ["cutover", "--no-backup"]):
        judge(call(owned, words, nobody=run), 0)
    name = "01" * 32
    (owned / name).chmod(0o755)
    if where == "rolling back":
        root = StoreRoot(str(owned))
        write_store_file(root.fd, root.store_id, Phase.ROLLING_BACK)
    elif where == "nothing begun":  # it is somebody else's doing, and stays
        assert call(owned, ["cleanup", "--execute"], nobody=run).code == 3
        assert os.stat(owned / name).st_mode & 0o777 == 0o755
        return
    else:
        if where == "in the trash":
            (owned / name).rename(owned / "trash" / f"{name}.legacy.0")
        intend(owned, name)
        said = call(owned, ["cleanup", "--execute"], nobody=run)
        assert (said.code, said.stderr) == (0, ""), said
        assert phase_of(owned) is Phase.CLEAN
    judge(call(owned, ["rollback"], nobody=run), 0)
    assert changes(owned, before) == []


def intend(path: Path, name: str) -> None:
    from regrain.ledger import open_ledger
    from regrain.ledger.keeping import Intent

    ledger = open_ledger(str(path))
    ledger.intend(name, Intent.CLEANUP)
    ledger.close()
    for file in path.glob("state.sqlite*"):
        os.chown(file, NOBODY, NOBODY)


@pytest.mark.root
def test_what_may_not_be_read_is_kept(owned: Path, nobody: Mapping[str, str]) -> None:
    run = {**nobody, **AT_ONCE}
    for words in (["init"], ["migrate"], ["cutover", "--no-backup"]):
        judge(call(owned, words, nobody=run), 0)
    (owned / ("00" * 32)).chmod(0)
    said = call(owned, ["cleanup", "--execute"], nobody=run)
    assert said.code == 3, said
    assert said.stderr.startswith(f"kept {'00' * 32}: it cannot be read: "), said
    assert [path.name for path in owned.iterdir() if len(path.name) == 64] == ["00" * 32]


@pytest.mark.root
@pytest.mark.both_databases
def test_what_cannot_be_moved_is_kept(many: tuple[Regrain, dict[str, Snapshot]]) -> None:
    regrain, before = many
    held, mount = (regrain.store / name for name in sorted(before)[1:3])
    if subprocess.run(["chattr", "+i", held], capture_output=True, check=False).returncode:
        pytest.skip("no immutable files here")
    try:
        subprocess.run(["mount", "--bind", mount, mount], check=True)
        try:
            result = regrain("cleanup", "--execute", "--json", code=3)
        finally:
            subprocess.run(["umount", mount], check=True)
    finally:
        subprocess.run(["chattr", "-i", held], check=True)
    assert set(result.documents[-1]["kept"]) == {held.name, mount.name}
    assert result.documents[-1]["packages"] == PACKAGES - 2
    assert read_ledger(regrain.store, "SELECT * FROM integrity") == []
    regrain("cleanup", "--execute")
    assert phase_of(regrain.store) is Phase.CLEAN


@pytest.mark.root
@pytest.mark.both_databases
def test_what_cannot_be_unlinked_keeps_nobody_waiting(
    many: tuple[Regrain, dict[str, Snapshot]], workplace: Path
) -> None:
    """Half of a directory is gone when that is found out, so it cannot come back."""
    regrain, before = many
    name = sorted(before)[1]
    held = next(p for p in (regrain.store / name).rglob("*") if p.is_file())
    if subprocess.run(["chattr", "+i", held], capture_output=True, check=False).returncode:
        pytest.skip("no immutable files here")
    there = regrain.store / "trash" / f"{name}.removed.0" / held.relative_to(regrain.store / name)
    try:
        for _ in range(2):
            result = regrain("cleanup", "--execute", code=3)
            assert f"kept {name}: it lies in trash/" in result.stderr
            assert there.exists()
            assert not any((regrain.store / other).exists() for other in before)
            assert phase_of(regrain.store) is Phase.FILE_LEVEL
        assert name in regrain("cleanup").text
        new = awkward.add_ordinary(workplace / "new", "curl", "1", 1)
        regrain("add", new.path)
        regrain("rollback")
        assert changes(regrain.store, before) == []
    finally:
        subprocess.run(["chattr", "-i", there], check=True)
    regrain("migrate")
    assert not list((regrain.store / "trash").iterdir())
    assert read_ledger(regrain.store, "SELECT * FROM intents") == []
    gone = "SELECT package_hash FROM store_migration WHERE cleaned_at IS NOT NULL"
    assert read_ledger(regrain.store, gone) == []
    assert changes(regrain.store, before) == []


# signals


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, seed: int) -> Iterator[Path]:
    """Many small packages after cutover."""
    place = tmp_path_factory.mktemp("signals")
    packages = awkward.make_plain_store(place / "store", seed, PACKAGES, 2)
    regrain = Regrain(place / "store", AT_ONCE)
    migrate_all(regrain, packages)
    regrain("cutover", "--no-backup")
    yield place / "store"
    remove(place)


@pytest.fixture
def many(template: Path, store_path: Path) -> tuple[Regrain, dict[str, Snapshot]]:
    shutil.rmtree(store_path, ignore_errors=True)
    subprocess.run(["cp", "-a", "--", template, store_path], check=True)
    databases.follow(store_path)
    before = {path.name: snapshot(path) for path in store_path.iterdir() if len(path.name) > 31}
    assert len(before) == PACKAGES
    return Regrain(store_path, AT_ONCE), before


def interrupted(regrain: Regrain, words: list[str], *signals: int) -> tuple[int, list[object]]:
    """Send signals with the first package that is told; the exit code, and what was told."""
    with regrain.running(*words, "--json", stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        told = [json.loads(process.stdout.readline())]
        for number in signals:
            process.send_signal(number)
        told += [json.loads(line) for line in process.stdout]
        return process.wait(60), told


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.both_databases
def test_a_cleanup_that_is_stopped(
    many: tuple[Regrain, dict[str, Snapshot]], number: signal.Signals
) -> None:
    regrain, before = many
    code, told = interrupted(regrain, ["cleanup", "--execute"], number)
    assert code == 128 + number
    summary = told[-1]
    assert isinstance(summary, dict)
    assert summary["stopped"]
    gone = [name for name in before if not (regrain.store / name).exists()]
    assert 0 < summary["packages"] == len(gone) < PACKAGES
    assert phase_of(regrain.store) is Phase.FILE_LEVEL
    assert read_ledger(regrain.store, "SELECT * FROM intents") == []
    regrain("cleanup", "--execute")
    assert phase_of(regrain.store) is Phase.CLEAN
    regrain("rollback")
    assert changes(regrain.store, before) == []


@pytest.mark.both_databases
def test_a_cleanup_that_is_stopped_at_once(many: tuple[Regrain, dict[str, Snapshot]]) -> None:
    regrain, before = many
    code, _ = interrupted(regrain, ["cleanup", "--execute"], signal.SIGINT, signal.SIGTERM)
    assert code == 128 + signal.SIGTERM
    assert phase_of(regrain.store) is Phase.FILE_LEVEL
    regrain("rollback")
    assert changes(regrain.store, before) == []
    assert not list((regrain.store / "trash").iterdir())


@pytest.mark.parametrize("signals", [(signal.SIGTERM,), (signal.SIGINT, signal.SIGTERM)])
@pytest.mark.both_databases
def test_a_rollback_that_is_stopped(
    many: tuple[Regrain, dict[str, Snapshot]], signals: tuple[signal.Signals, ...]
) -> None:
    """With the first directory that is back; then the others are compared."""
    regrain, before = many
    regrain("cleanup", "--execute", "--limit", str(PACKAGES // 2))
    code, _ = interrupted(regrain, ["rollback"], *signals)
    assert code == 128 + signals[-1]
    assert phase_of(regrain.store) is Phase.ROLLING_BACK
    assert regrain("status", "--json").document["next_command"] == "regrain rollback"
    assert regrain("list").text.count("file_level") == PACKAGES
    regrain("migrate", code=5)
    regrain("rollback")
    assert phase_of(regrain.store) is Phase.ROLLED_BACK
    assert changes(regrain.store, before) == []
    assert not list((regrain.store / "temp").iterdir())
    lost = "SELECT COUNT(*) FROM store_migration WHERE cleaned_at IS NOT NULL"
    assert read_ledger(regrain.store, lost) == [(0,)]


DEAF = """
import signal, sys
from regrain.store.locks import run_lock
from regrain.store.root import StoreRoot, write_store_file
signal.signal(signal.SIGTERM, signal.SIG_IGN)
with run_lock(StoreRoot(sys.argv[1]), "regrain migrate"):
    print("ready", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.both_databases
def test_a_rollback_that_waits_for_a_migration_can_be_stopped(
    many: tuple[Regrain, dict[str, Snapshot]],
) -> None:
    regrain, before = many
    with subprocess.Popen(
        [sys.executable, "-c", DEAF, regrain.store], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as migration:
        assert migration.stdout is not None
        migration.stdout.readline()
        with subprocess.Popen(
            regrain.command("rollback"),
            env=regrain.clean_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stderr is not None
            assert f"process {migration.pid}" in process.stderr.readline().decode()
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=60)
        assert process.returncode == 128 + signal.SIGINT
        assert out.startswith(b"stopped; 0 ")
        assert phase_of(regrain.store) is Phase.FILE_LEVEL
        migration.kill()
    assert changes(regrain.store, before) == []
