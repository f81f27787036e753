"""``add``: names, what is there already, refusals, exit codes; nothing is left of what failed."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from blake3 import blake3

from regrain.app import keeping
from regrain.app.store import PackageStore
from regrain.errors import ConfigurationError, NoSpaceError, PackageError
from regrain.migrate.ingest import Ingester
from regrain.model.phase import Phase
from regrain.settings import Settings
from regrain.settings import Store as StoreSettings
from regrain.store.checkout import checkout
from regrain.store.root import write_store_file
from tests import archives, mounts
from tests.compare import Snapshot, differences, snapshot
from tests.faults.crashes import rows
from tests.faults.inline import initialise
from tests.faults.judge import ledger_problems
from tests.faults.small import Scene
from tests.reader import check_store
from tests.sampling import each_with_one
from tests.stores import object_inodes, read_ledger
from tests.trees import LIVE, Tree, describe

pytestmark = pytest.mark.both_databases

LEGACY = Settings(StoreSettings(use_file_level_storage=False))
NAME = "c0ffee00" * 8


def make_tree(path: Path, seed: int = 1, size: int = 3000) -> Path:
    with Tree(path, Random(seed)) as tree:
        describe(tree, "new", "1.0")
        tree.file(LIVE + b"/bin/new", tree.rng.randbytes(size), 0o755)
        tree.file(LIVE + b"/share/first", b"two names\n", xattrs={"user.mark": b"1"})
        tree.link(LIVE + b"/share/second", LIVE + b"/share/first")
        tree.file(LIVE + b"/share/third", b"two names\n", xattrs={"user.mark": b"1"})
    return path


@pytest.fixture
def store(store_path: Path) -> PackageStore:
    store_path.mkdir()
    initialise(store_path)
    return PackageStore.open(store_path)


@pytest.fixture
def source(workplace: Path) -> Path:
    return make_tree(workplace / "source")


def add(store: PackageStore, path: Path, name: str | None = None, **options: Any) -> Any:
    settings = Settings(StoreSettings(**options))
    return keeping.add_package(store.root, settings, str(path), name)


def everything(path: Path) -> tuple[Snapshot, object]:
    """A store as it is: the tree but the database's own files, and its rows."""
    own = (b"state.sqlite", b"migration", b"temp")
    found = {p: e for p, e in snapshot(path).items() if p and not p.startswith(own)}
    scene = Scene(path, {}, {})
    return found, (rows(scene), read_ledger(path, "SELECT COUNT(*) FROM history"))


def assert_unchanged(path: Path, before: tuple[Snapshot, object]) -> None:
    after = everything(path)
    assert differences(before[0], after[0], identity=True) == []
    assert after[1] == before[1]
    assert os.listdir(path / "temp") == []


def test_what_is_there_already_changes_nothing(store: PackageStore, source: Path) -> None:
    first = add(store, source)
    before = everything(Path(store.path))
    again = add(store, source)
    assert (first.already_present, again.already_present) == (False, True)
    assert again.package_hash == first.package_hash
    assert_unchanged(Path(store.path), before)


def relink(source: Path) -> None:
    """Give the second name to the other inode of the same bytes; the directory's time stays."""
    second = source / os.fsdecode(LIVE) / "share/second"
    time_ns = second.parent.stat().st_mtime_ns
    second.unlink()
    os.link(second.with_name("third"), second)
    os.utime(second.parent, ns=(0, time_ns))


CHANGES: dict[str, Callable[[Path], object]] = {
    "mtime": lambda at: os.utime(at / "opt/pm/live/bin/new", ns=(0, 5)),
    "mode": lambda at: (at / "opt/pm/live/bin/new").chmod(0o750),
    "xattr": lambda at: os.setxattr(at / "opt/pm/live/share/first", "user.mark", b"2"),
    "bytes": lambda at: (at / "opt/pm/live/bin/new").write_bytes(b"other"),
    "mode of the root": lambda at: at.chmod(0o700),
    "a file more": lambda at: (at / "more").write_bytes(b""),
    "a file less": lambda at: (at / "opt/pm/live/share/third").unlink(),
    "hard links": relink,
}


