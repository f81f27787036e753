"""Reading the ledger beside writers without a trace; looking at a store often, and cheaply."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from statistics import median
from tempfile import mkdtemp
from time import monotonic

import pytest

from regrain.app.observing import SHARE_MAX, Observer
from regrain.errors import CorruptionError, LockedError, NotAStoreError
from regrain.ledger import Ledger, Scanned, open_ledger, read_beside
from regrain.migrate.phases import switch
from regrain.model.phase import Phase
from regrain.settings import Settings
from regrain.store.root import StoreRoot
from tests.command import Regrain
from tests.conftest import remove
from tests.verbs import PACKAGE, make_package


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = tmp_path_factory.mktemp("beside") / "store"
    make_package(place / PACKAGE, "one")
    Regrain(place)("init")
    Regrain(place)("migrate")
    yield place
    remove(place)


@pytest.fixture
def path(made: Path, store_path: Path) -> Path:
    shutil.copytree(made, store_path)
    return store_path


def trace(path: Path) -> list[tuple[str, int, int]]:
    """The files of the ledger, and when they changed."""
    names = sorted(name for name in os.listdir(path) if name.startswith("state.sqlite"))
    stats = [(path / name).stat() for name in names]
    return [(name, s.st_size, s.st_mtime_ns) for name, s in zip(names, stats, strict=True)]


def notes(ledger: Ledger) -> str:
    """The last note in the history."""
    last = ledger.last_event("note")
    return "" if last is None else last.detail


# the ledger


def test_at_rest_and_beside_a_writer_no_trace_is_left(path: Path) -> None:
    before = trace(path)
    assert len(before) == 1
    assert read_beside(str(path), notes) == ""
    assert trace(path) == before
    with closing(open_ledger(str(path))) as writer:
        for words in ("first", "second"):
            writer.remember("note", detail=words)
            before = trace(path)
            assert len(before) == 3
            assert read_beside(str(path), notes) == words
            assert trace(path) == before


def test_what_was_read_while_somebody_began_to_write_counts_for_nothing(path: Path) -> None:
    calls: list[str] = []
    writers: list[Ledger] = []

    def read(ledger: Ledger) -> str:
        if not calls:
            writers.append(open_ledger(str(path)))
            writers[0].remember("note", detail="meanwhile")
        calls.append(notes(ledger))
        return calls[-1]

    try:
        assert read_beside(str(path), read) == "meanwhile"
        assert len(calls) == 2
    finally:
        writers[0].close()


def test_a_ledger_that_changes_each_time_is_busy(path: Path) -> None:
    def read(ledger: Ledger) -> str:
        found = notes(ledger)
        with closing(open_ledger(str(path))) as writer:
            writer.remember("note", detail=f"{found}x")
        return found

    with pytest.raises(LockedError, match="changed whenever"):
        read_beside(str(path), read)


def test_errors_are_those_of_the_ledger(path: Path) -> None:
    (path / "state.sqlite").write_bytes(b"no database at all" * 500)
    with pytest.raises(CorruptionError):
        read_beside(str(path), notes)
    (path / "state.sqlite").unlink()
    with pytest.raises(CorruptionError, match="missing"):
        read_beside(str(path), notes)


# the store


class Clock:
    """A clock on which each look at it takes so many seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        self.takes = 0.0

    def __call__(self) -> float:
        self.now += self.takes
        return self.now


def test_a_small_store_is_looked_at_each_time(path: Path) -> None:
    observer = Observer(str(path), Settings(), Clock())
    assert observer.look().figures["foreign_names"] == 0
    (path / "foreign").mkdir()
    assert observer.look().figures["foreign_names"] == 1


