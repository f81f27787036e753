"""What tests of object storage share: stores to push, and a server of one's own, killed at will."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Protocol

from tests.command import Regrain
from tests.compare import Snapshot, differences, snapshot
from tests.trees import LIVE, Tree, describe
from tests.waiting import until

START_SECONDS = 60


class Server:
    """A server; what it was given survives its death."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._process: subprocess.Popen[bytes] | None = None

    def _launch(
        self,
        command: Sequence[str | Path],
        answers: Callable[[], bool],
        name: str,
        more: Mapping[str, str] | None = None,
    ) -> None:
        """Start it, and wait until it answers."""
        with (self._place / "out").open("ab") as output:
            self._process = subprocess.Popen(
                command,
                cwd=self._place,
                env={**os.environ, **(more or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        until(answers, f"{name} answers", START_SECONDS)

    def _assert_alive(self) -> None:
        assert self._process is not None
        assert self._process.poll() is None, (self._place / "out").read_text()[-3000:]

    def kill(self) -> None:
        """End it with SIGKILL."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


class Reachable(Protocol):
    """A server that says how to talk to it."""

    @property
    def environment(self) -> dict[str, str]:
        """What regrain needs for that."""


def make_store(path: Path, server: Reachable) -> Regrain:
    """Make a store, of the packages that are there, for a server."""
    path.mkdir(exist_ok=True)
    command = Regrain(path, {**server.environment, "REGRAIN_MIGRATION__SETTLE": "0"})
    command("init")
    return command


def fill(
    path: Path, seed: int, packages: int = 4, files: int = 60, *, large: int = 0
) -> dict[str, Snapshot]:
    """Make packages of files that nobody else has, each with one of ``large`` bytes besides."""
    path.mkdir()
    found = {}
    for number in range(packages):
        name = f"{seed % 2**32:08x}{number:08x}" * 4
        with Tree(path / name, Random(f"{seed}:{number}")) as tree:
            describe(tree, f"package{number}", "1.0")
            for file in range(files):
                tree.file(LIVE + b"/%d" % file, tree.rng.randbytes(30_000), 0o644)
            if large:
                tree.file(LIVE + b"/large", tree.rng.randbytes(large), 0o755)
        found[name] = snapshot(path / name)
    return found


def assert_same(target: Regrain, before: Mapping[str, Snapshot], place: Path) -> None:
    """Every package can be checked out as it was, into a directory that is made for it."""
    place.mkdir()
    for name, tree in before.items():
        target("checkout", name, place / name, "--mode", "exact")
        assert differences(tree, snapshot(place / name)) == []
