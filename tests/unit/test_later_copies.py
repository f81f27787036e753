"""Files that cannot be linked are copied late: only where nobody brings the bytes by a link."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from blake3 import blake3

from regrain.app.store import PackageStore
from regrain.errors import PackageError
from regrain.migrate import staging
from regrain.migrate.copies import OpenFile, write_and_read_back
from regrain.migrate.jobs import Wanted
from regrain.migrate.publish import Publisher
from regrain.model.entry import Entry
from regrain.model.events import PackageFailed, PackageGivenUp
from tests.conftest import remove
from tests.faults.inline import Told, Way, initialise, inline_workers, migrate
from tests.faults.judge import ledger_problems
from tests.faults.small import quick_place
from tests.stores import assert_complete, is_linked, record, statuses
from tests.trees import LegacyPackage, Tree, describe, package_hash

SHARED = b"what both packages hold\n"
NAME = "subject"
SLICED = [pytest.param(0, id="whole"), pytest.param(2, id="sliced")]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    with quick_place(tmp_path) as found:
        yield found / "store"
        remove(found / "store")


def build(store: Path, slice_entries: int = 0, **modes: int) -> dict[str, LegacyPackage]:
    """Packages that all have one file of the same bytes, each with a mode of its own."""
    made = {}
    for name, mode in modes.items():
        label = package_hash(2, name)
        with Tree(store / label, Random(name)) as tree:
            describe(tree, name, "1", sbom=())
            tree.file(NAME.encode(), SHARED, mode)
            for number in range(4):
                tree.file(b"own%d" % number, b"%d of %s\n" % (number, name.encode()))
        made[label] = LegacyPackage(label, store / label, name, "1", name)
    initialise(store, slice_entries)
    return made


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The paths that were copied, as they are."""
    seen: list[bytes] = []
    original = write_and_read_back

    def counted(file: OpenFile, target: int, entry: Entry) -> None:
        seen.append(entry.path)
        original(file, target, entry)

    monkeypatch.setattr(staging, "write_and_read_back", counted)
    return seen


def carrier(store: Path) -> Path:
    digest = blake3(SHARED).hexdigest()
    (found,) = (store / "objects" / digest[:2]).glob(f"{digest}*")
    return found


@pytest.mark.parametrize("slice_entries", SLICED)
@pytest.mark.parametrize("first", ["open", "plain"])
def test_nothing_is_copied_where_another_package_can_be_linked(
    place: Path, copied: list[bytes], slice_entries: int, first: str
) -> None:
    modes = {"open": 0o664, "plain": 0o644}
    ordered = {name: modes[name] for name in sorted(modes, key=lambda name: name != first)}
    packages = build(place, slice_entries, **ordered)
    before = record(packages)
    migrate(place, Way(slice_entries=slice_entries))
    assert copied == []
    linked = packages[package_hash(2, "plain")].path / NAME
    assert os.path.samefile(carrier(place), linked)
    assert not is_linked(place, packages[package_hash(2, "open")].path / NAME)
    assert_complete(place, packages, before)


@pytest.mark.parametrize("slice_entries", SLICED)
def test_what_nobody_can_link_is_copied_once(
    place: Path, copied: list[bytes], slice_entries: int
) -> None:
    packages = build(place, slice_entries, first=0o664, second=0o664, third=0o646)
    before = record(packages)
    migrate(place, Way(batch=3, slice_entries=slice_entries))
    assert copied == [NAME.encode()]
    assert carrier(place).stat().st_mode & 0o7777 == 0o644
    assert_complete(place, packages, before)


def test_nothing_is_copied_that_an_earlier_batch_brought(place: Path, copied: list[bytes]) -> None:
    packages = build(place, first=0o664, second=0o664)
    before = record(packages)
    migrate(place, Way(batch=1))
    assert copied == [NAME.encode()]
    assert_complete(place, packages, before)


def test_a_package_that_relied_on_one_that_failed_late_has_another_turn(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file that was to be linked is written to, each time just before that."""
    packages = build(place, open=0o664, plain=0o644)
    plain = packages[package_hash(2, "plain")].path / NAME
    flush = Publisher.flush
    turns = 0

    def flush_after_a_change(publisher: Publisher) -> None:
        nonlocal turns
        turns += 1
        plain.write_bytes(b"%d" % turns)
        flush(publisher)

    monkeypatch.setattr(Publisher, "flush", flush_after_a_change)
    told = Told()
    with inline_workers():
        PackageStore.open(place, Way().settings()).migration().run(told.events.append)
    found = statuses(place)
    assert found[package_hash(2, "open")] == "completed"
    assert found[package_hash(2, "plain")] == "failed"
    assert len(told.of(PackageFailed)) == 1
    assert any("its turn again" in event.why for event in told.of(PackageGivenUp))
    assert carrier(place).read_bytes() == SHARED
    assert ledger_problems(place) == []


def test_a_file_that_changes_before_it_is_copied(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its package is read again, and what it has then is published."""
    packages = build(place, open=0o664)
    path = packages[package_hash(2, "open")].path / NAME
    changed: list[Path] = []
    original = staging.Stager.copy_later

    def after_a_change(stager: staging.Stager, file: OpenFile, one: Wanted) -> object:
        if not changed:
            changed.append(path)
            status = path.stat()
            path.write_bytes(SHARED.upper())
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        return original(stager, file, one)

    monkeypatch.setattr(staging.Stager, "copy_later", after_a_change)
    told = Told()
    with inline_workers():
        PackageStore.open(place, Way().settings()).migration().run(told.events.append)
    assert changed
    assert len(told.of(PackageGivenUp)) == 1
    assert not list((place / "quarantine").iterdir())
    assert_complete(place, packages, record(packages))


def test_a_copy_that_does_not_hold_what_was_read(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing changed but the bytes on their way: that is a failure, told as such."""
    build(place, open=0o664)

    def broken(file: OpenFile, target: int, entry: Entry) -> None:
        raise PackageError("a copy does not hold the bytes that were read", path=entry.path)

    monkeypatch.setattr(staging, "write_and_read_back", broken)
    told = Told()
    with inline_workers():
        PackageStore.open(place, Way().settings()).migration().run(told.events.append)
    (failed,) = told.of(PackageFailed)
    assert "does not hold" in failed.message
    assert not list((place / "objects").glob(f"*/{blake3(SHARED).hexdigest()}*"))
