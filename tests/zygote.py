"""A process that has regrain loaded already and runs a command in a child for each request.

Most of a small command's time is its start, and the tests run thousands. The children are
processes of their own, with streams, directory and environment of their own; so are their workers
(``tests.nursery``).
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import pkgutil
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from tests import nursery

_SERVER = {"regrain.web.connections", "regrain.web.serving", "regrain.web.site"}
_LEFT_OUT = {"regrain.__main__", "regrain.ledger.env", *_SERVER}
"""What others run, and what needs the server, which may not be installed."""


def main() -> None:
    """Answer one line with two, the child's number and its end, until there are no more."""
    import regrain

    for module in pkgutil.walk_packages(regrain.__path__, "regrain."):
        if module.name not in _LEFT_OUT:
            import_module(module.name)
    gc.freeze()  # or each child would touch, and so copy, all that was loaded
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            _end(_serve(request))
        print(child, file=answers, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)


def _end(code: int) -> None:
    """End as an interpreter does, but without taking all that was loaded to pieces."""
    threading._shutdown()  # type: ignore[attr-defined]  # it ends executors
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _serve(request: dict[str, Any]) -> int:
    from regrain.cli import run

    for fd, path in enumerate((os.devnull, request["stdout"], request["stderr"])):
        flags = os.O_RDONLY if fd == 0 else os.O_WRONLY
        opened = os.open(path, flags)
        os.dup2(opened, fd)
        os.close(opened)
    os.chdir(request["directory"])
    os.umask(request["umask"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = ["regrain", *request["words"]]
    if not nursery.possible():
        return run(request["words"])
    workers = nursery.Nursery()
    try:
        return run(request["words"])
    finally:
        workers.close()


class Ended(NamedTuple):
    """How a command ended, and what it said."""

    code: int
    stdout: bytes
    stderr: bytes


class Zygote:
    """The process, seen from the tests. It serves one command at a time."""

    def __init__(self, python: str, path: str | None, user: int | None) -> None:
        """Start it, perhaps as another user, whose Python and its path must be named then."""
        self._place = TemporaryDirectory(prefix="regrain-zygote-")
        self._outputs = [Path(self._place.name) / name for name in ("stdout", "stderr")]
        for output in self._outputs:
            output.touch()
        changed: dict[str, Any] = {}
        if user is not None:
            changed = {"user": user, "group": user, "extra_groups": [], "cwd": "/"}
            for place in (Path(self._place.name), *self._outputs):
                os.chown(place, user, user)
        if path is not None:
            changed["env"] = {**os.environ, "PYTHONPATH": path}
        self._process = subprocess.Popen(
            [python, "-m", "tests.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            **changed,
        )
        atexit.register(self.close)

    def run(
        self,
        words: Sequence[str | bytes | Path],
        environment: Mapping[str, str],
        *,
        directory: str = "/",
        umask: int = -1,
        stdout: str | None = None,
        seconds_max: float,
    ) -> Ended:
        """Run a command to its end; ``stdout`` is where its output goes if not to the caller.

        Raises:
            TimeoutError: It took too long, and was killed.
        """
        for output in self._outputs:
            output.write_bytes(b"")
        request = {
            "words": [os.fsdecode(word) for word in words],
            "environment": dict(environment),
            "directory": directory,
            "umask": _umask() if umask < 0 else umask,
            "stdout": stdout or str(self._outputs[0]),
            "stderr": str(self._outputs[1]),
        }
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        child = self._answer()
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], seconds_max)[0]:
            os.kill(child, signal.SIGKILL)
            self._answer()
            raise TimeoutError(f"still running after {seconds_max} s: {words}")
        return Ended(self._answer(), *(output.read_bytes() for output in self._outputs))

    def _answer(self) -> int:
        assert self._process.stdout is not None
        answer = b""
        while not answer.endswith(b"\n"):  # unbuffered, so that select sees what is left
            piece = os.read(self._process.stdout.fileno(), 1)
            assert piece, "the zygote died"
            answer += piece
        return int(answer)

    def close(self) -> None:
        """End it."""
        self._process.communicate()
        self._place.cleanup()


@cache
def zygote(
    python: str = sys.executable, path: str | None = None, user: int | None = None
) -> Zygote:
    """Return the one of this process and that user, started when it is first needed."""
    return Zygote(python, path, user)


def _umask() -> int:
    mask = os.umask(0o22)
    os.umask(mask)
    return mask


if __name__ == "__main__":
    main()