def test_what_takes_long_is_looked_at_seldom_and_damage_at_once(path: Path) -> None:
    clock = Clock()
    observer = Observer(str(path), Settings(), clock)
    clock.takes = 1.0
    for _ in ("once may be bad luck", "twice is the store"):
        assert observer.look().health.status == "healthy"
    (path / "foreign").mkdir()
    with closing(open_ledger(str(path))) as ledger:
        ledger.concern(PACKAGE, "rot")
    seen = observer.look()
    assert seen.figures["foreign_names"] == 0
    assert seen.health.status == "critical"
    assert len(seen.state.matters.concerns) == 1
    clock.now += 2 / SHARE_MAX
    assert observer.look().figures["foreign_names"] == 1


def test_what_was_found_while_somebody_began_to_write_is_not_kept(path: Path) -> None:
    """The clock is asked right after the sums were made: then somebody queues a package."""
    writers: list[Ledger] = []

    class Interrupting(Clock):
        calls = 0

        def __call__(self) -> float:
            self.calls += 1
            if self.calls == 3:
                writers.append(open_ledger(str(path)))
                writers[0].queue([Scanned("cd" * 32, "name", "1", 1, 2, 3, 4)])
            return super().__call__()

    clock = Interrupting()
    clock.takes = 1.0
    try:
        assert Observer(str(path), Settings(), clock).look().figures["pending_packages"] == 1
    finally:
        writers[0].close()


def test_a_change_of_phase_is_seen_with_all_that_follows(path: Path) -> None:
    clock = Clock()
    observer = Observer(str(path), Settings(), clock)
    clock.takes = 1.0
    assert observer.look().figures["phase"] == "dual"
    (path / "foreign").mkdir()
    with closing(open_ledger(str(path))) as ledger:
        switch(StoreRoot(str(path)), ledger, Phase.FILE_LEVEL)
    seen = observer.look()
    assert (seen.figures["phase"], seen.figures["foreign_names"]) == ("file_level", 1)


def test_a_store_may_go_and_another_come(path: Path, workplace: Path) -> None:
    observer = Observer(str(path), Settings())
    observer.look()
    path.rename(workplace / "aside")
    with pytest.raises(NotAStoreError):
        observer.look()
    (workplace / "aside").rename(path)
    assert observer.look().figures["total_packages"] == 1


def test_the_snapshot_of_another_version_is_no_failure(path: Path) -> None:
    snapshot = path / "migration" / "state.json"
    for content in ('{"foreground": 1, "figures": 2, "at": "x"}', '{"foreground":{}}', "[", ""):
        snapshot.write_text(content)
        seen = Observer(str(path), Settings()).look()
        assert (seen.foreground, seen.snapshot_at, seen.run.errors) == (None, None, {})
    snapshot.write_text('{"foreground": {"baseline_seconds": 1, "reads": {"counts": [1, 2]}}}')
    assert Observer(str(path), Settings()).look().foreground is None


@pytest.fixture
def path_in_memory(made: Path) -> Iterator[Path]:
    """Where very many directories are made and removed quickly."""
    if not os.path.isdir("/dev/shm"):
        pytest.skip("needs /dev/shm")
    place = Path(mkdtemp(prefix="regrain-", dir="/dev/shm"))
    shutil.copytree(made, place / "store")
    yield place / "store"
    remove(place)


@pytest.mark.slow
def test_a_hundred_thousand_packages_are_no_load(path_in_memory: Path) -> None:
    path = path_in_memory
    hashes = [f"{number:064x}" for number in range(100_000)]
    for name in hashes:
        (path / name).mkdir()
    with closing(open_ledger(str(path))) as ledger:
        ledger.queue(Scanned(name, "name", "1", 30, 40, 10**6, 2 * 10**6) for name in hashes)
    observer = Observer(str(path), Settings())
    began = monotonic()
    seen = observer.look()
    first = monotonic() - began
    assert (seen.figures["pending_packages"], seen.figures["unqueued_directories"]) == (100_000, 0)
    assert first < 10
    looks = []
    for _ in range(9):
        began = monotonic()
        observer.look()
        looks.append(monotonic() - began)
    assert median(looks) < 0.1, (first, looks)
