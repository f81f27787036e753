"""A unit of work away from home: how a worker of an engine comes to work for a run.

It may be a process on another host, started by others, with another version of regrain or another
file system at the same path. So each unit brings with it what the worker must agree with, and the
worker looks before it does anything. Nothing is shared but the mounted store: what a run tells its
workers while they work stands in a small file in the run's directory.
"""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec

from regrain import disk
from regrain.errors import HaltedError, RegrainError, reason
from regrain.model import layout
from regrain.model.clock import monotonic
from regrain.store.root import open_top, read_store_file

if TYPE_CHECKING:
    from collections.abc import Callable

NONCE = "nonce"
LOOK_SECONDS = 0.2
"""So old may be what a worker knows of the control file; a network mount adds its own delay."""


class Worker(Protocol):
    """What a worker keeps open between units of one run."""

    def close(self) -> None:
        """Let go of all."""


@dataclass(frozen=True, slots=True)
class Errand:
    """What comes with every unit of work.

    Attributes:
        version: The coordinator's version of regrain.
        store: The store's directory.
        store_id: Its id.
        run: The run's directory below ``temp/``.
        nonce: What stands in its file ``nonce``.
        control: The name of the file that says what the run wants now.
        stops: How often the run had told its workers to stop when it handed the unit out.
        turn: How often it had told them to forget what they know of the store.
    """

    version: str
    store: str
    store_id: str
    run: str
    nonce: str
    control: str
    stops: int
    turn: int


class Said(msgspec.Struct, frozen=True):
    """What stands in the control file; see ``Board``."""

    stops: float
    rate: float
    files_rate: float


GONE = Said(math.inf, 0.0, 0.0)
"""A run without its control file has ended: all that is left of it is to stop."""


class Control:
    """What a run tells its workers, through a file; to be used as ``workers.signals`` is.

    Attributes:
        turn: How often they were to forget what they know of the store.
        stops: How often they were to stop.
        rate_held_at: When a unit came back last that had waited for its rate of bytes.
        files_rate_held_at: The same for that of files.
    """

    def __init__(self, run: int) -> None:
        self.name = f"control.{secrets.token_hex(4)}"
        self._run = run
        self._value = self.turn = self.stops = 0
        self._rates = (0.0, 0.0)
        self._is_told = False
        self.rate_held_at = self.files_rate_held_at = 0.0
        self._tell(at_least_once=True)

    @property
    def value(self) -> int:
        """1 while workers are to stop what they began before."""
        return self._value

    @value.setter
    def value(self, value: int) -> None:
        if value and not self._value:
            self.stop()
        elif value and not self._is_told:
            self._tell()
        self._value = value

    def stop(self) -> None:
        """Stop all units that were handed out up to now."""
        self.stops += 1
        self._tell()

    @property
    def rate(self) -> float:
        """Bytes a second that each worker may read; 0 is no limit."""
        return self._rates[0]

    @rate.setter
    def rate(self, rate: float) -> None:
        self._rates = rate, self._rates[1]
        self._tell()

    @property
    def files_rate(self) -> float:
        """Files a second, likewise."""
        return self._rates[1]

    @files_rate.setter
    def files_rate(self, rate: float) -> None:
        self._rates = self._rates[0], rate
        self._tell()

    def _tell(self, *, at_least_once: bool = False) -> None:
        """Write the file; on a full disk it is tried again with the next word."""
        self._is_told = False
        try:
            content = msgspec.json.encode(Said(self.stops, *self._rates))
            disk.write_snapshot(self.name, content, self._run, 0o600)
            self._is_told = True
        except OSError:
            if at_least_once:
                raise


class Board:
    """What a run wants of its workers, as one of them sees it (``workers.signals`` elsewhere).

    Stops are counted, so that one that was taken back before a unit began does not end it however
    late it is seen; ``turn`` comes with the unit, since it must not be seen late at all.

    Attributes:
        stops: How many the unit in hand does not mind.
        turn: As of the unit in hand.
        rate_held_at: When a worker last waited for its rate.
        files_rate_held_at: Likewise.
    """

    def __init__(self, run: int, name: str) -> None:
        self._run, self._name = run, name
        self._look_at = 0.0
        self._said = GONE
        self.stops = self.turn = 0
        self.rate_held_at = self.files_rate_held_at = 0.0

    @property
    def value(self) -> int:
        """1 if the unit in hand is to be stopped."""
        return int(self._now().stops > self.stops)

    @property
    def rate(self) -> float:
        """Bytes a second that may be read; 0 is no limit."""
        return self._now().rate

    @property
    def files_rate(self) -> float:
        """Files a second; 0 is no limit."""
        return self._now().files_rate

    def _now(self) -> Said:
        now = monotonic()
        if now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            try:
                raw = disk.read_all(self._name, self._run, bytes_max=1 << 12)
                self._said = msgspec.json.decode(raw, type=Said)
            except (OSError, msgspec.DecodeError):
                self._said = GONE
        return self._said


