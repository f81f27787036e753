"""Runs something in a process whose every system call can be its last, or fail.

The child is traced (ptrace), so what it does is seen and changed where the kernel is entered: calls
of Python, of C libraries and of SQLite alike. Only calls that change or flush something below one
place are counted, or also those that read there.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import signal
import struct
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

_WALL = 0x40000000
_SYSCALL_STOP = signal.SIGTRAP | 0x80
_OPTIONS = 1 | 2 | 4 | 8 | 16 | 0x100000
"""Mark stops at system calls; follow fork, vfork, clone and exec; kill with the tracer."""

_TRACEME, _PEEK_USER, _POKE_USER, _CONT, _SYSCALL, _SETOPTIONS = 0, 3, 6, 7, 24, 0x4200
_GET_SYSCALL_INFO = 0x420E
_ORIG_RAX, _RAX, _RDX = 15 * 8, 10 * 8, 12 * 8
_CREATING = os.O_CREAT | os.O_TMPFILE & ~os.O_DIRECTORY

WRITES = {
    1: "write",
    18: "pwrite64",
    20: "writev",
    77: "ftruncate",
    82: "rename",
    83: "mkdir",
    84: "rmdir",
    86: "link",
    87: "unlink",
    88: "symlink",
    90: "chmod",
    91: "fchmod",
    93: "fchown",
    188: "setxattr",
    190: "fsetxattr",
    258: "mkdirat",
    260: "fchownat",
    263: "unlinkat",
    264: "renameat",
    265: "linkat",
    266: "symlinkat",
    268: "fchmodat",
    280: "utimensat",
    285: "fallocate",
    316: "renameat2",
    326: "copy_file_range",
}
SYNCS = {74: "fsync", 75: "fdatasync", 306: "syncfs"}
READS = {0: "read", 17: "pread64", 217: "getdents64", 257: "openat"}
_BY_PATH = {82, 83, 84, 86, 87, 88, 90, 188}
"""Calls that take paths, and no descriptor."""

_SECOND_DIRECTORY = {264: 2, 265: 2, 316: 2, 266: 1, 326: 2}
"""Which argument is the descriptor of what is changed, where it is not the first."""


@dataclass(frozen=True, slots=True)
class SystemCall:
    """One call that counts: the n-th of all, and of which name."""

    number: int
    name: str
    place: str

    def __str__(self) -> str:
        return f"system call no. {self.number}, {self.name} in {self.place or '.'}"


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one call.

    Attributes:
        number: Which call, from 1; 0: none.
        kind: ``SIGKILL``, the name of an errno, or ``short write``.
    """

    number: int = 0
    kind: str = "SIGKILL"


@dataclass(slots=True)
class Traced:
    """What became of a traced run.

    Attributes:
        calls: Those that count, up to the fault.
        fired: The call that was its last, or failed.
        signal: What killed it.
        code: What it exited with.
        said: The error it ended with.
    """

    calls: list[SystemCall] = field(default_factory=list)
    fired: SystemCall | None = None
    signal: int = 0
    code: int = 0
    said: str = ""


def possible() -> None:
    """Skip the test where nothing can be traced."""
    if platform.machine() != "x86_64":
        pytest.skip("the registers of system calls are known for x86_64 only")
    if not hasattr(_libc, "ptrace"):
        pytest.skip("needs ptrace")


def traced(
    work: Callable[[], int], place: Path, fault: Fault | None = None, *, reads: bool = False
) -> Traced:
    """Run ``work`` in a child; its result is the exit code, an exception's text is kept.

    Args:
        work: What the child does.
        place: Only calls about what lies below count.
        fault: What is to happen to one of them.
        reads: Whether calls that read count, too.
    """
    report_read, report_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(report_read)
        _be_traced(work, report_write)
    os.close(report_write)
    try:
        done = _Tracer(pid, os.fsencode(place), fault or Fault(), reads=reads).follow()
        with os.fdopen(report_read, "rb", closefd=False) as report:
            done.said = report.read().decode()
        return done
    finally:
        os.close(report_read)


def _be_traced(work: Callable[[], int], report: int) -> None:
    code = 1
    try:
        os.setpgid(0, 0)
        _ptrace(_TRACEME, 0)
        os.kill(os.getpid(), signal.SIGSTOP)
        code = work()
    except BaseException:  # noqa: BLE001 -- the child must not run on as its parent
        os.write(report, traceback.format_exc().encode())
    finally:
        os._exit(code)


