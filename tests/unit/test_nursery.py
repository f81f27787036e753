"""The workers of a command that the tests forked are what spawned ones would be."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests import nursery

COMMAND = """
import json, multiprocessing.util, os, sys
from tests.nursery import Nursery

nursery = Nursery()
opened = os.open("/dev/null", os.O_RDONLY)
os.set_inheritable(opened, True)
reader, writer = os.pipe()
words = ["python", "-c", sys.argv[1], str(writer)]
started = multiprocessing.util.spawnv_passfds(b"python", words, [writer])
os.close(writer)
told = json.loads(os.read(reader, 1 << 16))
code = os.waitstatus_to_exitcode(os.waitpid(started, 0)[1])
nursery.close()
try:
    left = os.waitpid(-1, 0)
except ChildProcessError:
    left = None
told |= dict(command=os.getpid(), started=started, passed=writer, code=code, left=left)
print(json.dumps(told))
"""
WORKER = """
import json, os, sys
names = {int(name) for name in os.listdir("/proc/self/fd")}
told = dict(parent=os.getppid(), process=os.getpid(), words=sys.argv, main=sorted(globals()))
told["open"] = sorted(fd for fd in names if os.path.exists(f"/proc/self/fd/{fd}"))
os.write(int(sys.argv[1]), json.dumps(told).encode())
sys.exit(7)
"""


@pytest.mark.skipif(not nursery.possible(), reason="workers are started as always here")
def test_a_worker_is_a_child_of_its_command_and_has_nothing_else_of_it() -> None:
    done = subprocess.run([sys.executable, "-c", COMMAND, WORKER], capture_output=True, check=True)
    told = json.loads(done.stdout)
    assert told["parent"] == told["command"]
    assert told["process"] == told["started"]
    assert told["words"] == ["-c", str(told["passed"])]
    assert told["open"] == [0, 1, 2, told["passed"]]
    assert {"nursery", "Nursery", "opened"}.isdisjoint(told["main"])
    assert told["code"] == 7
    assert told["left"] is None
