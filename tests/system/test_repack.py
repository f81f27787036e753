"""``repack``: objects change how they lie on disk, and nothing else changes."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from regrain import disk
from regrain.app import keeping, repacking
from regrain.app.store import PackageStore
from regrain.errors import HaltedError, LockedError
from regrain.maintain import represent
from regrain.maintain.need import Ways, need
from regrain.maintain.repack import Choice, Kept, Repack
from regrain.settings import Settings
from regrain.store import frames
from regrain.store.locks import run_lock
from tests.command import Regrain
from tests.compare import Snapshot, differences, snapshot
from tests.faults.inline import Way, migrate
from tests.faults.judge import ledger_problems, package_differences, reading_problems
from tests.faults.small import Scene
from tests.packed import SHRINKING, STAYING, compressed_of, lines, make_packed, plain_of
from tests.reader import check_store
from tests.stores import legacy_changes, read_ledger
from tests.system.test_compression import carrier, entry, file_level, garble
from tests.trees import LIVE

pytestmark = pytest.mark.both_databases

ROWS = (
    "SELECT digest, mode, is_compressed, is_bare, mtime_seconds, mtime_nanoseconds,"
    " carriers.allocated_bytes FROM carriers JOIN objects ON id = object_id ORDER BY 1, 2, 3"
)
SAVED = "SELECT package_hash, space_saved, added_bytes FROM store_migration ORDER BY 1"


@pytest.fixture
def scene(store_path: Path, seed: int) -> Scene:
    """A store whose objects are plain copies, read at file level."""
    made = make_packed(store_path, seed)
    assert migrate(store_path, Way(ingest="copy")).failed == 0
    file_level(store_path)
    return made


def repack(scene: Scene, choice: str, **options: Any) -> Repack:
    root = PackageStore.open(scene.path).root
    return repacking.repack(root, _settings(), Choice(choice), **options)


def _settings() -> Settings:
    import msgspec

    settings = Settings()
    limits = msgspec.structs.replace(settings.migration, free_bytes_min=0)
    return msgspec.structs.replace(settings, migration=limits)


def objects(store: Path) -> Snapshot:
    """All carriers, but not the directories they are in, which are written to."""
    found = snapshot(store / "objects")
    return {path: entry for path, entry in found.items() if entry.kind == "file"}


def problems(scene: Scene) -> list[str]:
    return [
        *check_store(scene.path, legacy=scene.packages).problems,
        *legacy_changes(scene.before, scene.packages),
        *ledger_problems(scene.path),
        *reading_problems(scene),
    ]


def allocated(store: Path) -> int:
    return sum(path.lstat().st_blocks * 512 for path in (store / "objects").glob("*/*"))


def test_there_and_back(scene: Scene, workplace: Path) -> None:
    before, rows, saved = (
        objects(scene.path),
        read_ledger(scene.path, ROWS),
        read_ledger(scene.path, SAVED),
    )
    taken = allocated(scene.path)
    done = repack(scene, "all")
    assert problems(scene) == []
    assert done.before - done.after == taken - allocated(scene.path) == done.freed > 0
    assert done.objects == len(compressed_of(scene.path))
    assert not compressed_of(scene.path) & plain_of(scene.path)
    for path in SHRINKING:
        assert entry(scene, "packed", path).digest in compressed_of(scene.path), path
    for path in STAYING:
        assert entry(scene, "packed", path).digest not in compressed_of(scene.path), path
    assert done.kept == {Kept.MODES: 1, Kept.HOLES: 1, Kept.SMALL: 4}
    found = sum(row[1] for row in read_ledger(scene.path, SAVED))
    assert found == sum(row[1] for row in saved) + done.freed
    assert repack(scene, "all").objects == 0
    for name, tree in scene.before.items():
        PackageStore.open(scene.path).get_package(name).checkout(workplace / name)
        assert differences(tree, snapshot(workplace / name), holes=True) == []

    done = repack(scene, "none")
    assert problems(scene) == []
    assert compressed_of(scene.path) == set()
    assert -done.freed == done.after - done.before > 0
    assert allocated(scene.path) == taken
    assert differences(before, objects(scene.path), holes=True) == []
    assert read_ledger(scene.path, ROWS) == rows
    assert read_ledger(scene.path, SAVED) == saved


def test_a_plan_changes_nothing(scene: Scene) -> None:
    before = snapshot(scene.path)
    command = Regrain(scene.path, {"REGRAIN_MIGRATION__FREE_BYTES_MIN": "0"})
    planned = command("repack", "--compress", "all", "--json").of_type("summary")[0]
    assert not planned["executed"]
    assert command("repack", "--compress", "all").text.splitlines()[-1] == (
        "Next: regrain repack --compress all --execute"
    )
    changed = differences(before, snapshot(scene.path))
    assert [line for line in changed if "state.sqlite" not in line and "lock" not in line] == []
    done = command("repack", "--compress", "all", "--execute", "--json").of_type("summary")[0]
    assert done["executed"]
    assert done["kept"] == {"small": 4, "holes": 1, "modes": 1}
    assert done["objects"] == planned["objects"] - 1  # one does not shrink, which takes a try
    error = abs(done["freed_bytes"] - planned["freed_bytes"])
    assert error < done["freed_bytes"] * 0.2
    planned = command("repack", "--compress", "none", "--json").of_type("summary")[0]
    assert planned["objects"] == done["objects"]
    assert planned["allocated_after_bytes"] == done["allocated_before_bytes"]
    command("repack", "--compress", "none", "--execute")
    assert "nothing" in command("repack", "--compress", "none").text


def test_cold_leaves_alone_what_others_share(store_path: Path, seed: int, workplace: Path) -> None:
    scene = make_packed(store_path, seed)
    migrate(store_path, Way(ingest="copy"))
    file_level(store_path)
    package = PackageStore.open(store_path).get_package(scene.named("packed").hash)
    package.checkout(workplace / "out", "shared")
    done = repack(scene, "cold")
    shared = {entry(scene, "packed", path).digest for path in SHRINKING}
    assert not shared & compressed_of(store_path)
    assert compressed_of(store_path) == {
        entry(scene, "sharing", b"/share/wide").digest,
        entry(scene, "sharing", b"/share/marked").digest,
    }
    assert done.kept[Kept.SHARED] >= len(shared)
    before = snapshot(workplace / "out")
    done = repack(scene, "all")
    assert done.freed == -done.after  # the checkout still holds them
    assert shared <= compressed_of(store_path)
    assert differences(before, snapshot(workplace / "out"), identity=True) == []
    assert problems(scene) == []


def test_what_shares_its_inode_with_legacy(no_reflink: Path, seed: int) -> None:
    scene = make_packed(no_reflink / "store", seed)
    migrate(scene.path, Way())
    alone = [carrier(scene, "sharing", path) for path in (b"/share/wide", b"/share/marked")]
    freed = sum(path.with_suffix("").stat().st_blocks * 512 for path in alone)
    done = repack(scene, "cold")
    assert done.objects == len(SHRINKING) + len(alone)
    assert done.freed == freed - done.after
    assert repack(scene, "all").objects == 0
    assert problems(scene) == []


@pytest.mark.parametrize("choice", ["all", "none"])
def test_damage_is_left_alone_and_told(scene: Scene, choice: str) -> None:
    where = carrier(scene, "packed", b"/share/large")
    if choice == "none":
        repack(scene, "all")
        garble(where, "middle")
    else:
        where = where.with_suffix("")
        raw = bytearray(where.read_bytes())
        raw[1000] ^= 1
        where.write_bytes(raw)
    others = compressed_of(scene.path) if choice == "none" else plain_of(scene.path)
    command = Regrain(scene.path, {"REGRAIN_MIGRATION__FREE_BYTES_MIN": "0"})
    said = command("repack", "--compress", choice, "--execute", "--json", code=4)
    assert [one["object"] for one in said.of_type("summary")[0]["damaged"]] == [where.name]
    assert where.exists()
    left = compressed_of(scene.path) if choice == "none" else plain_of(scene.path)
    assert len(left) < len(others)
    assert where.name[:64] in left
    assert ledger_problems(scene.path) == [
        line for line in ledger_problems(scene.path) if where.name[:64] in line
    ]


def test_memory_that_fails_meanwhile(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new carrier does not hold what was read: the run ends, nothing was replaced."""
    before = objects(scene.path)
    original = frames.Packer.pack_file

    def wrong(self: frames.Packer, source: int, size: int, target: int) -> bool:
        with disk.Closing(os.memfd_create("wrong")) as other:
            os.write(other, b"X" + os.pread(source, size, 0)[1:])
            return original(self, other, size, target)

    monkeypatch.setattr(frames.Packer, "pack_file", wrong)
    with pytest.raises(HaltedError, match="does not hold the bytes"):
        repack(scene, "all")
    monkeypatch.undo()
    assert differences(before, objects(scene.path)) == []
    repack(scene, "all")
    assert problems(scene) == []


