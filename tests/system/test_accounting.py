"""What is said of space agrees with ``du``, and with what the file system has left."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests import mounts
from tests.command import Regrain
from tests.conftest import remove
from tests.trees import LIVE, Tree, describe, package_hash

MIB = 1 << 20
SHARED, OWN = 1 * MIB, 2 * MIB
METADATA_MAX = MIB
"""What a file system may use for itself while files of a known size come and go."""

NAMES = ("one", "two", "three")
KINDS = ("ext4", "xfs", "btrfs")
on_some = pytest.mark.parametrize(
    "point", ["ext4", "xfs", pytest.param("btrfs", marks=pytest.mark.slow)], indirect=True
)
pytestmark = pytest.mark.root


def name_of(label: str) -> str:
    return package_hash(1, f"accounting-{label}")


def build(store: Path, seed: int) -> None:
    """Packages with much of their own and something in common, in every awkward form."""
    shared = Random(f"{seed}:shared").randbytes(SHARED)
    for label in NAMES:
        with Tree(store / name_of(label), Random(f"{seed}:{label}")) as tree:
            describe(tree, label, "1", sbom=())
            tree.file(LIVE + b"/own", tree.rng.randbytes(OWN))
            tree.file(LIVE + b"/text", f"of {label}\n".encode() * 30_000)
            tree.file(LIVE + b"/shared", shared)
            tree.file(LIVE + b"/wide", tree.rng.randbytes(70_000), 0o664)
            tree.link(LIVE + b"/again", LIVE + b"/own")
            tree.file(LIVE + b"/empty")
            tree.sparse(LIVE + b"/sparse", [(65_536, b"data" * 5000)], 400_000)
            tree.symlink(LIVE + b"/symlink", b"own")
            for number in range(40):
                tree.file(LIVE + b"/small/%d" % number, tree.rng.randbytes(500))


@pytest.fixture(params=KINDS)
def point(request: pytest.FixtureRequest) -> Path:
    """A file system of each kind, mounted."""
    found: Path = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def store(point: Path, seed: int) -> Path:
    build(point / "store", seed)
    os.sync()
    return point / "store"


def command_on(store: Path) -> Regrain:
    settings = {
        "REGRAIN_MIGRATION__SETTLE": "0",
        "REGRAIN_MIGRATION__FREE_BYTES_MIN": "1000000",
        "REGRAIN_MIGRATION__FREE_INODES_MIN": "10",
    }
    return Regrain(store, settings)


def du(*paths: Path) -> int:
    """What ``du`` says that these take together."""
    os.sync()
    command: list[str | Path] = ["du", "-sc", "--block-size=1", "--", *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.splitlines()[-1].split()[0])


def used(point: Path) -> int:
    """What the file system says is in use."""
    os.sync()
    space = os.statvfs(point)
    return (space.f_blocks - space.f_bfree) * space.f_frsize


def measured(regrain: Regrain) -> dict[str, Any]:
    """The space of ``status``, checked against ``du``, and its parts against each other."""
    os.sync()
    space: dict[str, Any] = regrain("status", "--json").document["space"]
    assert space["allocated_bytes"] == du(regrain.store)
    parts = ("file_lists", "directories", "ledger", "aside")
    assert space["overhead_bytes"] == sum(space[f"{part}_bytes"] for part in parts)
    whole = ("objects", "overhead", "legacy", "foreign")
    assert space["allocated_bytes"] == sum(space[f"{part}_bytes"] for part in whole)
    assert space["now_bytes"] == space["allocated_bytes"] - space["shared_extents_bytes"]
    assert space["unread_names"] == 0
    return space


def switch_over(regrain: Regrain) -> None:
    """Switch over; where the machine is busy, reading may have been slow for a moment."""
    for code in (None, None, 0):
        if regrain("cutover", "--no-backup", code=code).code == 0:
            return


def stages(regrain: Regrain, place: Path) -> Iterator[str]:
    """Bring a store from its beginning to its end, step by step."""
    regrain("init")
    yield "init"
    regrain("migrate")
    yield "migrated"
    regrain("repack", "--compress", "all", "--execute")
    yield "compressed"
    regrain("repack", "--compress", "none", "--execute")
    regrain("checkout", name_of("one"), place, "--mode", "shared")
    yield "plain"
    switch_over(regrain)
    regrain("cleanup", "--execute")
    yield "clean"
    regrain("rollback")
    yield "rolled back"


def test_status_agrees_with_du_in_every_state(store: Path, point: Path) -> None:
    regrain = command_on(store)
    legacy = du(*(store / name_of(label) for label in NAMES))
    assert regrain("plan", "--json").document["allocated_bytes"] == legacy
    beside = after = 0
    for stage in stages(regrain, point / "checkout"):
        space = measured(regrain)
        assert space["before_bytes"] == legacy, stage
        if stage == "init":
            beside = used(point) - space["now_bytes"]
        elif stage != "rolled back":
            # The shared checkout takes nothing but its directories and a few private copies.
            error = used(point) - space["now_bytes"] - beside
            assert abs(error) < METADATA_MAX, (stage, error)
        if stage in ("migrated", "plain"):
            after = space["after_bytes"]
        elif stage == "clean":
            assert abs(space["now_bytes"] - after) < METADATA_MAX / 2
            assert space["after_bytes"] == space["now_bytes"]
            saved = 1 - space["now_bytes"] / legacy
            assert space["saved_share"] == pytest.approx(saved)
            assert space["legacy_bytes"] == 0


@on_some
def test_reflinked_extents_count_once(store: Path, point: Path) -> None:
    regrain = command_on(store)
    regrain("init")
    regrain("migrate")
    space = measured(regrain)
    contents = len(NAMES) * OWN + SHARED
    if mounts.can_reflink(point):
        assert space["shared_extents_bytes"] > contents
        assert space["after_bytes"] < space["now_bytes"] - (len(NAMES) - 1) * SHARED * 0.9
    else:
        assert space["shared_extents_bytes"] == 0
    assert space["objects_bytes"] > contents


def test_ratios(store_path: Path, seed: int) -> None:
    store = store_path
    build(store, seed)
    regrain = command_on(store)
    regrain("init")
    regrain("migrate")
    assert measured(regrain)["compression_ratio"] is None
    objects = {path: path.stat().st_size for path in (store / "objects").glob("*/*")}
    contents = {path.name[:64]: size for path, size in objects.items()}
    files = [path for label in NAMES for path in (store / name_of(label)).rglob("*")]
    size = sum(path.lstat().st_size for path in files if path.is_file() and not path.is_symlink())
    regrain("repack", "--compress", "all", "--execute")
    space = measured(regrain)
    assert space["dedup_ratio"] == pytest.approx(size / sum(contents.values()))
    frames = {path.name[:64]: path.stat().st_size for path in (store / "objects").glob("*/*.zst")}
    assert frames
    plain = sum(contents[digest] for digest in frames)
    assert space["compression_ratio"] == pytest.approx(plain / sum(frames.values()))


def content(store: Path) -> int:
    """What packages and objects take: all but regrain's own directories, ledger and logs."""
    trees = [*store.glob("packages/*"), *(path for path in store.iterdir() if len(path.name) == 64)]
    found = [*trees, *store.glob("objects/*/*")]
    return du(*found) if found else 0


