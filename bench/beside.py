"""Time regrain, restic and borg by turns: ``python -m bench.beside LEGACY PLACE [ROUNDS]``.

Each round begins with another of them, everything is made anew each time, and what was written is
on the disk when the clock stops. Printed as it comes; at the end the median, the least and the most
of each, and the bytes that ``du`` says are left of it.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 3
Command = list[str | Path]
Found = dict[str, tuple[float, int]]

PASSWORD = {"RESTIC_PASSWORD": "none"}  # of a repository that is removed at once


def main() -> int:
    """Run it."""
    legacy, place = Path(sys.argv[1]), Path(sys.argv[2])
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else ROUNDS
    place.mkdir(exist_ok=True)
    work = place / "beside"
    peers = [peer for peer in (_plain, _zstd, _restic, _borg) if _is_there(peer)]
    times: dict[str, list[float]] = {}
    left: dict[str, int] = {}
    for number in range(rounds):
        turn = number % len(peers)
        for peer in peers[turn:] + peers[:turn]:
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
            for name, (seconds, size) in peer(legacy, work).items():
                print(f"round {number + 1}: {name}: {seconds:.1f} s, {size} bytes", flush=True)
                times.setdefault(name, []).append(seconds)
                left[name] = size
    shutil.rmtree(work, ignore_errors=True)
    for name, took in times.items():
        print(
            f"{name}: {statistics.median(took):.1f} s ({min(took):.1f} to {max(took):.1f}, "
            f"{len(took)} rounds), {left[name]} bytes by du"
        )
    return 0


def _is_there(peer: Callable[[Path, Path], Found]) -> bool:
    program = peer.__name__.removeprefix("_")
    if program in ("restic", "borg") and shutil.which(program) is None:
        print(f"{program}: not installed")
        return False
    return True


def _plain(legacy: Path, work: Path) -> Found:
    """Migrate; then compress what is left once the legacy directories are gone."""
    store, migrating = _migrate(legacy, work, "none")
    found = {"regrain migrate": (migrating, _du(store))}
    repacking = _timed(_command(store, "repack", "--compress", "all", "--execute"), {})
    return {**found, "regrain repack --compress all": (repacking, _du(store))}


def _zstd(legacy: Path, work: Path) -> Found:
    store, migrating = _migrate(legacy, work, "zstd")
    return {"regrain migrate, zstd": (migrating, _du(store))}


def _migrate(legacy: Path, work: Path, compression: str) -> tuple[Path, float]:
    """Migrate a copy, and remove its legacy directories, untimed, so that ``du`` tells the rest."""
    store = work / "store"
    environment = {"REGRAIN_STORE__COMPRESSION": compression}
    _timed(["cp", "-a", "--", legacy, store], {})
    _timed(_command(store, "init", "--no-predict"), environment)
    seconds = _timed(_command(store, "migrate"), environment)
    for attempt in range(3):  # reading may be slow for a moment
        try:
            _timed(_command(store, "cutover", "--no-backup"), environment)
            break
        except subprocess.CalledProcessError:
            if attempt == 2:
                raise
    _timed(_command(store, "cleanup", "--execute"), environment)
    return store, seconds


def _restic(legacy: Path, work: Path) -> Found:
    restic: Command = ["restic", "-r", work / "repository", "--no-cache"]
    _timed([*restic, "init"], PASSWORD)
    seconds = _timed([*restic, "backup", legacy], PASSWORD)
    return {"restic backup": (seconds, _du(work / "repository"))}


def _borg(legacy: Path, work: Path) -> Found:
    environment = {"BORG_BASE_DIR": str(work / "base")}
    repository = work / "repository"
    _timed(["borg", "init", "-e", "none", repository], environment)
    command: Command = ["borg", "create", "-C", "zstd,3", f"{repository}::corpus", legacy]
    return {"borg create -C zstd,3": (_timed(command, environment), _du(repository))}


def _command(store: Path, *words: str) -> Command:
    return [sys.executable, "-m", "regrain", "--store", store, *words]


def _timed(command: Command, environment: dict[str, str]) -> float:
    """Run a command to its end, and until the disk has what it wrote; return the seconds."""
    os.sync()
    began = time.perf_counter()
    subprocess.run(
        command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, **environment}
    )
    os.sync()
    return time.perf_counter() - began


def _du(path: Path) -> int:
    """Return what a tree takes on disk."""
    command: Command = ["du", "-s", "--block-size=1", "--", path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[0])


if __name__ == "__main__":
    raise SystemExit(main())
