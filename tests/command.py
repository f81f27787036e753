"""Runs the command as a stranger would: a process, its output, its exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import IO, Any

from regrain.model import whereabouts
from tests.zygote import Ended, zygote

SECONDS_MAX = 110
FOR_TESTS = {
    "NO_COLOR": "1",
    "REGRAIN_LOG_FORMAT": "text",  # as on a terminal
    # Idle workers beside a second test that computes would hardly get on.
    "REGRAIN_MIGRATION__CPU_PRIORITY": "normal",
}

_zygotes_turn = Lock()


@dataclass(frozen=True, slots=True)
class Result:
    """How one call of the command ended."""

    arguments: tuple[str, ...]
    code: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        """Standard output as text."""
        return self.stdout.decode()

    @property
    def documents(self) -> list[dict[str, Any]]:
        """The JSON documents on standard output, each with its schema and type checked."""
        try:
            found = [json.loads(self.stdout)]
        except ValueError:
            found = [json.loads(line) for line in self.stdout.split(b"\n") if line]
        for document in found:
            assert isinstance(document, dict), document
            assert document.get("schema") == 1, document
            assert isinstance(document.get("message_type"), str), document
        return found

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON document of a command that answers at once."""
        (only,) = self.documents
        return only

    def of_type(self, message_type: str) -> list[dict[str, Any]]:
        """The documents of one type."""
        return [d for d in self.documents if d["message_type"] == message_type]

    def __str__(self) -> str:
        """Show everything: this is what a failing assertion prints."""
        out = self.stdout.decode("utf-8", "backslashreplace")
        return f"regrain {' '.join(self.arguments)}: exit {self.code}\n{out}\n--\n{self.stderr}"


@dataclass(frozen=True, slots=True)
class Regrain:
    """The command on one store."""

    store: Path
    environment: Mapping[str, str] | None = None
    prefix: Sequence[str] = ()

    def __call__(
        self,
        *arguments: str | bytes | Path,
        code: int | None = 0,
        env: Mapping[str, str] | None = None,
        umask: int = -1,
        timeout: float = SECONDS_MAX,
    ) -> Result:
        """Run to the end; the exit code must be ``code`` unless that is ``None``."""
        ended = self._run(arguments, self.clean_environment(env), umask, timeout)
        shown = tuple(os.fsdecode(argument) for argument in arguments)
        stderr = ended.stderr.decode("utf-8", "backslashreplace")
        result = Result(shown, ended.code, ended.stdout, stderr)
        assert "Traceback" not in stderr, result
        assert code is None or result.code == code, f"expected exit {code}, got {result}"
        return result

    def _run(
        self,
        arguments: tuple[str | bytes | Path, ...],
        environment: dict[str, str],
        umask: int,
        timeout: float,
    ) -> Ended:
        """Run in a process that has regrain loaded, unless that one is busy, or cannot be it."""
        if not self.prefix and _zygotes_turn.acquire(blocking=False):
            try:
                return zygote().run(
                    ["--store", self.store, *arguments],
                    environment,
                    directory=os.getcwd(),
                    umask=umask,
                    seconds_max=timeout,
                )
            finally:
                _zygotes_turn.release()
        done = subprocess.run(
            self.command(*arguments),
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            umask=umask,
            timeout=timeout,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    @contextmanager
    def running(
        self,
        *arguments: str | bytes | Path,
        env: Mapping[str, str] | None = None,
        stdout: int | IO[bytes] = subprocess.DEVNULL,
        stderr: int | IO[bytes] = subprocess.DEVNULL,
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Start in a process group of its own; what is left of it at the end is killed."""
        with subprocess.Popen(
            self.command(*arguments),
            env=self.clean_environment(env),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        ) as process:
            try:
                yield process
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def command(self, *arguments: str | bytes | Path) -> list[str | bytes | Path]:
        """The words of a call."""
        python = [*self.prefix, sys.executable, "-m", "regrain", "--store"]
        return [*python, self.store, *arguments]

    def clean_environment(self, env: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment without any setting of the caller's, but where the ledger is."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith("REGRAIN_")}
        database = whereabouts.server_of(str(self.store))
        if database is not None:
            clean["REGRAIN_STORE__DATABASE"] = database
        return {**clean, **FOR_TESTS, **(self.environment or {}), **(env or {})}
