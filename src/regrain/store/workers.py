"""Worker processes: spawned, dying with their parent, deaf to its signals.

A forked worker would keep the locks of a run that was killed, and go on writing.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from regrain import disk
from regrain.errors import HaltedError
from regrain.store.tokens import NamelessContext

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future


_FILES_A_WORKER = 2000
_BYTES_A_WORKER = 128 << 20
"""Work of about the time that a worker needs to start (0.2 s, measured)."""


def worth_starting(jobs_max: int, files: int, size: int) -> int:
    """Return how many workers have enough to do that starting them pays.

    Args:
        jobs_max: How many at the most.
        files: What there is to do, in files.
        size: The same in bytes.
    """
    return min(jobs_max, 1 + files // _FILES_A_WORKER + size // _BYTES_A_WORKER)


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0))


class _Signals(ctypes.Structure):
    _fields_ = (
        ("value", ctypes.c_byte),
        ("turn", ctypes.c_long),
        ("rate", ctypes.c_double),
        ("rate_held_at", ctypes.c_double),
        ("files_rate", ctypes.c_double),
        ("files_rate_held_at", ctypes.c_double),
    )


def signals() -> Any:  # noqa: ANN401 -- shared memory, whose type is private to ctypes
    """Return what workers share with their run.

    Setting ``.value`` to 1 asks them to stop; counting ``.turn`` up, to forget what they
    know of the store, since others may have collected in between. ``.rate`` and
    ``.files_rate`` are how many bytes and files a second each may read; 0 is no limit.
    ``.rate_held_at`` and ``.files_rate_held_at`` say when one of them last had to wait for
    that, on the monotonic clock of the machine.
    """
    return multiprocessing.get_context("spawn").RawValue(_Signals)


class _Workers(ProcessPoolExecutor):
    """Says of a death that it is one, at whatever moment it is found."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 -- as in the class above
        """Make the pool; no process is started yet."""
        super().__init__(*args, **kwargs)
        # All are started before the thread that waits for deaths. Started one by one, on demand,
        # one may come when another has died and all were told to end: the pool then waits for ever.
        self._safe_to_dynamically_spawn_children = False

    def submit(
        self,
        fn: Callable[..., Any],
        /,
        *args: Any,  # noqa: ANN401 -- as in the class above
        **kwargs: Any,  # noqa: ANN401 -- likewise
    ) -> Future[Any]:
        """Hand out a task.

        Raises:
            BrokenProcessPool: A worker died.
        """
        try:
            return super().submit(fn, *args, **kwargs)
        except OSError as error:
            # The thread that saw the death may close a pipe that is about to be written to.
            if error.errno is not None:
                raise
            raise BrokenProcessPool(f"a worker process died: {error}") from error


def spawn_executor(
    jobs: int, initializer: Callable[..., None], *arguments: object
) -> ProcessPoolExecutor:
    """Return an executor of ``jobs`` spawned workers, each begun by ``initializer``."""
    return _Workers(
        max_workers=jobs,
        mp_context=NamelessContext(),
        initializer=_begin,
        initargs=(os.getpid(), initializer, arguments),
    )


@contextmanager
def deaths_told() -> Iterator[None]:
    """Have a worker that dies be an error of ours: most often the system was out of memory.

    Raises:
        HaltedError: A worker died.
    """
    try:
        yield
    except BrokenExecutor as error:
        raise HaltedError(
            "a worker process died",
            why="the system killed it, or it crashed",
            advice="Often it is memory: see the kernel's messages. Nothing is lost; give the same "
            "command again, with fewer --jobs where it has them.",
        ) from error


def _begin(parent: int, initializer: Callable[..., None], arguments: tuple[object, ...]) -> None:
    disk.die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    initializer(*arguments)
