"""Runs that lose their ledger's server: what is asked of the next one, and when there is none.

That it works with a server is seen in ``tests/system/test_postgres.py``; here what a run does is
written down, so that it can lose its server at every point.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from regrain.app import backup_places, keeping, reconnecting, repairing
from regrain.app.reconnecting import FRUITLESS_MAX, through_restarts
from regrain.app.running import Request
from regrain.errors import HaltedError, LedgerLostError, LockedError
from regrain.migrate.orders import Summary
from regrain.model.events import Event, LegacyRemoved, PackageCompleted, PackageFailed, Remark
from regrain.store.root import StoreRoot
from tests import awkward
from tests.faults.inline import initialise

COMPLETED = PackageCompleted("a", "", "", 1, 1, 0, 0)
FAILED = PackageFailed("b", "", "", "", None)
REMOVED = LegacyRemoved("a", 4096)
BEGUN = Remark("it began")
Life = tuple[list[Event], Summary | Exception]


class Lives:
    """One run after the other: what each tells, and how it ends."""

    def __init__(self, *lives: Life) -> None:
        self._lives: Iterator[Life] = iter(lives)
        self.asked: list[Request] = []

    def __call__(self, request: Request, on_event: Callable[[Event], None]) -> Summary:
        self.asked.append(request)
        events, end = next(self._lives)
        for event in events:
            on_event(event)
        if isinstance(end, Exception):
            raise end
        return end


@pytest.fixture
def root(store_path: Path, seed: int) -> StoreRoot:
    """A store whose ledger can be opened at once, whenever it is asked."""
    awkward.make_three(store_path, seed)
    initialise(store_path)
    return StoreRoot(str(store_path))


def lost() -> LedgerLostError:
    return LedgerLostError("the connection to the ledger was lost", why="it went away")


def go(root: StoreRoot, lives: Lives, request: Request | None = None, **options: Any) -> Summary:
    told: list[Event] = options.pop("told", [])
    stopping = options.pop("stopping", lambda: False)
    return through_restarts(root, request or Request(), lives, told.append, stopping)


def test_what_all_did_is_one_sum(root: StoreRoot) -> None:
    told: list[Event] = []
    lives = Lives(
        ([COMPLETED, REMOVED, COMPLETED, FAILED], lost()),
        ([COMPLETED], Summary(1, 2, stopped=True, removed=3, freed_bytes=10, kept=5)),
    )
    done = go(root, lives, Request(limit=9, retry_failed=True, rescan=True), told=told)
    assert done == Summary(3, 3, stopped=True, removed=4, freed_bytes=4106, kept=5)
    assert lives.asked[1] == Request(limit=6, retry_failed=False, rescan=True)
    (remark,) = [event.text for event in told if isinstance(event, Remark)]
    assert remark.startswith("the connection to the ledger was lost: it went away")


def test_what_was_not_begun_is_asked_for_again(root: StoreRoot) -> None:
    lives = Lives(([BEGUN], lost()), ([], Summary(1, 0, stopped=False)))
    go(root, lives, Request(retry_failed=True, limit=2))
    assert lives.asked == [Request(retry_failed=True, limit=2)] * 2


def test_nothing_is_left_to_ask_for(root: StoreRoot) -> None:
    lives = Lives(([COMPLETED, COMPLETED], lost()))
    assert go(root, lives, Request(limit=2)) == Summary(2, 0, stopped=False)


@pytest.mark.parametrize(
    ("events", "request_", "is_stopping"),
    [
        pytest.param([], Request(), False, id="never there"),
        pytest.param([BEGUN], Request(), True, id="to stop"),
        pytest.param([COMPLETED], Request(accept="a"), False, id="accepted once"),
    ],
)
def test_it_ends_with_the_first_loss(
    root: StoreRoot, events: list[Event], request_: Request, *, is_stopping: bool
) -> None:
    lives = Lives((events, lost()))
    with pytest.raises(LedgerLostError):
        go(root, lives, request_, stopping=lambda: is_stopping)
    assert len(lives.asked) == 1


def test_losing_it_in_turn_without_getting_on_ends(root: StoreRoot) -> None:
    fruitless: list[Life] = [([BEGUN], lost())] * FRUITLESS_MAX
    lives = Lives(*fruitless[1:], ([COMPLETED], lost()), *fruitless)
    with pytest.raises(LedgerLostError):
        go(root, lives)
    assert len(lives.asked) == 2 * FRUITLESS_MAX


def test_its_own_dead_session_may_hold_the_lock_for_a_while(
    root: StoreRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconnecting, "_TRY_SECONDS", 0.0)
    held: Life = ([], LockedError("another run holds the store"))
    lives = Lives(([COMPLETED], lost()), held, held, ([], Summary(1, 0, stopped=False)))
    assert go(root, lives).completed == 2
    with pytest.raises(LockedError):  # nothing was lost
        go(root, Lives(held))
    monkeypatch.setattr(reconnecting, "HELD_SECONDS", 0.0)
    with pytest.raises(LockedError):
        go(root, Lives(([COMPLETED], lost()), held))


TELLING: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "add": lambda: keeping._told("here"),
    "backup": backup_places.told_as_copying,
    "repair": repairing._told_as_repair,
}


@pytest.mark.parametrize("telling", TELLING.values(), ids=TELLING)
def test_no_disk_is_blamed_for_a_server(
    telling: Callable[[], AbstractContextManager[None]],
) -> None:
    def advice(error: HaltedError) -> str:
        with pytest.raises(HaltedError) as caught, telling():
            raise error
        return caught.value.advice

    assert advice(LedgerLostError("lost", advice="See to the server.")) == "See to the server."
    assert "disk" in advice(HaltedError("failed", advice="See to it."))
