"""Requests side by side: threads, since what they do is wait."""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from threading import Thread
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


class StoppedError(Exception):
    """A stop was asked for; what was begun is not whole, and does not count."""


def side_by_side(
    work: Callable[[_Task], _Result],
    tasks: Iterable[_Task],
    jobs: int,
    stopping: Callable[[], bool],
) -> Iterator[_Result]:
    """Yield what ``work`` makes of each task, in no order; few are handed out ahead.

    Raises:
        StoppedError: ``stopping`` said so; tasks in hand were finished.
    """
    waiting = iter(tasks)
    with ThreadPoolExecutor(jobs, thread_name_prefix="remote") as pool:
        hands: set[Future[_Result]] = set()
        try:
            goes_on = True
            while goes_on or hands:
                while goes_on and len(hands) < 2 * jobs:
                    if stopping():
                        raise StoppedError
                    try:
                        task = next(waiting)
                    except StopIteration:
                        goes_on = False
                    else:
                        hands.add(pool.submit(work, task))
                done, hands = wait(hands, return_when=FIRST_COMPLETED)
                for one in done:
                    yield one.result()
        finally:
            for one in hands:
                one.cancel()


def within(seconds: float, work: Callable[[], _Result]) -> _Result:
    """Return what ``work`` makes, or leave it to itself, in a thread that holds up no exit.

    Raises:
        TimeoutError: It took too long.
    """
    made: Future[_Result] = Future()

    def do() -> None:
        try:
            made.set_result(work())
        except BaseException as error:  # noqa: BLE001 -- told to who waits
            made.set_exception(error)

    Thread(target=do, name="within", daemon=True).start()
    return made.result(seconds)
