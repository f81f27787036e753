"""Workers die, by a signal or because memory runs out, or stop for ever: nothing is lost.

A migration starts others and goes on; every other command ends with a word that says what it was.
"""

from __future__ import annotations

import gc
import json
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from regrain.errors import HaltedError
from regrain.migrate.orders import DEATHS_MAX
from regrain.store.workers import deaths_told, spawn_executor
from tests import awkward
from tests.command import Regrain
from tests.compare import Snapshot
from tests.conftest import remove
from tests.faults import tally
from tests.reader import check_store
from tests.stores import assert_complete, legacy_changes, new_layout_differences, record
from tests.trees import LegacyPackage

pytestmark = pytest.mark.timeout(300)

PACKAGES, FILES = 12, 200
GROUPS = Path("/sys/fs/cgroup/memory")
BYTES_MAX = 4 << 20
"""Less than a worker needs to start."""

STARVING_SECONDS_MAX = 20

Scene = tuple[Regrain, dict[str, LegacyPackage], dict[str, Snapshot]]
ENOUGH = {
    "REGRAIN_MIGRATION__FREE_BYTES_MIN": "1000000",
    "REGRAIN_MIGRATION__SETTLE": "0",
    "REGRAIN_STORE__VERIFY_AFTER_MIGRATION": "false",  # so that the gate has work for workers
}