class _Tracer:
    """Steps one process and its threads from one system call to the next."""

    def __init__(self, pid: int, place: bytes, fault: Fault, *, reads: bool) -> None:
        self._pid = pid
        self._place = place
        self._fault = fault
        self._wanted = WRITES | SYNCS | READS if reads else WRITES | SYNCS | {257: "openat"}
        self._reads = reads
        self._failing: dict[int, int] = {}
        self._free = False
        self._done = Traced()

    def follow(self) -> Traced:
        """Go with the process to its end."""
        os.waitpid(self._pid, _WALL)
        _ptrace(_SETOPTIONS, self._pid, data=_OPTIONS)
        _ptrace(_SYSCALL, self._pid)
        while True:
            tid, status = os.waitpid(-self._pid, _WALL)
            if not os.WIFSTOPPED(status):
                if tid == self._pid:
                    return self._ended(status)
                continue
            self._step(tid, os.WSTOPSIG(status), status >> 16)

    def _ended(self, status: int) -> Traced:
        if os.WIFSIGNALED(status):
            self._done.signal = os.WTERMSIG(status)
        else:
            self._done.code = os.waitstatus_to_exitcode(status)
        return self._done

    def _step(self, tid: int, number: int, event: int) -> None:
        passed_on = 0
        if number == _SYSCALL_STOP:
            self._at_call(tid)
        elif not event and number not in {signal.SIGTRAP, signal.SIGSTOP}:
            passed_on = number
        going = _CONT if self._free and tid not in self._failing else _SYSCALL
        try:
            _ptrace(going, tid, data=passed_on)
        except ProcessLookupError:  # it was killed meanwhile
            return

    def _at_call(self, tid: int) -> None:
        if tid in self._failing:
            _ptrace(_POKE_USER, tid, _RAX, -self._failing.pop(tid))
            return
        if self._free:
            return
        call = self._counted(tid)
        if call is None or call.number != self._fault.number:
            return
        self._done.fired, self._free = call, True
        if self._fault.kind == "SIGKILL":
            os.kill(self._pid, signal.SIGKILL)
        elif self._fault.kind == "short write":
            _ptrace(_POKE_USER, tid, _RDX, 1)
        else:
            _ptrace(_POKE_USER, tid, _ORIG_RAX, -1)
            self._failing[tid] = getattr(errno, self._fault.kind)

    def _counted(self, tid: int) -> SystemCall | None:
        """Return the call that is being entered, if it counts."""
        info = ctypes.create_string_buffer(88)
        try:
            _ptrace(_GET_SYSCALL_INFO, tid, 88, ctypes.addressof(info))
        except ProcessLookupError:
            return None
        operation, number, *arguments = struct.unpack_from("=B23xQ6Q", info.raw)
        if operation != 1 or number not in self._wanted:
            return None
        if number == 257 and not self._reads and not arguments[2] & _CREATING:
            return None
        if self._fault.kind == "short write" and (
            number not in {1, 18} or arguments[2] < 2  # there is nothing to be left out
        ):
            return None
        place = self._about(tid, number, arguments)
        if place is None:
            return None
        call = SystemCall(len(self._done.calls) + 1, self._wanted[number], place)
        self._done.calls.append(call)
        return call

    def _about(self, tid: int, number: int, arguments: list[int]) -> str | None:
        """Tell in two words what in the place a call is about; None: it is about something else."""
        if number in _BY_PATH:
            path = _text(tid, arguments[0])
        else:
            fd = arguments[_SECOND_DIRECTORY.get(number, 0)]
            name = _text(tid, arguments[1]) if number == 257 else b""
            if name.startswith(b"/"):
                path = name
            else:
                try:
                    path = os.readlink(b"/proc/%d/fd/%d" % (tid, fd & 0xFFFFFFFF))
                except OSError:
                    return None
        if path != self._place and not path.startswith(self._place + b"/"):
            return None
        return os.fsdecode(b"/".join(path[len(self._place) + 1 :].split(b"/")[:2]))


def _text(tid: int, address: int) -> bytes:
    with open(f"/proc/{tid}/mem", "rb", buffering=0) as memory:
        memory.seek(address)
        try:
            return memory.read(4096).partition(b"\0")[0]
        except OSError:  # the text ends at the end of a mapping
            memory.seek(address)
            return memory.read(4096 - address % 4096).partition(b"\0")[0]


_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


def _ptrace(request: int, pid: int, address: int = 0, data: int = 0) -> None:
    ctypes.set_errno(0)
    if _libc.ptrace(request, pid, address, data & 0xFFFFFFFFFFFFFFFF) == -1 and (
        number := ctypes.get_errno()
    ):
        raise OSError(number, os.strerror(number))
