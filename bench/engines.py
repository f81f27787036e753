"""Workers on an engine, with a file system far away: ``python -m bench.engines PLACE [WORKERS…]``.

One, two and four workers of a Dask cluster on this host migrate the same synthetic store. In the
workers every call that a network file system would answer from afar (open, status, link, listing,
flush, …) takes so much longer. So what the table shows is whether more workers hide latency, not
how fast any of them is. Beside it the coordinator's own processor time a file, which says from
how many workers on it would be what limits them. Takes regrain[dask], and some minutes.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from bench.corpus.synthetic import Shape, build
from bench.job import Command
from bench.measure import measure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.measure import Measurement

SHAPE = Shape(32, 499, 0.5, "tiny")
FILES = 32 * 500
DELAY_SECONDS = 0.0003
"""About a round trip in one building."""
WORKERS = (1, 2, 4)
READY_SECONDS = 60
SLOW = f"""
import os, time
def slow(call):
    def called(*arguments, **options):
        time.sleep({DELAY_SECONDS})
        return call(*arguments, **options)
    return called
for name in "fsync link listdir lstat mkdir open rename rmdir scandir stat unlink".split():
    setattr(os, name, slow(getattr(os, name)))
"""


def main() -> int:
    """Run it."""
    place = Path(sys.argv[1]) / "engines"
    numbers = [int(word) for word in sys.argv[2:]] or WORKERS
    place.mkdir()
    print("| workers | wall s | files/s | of one worker's | coordinator, µs of CPU a file |")
    print("|---:|---:|---:|---:|---:|", flush=True)
    first = 0.0
    for number in numbers:
        took = _migrate(place, number)
        first = first or took.wall
        print(
            f"| {number} | {took.wall:.1f} | {FILES / took.wall:,.0f} | {first / took.wall:.2f} "
            f"| {1e6 * took.cpu / FILES:.0f} |",
            flush=True,
        )
    shutil.rmtree(place)
    return 0


def _migrate(place: Path, workers: int) -> Measurement:
    store = place / "store"
    build(SHAPE, store, lambda _: None)
    regrain: Command = [sys.executable, "-m", "regrain", "--store", store]
    subprocess.run([*regrain, "init", "--no-predict"], check=True, capture_output=True)
    with _cluster(place, workers) as address:
        command: Command = [*regrain, "migrate", "--executor", f"dask:{address}"]
        took = measure(
            command,
            subprocess.DEVNULL,
            errors=subprocess.DEVNULL,
            environment=dict(os.environ),
            directory=place,
        )
    if took.exit_code:
        raise SystemExit(f"{' '.join(map(str, command))} ended with {took.exit_code}")
    shutil.rmtree(store)
    return took


@contextmanager
def _cluster(place: Path, workers: int) -> Iterator[str]:
    """A scheduler on loopback and so many workers, each a process with one thread."""
    slow = place / "slow"
    slow.mkdir(exist_ok=True)
    (slow / "sitecustomize.py").write_text(SLOW)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    started = [_start(place, {}, "scheduler", "--host", "127.0.0.1", "--port", str(port))]
    path = os.pathsep.join(filter(None, (str(slow), os.environ.get("PYTHONPATH"))))
    options = ("--nworkers=1", "--nthreads=1", "--no-nanny", "--no-dashboard")
    try:
        started += [
            _start(place, {"PYTHONPATH": path}, "worker", address, *options) for _ in range(workers)
        ]
        _wait_for(address, workers)
        yield address
    finally:
        for process in reversed(started):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _start(
    place: Path, more: dict[str, str], module: str, *arguments: str
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", f"distributed.cli.dask_{module}", *arguments],
        cwd=place,
        env={**os.environ, **more},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _wait_for(address: str, workers: int) -> None:
    from distributed import Client

    due = time.monotonic() + READY_SECONDS
    with Client(address, timeout=READY_SECONDS, set_as_default=False) as client:
        while len(client.nthreads()) < workers:
            if time.monotonic() > due:
                raise SystemExit("the workers of Dask do not come")
            time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