@pytest.fixture(scope="module")
def legacy(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> Iterator[tuple[Path, dict[str, LegacyPackage]]]:
    place = tmp_path_factory.mktemp("workers") / "store"
    packages = awkward.make_plain_store(place, seed, PACKAGES, FILES)
    Regrain(place)("init")
    yield place, packages
    remove(place)


@pytest.fixture
def scene(legacy: tuple[Path, dict[str, LegacyPackage]], workplace: Path) -> Scene:
    before, packages = legacy
    place = workplace / "store"
    subprocess.run(["cp", "-a", "--", before, place], check=True)
    made = {
        name: LegacyPackage(name, place / name, p.name, p.version, p.what)
        for name, p in packages.items()
    }
    return Regrain(place, ENOUGH), made, record(made)


def workers_of(pid: int) -> list[int]:
    """The worker processes of a run, of whatever age."""
    children = [
        int(child)
        for thread in os.listdir(f"/proc/{pid}/task")
        for child in Path(f"/proc/{pid}/task/{thread}/children").read_text().split()
    ]
    return [c for c in children if b"spawn_main" in Path(f"/proc/{c}/cmdline").read_bytes()]


def killed(pid: int) -> bool:
    os.kill(pid, signal.SIGKILL)
    return True


@contextmanager
def short_of_memory() -> Iterator[Callable[[int], bool]]:
    """A group of processes that the kernel kills for want of memory."""
    if not (GROUPS / "cgroup.procs").exists() or os.geteuid() != 0:
        pytest.skip("needs the memory controller of control groups, and root")
    group = Path(tempfile.mkdtemp(prefix="regrain-test-", dir=GROUPS))
    (group / "memory.limit_in_bytes").write_text(str(BYTES_MAX))

    def victims() -> int:
        lines = (group / "memory.oom_control").read_text().splitlines()
        return int(dict(line.split() for line in lines)["oom_kill"])

    def starve(pid: int) -> bool:
        """Kill one that has yet to begin: who has all he needs would ask for no more."""
        if is_deaf(pid):
            return False
        before = victims()
        (group / "cgroup.procs").write_text(str(pid))
        deadline = time.monotonic() + STARVING_SECONDS_MAX
        while not is_gone(pid) and time.monotonic() < deadline:
            time.sleep(0.001)
        if victims() > before:
            return True
        with suppress(ProcessLookupError):
            (GROUPS / "cgroup.procs").write_text(str(pid))
        return False

    try:
        yield starve
    finally:
        group.rmdir()


def run_with_a_death(
    regrain: Regrain,
    command: tuple[str, ...],
    kill: Callable[[int], bool],
    deaths: int = 1,
    least: int = 1,
) -> tuple[int, list[dict[str, object]]]:
    """Run a command whose first workers are killed; return its exit code and its words."""
    dead: set[int] = set()
    with tempfile.TemporaryFile() as out:
        with regrain.running(*command, "--json", stdout=out) as run:
            while run.poll() is None and len(dead) < deaths:
                with suppress(FileNotFoundError, ProcessLookupError):
                    # A dead one is still there until the run takes note of it.
                    alive = [worker for worker in workers_of(run.pid) if worker not in dead]
                    dead |= {worker for worker in alive[: deaths - len(dead)] if kill(worker)}
            code = run.wait(120)
        out.seek(0)
        lines = [json.loads(line) for line in out.read().splitlines() if line.startswith(b"{")]
    assert least <= len(dead) <= deaths, f"{len(dead)} workers were killed: exit {code}, {lines}"
    return code, lines


HALTING = {
    "verify": ("verify",),
    "cutover": ("cutover", "--no-backup"),
    "rollback": ("rollback",),
    "backup": ("backup", "create"),
}


@pytest.mark.parametrize("name", HALTING)
def test_a_command_says_that_a_worker_died(scene: Scene, name: str) -> None:
    regrain, packages, before = scene
    regrain("migrate")
    command = HALTING[name]
    if name == "backup":
        command = (*command, str(regrain.store.with_name("backup")))
    code, lines = run_with_a_death(regrain, command, killed)
    (error,) = [line for line in lines if line["message_type"] == "exit_error"]
    assert code == 1, lines
    assert "a worker process died" in json.dumps(error)
    tally.count(name, "worker killed", "H")
    assert_complete(regrain.store, packages, before, orphans=True)
    regrain(*command)


@pytest.mark.slow
@pytest.mark.root
def test_memory_runs_out_in_a_worker(scene: Scene) -> None:
    """The kernel kills it; the run starts another and does all there is to do."""
    regrain, packages, before = scene
    with short_of_memory() as starve:
        code, lines = run_with_a_death(regrain, ("migrate", "--jobs", "2"), starve)
    assert code == 0, lines
    tally.count("migrate", "worker out of memory", "ok")
    assert_complete(regrain.store, packages, before)


def test_a_worker_is_killed(scene: Scene) -> None:
    regrain, packages, before = scene
    code, lines = run_with_a_death(regrain, ("migrate", "--jobs", "2"), killed)
    assert code == 0, lines
    tally.count("migrate", "worker killed", "ok")
    assert_complete(regrain.store, packages, before, orphans=True)


@pytest.mark.slow
def test_workers_keep_dying(scene: Scene) -> None:
    regrain, packages, before = scene
    command = ("migrate", "--jobs", "1")
    code, lines = run_with_a_death(regrain, command, killed, deaths=20, least=DEATHS_MAX)
    assert code in {0, 1, 3}, lines  # the machine's pace says whether some got to work in between
    tally.count("migrate", "every worker killed", "H" if code else "ok", times=DEATHS_MAX)
    found = check_store(regrain.store, legacy=packages, orphans=True)
    marks = os.listdir(regrain.store / "temp")  # a run that halted leaves one, for the next to see
    assert found.problems == ([f"temp/ is not empty: {marks}"] if marks else [])
    assert len(marks) <= 1
    assert legacy_changes(before, packages) == []
    assert new_layout_differences(found, before, found.packages) == []
    regrain("migrate", "--retry-failed")
    assert_complete(regrain.store, packages, before, orphans=True)


def test_a_worker_that_is_stuck_does_not_hold_a_run_that_is_to_end(scene: Scene) -> None:
    """It never answers again; the second signal ends the run without it."""
    regrain, packages, before = scene
    with regrain.running("migrate", "--jobs", "1") as run:
        stuck: list[int] = []
        while not stuck and run.poll() is None:
            stuck = [worker for worker in workers_of(run.pid) if is_deaf(worker)]
        assert stuck, "the run ended without a worker"
        os.kill(stuck[0], signal.SIGSTOP)
        os.kill(run.pid, signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            run.wait(1)
        os.kill(run.pid, signal.SIGINT)
        assert run.wait(30) == 130
        assert not Path(f"/proc/{stuck[0]}").exists() or workers_gone(stuck[0])
    tally.count("migrate", "worker stuck", "S")
    assert legacy_changes(before, packages) == []
    regrain("migrate")
    assert_complete(regrain.store, packages, before, orphans=True)


def is_deaf(pid: int) -> bool:
    """Whether a worker has begun: it takes no notice of SIGTERM, and dies with its parent."""
    line = re.search(r"^SigIgn:\s*(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return line is not None and bool(int(line[1], 16) >> (signal.SIGTERM - 1) & 1)


def workers_gone(pid: int) -> bool:
    """Wait for a process to be nobody's any more: it dies with its parent."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if is_gone(pid):
            return True
    return False


def is_gone(pid: int) -> bool:
    """Whether a process ended, even if nobody took note of it yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.parametrize("which", [0, 1])
def test_the_other_ends_when_an_idle_worker_is_killed(which: int) -> None:
    """One of two that wait for work holds the lock on it, and takes that with it."""
    with spawn_executor(2, gc.enable) as executor:
        busy = [executor.submit(time.sleep, 0.5) for _ in range(2)]
        for one in busy:
            one.result(60)
        workers = sorted(executor._processes)
        assert len(workers) == 2
        os.kill(workers[which], signal.SIGKILL)
        with pytest.raises(HaltedError):
            work_on(executor)


def work_on(executor: Executor) -> None:
    with deaths_told():
        while True:
            executor.submit(time.sleep, 0).result(60)
