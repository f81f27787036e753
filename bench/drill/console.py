"""The operator's terminal: runs ``regrain``, and keeps what was said."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
STORE = "store"
SECONDS_MAX = 600.0
TICK_SECONDS = 0.2
LINES_MAX = 40


class DrillError(Exception):
    """A step did not end as it must; the message says which."""


class Console:
    """A terminal in a directory that holds the store.

    Args:
        directory: Where commands run.

    Attributes:
        pages: What was said and shown so far, as Markdown.
        settings: Environment variables of the commands, the settings of regrain among them.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.pages: list[str] = []
        self.settings: dict[str, str] = {}

    def heading(self, text: str) -> None:
        """Begin a step."""
        self._keep(f"\n## {text}\n")

    def say(self, text: str) -> None:
        """Tell what is going on, or was found."""
        self._keep(f"\n{text}\n")

    def check(self, claim: str, *, holds: bool, found: object = "") -> None:
        """Assert something and write it down.

        Raises:
            DrillError: It does not hold.
        """
        shown = f": {found}" if found != "" else ""
        if not holds:
            raise DrillError(f"not so: {claim}{shown}")
        self._keep(f"- **holds**: {claim}{shown}")

    def regrain(self, *words: str, code: int = 0) -> str:
        """Run a command to its end, show what it said, and return its standard output.

        Raises:
            DrillError: It ended with another code.
        """
        done = self._run(words)
        self._show(words, (done.stdout + done.stderr).strip(), done.returncode)
        if done.returncode != code:
            raise DrillError(f"regrain {words[0]} ended with {done.returncode}, not {code}")
        return done.stdout

    def quietly(self, *words: str) -> str:
        """Run a command that nobody wants to read about.

        Raises:
            DrillError: It failed.
        """
        done = self._run(words)
        if done.returncode:
            raise DrillError(f"regrain {shlex.join(words)}: {done.returncode}: {done.stderr}")
        return done.stdout

    def status(self) -> dict[str, Any]:
        """Ask for the state of the store."""
        found = json.loads(self.quietly("status", "--json"))
        assert isinstance(found, dict)
        return found

    def snapshot(self) -> dict[str, Any]:
        """Read what the run that works says of itself, without a command."""
        path = self.directory / STORE / "migration" / "state.json"
        try:
            found = json.loads(path.read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def until(self, is_so: Callable[[], bool], what: str, seconds: float = SECONDS_MAX) -> float:
        """Wait until it is so; return how many seconds that took.

        Raises:
            DrillError: It never was.
        """
        began = time.monotonic()
        while not is_so():
            if time.monotonic() - began > seconds:
                raise DrillError(f"waited {seconds:.0f} s in vain: {what}")
            time.sleep(TICK_SECONDS)
        return time.monotonic() - began

    @contextmanager
    def running(self, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        """Start a command that goes on while others run; what is left of it is killed."""
        with (
            (self.directory / "out.txt").open("w+b") as out,
            self._started(self._command(words), out) as process,
        ):
            yield process

    @contextmanager
    def watched(self, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        """The same, for a command whose words are shown once it has ended."""
        with self.running(*words) as process:
            yield process
            self.until(lambda: process.poll() is not None, f"'regrain {words[0]}' ends")
            said = (self.directory / "out.txt").read_text().strip()
            self._show(words, said, process.returncode)

    @contextmanager
    def acting(self, role: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """Let one of the actors work meanwhile."""
        command = [sys.executable, "-m", "bench.drill.actors", role, *arguments]
        with self._started(command, subprocess.PIPE) as process:
            yield process

    def ended(self, actor: subprocess.Popen[bytes]) -> dict[str, Any]:
        """End an actor; return what he tells.

        Raises:
            DrillError: He did not last so long.
        """
        if actor.poll() is not None:
            raise DrillError(f"one who used the store ended with {actor.returncode}")
        actor.terminate()
        out, _ = actor.communicate(timeout=SECONDS_MAX)
        found = json.loads(out)
        assert isinstance(found, dict)
        return found

    @contextmanager
    def _started(
        self, command: list[str], out: int | IO[bytes]
    ) -> Iterator[subprocess.Popen[bytes]]:
        with subprocess.Popen(
            command,
            cwd=self.directory,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT if out != subprocess.PIPE else None,
            start_new_session=True,
        ) as process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)

    def _run(self, words: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._command(words),
            cwd=self.directory,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
        )

    def _command(self, words: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", "regrain", "--store", STORE, *words]

    def _environment(self) -> dict[str, str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("REGRAIN_")}
        paths = os.pathsep.join(filter(None, [str(ROOT), clean.get("PYTHONPATH")]))
        text = {"NO_COLOR": "1", "REGRAIN_LOG_FORMAT": "text"}  # as on a terminal
        return {**clean, **text, "PYTHONPATH": paths, **self.settings}

    def _show(self, words: tuple[str, ...], said: str, code: int) -> None:
        lines = said.replace(f"{self.directory}{os.sep}", "").splitlines()
        if len(lines) > LINES_MAX:
            lines[LINES_MAX:] = [f"… and {len(lines) - LINES_MAX} more lines"]
        before = " ".join(f"{k}={v}" for k, v in self.settings.items() if k.startswith("REGRAIN_"))
        call = " ".join(filter(None, [before, "regrain --store", STORE, shlex.join(words)]))
        ended = [f"(exit {code})"] if code else []
        self._keep("\n".join(["\n```console", f"$ {call}", *lines, *ended, "```"]))

    def _keep(self, text: str) -> None:
        self.pages.append(text)
        print(text, flush=True)
