"""``remove`` and ``exclude``: in every phase, beside readers and a migration; what they tell."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from regrain.app import keeping
from regrain.app.migration import Migration
from regrain.app.standing import figures, next_command
from regrain.app.store import PackageStore
from regrain.errors import RefusedError, UnknownPackageError
from regrain.ledger import Ledger, open_ledger
from regrain.ledger.keeping import Intent
from regrain.maintain import remove as removing
from regrain.migrate import pool
from regrain.migrate.publish import Publisher
from regrain.model.events import PackageFailed
from regrain.model.phase import Layout, Phase
from regrain.settings import Settings
from regrain.store.locks import publish_lock
from regrain.store.root import write_store_file
from regrain.store.trash import discard
from tests.command import Regrain
from tests.compare import differences, snapshot
from tests.faults.inline import Inline, Told, Way, initialise, inline_workers, migrate
from tests.faults.judge import ledger_problems
from tests.reader import check_store
from tests.stores import read_ledger, statuses
from tests.trees import LegacyPackage

pytestmark = pytest.mark.both_databases

Packages = dict[str, LegacyPackage]
TABLES = {"store_refs": "hash", "store_migration": "package_hash", "packages": "package_hash"}


@pytest.fixture
def store(store_path: Path, plain_store: Packages) -> PackageStore:
    """Three packages, none of them migrated yet."""
    initialise(store_path)
    return PackageStore.open(store_path)


@pytest.fixture
def jq(plain_store: Packages) -> LegacyPackage:
    return next(p for p in plain_store.values() if (p.name, p.version) == ("jq", "1.7"))


def rows_of(path: Path, name: str) -> list[str]:
    """The tables that know a package."""
    return [
        table
        for table, column in TABLES.items()
        if read_ledger(path, f"SELECT 1 FROM {table} WHERE {column} = ?", name)
    ]


def assert_gone(store: PackageStore, name: str) -> None:
    path = Path(store.path)
    assert not store.has_package(name)
    assert not (path / name).exists()
    assert not (path / "packages" / name).exists()
    assert rows_of(path, name) == []
    assert os.listdir(path / "trash") == os.listdir(path / "temp") == []
    assert ledger_problems(path) == []


def disk_bytes(path: Path) -> int:
    """What a tree takes, each inode once."""
    seen = {}
    for folder, _, files in os.walk(path):
        for status in (os.lstat(os.path.join(folder, name)) for name in (*files, ".")):
            seen[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(seen.values())


def packages_bytes(path: Path) -> int:
    """What all directories of packages take, objects too."""
    own = {"state.sqlite", "state.sqlite-wal", "state.sqlite-shm", "migration"}
    seen: dict[tuple[int, int], int] = {}
    for name in set(os.listdir(path)) - own:
        for folder, _, files in os.walk(path / name):
            if folder in {str(path / top) for top in ("objects", "packages", "trash", "temp")}:
                continue  # directories of the store: they may grow, and never shrink
            for status in (os.lstat(os.path.join(folder, f)) for f in (*files, ".")):
                seen[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(seen.values())


@pytest.mark.parametrize("ingest", ["auto", "copy"])
def test_the_figures_are_what_the_disk_says(
    store: PackageStore, jq: LegacyPackage, ingest: str
) -> None:
    path = Path(store.path)
    migrate(path, Way(ingest=ingest))
    plan = keeping.plan_removal(store.root, jq.hash[:10])
    assert plan.layouts == [Layout.FILE_LEVEL, Layout.LEGACY]
    before = packages_bytes(path)
    assert keeping.remove_package(store.root, jq.hash) == plan
    removed = packages_bytes(path)
    assert before - removed == plan.directory_bytes > 0
    found = keeping.collect(store.root, grace=0)
    assert (found.objects, found.allocated) == (plan.objects, plan.object_bytes)
    assert removed - packages_bytes(path) == plan.object_bytes > 0
    assert_gone(store, jq.hash)
    assert check_store(path, legacy=[n for n in os.listdir(path) if len(n) > 31]).problems == []


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("migrated", [True, False])
def test_in_every_phase(
    store: PackageStore, jq: LegacyPackage, phase: Phase, migrated: bool
) -> None:
    if migrated:
        migrate(Path(store.path), Way())
    write_store_file(store.root.fd, store.root.store_id, phase)
    keeping.remove_package(store.root, jq.hash)
    assert_gone(store, jq.hash)
    assert len(list(store.packages())) == 2
    with pytest.raises(UnknownPackageError):
        keeping.remove_package(store.root, jq.hash)


@pytest.mark.parametrize("phase", Phase)
def test_the_layout_that_is_not_read_goes_first(
    store: PackageStore, jq: LegacyPackage, phase: Phase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the last rename the package is whole for readers."""
    migrate(Path(store.path), Way())
    write_store_file(store.root.fd, store.root.store_id, phase)
    before = snapshot(jq.path)
    moved: list[Layout] = []

    def move(root: Any, name: str, where: Layout) -> None:
        package = PackageStore.open(store.path).get_package(name)
        assert package.layout is phase.read_order[0]
        assert {e.path for e in package.files()} == before.keys()
        discard(root, name, where)
        moved.append(where)

    monkeypatch.setattr(removing, "discard", move)
    keeping.remove_package(store.root, jq.hash)
    assert len(moved) == 2
    assert moved[-1] is phase.read_order[0]


