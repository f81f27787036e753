"""Units of work for an engine, in threads of this process: what each worker sees of its run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from regrain.app import initialising
from regrain.errors import HaltedError
from regrain.store import errands
from regrain.store.engines import Engine, Office
from regrain.store.locks import RunDirectory
from regrain.store.root import StoreRoot
from tests.waiting import until


class Threads(Engine):
    """An engine of two threads."""

    def __init__(self) -> None:
        super().__init__("threads")
        self._pool = ThreadPoolExecutor(2)

    def submit(self, task: Callable[..., Any], *arguments: object) -> Future[Any]:
        return self._pool.submit(task, *arguments)

    def count(self) -> dict[str, int]:
        return {"here": 2}

    def leave(self, store: str, run: str) -> None:
        errands.leave(store, run)

    def close(self) -> None:
        self._pool.shutdown()


class Keeper:
    """A worker that does nothing but know its board."""

    closed = 0

    def __init__(self, board: errands.Board) -> None:
        self.board = board

    def close(self) -> None:
        Keeper.closed += 1


@pytest.fixture
def engine() -> Iterator[Threads]:
    made = Threads()
    yield made
    made.close()


@pytest.fixture
def root(store_path: Path) -> StoreRoot:
    store_path.mkdir()
    initialising.initialise(str(store_path), lambda _: None)
    return StoreRoot(str(store_path))


def test_a_stop_ends_what_was_handed_out_before_and_nothing_later(
    engine: Threads, root: StoreRoot
) -> None:
    def until_stopped() -> int:
        board = errands.at_work().board
        until(lambda: bool(board.value), "it is told to stop")
        return threading.get_ident()

    with RunDirectory(root, marks_errors=False) as run:
        executor, control = Office(engine, root, run).dispatcher(Keeper, ())
        both = [executor.submit(until_stopped) for _ in range(2)]
        control.value = 1
        assert len({future.result(60) for future in both}) == 2, "each thread has a worker"
        control.value = 0
        assert executor.submit(lambda: errands.at_work().board.value).result(60) == 0
        closed = Keeper.closed
        executor.shutdown()
        assert Keeper.closed == closed + 2, "nothing stays open for a run that ended"


def test_what_a_run_wants_comes_with_the_unit_or_soon(engine: Threads, root: StoreRoot) -> None:
    with RunDirectory(root, marks_errors=False) as run:
        executor, control = Office(engine, root, run).dispatcher(Keeper, ())
        control.turn += 1
        assert executor.submit(lambda: errands.at_work().board.turn).result(60) == 1
        control.rate = 7.0
        until(
            lambda: executor.submit(lambda: errands.at_work().board.rate).result(60) == 7.0,
            "the rate is seen",
        )
        executor.shutdown()


def test_a_run_that_ended_gets_no_more_work(engine: Threads, root: StoreRoot) -> None:
    with RunDirectory(root, marks_errors=False) as run:
        executor, _ = Office(engine, root, run).dispatcher(Keeper, ())
    with pytest.raises(HaltedError, match="does not see the run's directory"):
        executor.submit(errands.at_work).result(60)
