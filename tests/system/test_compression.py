"""``compression = "zstd"``: what comes in compressed, and that nobody who reads can tell."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
import zstandard

from regrain.app import keeping
from regrain.app.store import PackageStore
from regrain.errors import CorruptionError
from regrain.model.phase import Phase
from regrain.settings import Settings
from regrain.settings import Store as StoreSettings
from regrain.store import frames
from regrain.store.packages import FileLevelPackage
from regrain.store.root import StoreRoot, write_store_file
from tests.command import Regrain
from tests.compare import Entry, differences, snapshot
from tests.conftest import remove
from tests.faults.inline import Way, migrate
from tests.faults.judge import ledger_problems, reading_problems
from tests.faults.small import Scene
from tests.packed import SHRINKING, STAYING, compressed_of, make_packed, plain_of
from tests.reader import check_store
from tests.stores import legacy_changes, new_layout_differences, read_ledger
from tests.trees import LIVE, Tree, describe

COMPRESSED = Settings(StoreSettings(compression="zstd"))


def file_level(store: Path) -> None:
    """Let no reader fall back to legacy."""
    root = StoreRoot(os.fspath(store))
    write_store_file(root.fd, root.store_id, Phase.FILE_LEVEL)


def entry(scene: Scene, name: str, path: bytes) -> Entry:
    return scene.before[scene.named(name).hash][LIVE + path]


def carrier(scene: Scene, name: str, path: bytes) -> Path:
    """The compressed carrier of a file."""
    digest = entry(scene, name, path).digest
    return scene.path / "objects" / digest[:2] / f"{digest}.zst"


def problems(scene: Scene) -> list[str]:
    found = check_store(scene.path, legacy=scene.packages)
    return [
        *found.problems,
        *new_layout_differences(found, scene.before, scene.packages),
        *legacy_changes(scene.before, scene.packages),
        *ledger_problems(scene.path),
        *reading_problems(scene),
    ]


def migrated(place: Path, seed: int, **way: str) -> Scene:
    scene = make_packed(place, seed)
    assert migrate(scene.path, Way(compression="zstd", **way)).failed == 0  # type: ignore[arg-type]
    file_level(scene.path)
    return scene


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory, seed: int) -> Iterator[Scene]:
    """A store that came in compressed, for tests that only look."""
    place = tmp_path_factory.mktemp("packed") / "store"
    yield migrated(place, seed)
    remove(place)


@pytest.fixture
def scene(packed: Scene, store_path: Path) -> Scene:
    """A copy of it, for those that change it."""
    subprocess.run(["cp", "-a", "--", packed.path, store_path], check=True)
    kinds = {
        name: type(p)(p.hash, store_path / name, p.name, p.version, p.what)
        for name, p in packed.packages.items()
    }
    return Scene(store_path, kinds, packed.before)


# what comes in


@pytest.mark.parametrize("sync", ["syncfs", "fsync"])
@pytest.mark.parametrize("ingest", ["auto", "copy"])
def test_what_pays_is_compressed(store_path: Path, seed: int, ingest: str, sync: str) -> None:
    scene = migrated(store_path, seed, ingest=ingest, sync=sync)
    assert problems(scene) == []
    compressed, plain = compressed_of(store_path), plain_of(store_path)
    assert not compressed & plain
    for path in SHRINKING:
        assert entry(scene, "packed", path).digest in compressed, path
    for path in STAYING:
        assert entry(scene, "packed", path).digest not in compressed, path
    saved = "SELECT SUM(space_saved), SUM(allocated_bytes) FROM store_migration"
    ((space_saved, legacy),) = read_ledger(store_path, saved)
    taken = sum(
        path.lstat().st_blocks * 512
        for folder in ("objects", "packages")
        for path in (store_path / folder).glob("*/*")
    )
    taken += sum(path.lstat().st_blocks * 512 for path in (store_path / "packages").iterdir())
    assert space_saved == legacy - taken


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
@pytest.mark.root
def test_on_other_file_systems(
    kind: str, request: pytest.FixtureRequest, seed: int, workplace: Path
) -> None:
    place = request.getfixturevalue(kind)
    scene = migrated(place / "store", seed)
    assert problems(scene) == []
    assert {entry(scene, "packed", path).digest for path in SHRINKING} <= compressed_of(scene.path)
    for name, tree in scene.before.items():
        PackageStore.open(scene.path).get_package(name).checkout(workplace / name)
        assert differences(tree, snapshot(workplace / name), holes=True) == []


def test_modes_owners_and_times_of_compressed_carriers(packed: Scene) -> None:
    for name, path, mode in (
        ("packed", b"/share/private", 0o600),
        ("packed", b"/bin/program", 0o755),
        ("sharing", b"/share/wide", 0o644),
    ):
        status = carrier(packed, name, path).lstat()
        assert stat.S_IMODE(status.st_mode) == mode
        assert status.st_nlink == 1
        assert status.st_mtime_ns == entry(packed, name, path).mtime_ns
        assert (status.st_uid, status.st_gid) == (os.getuid(), os.getgid())


def test_one_carrier_serves_several_modes_if_all_may_read_it(packed: Scene) -> None:
    both = entry(packed, "sharing", b"/share/both").digest
    assert both in compressed_of(packed.path) - plain_of(packed.path)


def test_a_file_for_all_gets_a_carrier_that_all_may_read(scene: Scene, workplace: Path) -> None:
    """The compressed one was made of a file that only its owner may read."""
    with Tree(workplace / "new", Random(1)) as tree:
        describe(tree, "new", "1.0", sbom=())
        content = (scene.named("packed").path / "opt/pm/live/share/private").read_bytes()
        tree.file(LIVE + b"/share/public", content, 0o644)
    before = snapshot(workplace / "new")
    root = PackageStore.open(scene.path).root
    for number in range(2):
        added = keeping.add_package(root, COMPRESSED, str(workplace / "new"))
        assert added.already_present == bool(number)
    digest = entry(scene, "packed", b"/share/private").digest
    assert digest in compressed_of(scene.path) & plain_of(scene.path)
    public = scene.path / "objects" / digest[:2] / digest
    assert stat.S_IMODE(public.lstat().st_mode) == 0o644
    PackageStore.open(scene.path).get_package(added.package_hash).checkout(workplace / "out")
    assert differences(before, snapshot(workplace / "out")) == []
    assert ledger_problems(scene.path) == []


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_what_is_there_in_any_form_is_not_made_again(
    scene: Scene, workplace: Path, compression: str
) -> None:
    objects = set((scene.path / "objects").glob("*/*"))
    with Tree(workplace / "new", Random(1)) as tree:
        describe(tree, "new", "1.0", sbom=())
        for path in (b"/share/text", b"/share/large", b"/bin/program"):
            old = scene.named("packed").path / os.fsdecode(LIVE + path)
            tree.file(LIVE + path, old.read_bytes(), 0o755)
    settings = Settings(StoreSettings(compression=compression))  # type: ignore[arg-type]
    root = PackageStore.open(scene.path).root
    added = keeping.add_package(root, settings, str(workplace / "new"))
    assert added.new_objects == 1  # its manifest
    assert len({*(scene.path / "objects").glob("*/*")} - objects) == 1
    PackageStore.open(scene.path).get_package(added.package_hash).checkout(workplace / "out")
    assert differences(snapshot(workplace / "new"), snapshot(workplace / "out")) == []


def test_add_compresses(scene: Scene, workplace: Path) -> None:
    with Tree(workplace / "new", Random(1)) as tree:
        describe(tree, "new", "1.0", sbom=())
        tree.file(LIVE + b"/share/new", b"new lines\n" * 5000)
    before = compressed_of(scene.path)
    root = PackageStore.open(scene.path).root
    keeping.add_package(root, COMPRESSED, str(workplace / "new"))
    assert len(compressed_of(scene.path) - before) == 1
    assert ledger_problems(scene.path) == []


def test_how_much_must_be_saved(store_path: Path, seed: int) -> None:
    make_packed(store_path, seed)
    settings = {
        "REGRAIN_STORE__COMPRESSION": "zstd",
        "REGRAIN_STORE__COMPRESSION_MIN_SAVING": "0.9",
        "REGRAIN_STORE__COMPRESSION_LEVEL": "9",
        "REGRAIN_MIGRATION__SETTLE": "0",
    }
    Regrain(store_path, settings)("migrate", "--jobs", "1")
    assert len(compressed_of(store_path)) == 1  # only the text shrinks so much


# who reads


@pytest.mark.parametrize("mode", ["exact", "shared"])
def test_checkouts(packed: Scene, workplace: Path, mode: str) -> None:
    for name, tree in packed.before.items():
        out = workplace / name
        PackageStore.open(packed.path).get_package(name).checkout(out, mode)
        found = [
            line
            for line in differences(tree, snapshot(out), holes=True)
            if mode == "exact" or "mtime" not in line
        ]
        assert found == []
    private = workplace / packed.named("packed").hash / "opt/pm/live/share/large"
    assert private.stat().st_nlink == 1


def test_larger_files_than_memory_is_used_for(
    packed: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "IN_MEMORY_BYTES_MAX", 10_000)
    assert reading_problems(packed) == []


def test_reading_in_the_middle(packed: Scene) -> None:
    package = PackageStore.open(packed.path).get_package(packed.named("packed").hash)
    path = LIVE + b"/share/large"
    whole = (packed.named("packed").path / os.fsdecode(path)).read_bytes()
    with package.open(path) as stream:
        stream.seek(1_234_567)
        assert stream.read(1000) == whole[1_234_567:1_235_567]
        stream.seek(0)
        assert stream.read() == whole


def test_the_command_reads_too(packed: Scene, workplace: Path) -> None:
    command = Regrain(packed.path)
    name = packed.named("packed").hash
    whole = (packed.named("packed").path / "opt/pm/live/share/large").read_bytes()
    assert command("cat", name, "opt/pm/live/share/large").stdout == whole
    said = command("verify", "--level", "deep", "--json").of_type("summary")[0]
    assert said["damages"] == []
    quick = command("verify", "--level", "quick", "--json").of_type("summary")[0]
    assert quick["damages"] == []
    found = command("doctor", "--json").document["findings"]
    assert [one for one in found if one["level"] in {"warning", "error"}] == []


@pytest.mark.root
def test_who_may_only_read(scene: Scene) -> None:
    """Neither the store nor a file in it is written to; what is private stays so."""
    from tests.verbs import NOBODY, another_user

    user = another_user()
    if user is None:
        pytest.skip("no other user can run regrain here")
    for place in (scene.path, *scene.path.parents[:-1]):
        os.chmod(place, place.stat().st_mode | 0o055)
    python = user.pop("python")
    code = (
        "import sys; from regrain import PackageStore\n"
        "package = PackageStore.open(sys.argv[1]).get_package(sys.argv[2])\n"
        "print(len(package.read('opt/pm/live/share/large')))\n"
        "try: package.read('opt/pm/live/share/private')\n"
        "except PermissionError: print('denied')\n"
    )
    done = subprocess.run(
        [python, "-c", code, scene.path, scene.named("packed").hash],
        env=user,
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["1500000", "denied"], done.stderr


# what is broken


def garble(path: Path, how: str) -> None:
    raw = path.read_bytes()
    status = path.stat()
    other = frames.Packer(frames.Compression(3, 0.0), 4096)
    size = frames.content_size(os.open(path, os.O_RDONLY))
    changed = {
        "cut": raw[: len(raw) // 2],
        "one byte short": raw[:-1],
        "behind": raw + b"\0",
        "middle": raw[: len(raw) // 2] + bytes([raw[len(raw) // 2] ^ 1]) + raw[len(raw) // 2 + 1 :],
        "empty": b"",
        "other": other.pack(b"other bytes\n" * (size // 12 + 1)) or b"",
        "same size": other.pack((b"other bytes\n" * (size // 12 + 1))[:size]) or b"",
    }[how]
    path.write_bytes(changed)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize(
    "how",
    [
        "one byte short",
        "same size",
        *(
            pytest.param(how, marks=pytest.mark.slow)  # tests of frames have them every day
            for how in ("cut", "behind", "middle", "empty", "other")
        ),
    ],
)
def test_a_broken_frame_is_found_and_never_read(scene: Scene, workplace: Path, how: str) -> None:
    name = scene.named("packed").hash
    for path in (b"/share/private", b"/share/large"):
        garble(carrier(scene, "packed", path), how)
        package = PackageStore.open(scene.path).get_package(name)
        with pytest.raises(CorruptionError):
            package.read(LIVE + path)
        for mode in ("exact", "shared"):
            with pytest.raises(CorruptionError):
                package.checkout(workplace / "out", mode)
            assert not (workplace / "out").exists()
    said = Regrain(scene.path)("verify", "--json", code=4).of_type("summary")[0]
    found = {(one["package_hash"], one["path"]) for one in said["damages"]}
    assert found == {(name, f"opt/pm/live/share/{path}") for path in ("private", "large")}


def test_no_byte_is_handed_out_before_the_digest_is_right(scene: Scene) -> None:
    """Who opens a file may read as little of it as they like."""
    garble(carrier(scene, "packed", b"/share/large"), "same size")
    root = PackageStore.open(scene.path).root
    package = FileLevelPackage(root.packages, root.objects, scene.named("packed").hash)
    found = package.lookup(LIVE + b"/share/large")
    assert found is not None
    with pytest.raises(CorruptionError, match="hashes to"):
        package.open_content(found)


def test_memory_that_fails_while_it_is_packed(
    store_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was packed is read back: here it is the frame of other bytes."""
    scene = make_packed(store_path, seed)
    original = frames.Packer.pack

    def wrong(self: frames.Packer, content: bytes) -> bytes | None:
        return original(self, b"X" + content[1:])

    monkeypatch.setattr(frames.Packer, "pack", wrong)
    assert migrate(store_path, Way(compression="zstd")).failed == len(scene.packages)
    monkeypatch.undo()
    assert not list((store_path / "packages").iterdir())
    done = migrate(store_path, Way(compression="zstd"), retry_failed=True)
    assert done.failed == 0
    assert problems(scene) == []