@pytest.mark.parametrize("choice", ["all", "none"])
def test_what_was_begun_is_finished(scene: Scene, choice: str) -> None:
    """Both carriers are there, as after a kill, with or without a row for the second."""
    plain = carrier(scene, "packed", b"/share/text").with_suffix("")
    kept, status = plain.read_bytes(), plain.stat()
    repack(scene, "all")
    plain.write_bytes(kept)
    plain.chmod(0o644)
    os.utime(plain, ns=(status.st_atime_ns, status.st_mtime_ns))
    done = repack(scene, choice)
    assert done.objects == (1 if choice == "all" else len(SHRINKING) + 2)
    assert problems(scene) == []


@pytest.mark.parametrize("choice", ["all", "none"])
@pytest.mark.parametrize("is_plain", [True, False], ids=["plain", "frame"])
def test_of_two_carriers_a_damaged_one_is_told_and_kept(
    scene: Scene, choice: str, *, is_plain: bool
) -> None:
    """Neither replaces the good one, nor goes because of it: it may be all that tells the cause."""
    frame = carrier(scene, "packed", b"/share/text")
    plain = frame.with_suffix("")
    good = plain.read_bytes()
    repack(scene, "all")
    plain.write_bytes(good[::-1] if is_plain else good)
    plain.chmod(0o644)
    if not is_plain:
        garble(frame, "middle")
    done = repack(scene, choice)
    assert [name for name, _ in done.damaged] == [(plain if is_plain else frame).name]
    assert plain.exists()
    assert frame.exists()


