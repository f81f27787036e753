"""Packages come and go beside others that are killed, or that take their time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from regrain import disk
from regrain.app import keeping
from regrain.app.store import PackageStore
from regrain.ledger import Ledger, open_ledger
from regrain.ledger.keeping import Intent
from regrain.maintain import collect as collecting
from regrain.migrate.add import Added
from regrain.migrate.publish import Publisher
from regrain.model.phase import Layout
from regrain.settings import Settings
from regrain.settings import Store as StoreSettings
from regrain.store.locks import publish_lock
from regrain.store.trash import discard
from tests.compare import differences, snapshot
from tests.conftest import remove
from tests.faults.crash_driver import Moment
from tests.faults.inline import initialise
from tests.faults.judge import ledger_problems
from tests.faults.keeping_scenes import LEDGER, killed
from tests.trees import LegacyPackage

pytestmark = pytest.mark.both_databases

NAME = "ab" * 32
LAYOUTS = pytest.mark.parametrize("layout", Layout)


@pytest.fixture
def source(store_path: Path, plain_store: dict[str, LegacyPackage], workplace: Path) -> Path:
    """A tree outside of an initialised store."""
    jq = next(p for p in plain_store.values() if (p.name, p.version) == ("jq", "1.7"))
    os.rename(jq.path, workplace / "source")
    initialise(store_path)
    return workplace / "source"


@pytest.fixture
def store(store_path: Path, source: Path) -> PackageStore:
    return PackageStore.open(store_path)


def add(store: PackageStore, source: Path, layout: Layout = Layout.FILE_LEVEL) -> Added:
    settings = Settings(StoreSettings(use_file_level_storage=layout is Layout.FILE_LEVEL))
    return keeping.add_package(store.root, settings, str(source), NAME)


def assert_whole(store: PackageStore, source: Path) -> None:
    """The package is there, and stays when others finish what was begun."""
    for _ in range(2):
        out = source.with_name("out")
        store.get_package(NAME).checkout(out)
        assert differences(snapshot(source), snapshot(out)) == []
        remove(out)
        keeping.collect(store.root, grace=10**9)
    assert ledger_problems(Path(store.path)) == []
    assert os.listdir(Path(store.path) / "trash") == []


@pytest.fixture
def before_its_turn(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Callable[[], object]]]:
    """What happens once an addition has read its source, and before it has the lock."""
    flush, todo = Publisher.flush, list[Callable[[], object]]()

    def flush_late(publisher: Publisher) -> None:
        flush(publisher)
        if todo:
            todo.pop()()

    monkeypatch.setattr(Publisher, "flush", flush_late)
    yield todo
    assert todo == []


@LAYOUTS
def test_an_addition_outlives_a_removal_that_was_killed_before_it(
    store: PackageStore,
    source: Path,
    before_its_turn: list[Callable[[], object]],
    layout: Layout,
) -> None:
    """Else the next command would carry out the removal, on what was added since."""

    def removed_by_half() -> None:
        add(store, source, layout)
        with closing(open_ledger(store.path)) as ledger, publish_lock(store.root):
            ledger.intend(NAME, Intent.REMOVE)
            discard(store.root, NAME, layout)

    before_its_turn.append(removed_by_half)
    assert not add(store, source, layout).already_present
    assert_whole(store, source)


@LAYOUTS
def test_what_is_said_to_be_present_is_recorded(
    store: PackageStore,
    source: Path,
    before_its_turn: list[Callable[[], object]],
    layout: Layout,
) -> None:
    """An addition of the same is killed between its commit and its row."""
    row = "record_added" if layout is Layout.FILE_LEVEL else "queue"

    def added_by_half() -> None:
        moment = Moment(f"{LEDGER}.{row}", "before", 1)
        assert killed(lambda _: add(store, source, layout), Path(store.path), moment)

    before_its_turn.append(added_by_half)
    assert add(store, source, layout).already_present
    with closing(open_ledger(store.path)) as ledger:
        assert ledger.intents() == {}
    assert_whole(store, source)


def test_what_a_killed_addition_published_is_on_disk_before_its_row(
    store: PackageStore, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moment = Moment(f"{LEDGER}.record_added", "before", 1)
    assert killed(lambda _: add(store, source), Path(store.path), moment)
    assert store.has_package(NAME)
    told: list[str] = []
    fsync, record = disk.fsync, Ledger.record_added
    packages = os.fstat(store.root.packages).st_ino

    def flushed(fd: int) -> None:
        fsync(fd)
        told.extend(["flushed"] * (os.fstat(fd).st_ino == packages))

    def recorded(*arguments: object) -> None:
        told.append("recorded")
        record(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(disk, "fsync", flushed)
    monkeypatch.setattr(Ledger, "record_added", recorded)
    keeping.collect(store.root, grace=10**9)
    assert told[0] == "flushed"
    assert "recorded" in told
    assert_whole(store, source)


def test_a_collection_records_what_was_published_while_it_waited(
    store: PackageStore, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would refuse, and speak of rebuilding the ledger."""
    collect = collecting.collect

    def waited(*arguments: Any, **named: Any) -> collecting.Collection:
        moment = Moment(f"{LEDGER}.record_added", "before", 1)
        assert killed(lambda _: add(store, source), Path(store.path), moment)
        return collect(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(collecting, "collect", waited)
        assert keeping.collect(store.root, grace=0).objects == 0
    assert_whole(store, source)


def test_who_removes_a_large_package_holds_nobody_up(
    store: PackageStore, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it is unlinked others come and go, also under its name."""
    add(store, source)
    remove_tree, added = disk.remove_tree, list[bool]()

    def slow(name: str | bytes, at: int) -> None:
        if not added and ".removed." in str(name):
            added.append(add(store, source).already_present)
        remove_tree(name, at)

    with monkeypatch.context() as patch:
        patch.setattr(disk, "remove_tree", slow)
        keeping.remove_package(store.root, NAME)
    assert added == [False]
    assert_whole(store, source)


def test_what_was_discarded_is_never_taken_for_what_may_be_put_back(
    store: PackageStore, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trash of an earlier package of the name is left over while a later one is cleaned up."""
    add(store, source, Layout.LEGACY)
    with monkeypatch.context() as patch:
        patch.setattr("regrain.maintain.remove.empty_discarded", lambda *_: None)
        keeping.remove_package(store.root, NAME)
        (Path(store.path) / "trash" / f"{NAME}.removed.0" / "manifest.toml").unlink()
        add(store, source, Layout.LEGACY)
    with closing(open_ledger(store.path)) as ledger, publish_lock(store.root):
        ledger.intend(NAME, Intent.CLEANUP)
    assert_whole(store, source)
