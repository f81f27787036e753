"""``verify --repair``: every kind of damage to an object, healed from every place there is."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.command import Regrain, Result
from tests.compare import Snapshot, differences, snapshot
from tests.conftest import remove
from tests.faults.small import SHARED, Scene, copy_of, make_legacy, quick_place
from tests.reader import check_store
from tests.stores import read_ledger, record
from tests.trees import LIVE

INSIDE = os.fsdecode(LIVE)
QUICK = {"REGRAIN_MIGRATION__SETTLE": "0", "REGRAIN_STORE__MIGRATION_PARALLEL_FILES": "1"}
OTHER_USER = 12_345


@pytest.fixture(scope="module", params=["copy", "hardlink"])
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, seed: int
) -> Iterator[tuple[str, Scene]]:
    """A small migrated store, of copies or of hard links, to be copied."""
    with quick_place(tmp_path_factory.mktemp("repair")) as folder:
        place = folder / "model"
        scene = make_legacy(place, seed)
        way = "auto" if request.param == "hardlink" else "copy"
        for command in ("init", "migrate"):
            Regrain(place, QUICK | {"REGRAIN_STORE__INGEST": way})(command)
        yield request.param, scene


@pytest.fixture
def way(model: tuple[str, Scene]) -> str:
    return model[0]


@pytest.fixture
def scene(model: tuple[str, Scene]) -> Iterator[Scene]:
    made = copy_of(model[1], model[1].path.with_name("store"))
    yield Scene(made.path, made.packages, model[1].before)
    for path in made.path.parent.iterdir():
        if path != model[1].path:
            remove(path)


@pytest.fixture
def regrain(scene: Scene) -> Regrain:
    return Regrain(scene.path, QUICK | {"REGRAIN_STORE__INGEST": "copy"})


@pytest.fixture
def backup(model: tuple[str, Scene], scene: Scene) -> Path:
    """What a backup is: the same names, nothing shared."""
    place = scene.path.with_name("backup")
    subprocess.run(["cp", "-a", "--reflink=never", "--", model[1].path, place], check=True)
    return place


# what is damaged


def turn_over(file: Path) -> None:
    """Other bytes, nothing else moves."""
    status = file.stat()
    file.chmod(0o600)
    content = file.read_bytes()
    with file.open("r+b") as stream:
        stream.write(bytes(255 - byte for byte in content))
    file.chmod(status.st_mode & 0o7777)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


def open_up(file: Path) -> None:
    file.chmod(0o666)


def give_away(file: Path) -> None:
    os.chown(file, OTHER_USER, OTHER_USER)


def lose(file: Path) -> None:
    file.unlink()


def become_link(file: Path) -> None:
    file.unlink()
    file.symlink_to("/etc/passwd")


def become_directory(file: Path) -> None:
    file.unlink()
    file.mkdir()
    (file / "inside").write_bytes(b"something")


def become_fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


BYTES = [turn_over, cut]
METADATA = [open_up, give_away]
GONE = [lose, become_link, become_directory, become_fifo]


def digest_of(scene: Scene, package: str, path: str) -> str:
    """The object of a file."""
    return scene.before[scene.named(package).hash][os.fsencode(path)].digest


def carrier(scene: Scene, digest: str, ending: str = "") -> Path:
    return scene.path / "objects" / digest[:2] / f"{digest}{ending}"


def object_of_one(scene: Scene) -> tuple[str, str, str]:
    """Package, path and object of a file that only one package has."""
    path = f"{INSIDE}/bin/linkable"
    return scene.named("linkable").hash, path, digest_of(scene, "linkable", path)


def repairs(result: Result) -> list[dict[str, Any]]:
    return result.of_type("package")


def assert_whole(regrain: Regrain, scene: Scene, *, legacy: bool = True) -> None:
    """Sound in the eyes of a stranger, and of the program; every package is what it was."""
    store = check_store(scene.path, legacy=scene.packages if legacy else ())
    problems = [p for p in store.problems if not p.startswith("quarantine/")]
    assert problems == []
    result = regrain("verify", "--level", "deep", "--json")
    (summary,) = result.of_type("summary")
    assert (summary["missing"], summary["orphans"]) == ([], [])
    assert read_ledger(scene.path, "SELECT * FROM integrity") == []
    assert legacy_differences(scene) == []
    for name, tree in scene.before.items():
        place = scene.path.with_name("out")
        regrain("checkout", name, place)
        assert differences(tree, snapshot(place), holes=True) == []
        remove(place)
    assert not list((scene.path / "temp").iterdir())
    (again,) = regrain("verify", "--level", "deep", "--repair", "--json").documents
    assert (again["healed"], again["lost"], again["moved_aside"]) == (0, 0, 0)


def legacy_differences(scene: Scene) -> list[str]:
    now = record(scene.packages)
    return [
        f"{name}: {line}"
        for name, tree in scene.before.items()
        for line in differences(tree, now[name], holes=True)
    ]


def quarantined(scene: Scene) -> list[Path]:
    return sorted((scene.path / "quarantine").iterdir())


# objects


@pytest.mark.root
@pytest.mark.parametrize("damage", [*BYTES, *METADATA, *GONE])
def test_from_another_carrier(
    regrain: Regrain, scene: Scene, damage: Callable[[Path], None]
) -> None:
    """Both modes of an object are carriers; legacy directories are not asked."""
    digest = digest_of(scene, "grouped", f"{INSIDE}/share/shared")
    paths = sorted((scene.path / "objects" / digest[:2]).glob(f"{digest}*"))
    assert len(paths) == 2
    assert paths[0].read_bytes() == SHARED
    for name in scene.packages:
        subprocess.run(["mv", scene.path / name, scene.path.with_name("gone")], check=True)
        subprocess.run(["rm", "-rf", scene.path.with_name("gone")], check=True)
    for path in paths:
        wanted = path.stat()
        damage(path)
        result = regrain("verify", "--repair", "--json")
        (summary,) = result.of_type("summary")
        assert summary["lost"] == 0, result
        now = path.lstat()
        assert (now.st_mode, now.st_uid, now.st_mtime_ns) == (
            wanted.st_mode,
            wanted.st_uid,
            wanted.st_mtime_ns,
        )
        assert path.read_bytes() == SHARED
        if damage not in METADATA and damage is not lose:
            assert quarantined(scene), result


@pytest.mark.root
@pytest.mark.parametrize("damage", [*BYTES, *GONE])
def test_from_an_independent_legacy_inode(
    regrain: Regrain, scene: Scene, way: str, damage: Callable[[Path], None]
) -> None:
    """Where the legacy file shares the damaged inode, it is no source, and damaged, too."""
    name, path, digest = object_of_one(scene)
    there = carrier(scene, digest)
    is_shared = way == "hardlink" and damage in BYTES
    damage(there)
    code = 4 if is_shared else 0
    result = regrain("verify", "--repair", "--json", code=code)
    one = repairs(result)[0]
    assert (one["package_hash"], one["paths"], one["object"]) == (name, [path], digest)
    if is_shared:
        assert (one["status"], one["legacy_paths_damaged"]) == ("lost", [path])
        assert read_ledger(scene.path, "SELECT package_hash FROM integrity") == [(name,)]
    else:
        assert (one["status"], one["source"]) == ("healed", f"{name}/{path}")
        assert_whole(regrain, scene)
        assert there.stat().st_ino != (scene.path / name / path).stat().st_ino


@pytest.mark.root
@pytest.mark.parametrize("damage", BYTES)
def test_from_a_backup(
    regrain: Regrain, scene: Scene, way: str, backup: Path, damage: Callable[[Path], None]
) -> None:
    """Where bytes rotted in the inode of both, the legacy directory is made anew as well."""
    name, path, digest = object_of_one(scene)
    damage(carrier(scene, digest))
    if way == "copy":
        damage(scene.path / name / path)
    lost = regrain("verify", "--repair", "--json", code=4)
    assert {one["status"] for one in repairs(lost)} == {"lost"}
    (aside,) = quarantined(scene)
    seen = snapshot(scene.path / name)
    options = ("verify", "--level", "deep", "--repair", "--from", backup)
    healed = regrain(*options, "--json", code=0 if damage is turn_over else None)
    assert repairs(healed)[0]["source"] == f"the backup {backup}"
    assert aside in quarantined(scene)
    if damage is turn_over:
        assert [one["damaged"] for one in repairs(healed)] == ["object", "legacy"]
        rotted = scene.path / "quarantine" / f"{name}.0"
        assert differences(seen, snapshot(rotted), identity=True) == []
        assert_whole(regrain, scene)
    else:  # a size that changed is no rot: somebody wrote there
        regrain("verify", "--level", "deep", code=3)


@pytest.mark.root
def test_a_legacy_file_of_the_same_inode_is_healed_at_any_level(
    regrain: Regrain, scene: Scene, way: str, backup: Path
) -> None:
    name, path, digest = object_of_one(scene)
    turn_over(carrier(scene, digest))
    result = regrain("verify", "--repair", "--from", backup)
    assert ("is the same inode" in result.text) is (way == "hardlink")
    assert (f"healed: legacy directory {name}" in result.text) is (way == "hardlink")
    assert_whole(regrain, scene)