def test_who_has_it_open_reads_on(store: PackageStore, jq: LegacyPackage) -> None:
    migrate(Path(store.path), Way())
    path = "opt/pm/live/bin/jq"
    good = (jq.path / path).read_bytes()
    with store.get_package(jq.hash).open(path) as stream:
        first = stream.read(10)
        keeping.remove_package(store.root, jq.hash)
        keeping.collect(store.root, grace=0)
        assert first + stream.read() == good


def test_a_set_id_file_keeps_no_power_elsewhere(
    store: PackageStore, jq: LegacyPackage, workplace: Path
) -> None:
    os.link(jq.path / "opt/pm/live/bin/jq", workplace / "kept")
    (workplace / "kept").chmod(0o6755)
    keeping.remove_package(store.root, jq.hash)
    assert stat.S_IMODE((workplace / "kept").stat().st_mode) == 0o600


def test_it_can_be_added_again(store: PackageStore, jq: LegacyPackage, workplace: Path) -> None:
    migrate(Path(store.path), Way())
    os.rename(jq.path, workplace / "kept")
    before = snapshot(workplace / "kept")
    keeping.remove_package(store.root, jq.hash)
    added = keeping.add_package(store.root, Settings(), str(workplace / "kept"), jq.hash)
    assert (added.already_present, added.new_objects) == (False, 0)
    store.get_package(jq.hash).checkout(workplace / "out")
    assert differences(before, snapshot(workplace / "out")) == []
    events = "SELECT event FROM history WHERE package_hash = ? ORDER BY id"
    found = [event for (event,) in read_ledger(Path(store.path), events, jq.hash)]
    assert found[-2:] == ["package_removed", "package_added"]
    assert ledger_problems(Path(store.path)) == []