def test_a_frame_for_few_becomes_plain_beside_one_for_all(scene: Scene) -> None:
    """Of two modes both come back, each under the name that is free."""
    private = carrier(scene, "packed", b"/share/private")
    content = private.with_suffix("").read_bytes()
    repack(scene, "all")
    public = private.with_suffix("")
    public.write_bytes(content)
    public.chmod(0o644)
    os.utime(public, ns=(0, 0))
    assert repack(scene, "all").kept[Kept.MODES] == 2
    repack(scene, "none")
    assert not private.exists()
    assert private.with_suffix(".m0600").read_bytes() == content


# beside others


def meddling(monkeypatch: pytest.MonkeyPatch, meddle: Callable[[], object]) -> None:
    """Do something right before the first batch takes its places."""
    original = represent.Represent._commit
    done: list[bool] = []

    def commit(self: represent.Represent) -> None:
        if not done:
            done.append(True)
            meddle()
        original(self)

    monkeypatch.setattr(represent.Represent, "_commit", commit)


def test_an_object_that_is_collected_meanwhile(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = PackageStore.open(scene.path).root
    name = scene.named("packed").hash
    keeping.remove_package(root, name)
    meddling(monkeypatch, lambda: keeping.collect(root, grace=0))
    done = repack(scene, "all")
    assert done.kept[Kept.BUSY] == len(SHRINKING) - 1
    assert check_store(scene.path, legacy=scene.packages.keys() - {name}).problems == []
    assert ledger_problems(scene.path) == []


def test_a_carrier_that_is_written_to_meanwhile(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = carrier(scene, "packed", b"/share/text").with_suffix("")
    meddling(monkeypatch, lambda: where.write_bytes(where.read_bytes()))
    assert repack(scene, "all").kept[Kept.BUSY] == 1
    assert where.exists()
    assert not where.with_suffix(".zst").exists()


def test_a_link_made_meanwhile(
    scene: Scene, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = carrier(scene, "packed", b"/share/text").with_suffix("")
    meddling(monkeypatch, lambda: os.link(where, workplace / "link"))
    done = repack(scene, "cold")
    assert done.kept[Kept.BUSY] == 1
    assert where.exists()


def test_one_run_a_store(scene: Scene) -> None:
    root = PackageStore.open(scene.path).root
    with run_lock(root, "another"), pytest.raises(LockedError, match="another"):
        repack(scene, "all")


def test_stopping(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(represent, "BATCH_OBJECTS", 2)
    calls: Iterator[int] = iter(range(100))
    done = repack(scene, "all", stopping=lambda: next(calls) >= 5)  # a look a unit, one a carrier
    assert done.stopped
    assert 1 <= done.objects <= 4  # one does not shrink, one takes two carriers
    assert done.objects == len(compressed_of(scene.path))
    assert problems(scene) == []
    repack(scene, "all")
    assert len(compressed_of(scene.path)) == len(SHRINKING) + 2


def test_readers_never_notice(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package is read over and over while its objects change, one at a time."""
    monkeypatch.setattr(represent, "BATCH_OBJECTS", 1)
    over = threading.Event()
    said: list[str] = []
    rounds: list[int] = []

    def read() -> None:
        while not over.is_set():
            try:
                for name, tree in scene.before.items():
                    package = PackageStore.open(scene.path).get_package(name)
                    said.extend(package_differences(package, tree))
            except Exception as error:  # noqa: BLE001 -- whatever it is, it must not be
                said.append(repr(error))
            rounds.append(1)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for choice in ("all", "none") * 4:
            repack(scene, choice)
    finally:
        over.set()
        for reader in readers:
            reader.join()
    assert said == []
    assert len(rounds) > 4
    assert problems(scene) == []


def test_beside_additions(scene: Scene) -> None:
    """What comes in meanwhile finds its objects, whatever they are by then."""
    command = Regrain(scene.path, {"REGRAIN_MIGRATION__FREE_BYTES_MIN": "0"})
    source = scene.path.parent / "new"
    source.mkdir()
    (source / "manifest.toml").write_text('[package]\nname = "new"\nversion = "1"\n')
    (source / "large").write_bytes(lines("large", 1_500_000))
    results: list[Any] = []

    def back_and_forth() -> None:
        results.extend(
            command("repack", "--compress", choice, "--execute", code=None).code
            for choice in ("all", "none", "all")
        )

    other = threading.Thread(target=back_and_forth)
    other.start()
    for number in range(6):
        (source / "number").write_text(f"{number}\n")
        command("add", str(source), code=None)
    other.join()
    assert results == [0, 0, 0]
    assert ledger_problems(scene.path) == []
    assert reading_problems(scene) == []
    digest = entry(scene, "packed", b"/share/large").digest
    assert digest in compressed_of(scene.path)


# space


@pytest.mark.root
@pytest.mark.parametrize(
    "kind", ["ext4", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("xfs", "btrfs"))]
)
def test_on_a_full_disk(kind: str, request: pytest.FixtureRequest, seed: int) -> None:
    place = request.getfixturevalue(kind)
    scene = make_packed(place / "store", seed)
    assert migrate(scene.path, Way(ingest="copy")).failed == 0
    free = os.statvfs(place)
    with (place / "filler").open("wb") as filler:
        left = free.f_bavail * free.f_frsize - (3 << 20)
        while left > 0:
            left -= filler.write(os.urandom(min(left, 1 << 20)))
        filler.flush()
        os.fsync(filler.fileno())
    before = allocated(scene.path)
    done = repack(scene, "all")
    assert done.objects == len(SHRINKING) + 2
    assert allocated(scene.path) < before
    assert problems(scene) == []
    command = Regrain(scene.path, {"REGRAIN_MIGRATION__FREE_BYTES_MIN": str(1 << 31)})
    said = command("repack", "--compress", "none", "--execute", "--json", code=5)
    assert "bytes more" in said.documents[-1]["reason"]
    assert problems(scene) == []


def test_what_is_compressed_takes_its_room_to_undo(scene: Scene) -> None:
    """Blocks cannot be shared with it, whatever the file system can."""
    root, names = PackageStore.open(scene.path).root, list(scene.packages)
    ways = Ways(reflink=True, link=False, link_outside=False)
    plain = need(root, ways, names)
    repack(scene, "all")
    sizes = [entry(scene, "packed", path).size for path in SHRINKING]
    assert need(root, ways, names).size - plain.size >= sum(sizes)


def test_live_path_is_still_readable_by_name(scene: Scene) -> None:
    repack(scene, "all")
    package = PackageStore.open(scene.path).get_package(scene.named("packed").hash)
    assert package.read(LIVE + b"/share/link") == package.read(LIVE + b"/share/text")
