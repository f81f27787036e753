"""System calls that Python does not offer, on Linux. The only place that knows they differ.

A port to another system writes this module again: rename without replacing, exchange,
flushing a file system, reflink, shared extents, files in memory, giving way, and dying with
the parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import platform
import signal
import struct
import time

_libc = ctypes.CDLL(None, use_errno=True)
_renameat2 = _libc.renameat2
_renameat2.argtypes = [
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_uint,
]

_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2
_FICLONE = 0x40049409
_PR_SET_PDEATHSIG = 1
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30, "riscv64": 30, "loongarch64": 30}
_IOPRIO_WHO_PROCESS = 1
_IOPRIO = {"low": (2 << 13) | 7, "idle": 3 << 13}
"""The last of eight levels of the common class, and the class that comes after all others."""

_FIEMAP = 0xC020660B
_FIEMAP_REQUEST = struct.Struct("=QQLLLL")  # start, length, flags, mapped, room, reserved
_FIEMAP_EXTENT = struct.Struct("=QQQ16xL12x")  # logical, physical, length, flags
_FIEMAP_ROOM = 72
_EXTENT_LAST = 0x1
_EXTENT_WITHOUT_PLACE = 0x2 | 0x4 | 0x200  # unknown, not written yet, inside the inode
_EXTENT_SHARED = 0x2000


def _checked(result: int, name: bytes | None = None) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)


def rename_noreplace(source: bytes, source_fd: int, target: bytes, target_fd: int) -> None:
    """Rename; FileExistsError if ``target`` is there."""
    _checked(_renameat2(source_fd, source, target_fd, target, _RENAME_NOREPLACE), target)


def rename_exchange(source: bytes, source_fd: int, target: bytes, target_fd: int) -> None:
    """Swap two names in one step."""
    _checked(_renameat2(source_fd, source, target_fd, target, _RENAME_EXCHANGE), target)


def syncfs(fd: int) -> None:
    """Flush the whole file system that ``fd`` lies on, and wait for the disk.

    Linux 5.8 and later report write-back errors that happened since ``fd`` was opened.
    """
    _checked(_libc.syncfs(fd))


def reflink(source_fd: int, target_fd: int) -> None:
    """Let ``target_fd`` share all extents of ``source_fd``."""
    fcntl.ioctl(target_fd, _FICLONE, source_fd)


def shared_extents(fd: int) -> list[tuple[int, int]]:
    """Return (place on the disk, length) in bytes of every extent that others share, too.

    What was not written to the disk yet has no place, and is not shared.
    """
    found: list[tuple[int, int]] = []
    request = bytearray(_FIEMAP_REQUEST.size + _FIEMAP_ROOM * _FIEMAP_EXTENT.size)
    start = 0
    while True:
        length = 2**64 - 1 - start
        _FIEMAP_REQUEST.pack_into(request, 0, start, length, 0, 0, _FIEMAP_ROOM, 0)
        fcntl.ioctl(fd, _FIEMAP, request)
        mapped = _FIEMAP_REQUEST.unpack_from(request)[3]
        flags = _EXTENT_LAST
        for number in range(mapped):
            place = _FIEMAP_REQUEST.size + number * _FIEMAP_EXTENT.size
            logical, physical, size, flags = _FIEMAP_EXTENT.unpack_from(request, place)
            start = logical + size
            if flags & _EXTENT_SHARED and not flags & _EXTENT_WITHOUT_PLACE:
                found.append((physical, size))
        if flags & _EXTENT_LAST:
            return found


def memory_file() -> int:
    """Make a file without a name, in memory; open for reading and writing."""
    return os.memfd_create("regrain", os.MFD_CLOEXEC)


_AUTOGROUP_ENABLED = "/proc/sys/kernel/sched_autogroup_enabled"
_AUTOGROUP = "/proc/self/autogroup"
_AUTOGROUP_TRIES = 20
_AUTOGROUP_PAUSE_SECONDS = 0.05
_NICEST = 19


def _give_way_as_session(niceness: int) -> None:
    """Where the kernel shares processors among sessions, be one that gets a small share.

    Priorities count within a session only then: a nice process would get as much as another
    session's reader, all processors for itself if it is one of a few.
    """
    with open(_AUTOGROUP_ENABLED, "rb") as switch:
        if switch.read().strip() != b"1":
            return
    os.setsid()  # the session it was started in is somebody's terminal, and stays as it is
    for _ in range(_AUTOGROUP_TRIES):
        try:
            with open(_AUTOGROUP, "wb", buffering=0) as group:
                group.write(b"%d" % niceness)
        except BlockingIOError:  # the kernel takes one such word in a tenth of a second
            time.sleep(_AUTOGROUP_PAUSE_SECONDS)
        else:
            return


def give_way(niceness: int, *, idle_cpu: bool, io: str) -> None:
    """Let other processes go before this one, at the processors and, if asked for, at the disks.

    Nothing is taken back: who is nicer already stays so. What this kernel does not know, or does
    not allow here, is left.

    Args:
        niceness: 0 to 19.
        idle_cpu: Computes when hardly anybody else does: whoever wakes up goes before it at once.
        io: Heeded by some schedulers of disks. ``low``: after others that ask at the same time;
            ``idle``: only when nobody else asks; anything else: as everybody.
    """
    current = os.getpriority(os.PRIO_PROCESS, 0)
    if niceness > current:
        os.setpriority(os.PRIO_PROCESS, 0, niceness)
    if idle_cpu:
        with contextlib.suppress(OSError):  # some containers forbid it; niceness is left
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    if niceness or idle_cpu:
        with contextlib.suppress(OSError):
            _give_way_as_session(_NICEST if idle_cpu else niceness)
    number = _IOPRIO_SET.get(platform.machine())
    if io in _IOPRIO and number is not None:
        _libc.syscall(number, _IOPRIO_WHO_PROCESS, 0, _IOPRIO[io])


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when ``parent`` ends.

    The parent may have died before the call took effect, hence the second look.
    """
    _checked(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
    if os.getppid() != parent:
        os._exit(1)


NO_REFLINK = frozenset(
    {errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM}
)
"""What FICLONE answers where the file system cannot."""