@pytest.mark.parametrize(("change", "layout"), each_with_one(CHANGES, ["file_level", "legacy"]))
def test_another_tree_of_the_name_is_refused(
    store: PackageStore, source: Path, change: str, layout: str
) -> None:
    add(store, source, NAME, use_file_level_storage=layout == "file_level")
    before = everything(Path(store.path))
    CHANGES[change](source)
    with pytest.raises(PackageError, match="another tree has this name") as refused:
        add(store, source, NAME)
    assert refused.value.package == NAME
    assert_unchanged(Path(store.path), before)


def test_no_carrier_is_an_inode_of_the_source(store: PackageStore, source: Path) -> None:
    """Not even where links are asked for: the source stays its owner's, who may write to it."""
    before = snapshot(source)
    for ingest in ("auto", "hardlink", "copy"):
        add(store, source, blake3(ingest.encode()).hexdigest(), ingest=ingest)
    inodes = {entry.identity for entry in before.values()}
    assert object_inodes(Path(store.path)) & inodes == set()
    assert differences(before, snapshot(source), identity=True) == []
    assert {e.links for e in snapshot(source).values() if e.kind == "file"} == {1, 2}


def test_an_unpacked_archive_leaves_its_objects_only(
    store: PackageStore, source: Path, workplace: Path
) -> None:
    archives.ARCHIVERS[0].pack(source, workplace / "new.sp")
    added = add(store, workplace / "new.sp")
    assert os.listdir(Path(store.path) / "temp") == []
    found = check_store(Path(store.path))
    assert found.problems == []
    assert {c.status.st_nlink for cs in found.carriers.values() for c in cs} == {1}
    assert added.new_objects == sum(map(len, found.carriers.values()))
    assert read_ledger(Path(store.path), "SELECT event FROM history")[-1] == ("package_added",)


def fifo(place: Path) -> Path:
    os.mkfifo(place / "fifo")
    return place / "fifo"


def bound(place: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(place / "socket"))
    return place / "socket"


def without_manifest(place: Path) -> Path:
    tree = make_tree(place / "bad")
    (tree / "manifest.toml").unlink()
    return tree


def with_manifest(content: bytes) -> Callable[[Path], Path]:
    def make(place: Path) -> Path:
        tree = make_tree(place / "bad")
        (tree / "manifest.toml").write_bytes(content)
        return tree

    return make


def with_fifo(place: Path) -> Path:
    tree = make_tree(place / "bad")
    os.mkfifo(tree / "pipe")
    return tree


def manifest_is_a_directory(place: Path) -> Path:
    tree = without_manifest(place)
    (tree / "manifest.toml").mkdir()
    return tree


def an_archive(data: bytes) -> Callable[[Path], Path]:
    def make(place: Path) -> Path:
        (place / "bad.sp").write_bytes(data)
        return place / "bad.sp"

    return make


NOT_PACKAGES = {
    "missing": lambda place: place / "missing",
    "fifo": fifo,
    "socket": bound,
    "device": lambda _: Path(os.devnull),
    "no manifest": without_manifest,
    "broken manifest": with_manifest(b"[package\n"),
    "manifest not UTF-8": with_manifest(b"name = '\xff'\n"),
    "no name": with_manifest(b"[package]\nversion = '1'\n"),
    "manifest a directory": manifest_is_a_directory,
    "a FIFO inside": with_fifo,
    "no archive": an_archive(b"hello\n"),
    "an empty file": an_archive(b""),
    "truncated": an_archive(archives.archive(archives.file(b"f", b"x" * 5000))[:2000]),
    "climbing out": an_archive(archives.archive(archives.file(b"../../f"))),
    "archive without manifest": an_archive(archives.file(b"f") + archives.END),
    "archive, broken manifest": an_archive(archives.file(b"manifest.toml", b"[") + archives.END),
}


