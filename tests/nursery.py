"""The workers of a command that was forked: real processes, without the start of an interpreter.

A worker is to know nothing of its command, which is why regrain spawns it. So a command that
``tests.zygote`` forked forks this process before it begins, and it waits. Whatever Python the
command would start then, a worker or the tracker of its resources, is forked from here: a child
of the command, as if the command had started it, with the descriptors it was given and no others.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import multiprocessing.util
import os
import platform
import signal
import socket
import sys
import types
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

_CLONE_PARENT = 0x00008000
_SYS_CLONE = {"x86_64": 56, "aarch64": 220}
_HIGH = 512
"""Descriptors that arrive are put aside above this number; those of a command lie below."""


def possible() -> bool:
    """Whether this machine is one where we know how a process gets a sibling."""
    return sys.platform == "linux" and platform.machine() in _SYS_CLONE


class Nursery:
    """The process that waits, seen from the command."""

    def __init__(self) -> None:
        """Fork it, and have it asked instead of a new interpreter being started."""
        self._here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process = os.fork()
        if self._process == 0:
            self._here.close()
            _wait_for_requests(there)
        there.close()
        multiprocessing.util.spawnv_passfds = self._start

    def _start(self, path: bytes, args: Sequence[Any], passfds: Sequence[int]) -> int:
        """Stand in for ``spawnv_passfds``: the program is what follows ``-c``."""
        program = args.index("-c") + 1
        numbers = sorted({int(fd) for fd in passfds})
        request = {
            "program": args[program],
            "words": ["-c", *args[program + 1 :]],
            "numbers": numbers,
            "blocked": [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
            "nice": os.getpriority(os.PRIO_PROCESS, 0),
        }
        socket.send_fds(self._here, [json.dumps(request).encode()], numbers)
        return int(self._here.recv(64))

    def close(self) -> None:
        """End it."""
        self._here.close()
        os.waitpid(self._process, 0)


def _wait_for_requests(asked: socket.socket) -> None:
    """Give birth until the command ends; only children leave this function, by ending."""
    while True:
        text, descriptors, _, _ = socket.recv_fds(asked, 1 << 16, 64)
        if not text:
            os._exit(0)
        child = _sibling()
        if child == 0:
            asked.close()
            _live(json.loads(text), descriptors)
        for fd in descriptors:
            os.close(fd)
        asked.send(b"%d" % child)


def _sibling() -> int:
    """Fork a process whose parent is that of this one."""
    python = ctypes.pythonapi
    flags = _CLONE_PARENT | signal.SIGCHLD
    python.PyOS_BeforeFork()
    # By the API that keeps the interpreter's lock, since nothing may come between.
    child = int(ctypes.PyDLL(None).syscall(_SYS_CLONE[platform.machine()], flags, 0, 0, 0, 0))
    if child == 0:
        python.PyOS_AfterFork_Child()
    else:
        python.PyOS_AfterFork_Parent()
    if child < 0:
        raise OSError(ctypes.get_errno(), "clone")
    return child


def _live(request: dict[str, Any], arrived: Sequence[int]) -> None:
    """Be a new interpreter with ``-c``: its descriptors, its signals, its main module."""
    numbers = request["numbers"]
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, _HIGH) for fd in arrived]
    os.closerange(3, _HIGH)
    for fd, number in zip(high, numbers, strict=True):
        os.dup2(fd, number, inheritable=True)
        os.close(fd)
    signal.pthread_sigmask(signal.SIG_SETMASK, request["blocked"])
    os.setpriority(os.PRIO_PROCESS, 0, request["nice"])
    sys.argv = request["words"]
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    code = 0
    try:
        exec(request["program"], main.__dict__)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 -- as an interpreter ends
        sys.excepthook(*sys.exc_info())
        code = 1
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
