"""``verify --repair``: every kind of damage to an object, healed from every place there is."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from regrain import disk
from regrain.app import repairing
from regrain.app.store import PackageStore
from regrain.errors import LockedError
from regrain.ledger import open_ledger
from regrain.migrate.backed_up import BACKUP_CREATED, detail_of
from regrain.settings import Settings
from regrain.store.locks import run_lock
from tests.command import Regrain
from tests.compare import differences, snapshot
from tests.conftest import remove
from tests.faults.faulty import SYNCS, WRITES
from tests.faults.inline import Way, initialise, migrate
from tests.faults.small import SHARED, Scene, copy_of, make_legacy, quick_place
from tests.repairs import (
    BYTES,
    GONE,
    INSIDE,
    METADATA,
    Damage,
    assert_whole,
    become_directory,
    carrier,
    digest_of,
    lose,
    object_of_one,
    open_up,
    quarantined,
    repair,
    told,
    turn_over,
    verify,
)
from tests.stores import read_ledger

pytestmark = pytest.mark.root


@pytest.fixture(scope="module", params=["copy", "hardlink"])
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, seed: int
) -> Iterator[tuple[str, Scene]]:
    """A small migrated store, of copies or of hard links, to be copied."""
    with quick_place(tmp_path_factory.mktemp("repair")) as folder:
        scene = make_legacy(folder / "model", seed)
        initialise(scene.path)
        migrate(
            scene.path, Way(batch=10, ingest=request.param if request.param == "copy" else "auto")
        )
        yield request.param, scene


@pytest.fixture
def way(model: tuple[str, Scene]) -> str:
    return model[0]


@pytest.fixture
def scene(model: tuple[str, Scene]) -> Iterator[Scene]:
    made = copy_of(model[1], model[1].path.with_name("store"))
    yield replace(made, before=model[1].before)
    for path in made.path.parent.iterdir():
        if path != model[1].path:
            remove(path)


@pytest.fixture
def backup(model: tuple[str, Scene]) -> str:
    """What a backup is: the same names, nothing shared."""
    place = model[1].path.with_name("backup")
    subprocess.run(["cp", "-a", "--reflink=never", "--", model[1].path, place], check=True)
    for name in model[1].packages:
        remove(place / name)
    return os.fspath(place)


def shared_carriers(scene: Scene) -> list[Path]:
    digest = digest_of(scene, "grouped", f"{INSIDE}/share/shared")
    return sorted((scene.path / "objects" / digest[:2]).glob(f"{digest}*"))


@pytest.mark.parametrize("damage", [*BYTES, *METADATA, *GONE])
def test_from_another_carrier(scene: Scene, damage: Damage) -> None:
    """Both modes of an object are carriers; legacy directories are not there to be asked."""
    paths = shared_carriers(scene)
    assert len(paths) == 2
    for name in scene.packages:
        remove(scene.path / name)
    for path in paths:
        wanted = path.stat()
        damage(path)
        done = repair(scene, "deep")
        assert ("object", "healed") in told(done)
        assert not done.is_damaged
        now = path.lstat()
        assert (now.st_mode, now.st_uid, now.st_mtime_ns) == (
            wanted.st_mode,
            wanted.st_uid,
            wanted.st_mtime_ns,
        )
        assert path.read_bytes() == SHARED
    assert_whole(scene)
    assert bool(quarantined(scene)) is (damage not in METADATA and damage is not lose)


@pytest.mark.parametrize("damage", [*BYTES, *GONE])
def test_from_an_independent_legacy_inode(scene: Scene, way: str, damage: Damage) -> None:
    """Where the legacy file shares the damaged inode, it is no source, and damaged, too."""
    name, path, digest = object_of_one(scene)
    there = carrier(scene, digest)
    damage(there)
    done = repair(scene)
    one = done.report.repairs[0]
    assert one.concerns == ((name, os.fsencode(path)),)
    assert one.name == digest
    if way == "hardlink" and damage in BYTES:
        assert done.is_damaged
        assert (one.outcome, one.shared) == ("lost", one.concerns)
        assert read_ledger(scene.path, "SELECT package_hash FROM integrity") == [(name,)]
        assert not there.exists()  # what is brought in anew must not take it for good
    else:
        assert (one.outcome, one.source) == ("healed", f"{name}/{path}")
        assert_whole(scene)
        assert there.stat().st_ino != (scene.path / name / path).stat().st_ino


@pytest.mark.parametrize("damage", METADATA)
def test_mode_and_owner_alone(scene: Scene, way: str, damage: Damage) -> None:
    """In place where the inode has no other name; else legacy keeps what it became."""
    name, path, digest = object_of_one(scene)
    there = carrier(scene, digest)
    before = there.stat()
    damage(there)
    done = repair(scene, "deep")
    assert ("object", "healed") in told(done)
    assert not done.last.audit.damages
    after = there.stat()
    assert (after.st_mode, after.st_uid) == (before.st_mode, before.st_uid)
    assert (after.st_ino == before.st_ino) is (way == "copy")
    if way == "copy":
        assert_whole(scene)
    else:  # somebody changed the legacy file: that is said, and left
        legacy = (scene.path / name / path).stat()
        assert legacy.st_ino == before.st_ino
        assert (legacy.st_mode, legacy.st_uid) != (before.st_mode, before.st_uid)
        assert [change.package_hash for change in done.last.audit.changes] == [name]


@pytest.mark.parametrize("damage", BYTES)
def test_from_a_backup(scene: Scene, way: str, backup: str, damage: Damage) -> None:
    """Where bytes rotted in the inode of both, the legacy directory is made anew as well."""
    name, path, digest = object_of_one(scene)
    damage(carrier(scene, digest))
    if way == "copy":
        damage(scene.path / name / path)
    lost = repair(scene)
    assert told(lost) == [("object", "lost")]
    (aside,) = quarantined(scene)
    seen = snapshot(scene.path / name)
    healed = repair(scene, "deep", places=(backup,))
    assert healed.report.repairs[0].source == f"the backup {backup}"
    assert aside in quarantined(scene)
    assert not healed.is_damaged
    if damage is turn_over:
        assert told(healed) == [("object", "healed"), ("legacy", "healed")]
        assert (
            differences(seen, snapshot(scene.path / "quarantine" / f"{name}.0"), identity=True)
            == []
        )
        assert_whole(scene)
    else:  # a size that changed, and a time, is no rot: somebody wrote there
        assert [change.package_hash for change in healed.last.audit.changes] == [name]
        assert differences(seen, snapshot(scene.path / name), identity=True) == []


@pytest.mark.parametrize("reachable", [True, False])
def test_from_the_last_backup_that_regrain_made(scene: Scene, backup: str, reachable: bool) -> None:
    """The history says where it is."""
    ledger = open_ledger(os.fspath(scene.path))
    ledger.remember(BACKUP_CREATED, detail=detail_of(backup, len(scene.packages)))
    ledger.close()
    name, _, digest = object_of_one(scene)
    lose(carrier(scene, digest))
    remove(scene.path / name)
    if not reachable:
        remove(Path(backup))
    (one,) = repair(scene).report.repairs
    assert one.source == (f"the backup {backup}" if reachable else "")


def test_a_legacy_file_of_the_same_inode_is_healed_at_any_level(
    scene: Scene, way: str, backup: str
) -> None:
    name, _, digest = object_of_one(scene)
    turn_over(carrier(scene, digest))
    done = repair(scene, "quick" if way == "copy" else "full", places=(backup,))
    if way == "hardlink":
        assert told(done) == [("object", "healed"), ("legacy", "healed")]
        assert done.report.repairs[1].name == name
        assert_whole(scene)
    else:
        assert told(done) == []  # quick looks at no bytes


def test_rot_in_a_legacy_directory_alone(scene: Scene, way: str) -> None:
    """The matrix: made anew from good objects; the one that rotted goes to quarantine."""
    if way == "hardlink":
        pytest.skip("its bytes are those of the objects")
    name, path, _ = object_of_one(scene)
    turn_over(scene.path / name / path)
    assert repair(scene, "full").report.repairs == []
    seen = snapshot(scene.path / name)
    done = repair(scene, "deep")
    assert told(done) == [("legacy", "healed")]
    assert not done.last.audit.changes
    (aside,) = quarantined(scene)
    assert differences(seen, snapshot(aside), identity=True) == []
    assert_whole(scene)


def test_a_changed_legacy_directory_is_left_alone(scene: Scene, way: str) -> None:
    if way == "hardlink":
        pytest.skip("its bytes are those of the objects")
    name, path, _ = object_of_one(scene)
    turn_over(scene.path / name / path)
    os.utime(scene.path / name / path)
    seen = snapshot(scene.path / name)
    done = repair(scene, "deep")
    assert (told(done), done.is_damaged) == ([], False)
    assert [change.package_hash for change in done.last.audit.changes] == [name]
    assert differences(seen, snapshot(scene.path / name), identity=True) == []


def test_what_nobody_needs_is_moved_aside(scene: Scene) -> None:
    digest = "ab" * 32
    carrier(scene, digest).write_bytes(b"not that")
    carrier(scene, digest).chmod(0o644)
    assert verify(scene).is_damaged
    done = repair(scene)
    assert told(done) == [("object", "moved_aside")]
    assert not done.is_damaged
    assert [path.name for path in quarantined(scene)] == [f"{digest}.0"]
    assert_whole(scene)


def test_a_part_of_the_objects(scene: Scene) -> None:
    """What is concerned is looked at as a whole afterwards, or nothing would be taken back."""
    name, _, digest = object_of_one(scene)
    lose(carrier(scene, digest))
    assert verify(scene, "full").is_damaged
    assert read_ledger(scene.path, "SELECT package_hash FROM integrity") == [(name,)]
    part = int(digest[:2], 16) % 10 + 1
    assert not repair(scene, subset=f"{part}/10").is_damaged
    assert_whole(scene)


def test_some_packages(scene: Scene) -> None:
    """Only what was named is looked at; what is healed is healed for all."""
    name, _, digest = object_of_one(scene)
    lose(carrier(scene, digest))
    other = scene.named("grouped").hash
    assert told(repair(scene, "full", other)) == []
    assert told(repair(scene, "full", name[:12])) == [("object", "healed")]
    assert_whole(scene)


def test_a_whole_shard_is_lost(scene: Scene, way: str) -> None:
    _, _, digest = object_of_one(scene)
    shard = carrier(scene, digest).parent
    remove(shard)
    if way == "hardlink":
        shard.write_bytes(b"a file where a directory was")
    assert not repair(scene).is_damaged
    assert_whole(scene)


def test_a_backup_is_not_trusted(scene: Scene, backup: str) -> None:
    """What it gives is proved, as everything else is."""
    name, path, digest = object_of_one(scene)
    turn_over(Path(backup) / "objects" / digest[:2] / digest)
    lose(carrier(scene, digest))
    remove(scene.path / name / path)
    other = f"{backup}.good"
    subprocess.run(["cp", "-a", "--", backup, other], check=True)
    turn_over(Path(other) / "objects" / digest[:2] / digest)
    assert told(repair(scene, places=(backup,))) == [("object", "lost")]
    done = repair(scene, places=(backup, other))
    assert [one.source for one in done.report.repairs] == [f"the backup {other}"]


def test_a_store_is_no_backup_of_itself(scene: Scene) -> None:
    regrain = Regrain(scene.path)
    assert "from itself" in regrain("verify", "--repair", "--from", scene.path, code=5).stderr
    assert "no backup" in regrain("verify", "--repair", "--from", "/nowhere", code=2).stderr
    assert "--repair" in regrain("verify", "--from", "/nowhere", code=2).stderr
    assert "--repair" in regrain("verify", "-n", code=2).stderr


def test_a_dry_run_says_what_would_be_done(scene: Scene, way: str) -> None:
    _, _, digest = object_of_one(scene)
    lose(carrier(scene, digest))
    open_up(shared_carriers(scene)[0])
    before = snapshot(scene.path / "objects")
    done = repair(scene, dry_run=True)
    assert told(done) == [("object", "healed"), ("object", "healed")]
    assert differences(before, snapshot(scene.path / "objects"), identity=True) == []
    assert quarantined(scene) == []
    assert [(p.name, p.why) for p in repair(scene).report.repairs] == [
        (p.name, p.why) for p in done.report.repairs
    ]
    assert way


def test_the_command(scene: Scene, way: str, backup: str) -> None:
    """What it prints, for people and for programs, and its exit codes."""
    name, path, digest = object_of_one(scene)
    regrain = Regrain(scene.path, {"REGRAIN_STORE__MIGRATION_PARALLEL_FILES": "1"})
    become_directory(carrier(scene, digest))
    remove(scene.path / name / path)
    assert "Next: regrain verify --repair" in regrain("verify", code=4).text
    planned = regrain("verify", "--repair", "-n", "--from", backup, code=4)
    assert f"would heal: object {digest}" in planned.text
    assert "Next: regrain verify --repair" in planned.text
    result = regrain("verify", "--repair", "--from", backup, "--json")
    (one,) = result.of_type("package")
    assert one == {
        "schema": 1,
        "message_type": "package",
        "package_hash": name,
        "status": "healed",
        "damaged": "object",
        "object": digest,
        "reason": "it is not a regular file",
        "source": f"the backup {backup}",
        "quarantined": f"{digest}.0",
        "paths": [path],
        "legacy_paths_damaged": [],
        "dry_run": False,
    }
    (summary,) = result.of_type("summary")
    assert (summary["healed"], summary["lost"], summary["exit_code"]) == (1, 0, 0)
    assert summary["concerned"] == [name]
    assert "object_healed" in regrain("why", name).text
    lose(carrier(scene, digest))
    result = regrain("verify", "--repair", code=4)
    assert f"lost: object {digest}: missing" in result.text
    assert f"needed by package {name} '{path}'" in result.text
    assert "Next: regrain verify --repair --from DEST" in result.text
    assert regrain("status", "--json").document["health"]["status"] == "critical"
    assert way


def test_a_reader_never_finds_it_missing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The good one takes the name in the same step in which the damaged one loses it."""
    there = carrier(scene, digest_of(scene, "grouped", f"{INSIDE}/share/first"))
    for name in scene.packages:
        remove(scene.path / name)
    package = PackageStore.open(scene.path).get_package(scene.named("grouped").hash)
    os.link(there, scene.path.with_name("link"))
    open_up(there)
    seen: Counter[bytes] = Counter()

    def reading(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            result = original(*arguments, **named)
            seen[package.read(f"{INSIDE}/share/first")] += 1
            return result

        return call

    with monkeypatch.context() as patch:
        for function in (*WRITES, *SYNCS):
            patch.setattr(disk, function, reading(getattr(disk, function)))
        assert told(repair(scene)) == [("object", "healed")]
    assert seen.keys() == {b"one inode, two names\n"}
    assert seen.total() > 10
    assert len(quarantined(scene)) == 1


def test_beside_a_run_it_ends_with_11(scene: Scene) -> None:
    from regrain.store.locks import run_lock
    from tests.faults.undoing import root_of

    regrain = Regrain(scene.path)
    with run_lock(root_of(scene.path), "a test"):
        assert "a test" in regrain("verify", "--repair", code=11).stderr


@pytest.mark.parametrize("is_damaged", [False, True])
def test_a_run_that_began_during_the_look(scene: Scene, is_damaged: bool) -> None:
    """It is in the way only of what is to be healed, not of saying that there is nothing."""
    if is_damaged:
        lose(carrier(scene, object_of_one(scene)[2]))
    root = PackageStore.open(scene.path).root
    with ExitStack() as another:

        def begin(_: object) -> None:
            if not took_place:
                another.enter_context(run_lock(root, "regrain migrate"))
                took_place.append(True)

        took_place: list[bool] = []
        if is_damaged:
            with pytest.raises(LockedError, match="regrain migrate"):
                repairing.repair(root, Settings(), repairing.Order(), on_result=begin)
        else:
            done = repairing.repair(root, Settings(), repairing.Order(), on_result=begin)
            assert not done.is_damaged
            assert done.report.repairs == []
        assert took_place