class Engaged(NamedTuple):
    """A worker in one thread, for one run."""

    worker: Worker
    board: Board
    run: int

    def close(self) -> None:
        """Let go of all."""
        self.worker.close()
        os.close(self.run)


class Done(NamedTuple):
    """What a unit returned, and whether it had to wait for the rates of bytes and of files."""

    result: Any
    rate_held: bool
    files_rate_held: bool


_engaged: dict[tuple[int, str, str, str], Engaged] = {}
_busy: set[tuple[int, str, str, str]] = set()
_changing = threading.Lock()
_here = threading.local()


def at_work() -> Any:  # noqa: ANN401 -- what the unit's maker made
    """Return the worker that the unit in hand is for; None outside of one."""
    return getattr(_here, "worker", None)


def carry_out(
    errand: Errand,
    make: Callable[..., Worker],
    arguments: tuple[Any, ...],
    task: Callable[..., Any],
    *of_task: object,
) -> Done:
    """Do a unit of work, in a worker of an engine.

    Args:
        errand: Whom it is for.
        make: Makes the worker, of ``arguments`` and a board; called once a thread and run.
        arguments: What it is made of.
        task: What is to be done; it finds the worker by ``at_work``.
        of_task: Its arguments.

    Raises:
        HaltedError: This process is none that may work for the run.
    """
    key = (threading.get_ident(), errand.store, errand.run, errand.control)
    _admit(errand)
    with _changing:
        _busy.add(key)
    try:
        engaged = _engaged.get(key) or _engage(key, errand, make, arguments)
        board = engaged.board
        board.stops, board.turn = errand.stops, errand.turn
        began = monotonic()
        _here.worker = engaged.worker
        result = task(*of_task)
        return Done(result, board.rate_held_at >= began, board.files_rate_held_at >= began)
    finally:
        _here.worker = None
        with _changing:
            _busy.discard(key)


def leave(store: str, run: str) -> None:
    """Let go of all that is open for a run that ended, but what somebody is working with."""
    with _changing:
        ended = [key for key in _engaged if key[1:3] == (store, run) and key not in _busy]
        gone = [_engaged.pop(key) for key in ended]
    for engaged in gone:
        engaged.close()


def _engage(
    key: tuple[int, str, str, str],
    errand: Errand,
    make: Callable[..., Worker],
    arguments: tuple[Any, ...],
) -> Engaged:
    """Make the worker of this thread; what it has open for runs that ended is closed."""
    with _changing:
        mine = {(other[1], other[2]) for other in _engaged if other[0] == key[0]}
    for store, name in mine:
        if not os.path.lexists(f"{store}/{layout.TEMP}/{name}/{NONCE}"):
            leave(store, name)
    try:
        run = disk.open_directory(f"{errand.store}/{layout.TEMP}/{errand.run}")
    except OSError as error:
        raise _refusal("cannot open the run's directory", reason(error)) from error
    board = Board(run, errand.control)
    try:
        worker = make(*arguments, board)
    except OSError as error:
        os.close(run)
        raise _refusal("cannot open the store", reason(error)) from error
    engaged = Engaged(worker, board, run)
    with _changing:
        _engaged[key] = engaged
    return engaged


def _admit(errand: Errand) -> None:
    """See that this process is of the run's kind, and sees the run's store.

    Raises:
        HaltedError: It is not, or does not.
    """
    # The package itself, which is always loaded, is no import of a higher floor.
    version = sys.modules["regrain"].__version__
    if errand.version != version:
        raise _refusal(
            "has another version of regrain",
            f"it is {version}, the coordinator's is {errand.version}",
            "Install the same version for all workers.",
        )
    place = f"{layout.TEMP}/{errand.run}/{NONCE}"
    try:
        with disk.Closing(open_top(errand.store)) as top:
            store_id = read_store_file(top, errand.store).store_id
            if store_id != errand.store_id:
                raise _refusal("sees another store", f"its id is {store_id}, not {errand.store_id}")
            nonce = b""
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                nonce = disk.read_all(place, top, bytes_max=1 << 10)
    except OSError as error:
        raise _refusal("cannot look into the store", reason(error)) from error
    except HaltedError:
        raise
    except RegrainError as error:
        raise _refusal("does not see the store", str(error)) from error
    if nonce.decode("ascii", "replace") != errand.nonce:
        raise _refusal(
            "does not see the run's directory",
            f"what the run wrote into '{place}' is not there: another file system, a copy, "
            "or the run ended",
        )


def _refusal(what: str, why: str, advice: str = "") -> HaltedError:
    return HaltedError(
        f"the worker at {os.uname().nodename}, process {os.getpid()}, {what}",
        why=why,
        advice=advice or "Mount the store for all workers at the same path, as the same user.",
    )
