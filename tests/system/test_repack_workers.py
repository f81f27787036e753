"""``repack`` with workers: the same as without, whoever dies, stops or is asked twice."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from regrain.app import repacking
from regrain.errors import HaltedError
from regrain.maintain import remake, represent
from regrain.maintain.remake import Bench, Remaker
from regrain.maintain.repack import Change, Choice, Repack, changes
from regrain.maintain.represent import Hands
from regrain.migrate.replica_objects import Copier, Route, Wish
from regrain.model.layout import TEMP
from regrain.store.frames import Compression, Packer, block_size
from regrain.store.locks import RunDirectory
from regrain.store.root import StoreRoot
from regrain.store.workers import signals
from tests.command import Regrain
from tests.faults.inline import Way, initialise, migrate
from tests.faults.judge import ledger_problems
from tests.faults.small import Scene
from tests.packed import compressed_of, lines, make_packed
from tests.reader import check_store
from tests.system.test_repack import objects, repack


@pytest.fixture
def scene(store_path: Path, seed: int) -> Scene:
    """A store whose objects are plain copies."""
    made = make_packed(store_path, seed)
    assert migrate(store_path, Way(ingest="copy")).failed == 0
    return made


@pytest.fixture
def with_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of them, for units of two objects."""
    monkeypatch.setattr(repacking, "_jobs", lambda *_: 2)
    monkeypatch.setattr(represent, "UNIT_OBJECTS", 2)


def problems(scene: Scene) -> list[str]:
    found = check_store(scene.path, legacy=scene.packages).problems
    return [*found, *ledger_problems(scene.path)]


