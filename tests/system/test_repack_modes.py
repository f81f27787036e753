"""One frame serves files of several modes; made plain, the object gets a carrier of each."""

from __future__ import annotations

import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from regrain.app import repacking
from regrain.app.store import PackageStore
from regrain.maintain.repack import Choice, Repack
from tests.faults.crash_driver import Crasher, Ended, Moment, crasher
from tests.faults.inline import Way, migrate
from tests.faults.judge import ledger_problems, reading_problems
from tests.faults.small import Scene
from tests.packed import compressed_of, make_packed
from tests.reader import check_store
from tests.stores import read_ledger
from tests.system.test_compression import entry, file_level

SAVED = "SELECT SUM(space_saved) FROM store_migration"


@pytest.fixture
def scene(store_path: Path, seed: int) -> Scene:
    made = make_packed(store_path, seed)
    assert migrate(store_path, Way(compression="zstd")).failed == 0
    file_level(store_path)
    return made


@pytest.fixture(scope="module")
def crash() -> Iterator[Crasher]:
    with crasher() as process:
        yield process


def expand(scene: Scene, *, execute: bool = True) -> Repack:
    settings = Way().settings()
    limits = msgspec.structs.replace(settings.migration, free_bytes_min=0)
    settings = msgspec.structs.replace(settings, migration=limits)
    root = PackageStore.open(scene.path).root
    if not execute:
        return repacking.plan_repack(root, settings, Choice.NONE)
    return repacking.repack(root, settings, Choice.NONE)


def problems(scene: Scene) -> list[str]:
    store = check_store(scene.path, legacy=scene.packages).problems
    return [*store, *ledger_problems(scene.path), *reading_problems(scene)]


def modes(scene: Scene) -> set[int]:
    digest = entry(scene, "sharing", b"/bin/both").digest
    found = (scene.path / "objects" / digest[:2]).glob(f"{digest}*")
    return {stat.S_IMODE(path.stat().st_mode) for path in found}


def allocated(scene: Scene) -> int:
    return sum(path.stat().st_blocks * 512 for path in (scene.path / "objects").glob("*/*"))


def test_a_carrier_of_each_mode(scene: Scene) -> None:
    assert entry(scene, "sharing", b"/bin/both").digest in compressed_of(scene.path)
    assert len(modes(scene)) == 1
    before, saved = allocated(scene), read_ledger(scene.path, SAVED)[0][0]
    objects = len(compressed_of(scene.path))
    planned = expand(scene, execute=False)
    done = expand(scene)
    assert compressed_of(scene.path) == set()
    assert modes(scene) == {0o644, 0o755}
    assert problems(scene) == []
    assert done.objects == planned.objects == objects
    assert done.after == planned.after
    assert done.freed == planned.freed == before - allocated(scene)
    assert read_ledger(scene.path, SAVED)[0][0] == saved + done.freed
    assert expand(scene).objects == 0


@pytest.mark.parametrize(
    "number",
    [2, 5, *(pytest.param(number, marks=pytest.mark.slow) for number in (1, 3, 4, 6, 7, 8))],
)
def test_killed_in_between(scene: Scene, crash: Crasher, number: int) -> None:
    moment = Moment("regrain.disk:rename_noreplace", number=number, place="objects")
    ended = crash("tests.faults.repacking:expand", scene.path, Way(), moment)
    assert ended == Ended(signal.SIGKILL, 0)
    assert reading_problems(scene) == []
    expand(scene)
    assert compressed_of(scene.path) == set()
    assert modes(scene) == {0o644, 0o755}
    assert problems(scene) == []
