"""A Dask scheduler and its workers, processes of the test's own on loopback, killed at will."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import regrain
from tests.waiting import until
from tests.weed import free_ports

SOURCE = Path(regrain.__file__).parent.parent
QUIET = {"DASK_DISTRIBUTED__ADMIN__LOG_LENGTH": "0", "REGRAIN_LOG_FORMAT": "text"}
SECONDS = 60


class Cluster:
    """The scheduler; workers are added one by one.

    Attributes:
        scheduler: Its process.
        workers: Theirs, each a process with its nanny.
    """

    def __init__(self, place: Path) -> None:
        self._place = place
        place.mkdir()
        (port,) = free_ports(1)
        self.address = f"tcp://127.0.0.1:{port}"
        self.workers: list[subprocess.Popen[bytes]] = []
        self.scheduler = self._start(
            "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port)
        )

    @property
    def executor(self) -> tuple[str, str]:
        """The option that uses it."""
        return "--executor", f"dask:{self.address}"

    def _start(
        self,
        module: str,
        *arguments: str,
        prefix: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        with (self._place / "log").open("ab") as log:
            return subprocess.Popen(
                [*prefix, sys.executable, "-W", "ignore", "-m", module, *arguments],
                cwd=self._place,
                env={**os.environ, "PYTHONPATH": str(SOURCE), **QUIET, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def add(
        self,
        *,
        threads: int = 1,
        prefix: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Start one more worker; without a nanny, who would start it again."""
        self.workers.append(
            self._start(
                "distributed.cli.dask_worker",
                self.address,
                "--nworkers=1",
                f"--nthreads={threads}",
                "--no-dashboard",
                "--no-nanny",
                "--host=127.0.0.1",
                "--death-timeout=60",
                f"--local-directory={self._place}",
                prefix=prefix,
                env=env,
            )
        )

    def until_there(self, count: int) -> None:
        """Wait until the scheduler knows so many workers."""
        from distributed import Client

        with Client(self.address, timeout=SECONDS, set_as_default=False) as client:
            until(lambda: len(client.nthreads()) == count, f"{count} workers of Dask", SECONDS)

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """End one of them, and whatever it started, with SIGKILL."""
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(SECONDS)

    def log(self) -> str:
        """What they said."""
        return (self._place / "log").read_text(errors="replace")

    def close(self) -> None:
        """End all."""
        for process in (*self.workers, self.scheduler):
            self.kill(process)


@contextmanager
def cluster(place: Path, workers: int = 0, **options: Any) -> Iterator[Cluster]:
    """A cluster for the time of a test."""
    made = Cluster(place)
    try:
        for _ in range(workers):
            made.add(**options)
        if workers:
            made.until_there(workers)
        yield made
    finally:
        made.close()