@pytest.mark.usefixtures("with_workers")
def test_workers_do_what_one_process_does(
    scene: Scene, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = workplace / "alone"
    subprocess.run(["cp", "-a", scene.path, alone], check=True)
    beside = Scene(alone, scene.packages, scene.before)
    for choice in ("all", "none"):
        found = repack(scene, choice)
        with monkeypatch.context() as own:
            own.setattr(repacking, "_jobs", lambda *_: 1)
            assert found == repack(beside, choice)
        assert objects(scene.path).keys() == objects(alone).keys()
        assert problems(scene) == []
    assert not list((scene.path / "temp").iterdir())


@pytest.mark.usefixtures("with_workers")
def test_a_worker_that_dies_ends_the_run_and_the_next_goes_on(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(represent, "BATCH_OBJECTS", 2)
    made = remake.make_executor

    def doomed(jobs: int, bench: Bench) -> object:
        executor, stop = made(jobs, bench)
        executor.submit(os.getpid).result()
        for pid in list(executor._processes):  # type: ignore[attr-defined]
            os.kill(pid, signal.SIGKILL)
        return executor, stop

    with monkeypatch.context() as once:
        once.setattr(repacking, "make_executor", doomed)
        with pytest.raises(HaltedError, match="worker process died"):
            repack(scene, "all")
    assert [p for p in problems(scene) if not p.startswith("temp/ is not empty")] == []
    repack(scene, "all")
    assert compressed_of(scene.path)
    assert problems(scene) == []


@pytest.mark.usefixtures("with_workers")
def test_what_workers_did_not_begin_is_told_as_stopped(scene: Scene) -> None:
    asked = iter(range(1000))
    done: Repack = repack(scene, "all", stopping=lambda: next(asked) >= 1)
    assert done.stopped
    assert done.objects == len(compressed_of(scene.path))
    assert problems(scene) == []


LARGE, OBJECTS, LEFT = 1_500_000, 12, 2 << 20
"""A frame of one such object fits into what is left, frames of three do not."""


class Backwards(Executor):
    """Does the first units that are ahead in the wrong order, as workers may."""

    def __init__(self, remaker: Remaker) -> None:
        self.remaker = remaker
        self.waiting: list[tuple[list[Change], Future[remake.Unit]]] = []
        self.is_over = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **_: Any) -> Future[Any]:
        future: Future[remake.Unit] = Future()
        self.waiting.append((args[0], future))
        if self.is_over or len(self.waiting) == represent.UNITS_AHEAD:
            self.is_over = True
            while self.waiting:
                unit, asked = self.waiting.pop()
                asked.set_result(self.remaker.do(unit))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.remaker.close()


@pytest.mark.root
def test_what_is_in_flight_on_a_full_disk_makes_room(
    request: pytest.FixtureRequest, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = signals()
    monkeypatch.setattr(
        repacking,
        "_hands",
        lambda *given: Hands(Backwards(Remaker(given[3], stop)), stop, 1),
    )
    monkeypatch.setattr(represent, "UNIT_OBJECTS", 2)
    place: Path = request.getfixturevalue("ext4")
    package = place / "store" / f"{seed:032x}"
    package.mkdir(parents=True)
    for number in range(OBJECTS):
        (package / str(number)).write_bytes(lines(f"{seed} {number}", LARGE))
    scene = Scene(place / "store", {}, {})
    initialise(scene.path)
    assert migrate(scene.path, Way(ingest="copy")).failed == 0
    with (place / "filler").open("wb") as filler, suppress(OSError):
        while filler.write(bytes(1 << 20)):
            filler.flush()
    os.truncate(place / "filler", (place / "filler").stat().st_size - LEFT)
    done = repack(scene, "all")
    assert done.objects == OBJECTS
    assert len(compressed_of(scene.path)) == OBJECTS
    assert ledger_problems(scene.path) == []


def test_a_unit_that_is_done_twice_is_two_units(scene: Scene) -> None:
    """A worker that was thought lost goes on beside the one that took over."""
    root = StoreRoot(os.fspath(scene.path))
    compression = Compression(3, 0.05)
    packer = Packer(compression, block_size(root.objects))
    unit = list(changes(root, Choice.ALL, packer, Repack()))
    with RunDirectory(root) as run:
        bench = Bench(root.path, run.name, compression, fsync_each=True)
        first, second = Remaker(bench, signals()), Remaker(bench, signals())
        made, again = first.do(unit).made, second.do(unit).made
        staged = [one.staged for one in (*made, *again) if one.staged]
        assert len(set(staged)) == len(staged) > 2
        assert [one._replace(staged="") for one in made] == [
            one._replace(staged="") for one in again
        ]
        pool = Path(root.path, TEMP, run.name, "objects")
        assert {path.name for path in pool.iterdir()} == set(staged)
        first.close()
        second.close()


def test_a_worker_that_is_to_stop_begins_nothing(scene: Scene) -> None:
    root = StoreRoot(os.fspath(scene.path))
    with RunDirectory(root) as run:
        stop = signals()
        stop.value = 1
        worker = Remaker(Bench(root.path, run.name, Compression(3, 0.05), fsync_each=False), stop)
        assert worker.do([]) == remake.Unit([])
        found = changes(root, Choice.ALL, Packer(Compression(3, 0.05), 4096), Repack())
        assert worker.do(list(found)) == remake.Unit([])
        worker.close()


def test_a_copy_that_a_lost_worker_named_is_told_by_the_next(scene: Scene, workplace: Path) -> None:
    """The unit is done again: what it was to name is in its place, and whole, or it is an error."""
    Regrain(scene.path)("backup", "create", workplace / "saved")
    source = StoreRoot(os.fspath(scene.path))
    target = StoreRoot(os.fspath(workplace / "saved"))
    digest = min(path.name for path in (workplace / "saved/objects").glob("*/*"))[:64]
    size = os.stat(f"{digest[:2]}/{digest}", dir_fd=source.objects).st_size
    (workplace / "saved/objects" / digest[:2] / digest).unlink()
    with RunDirectory(target) as run:
        route = Route(source.path, source.store_id, target.path, run.name, flushes=True)
        copier = Copier(route, signals())
        copy = copier.stage(Wish(digest, size))
        published = copier.publish(copy)
        assert copier.publish(copy) == published
        assert published.is_new
        (workplace / "saved/objects" / digest[:2] / digest).write_bytes(b"other bytes")
        with pytest.raises(FileNotFoundError):
            copier.publish(copy)
        copier.close()
