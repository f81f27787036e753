"""Workers that meet: one package's fate must not be another's."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from random import Random
from typing import Any

import pytest
from blake3 import blake3

from regrain import disk
from regrain.app.store import PackageStore
from regrain.errors import HaltedError
from regrain.migrate import pool
from regrain.migrate.orders import Summary
from regrain.migrate.publish import Publisher
from regrain.model.events import PackageFailed, PackageGivenUp
from tests.conftest import remove
from tests.faults.inline import (
    Flag,
    Inline,
    Told,
    Way,
    close_worker,
    initialise,
    inline_workers,
    migrate,
    slices_of,
    start_worker,
)
from tests.faults.judge import ledger_problems
from tests.faults.small import quick_place
from tests.reader import check_store
from tests.stores import assert_complete, new_layout_differences, record, statuses
from tests.trees import LegacyPackage, Tree, describe, package_hash

SHARED = b"what both packages hold\n"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    with quick_place(tmp_path) as found:
        yield found / "store"
        remove(found / "store")


def build(store: Path, slice_entries: int = 0, **files: int) -> dict[str, LegacyPackage]:
    """Packages of so many files each, one of which they all share; larger ones are sliced."""
    made = {}
    for name, count in files.items():
        label = package_hash(1, name)
        with Tree(store / label, Random(name)) as tree:
            describe(tree, name, "1", sbom=())
            tree.file(b"a-shared", SHARED)
            for number in range(count):
                tree.file(b"f%03d" % number, b"%d of %s\n" % (number, name.encode()))
        made[label] = LegacyPackage(label, store / label, name, "1", name)
    initialise(store, slice_entries)
    return made


class Ordered(Executor):
    """One worker that takes tasks in an order it is told, as a second worker's luck may have it.

    Args:
        place: Where it works.
        may_start: Told a task's name and the names of those that are done.
    """

    def __init__(
        self, place: pool.Workplace, stop: Flag, may_start: Callable[[str, list[str]], bool]
    ) -> None:
        start_worker(place, stop)
        self.done: list[str] = []
        self._may_start = may_start
        self._tasks: list[tuple[Future[Any], str, Callable[[], Any]]] = []
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        name = args[0].__name__  # a crew has its tasks timed
        with self._changed:
            self._tasks.append((future, name, lambda: fn(*args, **kwargs)))
            self._changed.notify()
        return future

    def _work(self) -> None:
        while not self._ended:
            with self._changed:
                task = self._next()
                if task is None:
                    self._changed.wait(0.01)  # it may become ready by what others do
                    continue
                self._tasks.remove(task)
            future, name, call = task
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001 -- as an executor does
                future.set_exception(error)
            self.done.append(name)

    def _next(self) -> tuple[Future[Any], str, Callable[[], Any]] | None:
        return next((task for task in self._tasks if self._may_start(task[1], self.done)), None)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join()
        close_worker()


def run(store: Path, way: Way, told: Told, make: Callable[[Any, Flag], Executor]) -> Summary:
    """Migrate with an executor of the test's own."""

    def make_executor(jobs: int, place: pool.Workplace) -> tuple[Executor, Any]:
        stop = Flag()
        return make(place, stop), stop

    original, pool.make_executor = pool.make_executor, make_executor
    try:
        with slices_of(way.slice_entries):
            migration = PackageStore.open(store, way.settings()).migration()
            return migration.run(told.events.append, jobs=2)
    finally:
        pool.make_executor = original


@pytest.mark.timeout(30)
def test_two_packages_that_wanted_the_same_bytes_at_once_both_have_them(place: Path) -> None:
    """The large package wanted a link published; a small one that holds the same bytes is
    committed first, so that the link is not needed any more.
    """
    packages = build(place, 16, large=40, small=2)
    before = record(packages)
    small = package_hash(1, "small")

    def may_start(task: str, done: list[str]) -> bool:
        if task == "bring_in":
            return done.count("bring_in_slice") >= 3
        if task == "finish":
            return (place / "packages" / small).exists()
        return True

    executors: list[Ordered] = []

    def make(workplace: Any, stop: Flag) -> Executor:
        executors.append(Ordered(workplace, stop, may_start))
        return executors[-1]

    told = Told()
    done = run(place, Way(batch=1, slice_entries=16), told, make)
    assert executors[0].done.index("bring_in") < executors[0].done.index("finish")
    assert [event.message for event in told.of(PackageFailed)] == []
    assert (done.completed, done.failed) == (2, 0)
    assert_complete(place, packages, before)


