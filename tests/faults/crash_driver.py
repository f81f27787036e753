"""Runs migrations that kill themselves at a chosen moment, each in a process of its own.

``python -m tests.faults.crash_driver`` loads everything once, then forks for every request
(a JSON object a line) and answers how the child ended (``Ended``). ``Crasher`` speaks to it.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.faults import tally

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Moment:
    """When to die.

    Attributes:
        target: A function, as ``module:name`` or ``module:Class.name``; or several, with blanks
            between them, whose calls are counted together.
        when: ``before`` or ``after`` it did its work.
        number: At its n-th call, from 1.
        place: Count only calls about a directory below this name at the store's top; for
            functions of ``regrain.disk``.
    """

    target: str
    when: str = "before"
    number: int = 1
    place: str = ""

    def __str__(self) -> str:
        where = f" in {self.place}" if self.place else ""
        names = " or ".join(target.partition(":")[2] for target in self.target.split())
        return f"{self.when} {names} no. {self.number}{where}"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended: by which signal (0: none), or with which exit code."""

    signal: int
    code: int


class Crasher:
    """A process that stands ready to run migrations which die."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self, what: str, store: Path, way: Any, moment: Moment, **options: Any) -> Ended:
        """Run ``init``, ``migrate`` or ``cutover`` on a store until the moment comes."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {
            "what": what,
            "store": str(store),
            "way": asdict(way),
            "moment": asdict(moment),
            "options": options,
        }
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        ended = Ended(**json.loads(self._process.stdout.readline()))
        if ended.signal == signal.SIGKILL:
            tally.count(tally.command_of_test(), "SIGKILL", "killed")
        return ended


@contextmanager
def crasher() -> Iterator[Crasher]:
    """Start the process, and end it."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.faults.crash_driver"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Crasher(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(30)


# in that process


def _die_at(moment: Moment, store: Path) -> None:
    from tests.faults.faulty import Faults, descriptor_of

    faults = Faults(store)
    calls = 0

    def wrapped(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal calls
            fd = descriptor_of(name, arguments, named, system=False)
            counts = not moment.place or faults.place_of(fd) == moment.place
            calls += counts
            due = counts and calls == moment.number
            if due and moment.when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return original(*arguments, **named)
            finally:
                if due:
                    os.kill(os.getpid(), signal.SIGKILL)

        return call

    for target in moment.target.split():
        module_name, _, path = target.partition(":")
        owner: Any = importlib.import_module(module_name)
        *classes, name = path.split(".")
        for part in classes:
            owner = getattr(owner, part)
        setattr(owner, name, wrapped(name, getattr(owner, name)))


def _child(request: dict[str, Any]) -> None:
    from tests.faults import inline

    store, way = Path(request["store"]), inline.Way(**request["way"])
    _die_at(Moment(**request["moment"]), store)
    if ":" in request["what"]:
        module, _, step = request["what"].partition(":")
        getattr(importlib.import_module(module), step)(store, **request["options"])
    elif request["what"] == "init":
        inline.initialise(store, way.slice_entries)
    elif request["what"] == "cutover":
        inline.cutover(store, way, **request["options"])
    else:
        inline.migrate(store, way, **request["options"])


def _answer(request: dict[str, Any]) -> Ended:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            _child(request)
            code = 0
        except BaseException:  # noqa: BLE001 -- the child must not run on as its parent
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    died = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    return Ended(died, 0 if died else os.waitstatus_to_exitcode(status))


def main() -> None:
    """Serve requests until there are no more."""
    from tests import databases
    from tests.faults import inline

    databases.as_told()
    with TemporaryDirectory() as folder:  # loads all there is to load
        inline.initialise(Path(folder))
        inline.migrate(Path(folder))
    for line in sys.stdin:
        sys.stdout.write(json.dumps(asdict(_answer(json.loads(line)))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
