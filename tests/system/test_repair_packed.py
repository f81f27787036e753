"""``verify --repair`` where objects lie compressed, and where they share blocks with others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.command import Regrain
from tests.conftest import remove
from tests.faults.inline import Way, initialise, migrate
from tests.faults.small import Scene, copy_of, make_legacy, quick_place
from tests.mounts import can_reflink
from tests.packed import make_packed
from tests.repairs import (
    BYTES,
    GONE,
    INSIDE,
    Damage,
    assert_whole,
    become_directory,
    become_fifo,
    become_link,
    carrier,
    digest_of,
    lose,
    object_of_one,
    open_up,
    quarantined,
    repair,
    told,
    turn_over,
)

pytestmark = pytest.mark.root
FRAME = ".zst"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, seed: int) -> Iterator[Scene]:
    with quick_place(tmp_path_factory.mktemp("repair")) as folder:
        scene = make_packed(folder / "model", seed)
        migrate(scene.path, Way(batch=10, ingest="copy", compression="zstd"))
        yield scene


@pytest.fixture
def scene(model: Scene) -> Iterator[Scene]:
    made = copy_of(model, model.path.with_name("store"))
    yield replace(made, before=model.before)
    remove(made.path)


def both(scene: Scene) -> str:
    """An object that one package has in two modes."""
    return digest_of(scene, "sharing", f"{INSIDE}/share/both")


@pytest.mark.parametrize("damage", [*BYTES, *GONE])
def test_a_broken_frame_gives_way_to_plain_carriers(scene: Scene, damage: Damage) -> None:
    digest = both(scene)
    damage(carrier(scene, digest, FRAME))
    done = repair(scene, "deep")
    assert not done.is_damaged
    assert {outcome for _, outcome in told(done)} == {"healed"}
    assert not carrier(scene, digest, FRAME).exists()
    modes = {
        path.stat().st_mode & 0o777 for path in carrier(scene, digest).parent.glob(f"{digest}*")
    }
    assert modes == {0o644, 0o755}
    assert bool(quarantined(scene)) is (damage is not lose)
    assert_whole(scene)


@pytest.mark.parametrize("damage", [become_link, become_directory, become_fifo])
def test_what_is_no_file_does_not_end_the_look(scene: Scene, damage: Damage) -> None:
    digest = both(scene)
    damage(carrier(scene, digest, FRAME))
    regrain = Regrain(scene.path)
    (found,) = regrain("verify", "--json", code=4).of_type("summary")
    assert {(one["object"], one["reason"]) for one in found["damages"]} == {
        (digest, "it is not a regular file")
    }
    regrain("verify", "--repair")
    regrain("verify")


def test_the_mode_of_a_frame(scene: Scene) -> None:
    frame = carrier(scene, both(scene), FRAME)
    before = frame.stat()
    open_up(frame)
    assert told(repair(scene)) == [("object", "healed")]
    assert (frame.stat().st_ino, frame.stat().st_mode & 0o022) == (before.st_ino, 0)
    assert not repair(scene, "deep").is_damaged


def test_a_frame_that_cannot_be_had_again(scene: Scene) -> None:
    digest = both(scene)
    turn_over(carrier(scene, digest, FRAME))
    for name in scene.packages:
        remove(scene.path / name)
    done = repair(scene)
    assert done.is_damaged
    assert ("object", "lost") in told(done)
    assert f"{digest}.zst.0" in {path.name for path in quarantined(scene)}


def test_a_plain_carrier_from_a_frame_of_a_backup(scene: Scene) -> None:
    backup = scene.path.with_name("backup")
    copy_of(scene, backup)
    digest = both(scene)
    lose(carrier(scene, digest, FRAME))
    for name in scene.packages:
        remove(scene.path / name)
    done = repair(scene, places=(os.fspath(backup),))
    assert {(one.outcome.value, one.source) for one in done.report.repairs} == {
        ("healed", f"the backup {backup}")
    }
    remove(backup)
    assert_whole(scene)


@pytest.mark.parametrize("way", ["reflink", "auto"])
def test_on_a_file_system_with_reflinks(xfs: Path, seed: int, way: str) -> None:
    """What is healed from a legacy file is a copy: it shares no block with it."""
    if not can_reflink(xfs):
        pytest.skip("no reflinks here")
    scene = make_legacy(xfs / "store", seed)
    initialise(scene.path)
    migrate(scene.path, Way(batch=10, ingest=way))
    name, path, digest = object_of_one(scene)
    turn_over(carrier(scene, digest))
    done = repair(scene, "deep")
    assert [(one.outcome.value, one.source) for one in done.report.repairs] == [
        ("healed", f"{name}/{path}")
    ]
    assert carrier(scene, digest).stat().st_ino != (scene.path / name / path).stat().st_ino
    turn_over(scene.path / name / path)
    assert told(repair(scene, "deep")) == [("legacy", "healed")]
    assert_whole(scene)
