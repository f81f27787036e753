"""Engines: others who start workers, on this host and elsewhere, and bring them units of work.

An engine is what a word says: ``dask:ADDRESS`` or ``mpi``; ``local`` is none. The coordinator keeps
claims, publishing and the ledger; workers get the rest, see ``errands``.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import sys
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from concurrent.futures import wait as wait_for
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from regrain import disk
from regrain.errors import HaltedError, RegrainError, UsageError
from regrain.model.clock import monotonic
from regrain.store.errands import NONCE, Control, Errand, carry_out, leave

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from regrain.store.errands import Worker
    from regrain.store.locks import RunDirectory
    from regrain.store.root import StoreRoot

LOCAL = "local"
_DASK = "dask:"
_MPI = "mpi"
CONNECT_SECONDS = 10
_COUNT_SECONDS = 2.0
_CLOSE_SECONDS = 5
_WAIT_SECONDS = 0.5


class EngineError(RegrainError):
    """The engine does not answer, or went away; what was not published is pending again."""


class Engine:
    """One engine, connected. The base of the two there are.

    Attributes:
        name: The word that names it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._counted_at = 0.0
        self._slots: dict[str, int] = {}

    def submit(self, task: Callable[..., Any], *arguments: object) -> Future[Any]:
        """Hand out a task."""
        raise NotImplementedError

    def count(self) -> dict[str, int]:
        """Return how many units each worker does at a time; nobody where it is gone."""
        raise NotImplementedError

    def leave(self, store: str, run: str) -> None:
        """Have the workers let go of a run that ended."""

    def error_of(self, error: BaseException) -> BaseException:
        """Return what an error that came instead of a result means for the run."""
        if isinstance(error, RegrainError):
            return error
        return HaltedError(
            "a worker cannot do what it is asked to",
            why=f"{type(error).__name__}: {error}",
            advice="Install the same versions of Python and regrain for all workers.",
        )

    def close(self) -> None:
        """Let go of the engine; its workers stay."""

    def workers(self) -> dict[str, int]:
        """Return ``count`` as of some seconds ago: asking costs a round trip."""
        if monotonic() >= self._counted_at + _COUNT_SECONDS:
            self._slots, self._counted_at = self.count(), monotonic()
        return self._slots

    @property
    def slots(self) -> int:
        """How many units are worked on at a time; at least 1, whoever may come yet."""
        return max(1, sum(self.workers().values()))

    def lost(self, why: str) -> EngineError:
        """Return the end of a run whose engine went away."""
        return EngineError(
            f"the engine {self.name} was lost",
            why=why,
            advice="Nothing is lost; see to the engine, then give the same command again: it goes "
            "on where it was.",
        )


class _Dask(Engine):
    """A Dask cluster: its scheduler knows the workers, and gives their units to others."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        try:
            from distributed import Client, KilledWorker
        except ImportError as error:
            raise _not_installed("dask", error) from error
        for logger in ("distributed", "tornado"):  # what they tell, errors tell in one sentence
            logging.getLogger(logger).setLevel(logging.CRITICAL + 1)
        address = name.removeprefix(_DASK)
        try:
            self._client = Client(
                address, timeout=CONNECT_SECONDS, set_as_default=False, name="regrain"
            )
        except (OSError, ValueError, ImportError) as error:
            raise EngineError(
                "no Dask scheduler answers",
                why=f"{address}: {error}",
                advice="Start one ('dask scheduler'), or mend the address after 'dask:'.",
            ) from error
        self._killed: type[BaseException] = KilledWorker
        self._executor = self._client.get_executor(pure=False)

    def submit(self, task: Callable[..., Any], *arguments: object) -> Future[Any]:
        future: Future[Any] = self._executor.submit(task, *arguments)
        return future

    def count(self) -> dict[str, int]:
        if self._client.status != "running":
            return {}
        try:
            return dict(self._client.nthreads())
        except Exception:  # noqa: BLE001 -- whatever it is, nobody can be counted
            return {}

    def leave(self, store: str, run: str) -> None:
        if self._client.status == "running":
            with contextlib.suppress(Exception):  # they let go with the next run, too
                self._client.run(leave, store, run, on_error="ignore")

    def error_of(self, error: BaseException) -> BaseException:
        if isinstance(error, self._killed):
            return BrokenExecutor(str(error))
        if isinstance(error, CancelledError) or self._client.status != "running":
            return self.lost("its scheduler ended, or cannot be reached any more")
        return super().error_of(error)

    def close(self) -> None:
        with contextlib.suppress(Exception):  # it may be gone
            self._client.close(timeout=_CLOSE_SECONDS)


class _Mpi(Engine):
    """The ranks of an MPI job, or processes that MPI starts for it."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        try:
            from mpi4py.futures import MPIPoolExecutor
        except (ImportError, RuntimeError) as error:  # the library of MPI itself, too
            raise _not_installed("mpi", error) from error
        self._executor = MPIPoolExecutor()
        self._executor.bootup(wait=True)

    def submit(self, task: Callable[..., Any], *arguments: object) -> Future[Any]:
        future: Future[Any] = self._executor.submit(task, *arguments)
        return future

    def count(self) -> dict[str, int]:
        return {"mpi": int(self._executor.num_workers)}

    def close(self) -> None:
        self._executor.shutdown(wait=True)


