"""Locks and semaphores between processes that have no name anywhere.

Those of ``multiprocessing`` are files in ``/dev/shm`` as long as workers may yet be started; when
a whole process group is killed at once nobody is left to remove them. A pipe goes with the last
process that has it: here a token in a pipe is the right to go on.
"""

from __future__ import annotations

import os
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import TYPE_CHECKING, Self

from regrain.model.clock import monotonic

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext

_TOKEN = b"."


class Tokens:
    """A semaphore; with one token a lock. Sent to a process by the way its workers start."""

    def __init__(self, context: BaseContext, count: int) -> None:
        self._reader, self._writer = context.Pipe(duplex=False)
        os.set_blocking(self._reader.fileno(), False)  # another may be faster after a wait
        os.write(self._writer.fileno(), _TOKEN * count)

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:  # noqa: FBT001, FBT002 -- the signature of those it stands for
        """Take a token; False where there was none in time."""
        due = None if timeout is None else monotonic() + timeout
        while True:
            try:
                return bool(os.read(self._reader.fileno(), 1))
            except BlockingIOError:
                left = None if due is None else max(0.0, due - monotonic())
                if not block or not self._reader.poll(left):
                    return False

    def release(self) -> None:
        """Put a token back."""
        os.write(self._writer.fileno(), _TOKEN)

    def __enter__(self) -> Self:
        """Take a token."""
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        """Put it back."""
        self.release()

    @property
    def _semlock(self) -> Self:
        """What a queue asks whether it is full."""
        return self

    def _is_zero(self) -> bool:
        return not self._reader.poll(0)


class _Process(SpawnProcess):
    """A process that ends when its pool says so, even if it is deaf to SIGTERM.

    A pool says so when another died, who may have held a token: who waits for that, waits for ever.
    """

    def terminate(self) -> None:
        """Kill it."""
        self.kill()


class NamelessContext(SpawnContext):
    """Spawns processes; the queues between them leave nothing behind, however they end."""

    Process = _Process

    def Lock(self) -> Tokens:  # type: ignore[override]  # noqa: N802 -- the name it has there
        """Return a lock."""
        return Tokens(self, 1)

    def BoundedSemaphore(self, value: int = 1) -> Tokens:  # type: ignore[override]  # noqa: N802
        """Return a semaphore."""
        return Tokens(self, value)