def test_trash_that_cannot_be_emptied_is_in_nobodys_way(
    store: PackageStore, jq: LegacyPackage, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is the package that takes its name later removed in its stead."""
    os.rename(jq.path, workplace / "kept")
    keeping.add_package(store.root, Settings(), str(workplace / "kept"), jq.hash)

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(removing, "empty_discarded", refuse)
        with pytest.raises(Exception, match="cannot write"):
            keeping.remove_package(store.root, jq.hash)
        assert not store.has_package(jq.hash)
        keeping.add_package(store.root, Settings(), str(workplace / "kept"), jq.hash)
    assert os.listdir(Path(store.path) / "trash")
    keeping.collect(store.root)
    assert os.listdir(Path(store.path) / "trash") == []
    assert store.get_package(jq.hash).read("manifest.toml")


# beside a migration


def removal(store: PackageStore, name: str) -> Callable[[], None]:
    """What removes a package once, whoever calls it first."""
    done: list[str] = []

    def remove() -> None:
        if not done:
            done.append(name)
            keeping.remove_package(store.root, name)

    return remove


@pytest.mark.parametrize(
    "moment", ["before the claim", "claimed", "staged", "objects are published", "last look"]
)
def test_a_migration_does_not_bring_it_back(
    store: PackageStore, jq: LegacyPackage, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, told = Path(store.path), Told()
    remove = removal(store, jq.hash)

    def first(owner: Any, name: str, *, after: bool = False) -> None:
        original = getattr(owner, name)

        def call(*arguments: Any, **named: Any) -> Any:
            if not after:
                remove()
            done = original(*arguments, **named)
            if after:
                remove()
            return done

        monkeypatch.setattr(owner, name, call)

    if moment == "before the claim":
        first(Ledger, "claim")
    elif moment == "claimed":
        first(Ledger, "claim", after=True)
    elif moment == "staged":
        first(Publisher, "flush")
    elif moment == "objects are published":
        first(Publisher, "flush_objects")
    else:
        first(Publisher, "exclusive")
    done = migrate(path, Way(batch=10), on_event=told.events.append)
    assert (done.completed, done.failed, told.of(PackageFailed)) == (2, 0, [])
    assert_gone(store, jq.hash)
    assert migrate(path, Way()).completed == 0
    assert_gone(store, jq.hash)


def test_a_package_on_its_way_out_does_not_fail(
    store: PackageStore, jq: LegacyPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker finds its directory gone while the rows still stand."""
    path = Path(store.path)
    submit = Inline.submit
    began: list[str] = []

    def take_away(inline: Inline, fn: Any, /, *arguments: Any, **named: Any) -> Any:
        if arguments[0] is pool.bring_in and not began:
            began.append(jq.hash)
            ledger = open_ledger(store.path)
            ledger.intend(jq.hash, Intent.REMOVE)
            ledger.close()
            with publish_lock(store.root):
                discard(store.root, jq.hash, Layout.LEGACY)
        return submit(inline, fn, *arguments, **named)

    monkeypatch.setattr(Inline, "submit", take_away)
    done = migrate(path, Way(batch=10))
    assert began
    assert (done.completed, done.failed) == (2, 0)
    assert statuses(path)[jq.hash] == "pending"
    keeping.collect(store.root)
    assert_gone(store, jq.hash)


# set aside


def state_of(store: PackageStore) -> Any:
    return Migration(store.root, Settings()).state()


def test_set_aside(store: PackageStore, jq: LegacyPackage) -> None:
    path = Path(store.path)
    assert keeping.exclude(store.root, jq.hash)
    assert not keeping.exclude(store.root, jq.hash)
    assert migrate(path, Way()).completed == 2
    assert store.get_package(jq.hash).layout is Layout.LEGACY
    state = state_of(store)
    assert next_command(state) == "regrain verify --level deep"
    shown = figures(store.root, state, Settings())
    counted = ("total_packages", "migrated_packages", "pending_packages", "excluded_packages")
    assert [shown[key] for key in counted] == [3, 2, 0, 1]
    assert shown["bytes_done"] == shown["bytes_total"]
    assert keeping.exclude(store.root, jq.hash, undo=True)
    assert not keeping.exclude(store.root, jq.hash, undo=True)
    assert next_command(state_of(store)) == "regrain migrate"
    assert migrate(path, Way()).completed == 1
    assert keeping.exclude(store.root, jq.hash)  # published: it is not any more
    assert not (path / "packages" / jq.hash).exists()
    assert jq.hash in {package.hash for package in store.packages()}
    assert store.get_package(jq.hash).layout is Layout.LEGACY
    assert migrate(path, Way()).completed == 0
    events = [event for (event,) in read_ledger(path, "SELECT event FROM history")]
    assert (events.count("package_excluded"), events.count("package_included")) == (2, 1)
    assert ledger_problems(path) == []


def test_set_aside_before_it_has_a_row(
    store: PackageStore, jq: LegacyPackage, workplace: Path
) -> None:
    """A directory that appeared a moment ago."""
    keeping.add_package(store.root, Settings(), str(jq.path))
    late = "ee" * 32
    os.rename(jq.path, Path(store.path) / late)
    assert keeping.exclude(store.root, late)
    assert keeping.excluded(store.root) == {late}
    with inline_workers():
        store.migration().run(jobs=1)
    assert store.get_package(late).layout is Layout.LEGACY


def test_only_what_has_a_legacy_directory_is_set_aside(
    store: PackageStore, jq: LegacyPackage
) -> None:
    added = keeping.add_package(store.root, Settings(), str(jq.path)).package_hash
    for dry_run in (True, False):
        with pytest.raises(RefusedError):
            keeping.exclude(store.root, added, dry_run=dry_run)
        with pytest.raises(UnknownPackageError):
            keeping.exclude(store.root, "0" * 64, dry_run=dry_run)


# the command


def test_the_command(regrain: Regrain, plain_store: Packages, jq: LegacyPackage) -> None:
    regrain("init")
    before = snapshot(regrain.store / "packages"), statuses(regrain.store)
    plan = regrain("remove", jq.hash[:8], "--json").document
    assert (plan["executed"], plan["package_hash"]) == (False, jq.hash)
    assert plan["directory_bytes"] == disk_bytes(jq.path)
    regrain("remove", jq.hash, "-n")
    regrain("remove", jq.hash, "--execute", "-n", code=2)
    regrain("remove", "0" * 64, code=1)
    regrain("remove", "0" * 64, "--execute", code=1)
    regrain("remove", "xyz", "--execute", code=2)
    assert before == (snapshot(regrain.store / "packages"), statuses(regrain.store))
    regrain("exclude", jq.hash, "-n")
    assert keeping.excluded(PackageStore.open(regrain.store).root) == set()
    regrain("exclude", jq.hash)
    assert "set aside  1 package," in regrain("status").text
    regrain("exclude", "0" * 64, code=1)
    assert regrain("remove", jq.hash, "--execute", "--json").document["executed"] is True
    regrain("show", jq.hash, code=1)
    assert_gone(PackageStore.open(regrain.store), jq.hash)
