"""System calls that Python does not offer, on Linux. The only place that knows they differ.

A port to another system writes this module again: rename without replacing, exchange,
flushing a file system, reflink, files in memory, and dying with the parent.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal

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


def memory_file() -> int:
    """Make a file without a name, in memory; open for reading and writing."""
    return os.memfd_create("regrain", os.MFD_CLOEXEC)


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