@on_some
@pytest.mark.parametrize(
    "how",
    ["migrated", *(pytest.param(how, marks=pytest.mark.slow) for how in ("compressed", "clean"))],
)
def test_what_removing_a_package_frees(store: Path, point: Path, how: str) -> None:
    regrain = command_on(store)
    for stage in stages(regrain, point / "checkout"):
        if stage == how:
            break
    label = "two" if how == "clean" else "one"
    shown = regrain("show", name_of(label), "--json").document
    before, in_use = content(store), used(point)
    regrain("remove", name_of(label), "--execute")
    regrain("gc", "--execute", "--grace", "0")
    freed = before - content(store)
    if mounts.can_reflink(point) and how != "clean":
        assert freed > shown["exclusive_bytes"] + OWN  # ``du`` counts what is shared twice
        freed = in_use - used(point)
        assert abs(freed - shown["exclusive_bytes"]) < METADATA_MAX
    else:
        assert freed == shown["exclusive_bytes"]
    assert SHARED <= shown["shared_bytes"] < SHARED + MIB / 4
    assert freed > OWN


@on_some
@pytest.mark.parametrize("how", ["init", "migrated"])
def test_what_its_legacy_directory_alone_frees(store: Path, point: Path, how: str) -> None:
    for stage in stages(command_on(store), point / "checkout"):
        if stage == how:
            break
    shown = command_on(store)("show", name_of("one"), "--json").document
    before, in_use = content(store), used(point)
    remove(store / name_of("one"))
    freed = before - content(store)
    if mounts.can_reflink(point) and how == "migrated":
        freed = in_use - used(point)
        assert abs(freed - shown["legacy_exclusive_bytes"]) < METADATA_MAX
    else:
        assert freed == shown["legacy_exclusive_bytes"]
    assert shown["legacy_exclusive_bytes"] <= shown["exclusive_bytes"]


def test_what_another_name_holds_is_not_freed(store_path: Path, seed: int) -> None:
    store = store_path
    build(store, seed)
    regrain = command_on(store)
    regrain("init")
    before = regrain("show", name_of("one"), "--json").document
    assert before["exclusive_bytes"] == du(store / name_of("one"))
    assert before["shared_bytes"] == 0
    os.link(store / name_of("one") / os.fsdecode(LIVE) / "text", store.parent / "kept")
    kept = du(store.parent / "kept")
    after = regrain("show", name_of("one"), "--json").document
    assert after["exclusive_bytes"] == before["exclusive_bytes"] - kept
    assert after["shared_bytes"] == kept


def test_a_large_store_is_measured_when_asked(
    store_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from regrain.app import space
    from regrain.app.store import PackageStore

    build(store_path, seed)
    regrain = command_on(store_path)
    regrain("init")
    regrain("migrate")
    totals = PackageStore.open(store_path).migration().state().totals
    assert space.is_quick(totals)
    monkeypatch.setattr(space, "QUICK_NAMES_MAX", totals.files + totals.objects - 1)
    assert not space.is_quick(totals)
    assert regrain("status", "--check", "--json").document["space"] is None
    assert regrain("status", "--check", "--space", "--json").document["space"] is not None
    assert "on disk" not in regrain("status", "--check").text
    assert "saved" in regrain("status").text
