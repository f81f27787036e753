"""Workers of a migration let others go first: readers of the store, above all."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from regrain import PackageStore
from regrain.model.events import Progress
from regrain.settings import Migration, Settings
from tests.awkward import add_ordinary
from tests.faults.inline import initialise

PRIORITY_FIELD = 15
"""Where the niceness stands in ``/proc/PID/stat``, counted from what follows the name."""


def children() -> dict[int, tuple[int, str]]:
    """Niceness and I/O class of the processes this one has started."""
    found = {}
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as listed:
        pids = [int(pid) for pid in listed.read().split()]
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if b"spawn_main" in command:
            found[pid] = (int(fields[PRIORITY_FIELD + 1]), io_class(pid))
    return found


def io_class(pid: int) -> str:
    done = subprocess.run(["ionice", "-p", str(pid)], capture_output=True, text=True, check=False)
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (Migration(settle=0), (10, "idle")),
        (Migration(settle=0, niceness=0, io_priority="normal"), (0, "")),
    ],
)
def test_workers_are_nice(
    store_path: Path, seed: int, limits: Migration, expected: tuple[int, str]
) -> None:
    for number in range(12):
        add_ordinary(store_path, f"p{number}", "1", seed)
    initialise(store_path)
    seen: set[tuple[int, str]] = set()

    def look(event: Any) -> None:
        if isinstance(event, Progress) and event.packages_done:
            seen.update(children().values())

    own = os.getpriority(os.PRIO_PROCESS, 0)
    PackageStore.open(store_path, Settings(migration=limits)).migration().run(look, jobs=1, batch=1)
    assert os.getpriority(os.PRIO_PROCESS, 0) == own
    assert seen
    niceness, expected_class = expected
    assert {(max(own, niceness), expected_class or io_class(os.getpid()))} == seen
