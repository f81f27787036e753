"""What a peer is given to do its work with: copies, measured steps, and a judge."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.corpus.chosen import copy
from bench.measure import Measurement, measure
from bench.trees import usage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.corpus.chosen import Corpus

Command = list[str | Path]
READ_ALL = 'find "$0" -type f -print0 | xargs -0 -r -n 2000 cat >/dev/null'
DROP_CACHES = Path("/proc/sys/vm/drop_caches")
LOG_TAIL = 600


class BenchError(Exception):
    """A step failed, or did not do the work it was measured for."""


def drop_caches() -> None:
    """Let the next reader go to the disk; needs root."""
    os.sync()
    DROP_CACHES.write_text("3\n", encoding="ascii")


def read_all(*trees: Path) -> None:
    """Read everything once, just before it is measured.

    Not once for all: some kernels take cold pages away even where memory is free.
    """
    for tree in trees:
        subprocess.run(["sh", "-c", READ_ALL, tree], check=True)


@dataclass(slots=True)
class Job:
    """One peer's turn in one round.

    Attributes:
        peer: Who works, for messages.
        corpus: What it works on.
        place: A directory of its own, empty at the start and removed at the end.
        cold: Whether caches are dropped before each step, instead of filled.
        own_filesystem: Whether nobody else writes to the file system, so that what it has
            used up is the peer's doing.
        steps: What was measured, by step.
    """

    peer: str
    corpus: Corpus
    place: Path
    cold: bool
    own_filesystem: bool
    on_step: Callable[[str, dict[str, Any]], None]
    environment: dict[str, str] = field(default_factory=dict)
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)

    def copy(self, name: str = "copy") -> Path:
        """Make a fresh copy of the corpus, settled on disk.

        Returns:
            The directory of the packages.
        """
        made = self.place / name
        made.mkdir()
        copy([self.corpus.path / package for package in self.corpus.packages], made)
        return made

    def step(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        reads: Path,
        work: str = "store",
        output: int | None = None,
    ) -> Measurement:
        """Run a command, and measure it.

        Args:
            name: What the step is called in tables.
            command: The program and its arguments.
            reads: The tree it reads, made warm or cold before.
            work: With what of regrain's it is compared: `store` or `verify`.
            output: A descriptor for its standard output.

        Raises:
            BenchError: It ended with another exit code than 0.
        """
        if self.cold:
            drop_caches()
        else:
            read_all(reads)
        free = self._used()
        log = self.place.with_suffix(".log")
        with log.open("wb") as errors:
            result = measure(
                command,
                subprocess.DEVNULL if output is None else output,
                errors=errors,
                environment={**os.environ, **self.environment},
                directory=self.place,
            )
        said = log.read_text(encoding="utf-8", errors="replace").strip()[-LOG_TAIL:]
        log.unlink()
        if result.exit_code:
            raise BenchError(f"{name} ended with {result.exit_code}: {said}")
        self.steps[name] = {"work": work, "peer": self.peer, **asdict(result)}
        if self.own_filesystem:
            os.sync()
            self.steps[name]["filesystem_used"] = self._used() - free
        self.on_step(name, self.steps[name])
        return result

    def together(self, name: str, *parts: str, work: str = "store") -> None:
        """Take steps that only together do the work as one."""
        sums = [self.steps[part] for part in parts]
        whole = {
            "work": work,
            "peer": self.peer,
            "wall": sum(part["wall"] for part in sums),
            "cpu": sum(part["cpu"] for part in sums),
            "peak_tree": max(part["peak_tree"] for part in sums),
            "peak_process": max(part["peak_process"] for part in sums),
            "exit_code": 0,
        }
        if self.own_filesystem:
            whole["filesystem_used"] = sum(part["filesystem_used"] for part in sums)
        self.steps[name] = whole

    def leaves(self, step: str, *paths: Path) -> None:
        """Note what is on disk after a step, each inode once."""
        found = usage(*paths)
        self.steps[step]["allocated"] = found.allocated
        self.steps[step]["inodes"] = found.inodes

    def call(self, command: Sequence[str | Path]) -> str:
        """Run what is not measured: a preparation, or a question for a proof.

        Raises:
            BenchError: It ended with another exit code than 0.
        """
        done = subprocess.run(
            command,
            env={**os.environ, **self.environment},
            cwd=self.place,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            said = done.stderr.strip()[-LOG_TAIL:]
            raise BenchError(f"{command[0]} ended with {done.returncode}: {said}")
        return done.stdout

    def prove(self, what: str, found: int, wanted: int) -> None:
        """Refuse the figures of a peer that did not do the work.

        Raises:
            BenchError: It did not.
        """
        if found != wanted:
            raise BenchError(f"{self.peer}, {what}: found {found:,}, expected {wanted:,}")

    def remove(self) -> None:
        """Take away what the peer has made."""
        shutil.rmtree(self.place, ignore_errors=True)
        # Nix leaves directories that only their owner, by a change of mode, may empty.
        if self.place.exists():
            subprocess.run(["chmod", "-R", "u+w", self.place], check=False)
            shutil.rmtree(self.place)
        os.sync()

    def _used(self) -> int:
        status = os.statvfs(self.place)
        return (status.f_blocks - status.f_bfree) * status.f_frsize