def test_a_whole_carrier_beside_a_broken_frame_serves(scene: Scene) -> None:
    broken = carrier(scene, "packed", b"/share/large")
    garble(broken, "cut")
    source = scene.named("packed").path / "opt/pm/live/share/large"
    broken.with_suffix("").write_bytes(source.read_bytes())
    assert reading_problems(scene, [scene.named("packed").hash]) == []


def test_in_dual_legacy_serves(packed: Scene, scene: Scene) -> None:
    root = StoreRoot(os.fspath(scene.path))
    write_store_file(root.fd, root.store_id, Phase.DUAL)
    garble(carrier(scene, "packed", b"/share/large"), "cut")
    package = PackageStore.open(scene.path).get_package(scene.named("packed").hash)
    assert len(package.read(LIVE + b"/share/large")) == 1_500_000


# the rest of a store's life


def test_a_rebuilt_ledger_knows_them(scene: Scene) -> None:
    query = "SELECT digest, mode, is_compressed, is_bare, mtime_seconds, allocated_bytes, size FROM"
    query += " carriers JOIN objects ON id = object_id ORDER BY digest, mode, is_compressed"
    before = read_ledger(scene.path, query)
    saved = "SELECT package_hash, space_saved FROM store_migration ORDER BY 1"
    figures = read_ledger(scene.path, saved)
    Regrain(scene.path)("doctor", "--rebuild-ledger")
    assert read_ledger(scene.path, query) == before
    assert sum(row[1] for row in read_ledger(scene.path, saved)) == sum(row[1] for row in figures)


