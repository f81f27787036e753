"""Cleanup, rollback and purge on real stores: the whole circle, and every refusal."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from regrain.model.phase import Phase
from regrain.store.root import StoreRoot, write_store_file
from tests import awkward, mounts
from tests.command import Regrain
from tests.compare import Snapshot, differences, snapshot
from tests.conftest import remove
from tests.reader import check_store
from tests.stores import migrate_all, object_inodes, put_copy, read_ledger, record, statuses
from tests.trees import Abilities, LegacyPackage

pytestmark = pytest.mark.both_databases

AT_ONCE = {
    "REGRAIN_MIGRATION__SETTLE": "0",
    "REGRAIN_MIGRATION__FREE_BYTES_MIN": "1000000",
    "REGRAIN_MIGRATION__FREE_INODES_MIN": "10",
}
ROOT = Path(__file__).parents[2]


def go_to(path: Path, phase: Phase) -> None:
    root = StoreRoot(str(path))
    write_store_file(root.fd, root.store_id, phase)


def phase_of(path: Path) -> Phase:
    return StoreRoot(str(path)).phase()


def changes(path: Path, before: Mapping[str, Snapshot]) -> list[str]:
    """How legacy directories differ from what they were, holes and link groups included."""
    return [
        f"{name}: {line}"
        for name, tree in before.items()
        for line in differences(tree, snapshot(path / name), holes=True)
    ]


def legacy_left(path: Path, before: Mapping[str, Snapshot]) -> list[str]:
    return [name for name in before if (path / name).exists()]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, seed: int) -> Path:
    """A small store after cutover, to be copied."""
    place = tmp_path_factory.mktemp("undoing") / "store"
    migrate_all(Regrain(place, AT_ONCE), awkward.make_three(place, seed))
    go_to(place, Phase.FILE_LEVEL)
    return place


@pytest.fixture
def ready(template: Path, store_path: Path, plain_store: dict[str, LegacyPackage]) -> Regrain:
    put_copy(template, store_path)
    return Regrain(store_path, AT_ONCE)


@pytest.fixture
def before(plain_store: dict[str, LegacyPackage]) -> dict[str, Snapshot]:
    return record(plain_store)


def circle(path: Path, packages: Mapping[str, LegacyPackage], *, alone: bool) -> None:
    """Go once around: legacy removed, rolled back, forward, rolled back before cutover."""
    before = record(packages)
    regrain = Regrain(path, AT_ONCE)
    regrain("init")
    regrain("migrate", code=None)
    done = {name for name, status in statuses(path).items() if status == "completed"}
    for name in before.keys() - done:  # what cannot be brought in here is not our subject
        regrain("remove", name, "--execute")
    kept = {name: before[name] for name in done}
    assert len(kept) > 1
    clean(path, regrain, kept)
    back(path, regrain, kept, alone=alone)
    forward(path, regrain, kept)
    purge(path, regrain, kept)
    regrain("migrate")
    assert set(statuses(path).values()) == {"completed"}
    regrain("verify", "--level", "deep")
    assert check_store(path, legacy=kept).problems == []
    assert changes(path, kept) == []


def clean(path: Path, regrain: Regrain, kept: Mapping[str, Snapshot]) -> None:
    go_to(path, Phase.FILE_LEVEL)
    plan = regrain("cleanup", "--json").document
    cleaned = regrain("cleanup", "--execute", "--json").documents[-1]
    assert cleaned["freed_bytes"] == plan["freed_bytes"]
    assert (cleaned["packages"], cleaned["phase"]) == (len(kept), "clean")
    assert legacy_left(path, kept) == []
    assert not list((path / "trash").iterdir())


def back(path: Path, regrain: Regrain, kept: Mapping[str, Snapshot], *, alone: bool) -> None:
    need = regrain("rollback", "-n", "--json").document
    used = os.statvfs(path)
    assert phase_of(path) is Phase.CLEAN
    assert regrain("rollback", "--json").documents[-1]["restored"] == len(kept)
    now = os.statvfs(path)
    assert phase_of(path) is Phase.ROLLED_BACK
    assert changes(path, kept) == []
    assert set(statuses(path).values()) == {"rolled_back"}
    if alone:  # nobody else writes there; the ledger's log and a few directories come on top
        if used.f_files:
            assert used.f_favail - now.f_favail <= need["needed_inodes"] + 8
        slack = (8 << 20) + need["needed_inodes"] * 512
        assert (used.f_bavail - now.f_bavail) * now.f_frsize <= need["needed_bytes"] + slack


def forward(path: Path, regrain: Regrain, kept: Mapping[str, Snapshot]) -> None:
    objects = object_inodes(path)
    regrain("migrate")
    assert phase_of(path) is Phase.DUAL
    assert set(statuses(path).values()) == {"completed"}
    assert object_inodes(path) == objects, "what was equal is not read in again"
    regrain("verify", "--level", "deep")
    assert changes(path, kept) == []


def purge(path: Path, regrain: Regrain, kept: Mapping[str, Snapshot]) -> None:
    regrain("rollback")
    assert regrain("rollback", "--purge", "--json").document["packages"] == len(kept)
    assert len(list((path / "packages").iterdir())) == len(kept)
    regrain("rollback", "--purge", "--execute")
    assert not list((path / "packages").iterdir())
    assert not list((path / "objects").glob("*/*"))
    assert read_ledger(path, "SELECT COUNT(*) FROM objects") == [(0,)]
    assert set(statuses(path).values()) == {"pending"}
    assert changes(path, kept) == []


def test_the_whole_circle(store_path: Path, legacy_store: dict[str, LegacyPackage]) -> None:
    circle(store_path, legacy_store, alone=False)


@pytest.mark.root
@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_the_circle_on_each_file_system(
    workplace: Path, seed: int, able: Abilities, kind: str
) -> None:
    with mounts.mounted(kind, workplace) as point:
        path = point / "store"
        path.mkdir()
        made = [awkward.add_ordinary(path, "jq", "1.7", seed)]
        subjects = ("sparse", "link-groups", "modes", "xattrs", "owners", "symlinks")
        made += [awkward.add_awkward(path, subject, seed, able) for subject in subjects]
        circle(path, {package.hash: package for package in made}, alone=True)


@pytest.mark.root
@pytest.mark.parametrize("ingest", ["auto", "copy"])
def test_files_come_back_by_link_or_copy(ext4: Path, seed: int, ingest: str) -> None:
    path = ext4 / "store"
    package = awkward.add_ordinary(path, "jq", "1.7", seed)
    before = record({package.hash: package})
    regrain = Regrain(path, AT_ONCE | {"REGRAIN_STORE__INGEST": ingest})
    migrate_all(regrain, {package.hash: package})
    go_to(path, Phase.FILE_LEVEL)
    regrain("cleanup", "--execute")
    regrain("rollback")
    shared = object_inodes(path) & {entry.identity for entry in snapshot(package.path).values()}
    assert bool(shared) is (ingest == "auto")
    assert changes(path, before) == []
    groups = [entry for entry in snapshot(package.path).values() if entry.group is not None]
    assert len(groups) == len([e for e in before[package.hash].values() if e.group is not None])


@pytest.mark.root
def test_reflinked_bytes_cost_nothing(xfs: Path, seed: int) -> None:
    path = xfs / "store"
    package = awkward.add_large(path, seed, 24 << 20)
    regrain = Regrain(path, AT_ONCE)
    migrate_all(regrain, {package.hash: package})
    go_to(path, Phase.FILE_LEVEL)
    regrain("cleanup", "--execute")
    assert regrain("rollback", "-n", "--json").document["needed_bytes"] < 1 << 20
    before = os.statvfs(path)
    regrain("rollback")
    after = os.statvfs(path)
    assert (before.f_bavail - after.f_bavail) * after.f_frsize < 8 << 20


def test_two_packages_never_share_an_inode_again(no_reflink: Path, seed: int) -> None:
    path = no_reflink / "store"
    made = awkward.add_duplicates(path, seed)
    packages = {package.hash: package for package in made}
    before = record(packages)
    regrain = Regrain(path, AT_ONCE)
    migrate_all(regrain, packages)
    go_to(path, Phase.FILE_LEVEL)
    regrain("cleanup", "--execute")
    regrain("rollback")
    assert changes(path, before) == []
    inodes = [{e.identity for e in snapshot(p.path).values() if e.kind == "file"} for p in made]
    assert not set.intersection(*inodes)


# cleanup


def test_cleanup_only_plans_unless_told(ready: Regrain, before: dict[str, Snapshot]) -> None:
    for arguments in ([], ["-n"], ["--limit", "1"], ["--older-than", "1d"]):
        ready("cleanup", *arguments)
        assert changes(ready.store, before) == []
    assert ready("cleanup", "--older-than", "1d", "--json").document["packages"] == 0
    assert ready("cleanup", "--limit", "1", "--json").document["packages"] == 1
    ready("cleanup", "--execute", "-n", code=2)
    assert phase_of(ready.store) is Phase.FILE_LEVEL


def test_cleanup_in_pieces(ready: Regrain, before: dict[str, Snapshot]) -> None:
    for left in (2, 1):
        ready("cleanup", "--execute", "--limit", "1")
        assert len(legacy_left(ready.store, before)) == left
        assert phase_of(ready.store) is Phase.FILE_LEVEL
    assert (
        ready("cleanup", "--execute", "--older-than", "1h", "--json").documents[-1]["packages"] == 0
    )
    ready("cleanup", "--execute", "--limit", "1")
    assert phase_of(ready.store) is Phase.CLEAN
    freed = ready("status", "--json").document["space_freed_bytes"]
    assert freed == sum(v for (v,) in read_ledger(ready.store, _FREED)) > 0
    assert ready("cleanup", "--execute", "--json").documents[-1]["phase"] == "clean"


_FREED = "SELECT freed_bytes FROM store_migration WHERE cleaned_at IS NOT NULL"


@pytest.mark.parametrize("phase", [Phase.DUAL, Phase.ROLLING_BACK, Phase.ROLLED_BACK])
def test_cleanup_needs_the_cutover(
    ready: Regrain, before: dict[str, Snapshot], phase: Phase
) -> None:
    go_to(ready.store, phase)
    ready("cleanup", code=5)
    ready("cleanup", "--execute", code=5)
    assert changes(ready.store, before) == []


@pytest.mark.parametrize("damage", ["bytes", "mode", "new file", "object", "missing object"])
def test_cleanup_keeps_both_where_anything_is_off(
    ready: Regrain, before: dict[str, Snapshot], damage: str
) -> None:
    name = next(iter(before))
    path = next(
        p for p, e in before[name].items() if e.kind == "file" and e.size and p.startswith(b"opt")
    )
    file, digest = ready.store / name / os.fsdecode(path), before[name][path].digest
    carrier = ready.store / "objects" / digest[:2] / digest
    apart = carrier.with_name("apart")
    apart.write_bytes(carrier.read_bytes())  # so that only one side is hit
    os.chmod(apart, carrier.stat().st_mode)
    apart.rename(carrier)
    match damage:
        case "bytes":
            status = file.stat()
            file.write_bytes(bytes(status.st_size))
            os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
        case "mode":
            file.chmod(0o600)
        case "new file":
            (file.parent / "new").write_bytes(b"")
        case "object":
            carrier.write_bytes(bytes(carrier.stat().st_size))
        case _:
            carrier.unlink()
    seen = snapshot(ready.store / name)
    result = ready("cleanup", "--execute", "--json", code=3)
    kept = result.documents[-1]["kept"]
    assert name in kept
    assert result.documents[-1]["phase"] == "file_level"
    assert differences(seen, snapshot(ready.store / name), identity=True) == []
    assert (ready.store / "packages" / name).is_dir()
    rows = dict(read_ledger(ready.store, "SELECT package_hash, what FROM integrity"))
    assert name in rows
    assert rows[name].startswith("legacy directory: ") is ("object" not in damage)
    assert set(legacy_left(ready.store, before)) == set(kept)
    ready("cleanup", "--execute", code=3)


def test_cleanup_leaves_what_is_set_aside(ready: Regrain, before: dict[str, Snapshot]) -> None:
    name = next(iter(before))
    ready("exclude", name)
    ready("cleanup", "--execute")
    assert legacy_left(ready.store, before) == [name]
    assert phase_of(ready.store) is Phase.CLEAN
    assert ready("cat", name, "manifest.toml").stdout


def test_cleanup_refuses_while_a_process_has_files_open(
    ready: Regrain, before: dict[str, Snapshot]
) -> None:
    name = max(before)
    with subprocess.Popen(["sleep", "100"], cwd=ready.store / name) as process:
        try:
            plan = ready("cleanup", "--json").document
            assert [found["pid"] for found in plan["processes"]] == [process.pid]
            result = ready("cleanup", "--execute", code=5)
        finally:
            process.kill()
    assert str(process.pid) in result.stderr
    assert str(ready.store / name) in result.stderr
    assert changes(ready.store, before) == []
    ready("cleanup", "--execute")


# rollback


def test_rollback_from_the_middle_of_a_cleanup(ready: Regrain, before: dict[str, Snapshot]) -> None:
    ready("cleanup", "--execute", "--limit", "2")
    result = ready("rollback", "--json").documents
    assert [d["status"] for d in result if d["message_type"] == "package"] == ["restored"] * 2
    assert changes(ready.store, before) == []
    assert phase_of(ready.store) is Phase.ROLLED_BACK


def test_packages_added_after_cutover_get_a_directory(
    ready: Regrain, before: dict[str, Snapshot], workplace: Path, seed: int
) -> None:
    new = awkward.add_ordinary(workplace / "new", "curl", "9.0", seed)
    tree = snapshot(new.path)
    ready("cleanup", "--execute")
    ready("add", new.path, "--hash", new.hash)
    ready("rollback")
    assert changes(ready.store, before | {new.hash: tree}) == []
    assert statuses(ready.store)[new.hash] == "rolled_back"
    later = awkward.add_ordinary(workplace / "later", "curl", "9.1", seed)
    ready("add", later.path, "--hash", later.hash)
    assert (ready.store / later.hash).is_dir()
    ready("migrate")
    assert set(statuses(ready.store).values()) == {"completed"}


def test_too_little_space_changes_nothing(ready: Regrain) -> None:
    ready("cleanup", "--execute")
    seen = snapshot(ready.store)
    result = ready("rollback", code=5, env={"REGRAIN_MIGRATION__FREE_BYTES_MIN": str(1 << 60)})
    assert "bytes and" in result.stderr
    assert phase_of(ready.store) is Phase.CLEAN
    same = {p for p in seen if p and not p.startswith((b"state.sqlite", b"migration"))}
    now = snapshot(ready.store)
    assert differences({p: seen[p] for p in same}, {p: now[p] for p in same}) == []
    ready("rollback")


def test_a_changed_directory_keeps_the_store_from_switching(
    ready: Regrain, before: dict[str, Snapshot]
) -> None:
    name = next(iter(before))
    (ready.store / name / "new").write_bytes(b"x")
    result = ready("rollback", code=3)
    assert name in result.stderr
    assert phase_of(ready.store) is Phase.ROLLING_BACK
    for package in before:
        assert ready("cat", package, "manifest.toml").stdout
    ready("migrate", code=5)
    ready("cleanup", code=5)
    ready("rollback", code=3)
    ready("exclude", name)
    ready("rollback")
    assert phase_of(ready.store) is Phase.ROLLED_BACK


def test_a_damaged_object_is_a_loss_that_is_told(
    ready: Regrain, before: dict[str, Snapshot]
) -> None:
    name = next(iter(before))
    ready("cleanup", "--execute")
    digest = next(e.digest for e in before[name].values() if e.kind == "file" and e.size)
    for carrier in (ready.store / "objects" / digest[:2]).glob(f"{digest}*"):
        carrier.write_bytes(bytes(carrier.stat().st_size))
    result = ready("rollback", "--json", code=4)
    assert name in {d.get("package_hash") for d in result.of_type("package")}
    assert phase_of(ready.store) is Phase.ROLLING_BACK
    assert name not in legacy_left(ready.store, before)
    whole = {other: tree for other, tree in before.items() if (ready.store / other).exists()}
    assert changes(ready.store, whole) == []


def test_rollback_of_single_packages(ready: Regrain, before: dict[str, Snapshot]) -> None:
    name, other, _ = before
    ready("rollback", name, code=5)
    go_to(ready.store, Phase.DUAL)
    ready("rollback", name, "-n")
    assert statuses(ready.store)[name] == "completed"
    ready("rollback", name[:12])
    assert statuses(ready.store)[name] == "rolled_back"
    assert not (ready.store / "packages" / name).exists()
    assert ready("show", name, "--json").document["layout"] == "legacy"
    ready("rollback", name)
    (ready.store / other / "new").write_bytes(b"x")
    ready("rollback", other, code=3)
    assert (ready.store / "packages" / other).is_dir()
    (ready.store / other / "new").unlink()
    ready("rollback", "0" * 64, code=1)
    ready("rollback", name, "--purge", code=2)
    ready("rollback", "--execute", code=2)
    ready("migrate")
    assert statuses(ready.store)[name] == "completed"
    remove(ready.store / name)
    ready("rollback", name, code=5)


def test_forward_again_takes_what_changed_anew(ready: Regrain, before: dict[str, Snapshot]) -> None:
    name, other, third = before
    ready("rollback")
    (ready.store / name / "new").write_bytes(b"x")
    listed = (ready.store / "packages" / third / "files.json").stat().st_ino
    digest = next(
        e.digest for p, e in before[other].items() if e.kind == "file" and b"bin" in p and e.size
    )
    carrier = ready.store / "objects" / digest[:2] / digest
    content = carrier.read_bytes()
    carrier.unlink()
    carrier.write_bytes(bytes(len(content)))
    ready("migrate")
    assert set(statuses(ready.store).values()) == {"completed"}
    assert ready("cat", name, "new").stdout == b"x"
    assert carrier.read_bytes() == content
    assert (ready.store / "packages" / third / "files.json").stat().st_ino == listed
    ready("verify", "--level", "deep")


def test_purge_needs_a_rolled_back_store(ready: Regrain, before: dict[str, Snapshot]) -> None:
    ready("rollback", "--purge", code=5)
    ready("rollback", "--purge", "--execute", code=5)
    ready("rollback")
    name = next(iter(before))
    remove(ready.store / name)
    result = ready("rollback", "--purge", "--execute", code=5)
    assert name in result.stderr
    assert len(list((ready.store / "packages").iterdir())) == len(before)


def test_a_rollback_may_purge_by_itself(ready: Regrain, before: dict[str, Snapshot]) -> None:
    ready("rollback", env={"REGRAIN_MIGRATION__CLEANUP_ON_ROLLBACK": "true"})
    assert not list((ready.store / "packages").iterdir())
    assert changes(ready.store, before) == []


def test_rollback_stops_a_running_migration(store_path: Path, seed: int) -> None:
    packages = awkward.make_plain_store(store_path, seed, 60, 60)
    before = record(packages)
    regrain = Regrain(store_path, AT_ONCE)
    regrain("init")
    with regrain.running("migrate", "--batch", "1", "--jobs", "1", "--max-read", "0.05") as process:
        deadline = time.monotonic() + 60
        while not any((store_path / "packages").iterdir()) and time.monotonic() < deadline:
            time.sleep(0.02)
        result = regrain("rollback")
        assert process.wait(60) == 128 + signal.SIGTERM
    assert str(process.pid) in result.stderr
    assert phase_of(store_path) is Phase.ROLLED_BACK
    assert changes(store_path, before) == []
    assert "pending" in statuses(store_path).values()


def test_readers_never_notice(ready: Regrain, before: dict[str, Snapshot], workplace: Path) -> None:
    expected, stop = workplace / "expected", workplace / "stop"
    expected.write_bytes(pickle.dumps(before))
    command = [sys.executable, "-m", "tests.system.reading_loop"]
    command += [str(path) for path in (ready.store, expected, stop)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        try:
            while not (workplace / "reading").exists():
                assert process.poll() is None
                time.sleep(0.01)
            back = ("rollback", "migrate", "rollback", "rollback --purge --execute", "migrate")
            for step in ("cleanup --execute", *back):
                ready(*step.split())
            stop.touch()
            out, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    result = json.loads(out)
    assert result["wrong"] == []
    assert result["passes"] > 10
    assert set(result["layouts"]) == {"file_level", "legacy"}
    assert changes(ready.store, before) == []
