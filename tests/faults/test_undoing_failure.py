"""The n-th write of cleanup, rollback and purge fails; the tree changes while it is looked at."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from regrain import disk
from regrain.app import undoing as facade
from regrain.errors import RegrainError
from regrain.maintain import withdraw
from tests.compare import differences, snapshot
from tests.faults import undoing
from tests.faults.faulty import SYNCS, WRITES, Call, Faults, injected
from tests.faults.small import Scene
from tests.stores import read_ledger

FAILURES_MIN = {
    "cleanup": 20,
    "rollback": 30,
    "purge": 30,
    "forward": 3,
    "roll_one_back": 4,
    "in_place": 15,
}


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
def test_a_failing_write_loses_nothing(stage: tuple[str, Scene], error: int) -> None:
    step, before = stage
    survey = undoing.fresh(before)
    with injected(Faults(survey.path)) as faults:
        undoing.run(step, survey)
    calls = [c for c in faults.calls if c.function in (*WRITES, *SYNCS)]
    wrong, fired = [], 0
    for call in calls[:: 1 if len(calls) < 80 else 8 if step == "in_place" else 2]:
        scene = undoing.fresh(before)
        injection = Faults(scene.path, call.function, call.number, error)
        with injected(injection):
            wrong += raw_errors(step, scene, call)
        fired += injection.fired is not None
        wrong += [f"{call}: then {line}" for line in undoing.reading_problems(scene)]
        undoing.run(step, scene)
        wrong += [f"{call}: at last {line}" for line in undoing.state_problems(step, scene)]
    assert fired >= FAILURES_MIN[step]
    assert wrong == []


def raw_errors(step: str, scene: Scene, call: Call) -> list[str]:
    """Run a step in which something fails; tell of errors that are not the program's own."""
    try:
        undoing.run(step, scene)
    except RegrainError:
        return []
    except Exception as raised:  # noqa: BLE001 -- finding such is what this is for
        return [f"{call}: raw {raised!r}"]
    return []


def _write(file: Path) -> None:
    status = file.stat()
    with file.open("r+b") as stream:
        stream.write(b"X")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def _add(file: Path) -> None:
    (file.parent / "new").write_bytes(b"")


def _replace(file: Path) -> None:
    content, status = file.read_bytes(), file.stat()
    file.unlink()
    file.write_bytes(content[::-1])
    file.chmod(status.st_mode & 0o7777)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("change", [_write, _add, _replace], ids=["bytes", "name", "inode"])
def test_a_tree_that_changes_after_it_was_compared_is_put_back(
    migrated: Scene, change: Callable[[Path], None]
) -> None:
    scene = undoing.fresh(migrated)
    undoing.cutover(scene.path)
    name = scene.named("copied").hash
    seen: list[Any] = []
    module: Any = withdraw
    original = module.to_trash

    def changing(root: Any, package_hash: str, where: Any) -> bool:
        if package_hash == name and not seen:
            change(scene.path / name / "opt/pm/live/share/wide")
            seen.append(snapshot(scene.path / name))
        return bool(original(root, package_hash, where))

    module.to_trash = changing
    try:
        done = facade.cleanup(undoing.root_of(scene.path))
    finally:
        module.to_trash = original
    assert [kept.package_hash for kept in done.kept] == [name]
    assert done.packages == len(scene.packages) - 1
    assert differences(seen[0], snapshot(scene.path / name), identity=True) == []
    assert read_ledger(scene.path, "SELECT * FROM intents") == []
    (what,) = read_ledger(scene.path, "SELECT what FROM integrity WHERE package_hash = ?", name)
    assert what[0].startswith("legacy directory: ")
    assert not list((scene.path / "trash").iterdir())


def test_a_link_made_meanwhile_is_no_change(migrated: Scene) -> None:
    scene = undoing.fresh(migrated)
    undoing.cutover(scene.path)
    module: Any = withdraw
    original = module.to_trash

    def linking(root: Any, package_hash: str, where: Any) -> bool:
        folder = scene.path.with_name("elsewhere")
        folder.mkdir(exist_ok=True)
        file = scene.path / package_hash / "manifest.toml"
        os.link(file, folder / package_hash)  # moves the change time, as a shared checkout does
        return bool(original(root, package_hash, where))

    module.to_trash = linking
    try:
        undoing.cleanup(scene.path)
    finally:
        module.to_trash = original
    assert undoing.state_problems("cleanup", scene) == []


def test_nobody_waits_while_a_directory_is_unlinked(migrated: Scene) -> None:
    scene = undoing.fresh(migrated)
    undoing.cutover(scene.path)
    unlinked: list[str] = []
    module: Any = disk
    original = module.remove_tree

    def watching(name: str, at: int) -> None:
        with (scene.path / "migration/publish.lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        unlinked.append(name)
        original(name, at)

    module.remove_tree = watching
    try:
        undoing.cleanup(scene.path)
    finally:
        module.remove_tree = original
    assert sorted(unlinked) == sorted(f"{name}.removed.0" for name in scene.packages)