def _not_installed(extra: str, error: Exception) -> UsageError:
    return UsageError(
        f"--executor {extra} needs what is not installed",
        why=str(error),
        advice=f"Install it: pip install 'regrain[{extra}]'.",
    )


def check_word(word: str) -> None:
    """Make sure that a word names an engine, or this host; nobody is asked.

    Raises:
        UsageError: It names none.
    """
    if word not in (LOCAL, _MPI) and not (word.startswith(_DASK) and word != _DASK):
        raise UsageError(
            f"'{word}' is no executor",
            why="there are local, dask:ADDRESS and mpi",
            advice="For a Dask scheduler say dask:tcp://HOST:8786.",
        )


@contextlib.contextmanager
def connected(word: str | None) -> Iterator[Engine | None]:
    """Give the engine that a word names; None for ``local``, or no word.

    Raises:
        UsageError: It names none, or needs what is not installed.
        EngineError: It does not answer.
    """
    if word is None or word == LOCAL:
        yield None
        return
    check_word(word)
    engine = _Mpi(word) if word == _MPI else _Dask(word)
    try:
        yield engine
    finally:
        engine.close()


@contextlib.contextmanager
def abandoned_if_lost(directory: RunDirectory) -> Iterator[None]:
    """Leave a run's directory to the next run where workers of a lost engine may still write."""
    try:
        yield
    except EngineError:
        directory.is_abandoned = True
        raise


class Dispatcher(Executor):
    """Hands the units of one run to an engine.

    Args:
        engine: Who does them.
        errand: For whom.
        control: How the run steers them.
        make: Makes a worker, see ``errands.carry_out``.
        arguments: Of what.
    """

    def __init__(
        self,
        engine: Engine,
        errand: Errand,
        control: Control,
        make: Callable[..., Worker],
        arguments: tuple[Any, ...],
    ) -> None:
        self.engine = engine
        self._errand, self._control = errand, control
        self._make, self._arguments = make, arguments
        self._running: set[Future[Any]] = set()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **_: Any) -> Future[Any]:  # noqa: ANN401 -- as in the class above
        """Hand out a unit.

        Raises:
            EngineError: Nobody is there to take it.
        """
        errand = replace(self._errand, stops=self._control.stops, turn=self._control.turn)
        outer: Future[Any] = Future()
        outer.set_running_or_notify_cancel()
        try:
            inner = self.engine.submit(carry_out, errand, self._make, self._arguments, fn, *args)
        except Exception as error:
            raise self.engine.lost(f"{type(error).__name__}: {error}") from error
        self._running.add(inner)
        inner.add_done_callback(partial(self._pass_on, outer))
        return outer

    def _pass_on(self, outer: Future[Any], inner: Future[Any]) -> None:
        """Let the run have what became of a unit; called in a thread of the engine's."""
        self._running.discard(inner)
        try:
            done = inner.result()
        except BaseException as error:  # noqa: BLE001 -- it is passed on
            outer.set_exception(self.engine.error_of(error))
            return
        now = monotonic()
        if done.rate_held:
            self._control.rate_held_at = now
        if done.files_rate_held:
            self._control.files_rate_held_at = now
        outer.set_result(done.result)

    def check(self, *, is_ending: bool) -> None:
        """See that a run that wants to end has somebody who ends what is in hand.

        Raises:
            EngineError: Nobody is left who could.
        """
        if is_ending and self._running and not self.engine.workers():
            raise self.engine.lost("it has no workers, and units of work are in hand")

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002 -- as in the class above
        """Stop all units; wait for those that somebody works on."""
        self._control.stop()
        while wait and self._running and self.engine.workers():
            wait_for(list(self._running), _WAIT_SECONDS)
        if wait:
            self.engine.leave(self._errand.store, self._errand.run)


def check_workers(executor: Executor, *, is_ending: bool) -> None:
    """See that somebody can end what is in hand, where an engine has the workers.

    Raises:
        EngineError: The run is to end, and its engine has no workers left.
    """
    if isinstance(executor, Dispatcher):
        executor.check(is_ending=is_ending)


class Office:
    """Where the units of one run come from: its directory, with what workers look at.

    Args:
        engine: Who does them.
        root: The store.
        directory: The run's.

    Raises:
        OSError: The nonce cannot be written.
    """

    def __init__(self, engine: Engine, root: StoreRoot, directory: RunDirectory) -> None:
        self._engine = engine
        self._run = directory.fd
        nonce = secrets.token_hex(16)
        disk.write_atomic(NONCE, nonce.encode(), directory.fd, 0o600)
        self._errand = Errand(
            sys.modules["regrain"].__version__,
            root.path,
            root.store_id,
            directory.name,
            nonce,
            "",
            stops=0,
            turn=0,
        )

    def dispatcher(
        self, make: Callable[..., Worker], arguments: tuple[Any, ...]
    ) -> tuple[Dispatcher, Control]:
        """Return an executor whose workers are made so, and what steers them."""
        control = Control(self._run)
        errand = replace(self._errand, control=control.name)
        return Dispatcher(self._engine, errand, control, make, arguments), control
