"""Workers of a migration let others go first: readers of the store, above all."""

from __future__ import annotations

import os
import subprocess
import sys
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


Priority = tuple[int, str, int, str | None]


def children() -> dict[int, Priority]:
    """Niceness, I/O class, scheduling policy and share as a session of the workers here."""
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
            nice = int(fields[PRIORITY_FIELD + 1])
            found[pid] = (nice, io_class(pid), os.sched_getscheduler(pid), share(pid))
    return found


def share(pid: int) -> str | None:
    """How nice the session of a process is, where the kernel shares processors among sessions.

    A process that descends from no call of ``setsid`` belongs to no session's share: the kernel
    says nothing of it then.
    """
    switch = Path("/proc/sys/kernel/sched_autogroup_enabled")
    if not switch.exists() or switch.read_text().strip() != "1":
        return None
    said = Path(f"/proc/{pid}/autogroup").read_text().split()
    return said[-1] if said else None


def sessions_share() -> bool:
    """Whether a new session gets a share of its own here."""
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True
    ) as other:
        return share(other.pid) is not None  # leaving closes its input, and it ends


def io_class(pid: int) -> str:
    done = subprocess.run(["ionice", "-p", str(pid)], capture_output=True, text=True, check=False)
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("limits", "nice", "io", "policy", "shared"),
    [
        (Migration(settle=0), 10, "best-effort: prio 7", os.SCHED_IDLE, 19),
        (
            Migration(settle=0, cpu_priority="normal", io_priority="idle"),
            10,
            "idle",
            os.SCHED_OTHER,
            10,
        ),
        (
            Migration(settle=0, niceness=0, cpu_priority="normal", io_priority="normal"),
            0,
            "",
            os.SCHED_OTHER,
            None,
        ),
    ],
)
def test_workers_are_nice(  # noqa: PLR0917 -- what is expected, word by word
    store_path: Path,
    seed: int,
    limits: Migration,
    nice: int,
    io: str,
    policy: int,
    shared: int | None,
) -> None:
    for number in range(12):
        add_ordinary(store_path, f"p{number}", "1", seed)
    initialise(store_path)
    seen: set[Priority] = set()

    def look(event: Any) -> None:
        if isinstance(event, Progress) and event.packages_done:
            seen.update(children().values())

    own, own_share = os.getpriority(os.PRIO_PROCESS, 0), share(os.getpid())
    PackageStore.open(store_path, Settings(migration=limits)).migration().run(look, jobs=1, batch=1)
    assert os.getpriority(os.PRIO_PROCESS, 0) == own
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
    assert share(os.getpid()) == own_share, "others of this session must not suffer"
    expected_share = own_share if shared is None or not sessions_share() else str(shared)
    expected = (max(own, nice), io or io_class(os.getpid()), policy, expected_share)
    assert seen == {expected}