@pytest.mark.parametrize(("what", "to"), each_with_one(NOT_PACKAGES, ["file_level", "legacy"]))
def test_what_is_no_package_leaves_nothing(
    store: PackageStore, workplace: Path, what: str, to: str
) -> None:
    path = NOT_PACKAGES[what](workplace)
    before = everything(Path(store.path))
    with pytest.raises(PackageError) as refused:
        add(store, path, use_file_level_storage=to == "file_level")
    assert "regrain migrate" not in str(refused.value)
    assert refused.value.exit_code == 1
    assert_unchanged(Path(store.path), before)


@pytest.mark.parametrize("to", ["file_level", "legacy"])
def test_a_tree_that_changes_while_it_is_added(
    store: PackageStore, source: Path, to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = source / "opt/pm/live/bin/new"
    read: Any = checkout if to == "legacy" else Ingester.ingest

    def ingest(*arguments: Any) -> Any:
        yield from read(*arguments)
        changed.write_bytes(b"written to")

    def copy(*arguments: Any) -> Any:
        done = read(*arguments)
        changed.write_bytes(b"written to")
        return done

    if to == "legacy":
        monkeypatch.setattr(keeping, "checkout", copy)
    else:
        monkeypatch.setattr(Ingester, "ingest", ingest)
    before = everything(Path(store.path))
    with pytest.raises(PackageError, match="changed") as refused:
        add(store, source, use_file_level_storage=to == "file_level")
    assert "opt/pm/live/bin/new" in str(refused.value)
    assert "add it again" in refused.value.advice
    assert_unchanged(Path(store.path), before)


def set_phase(store: PackageStore, phase: Phase) -> None:
    write_store_file(store.root.fd, store.root.store_id, phase)


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("wish", [True, False])
def test_the_phase_says_where_it_goes(
    store: PackageStore, source: Path, phase: Phase, wish: bool
) -> None:
    set_phase(store, phase)
    before = everything(Path(store.path))
    if not wish and phase in {Phase.FILE_LEVEL, Phase.CLEAN}:
        with pytest.raises(ConfigurationError):
            add(store, source, use_file_level_storage=wish)
        assert_unchanged(Path(store.path), before)
        return
    added = add(store, source, use_file_level_storage=wish)
    legacy = phase in {Phase.ROLLING_BACK, Phase.ROLLED_BACK} or not wish
    assert added.layout == ("legacy" if legacy else "file_level")
    place = Path(store.path) if legacy else Path(store.path) / "packages"
    assert (place / added.package_hash).is_dir()
    assert (Path(store.path) / added.package_hash).exists() == legacy
    assert store.get_package(added.package_hash).layout.value == added.layout
    status = read_ledger(Path(store.path), "SELECT status FROM store_migration")
    assert status == ([("pending",)] if legacy else [])
    assert read_ledger(Path(store.path), "SELECT hash FROM store_refs") == [(added.package_hash,)]
    if legacy:
        assert differences(snapshot(source), snapshot(place / added.package_hash)) == []


@pytest.mark.root
@pytest.mark.parametrize("to", ["file_level", "legacy"])
@pytest.mark.parametrize("packed", [True, False])
def test_a_full_disk(workplace: Path, to: str, packed: bool) -> None:
    with mounts.mounted("ext4", workplace) as point:
        fill(point / "store", workplace, to, packed=packed)
        gc.collect()  # an error keeps what is open


def fill(path: Path, workplace: Path, to: str, *, packed: bool) -> None:
    path.mkdir()
    initialise(path)
    store = PackageStore.open(path)
    small = add(store, make_tree(workplace / "small"))
    large = make_tree(workplace / "large", 2, 120 << 20)
    if packed:
        archives.ARCHIVERS[0].pack(large, workplace / "large.sp")
        large = workplace / "large.sp"
    before = everything(path)
    with pytest.raises(NoSpaceError) as refused:
        add(store, large, use_file_level_storage=to == "file_level")
    assert "add it again" in refused.value.advice
    assert_unchanged(path, before)
    assert store.get_package(small.package_hash).read("manifest.toml")
    add(store, make_tree(workplace / "next", 3))
    assert ledger_problems(path) == []
    assert check_store(path).problems == []
