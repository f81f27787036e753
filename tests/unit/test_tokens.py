"""Worker processes and their queues: right, and without a name that could stay behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import wait
from pathlib import Path

from regrain.store.tokens import NamelessContext, Tokens
from regrain.store.workers import spawn_executor

TASKS = 300


def begin(folder: str) -> None:
    os.chdir(folder)


def square(number: int) -> tuple[int, int]:
    return os.getpid(), number * number


def test_tokens_are_as_many_as_were_made() -> None:
    tokens = Tokens(NamelessContext(), 2)
    assert tokens.acquire()
    assert tokens.acquire(timeout=1)
    assert not tokens.acquire(block=False)
    assert not tokens.acquire(timeout=0.01)
    tokens.release()
    assert tokens.acquire()


def test_who_waits_gets_it() -> None:
    lock, order = NamelessContext().Lock(), []
    with lock:
        thread = threading.Thread(target=lambda: order.append((lock.acquire(), len(order))))
        thread.start()
        order.append((True, -1))
    thread.join(30)
    assert order == [(True, -1), (True, 1)]


def test_workers_do_all_that_is_asked(tmp_path: Path) -> None:
    with spawn_executor(3, begin, str(tmp_path)) as executor:
        futures = [executor.submit(square, number) for number in range(TASKS)]
        assert not wait(futures, 60).not_done
        found = [future.result() for future in futures]
    assert [result for _, result in found] == [number * number for number in range(TASKS)]
    assert os.getpid() not in {pid for pid, _ in found}


PROGRAM = """
import os, time
from tests.unit.test_tokens import begin, square
from regrain.store.workers import spawn_executor
if __name__ == "__main__":
    executor = spawn_executor(2, begin, "/")
    print(executor.submit(square, 3).result()[0], flush=True)
    time.sleep(60)
"""


def test_nothing_has_a_name(tmp_path: Path) -> None:
    """What is mapped from ``/dev/shm`` under a name stays there after a kill of the group."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    root = str(Path(__file__).parents[2])
    with subprocess.Popen(
        [sys.executable, program],
        env={**os.environ, "PYTHONPATH": f"{root}:{os.environ.get('PYTHONPATH', '')}"},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        mapped = [
            line
            for pid in (process.pid, worker)
            for line in Path(f"/proc/{pid}/maps").read_text().splitlines()
            if "/dev/shm/" in line and not line.endswith("(deleted)")
        ]
        os.killpg(process.pid, signal.SIGKILL)
    assert mapped == []