def touch(path: Path) -> None:
    """Change an inode's change time, and nothing else."""
    path.chmod(0o600)
    path.chmod(0o644)


def rewrite(path: Path) -> None:
    """Change a file's bytes in place."""
    path.write_bytes(path.read_bytes()[::-1])


def replace(path: Path) -> None:
    """Put another file of the same bytes and times in a file's place."""
    new = path.with_name("new")
    new.write_bytes(path.read_bytes())
    new.chmod(0o644)
    os.utime(new, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    new.rename(path)


def widen(path: Path) -> None:
    """Let the group write."""
    path.chmod(0o664)


def set_id(path: Path) -> None:
    """Let it run as its owner."""
    path.chmod(0o4644)


def give_away(path: Path) -> None:
    """Let it belong to somebody else."""
    os.chown(path, 12_345, 12_345)


def mark(path: Path) -> None:
    """Give it an attribute."""
    os.setxattr(path, "user.mark", b"yes")


CHANGES = [
    touch,
    rewrite,
    replace,
    widen,
    set_id,
    pytest.param(give_away, marks=pytest.mark.root),
    mark,
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes_between_verifying_and_publishing(
    place: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    """Its package is read again; the other one, which has the same bytes, is not concerned."""
    packages = build(place, first=2, second=3)
    first = packages[package_hash(1, "first")].path / "a-shared"
    changed: list[Path] = []
    flush = Publisher.flush

    def flush_after_a_change(publisher: Publisher) -> None:
        if not changed:
            changed.append(first)
            change(first)
        flush(publisher)

    monkeypatch.setattr(Publisher, "flush", flush_after_a_change)
    told = Told()
    with inline_workers():
        PackageStore.open(place, Way().settings()).migration().run(told.events.append)
    assert changed
    assert set(statuses(place).values()) == {"completed"}
    assert len(told.of(PackageGivenUp)) == (change is not touch)
    assert_complete(place, packages, record(packages))


@pytest.mark.parametrize("change", [*CHANGES, Path.unlink])
def test_a_copy_that_changes_between_verifying_and_publishing(
    place: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    """Both packages want it; if it is not good any more, both are read again."""
    packages = build(place, first=2, second=3)
    flush = Publisher.flush
    changed: list[Path] = []

    def flush_after_a_change(publisher: Publisher) -> None:
        if not changed:
            name = blake3(SHARED).hexdigest()
            changed.extend(place.glob(f"temp/*/objects/*/{name}.m0644"))
            change(changed[0])
        flush(publisher)

    monkeypatch.setattr(Publisher, "flush", flush_after_a_change)
    told, way = Told(), Way(ingest="copy")
    with inline_workers():
        PackageStore.open(place, way.settings()).migration().run(told.events.append)
    assert len(changed) == 1
    assert len(told.of(PackageGivenUp)) == (0 if change in {touch, replace} else 2)
    assert_complete(place, packages, record(packages))


def test_a_name_that_leads_elsewhere_in_the_last_moment(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the last look at a file and the link to it another took its place."""
    packages = build(place, first=2)
    (package,) = packages.values()
    link = disk.link
    swapped: list[bytes] = []

    def link_after_a_swap(source: bytes, at: int, target: bytes, to: int) -> None:
        if source == b"f001" and not swapped:
            swapped.append(source)
            path = package.path / "f001"
            replace(path)
            rewrite(path)
        link(source, at, target, to)

    monkeypatch.setattr(disk, "link", link_after_a_swap)
    assert migrate(place, Way()).completed == 1
    assert swapped
    store = check_store(place, legacy=packages)
    (wrong,) = os.listdir(place / "quarantine")
    assert store.problems == [f"quarantine/ is not empty: {[wrong]}"]
    assert new_layout_differences(store, record(packages), packages) == []
    assert ledger_problems(place) == []


@pytest.mark.parametrize("ingest", ["auto", "copy"])
@pytest.mark.parametrize("name", ["", ".m0644"])
def test_a_broken_object_in_the_way_goes_to_quarantine(place: Path, ingest: str, name: str) -> None:
    """It is never overwritten, and never taken for a good one."""
    packages = build(place, first=2, second=3)
    before = record(packages)
    digest = blake3(SHARED).hexdigest()
    other, broken = (place / "objects" / digest[:2] / (digest + end) for end in ("", name))
    if name:  # a good carrier of another mode has the bare name
        other.write_bytes(SHARED)
        other.chmod(0o755)
    broken.write_bytes(b"cut")
    broken.chmod(0o644)
    migrate(place, Way(ingest=ingest))
    (moved,) = (place / "quarantine").iterdir()
    assert moved.read_bytes() == b"cut"
    moved.unlink()
    assert_complete(place, packages, before)


def test_a_worker_that_dies_costs_no_package(place: Path) -> None:
    packages = build(place, first=2, second=3)
    before = record(packages)
    made: list[Executor] = []

    class Dying(Inline):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            super().submit(fn, *args, **kwargs)  # it died when it was almost done
            future: Future[Any] = Future()
            future.set_exception(BrokenProcessPool("killed"))
            return future

    def make(workplace: Any, stop: Flag) -> Executor:
        made.append((Inline if made else Dying)(workplace, stop))
        return made[-1]

    told = Told()
    done = run(place, Way(), told, make)
    assert len(made) == 2
    assert len(told.of(PackageGivenUp)) == 2
    assert (done.completed, done.failed) == (2, 0)
    assert_complete(place, packages, before)


def test_a_worker_that_dies_while_it_publishes_leaves_no_object_without_a_row(place: Path) -> None:
    """Its package dies with it again and again, and fails; its objects have their names."""
    packages = build(place, first=2, second=3)
    before = record(packages)

    class Dying(Inline):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            future = super().submit(fn, *args, **kwargs)
            if args[0] is pool.publish_objects:
                future = Future()
                future.set_exception(BrokenProcessPool("killed"))
            return future

    done = run(place, Way(batch=1), Told(), Dying)
    assert done.failed
    assert any((place / "objects").glob("*/*"))
    assert ledger_problems(place) == []
    assert os.listdir(place / "temp") == []
    migrate(place, Way(), retry_failed=True)
    assert_complete(place, packages, before)


def test_workers_that_always_die_end_the_run(place: Path) -> None:
    packages = build(place, first=2, second=3)

    class Dying(Inline):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            future: Future[Any] = Future()
            future.set_exception(BrokenProcessPool("killed"))
            return future

    told = Told()
    done = run(place, Way(), told, Dying)
    assert (done.completed, done.failed) == (0, 2)
    assert all("died" in event.message for event in told.of(PackageFailed))
    before = record(packages)
    migrate(place, Way(), retry_failed=True)
    assert_complete(place, packages, before)


def test_workers_that_never_do_anything_halt_the_run(place: Path) -> None:
    packages = build(place, **{f"package{number}": 2 for number in range(20)})
    before = record(packages)
    made: list[Executor] = []

    class Dying(Inline):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            future: Future[Any] = Future()
            future.set_exception(BrokenProcessPool("killed"))
            return future

    def make(workplace: Any, stop: Flag) -> Executor:
        made.append(Dying(workplace, stop))
        return made[-1]

    with pytest.raises(HaltedError, match="keep dying"):
        run(place, Way(), Told(), make)
    assert len(made) == 5
    assert set(statuses(place).values()) == {"pending", "failed"}
    migrate(place, Way(), retry_failed=True)
    assert_complete(place, packages, before)


@pytest.mark.parametrize("slices", [0, 4])
def test_a_stop_puts_back_what_was_not_begun(place: Path, slices: int) -> None:
    packages = build(place, slices, **{f"package{number}": 12 for number in range(9)})
    before = record(packages)
    done = migrate(
        place,
        Way(batch=1, slice_entries=slices),
        stopping=lambda: any((place / "packages").iterdir()),
    )
    assert done.stopped
    assert 0 < done.completed < 9
    assert done.failed == 0
    found = sorted(statuses(place).values())
    assert found == ["completed"] * done.completed + ["pending"] * (9 - done.completed)
    assert os.listdir(place / "temp") == []
    migrate(place, Way())
    assert_complete(place, packages, before)