@pytest.mark.parametrize("good", [True, False])
def test_what_a_killed_run_left(scene: Scene, good: bool) -> None:
    """A frame without a row: recorded if it is good, else moved aside."""
    plain = entry(scene, "packed", b"/share/random").digest
    frame = scene.path / "objects" / plain[:2] / f"{plain}.zst"
    raw = zstandard.ZstdCompressor(write_checksum=True).compress(frame.with_suffix("").read_bytes())
    frame.write_bytes(raw if good else raw[:-9])
    frame.chmod(0o644)
    (scene.path / "temp" / "dead").mkdir()
    (scene.path / "temp" / "dead" / "lock").touch()
    Regrain(scene.path)("migrate")
    assert frame.exists() == good
    assert len(list((scene.path / "quarantine").iterdir())) == (not good)
    assert [line for line in ledger_problems(scene.path) if "quarantine" not in line] == []
    assert reading_problems(scene) == []


def test_gc_takes_them(scene: Scene) -> None:
    root = PackageStore.open(scene.path).root
    text = entry(scene, "packed", b"/share/text").digest
    keeping.remove_package(root, scene.named("packed").hash)
    assert keeping.collect(root, grace=0).objects > 3
    assert text in compressed_of(scene.path)
    assert entry(scene, "packed", b"/share/large").digest not in compressed_of(scene.path)
    assert ledger_problems(scene.path) == []


def test_unpacking_does_not_close_the_gate(scene: Scene) -> None:
    """It takes longer than reading, which says nothing about the layout."""
    root = StoreRoot(os.fspath(scene.path))
    write_store_file(root.fd, root.store_id, Phase.DUAL)
    said = Regrain(scene.path)("cutover", "--no-backup", "--json").of_type("summary")[0]
    assert said["switched"]
    assert said["comparison"]["files"] == 15


def test_cleanup_and_back(scene: Scene) -> None:
    command = Regrain(scene.path, {"REGRAIN_MIGRATION__FREE_BYTES_MIN": "0"})
    command("cleanup", "--execute")
    assert not any((scene.path / name).exists() for name in scene.packages)
    assert reading_problems(scene) == []
    command("rollback")
    for name, tree in scene.before.items():
        assert differences(tree, snapshot(scene.path / name), holes=True) == []
    command("rollback", "--purge", "--execute")
    assert not list((scene.path / "objects").glob("*/*"))
