"""Open files: opened, closed, locked; their bytes and attributes, copies with holes."""

from __future__ import annotations

import errno
import fcntl
import os
import stat

PIECE = 1 << 20
_BLOCK = 512
_CAPABILITY = b"security.capability"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Closing:
    """A descriptor that is closed when the ``with`` block ends."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __enter__(self) -> int:
        """Return the descriptor."""
        return self.fd

    def __exit__(self, *_: object) -> None:
        """Close it."""
        os.close(self.fd)


class Held:
    """A descriptor that is closed when nobody holds it any more.

    For values that several threads may share, where no one can say who is the last.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self) -> None:
        """Close it."""
        os.close(self.fd)


def open_directory(name: str | bytes, at: int | None = None) -> int:
    """Open a directory; its last component must not be a symbolic link."""
    return os.open(name, _DIRECTORY, dir_fd=at)


def open_file(name: str | bytes, at: int | None = None) -> int:
    """Open for reading, not through a symbolic link, never waiting for a FIFO's writer.

    The access time is left alone where the system allows that.
    """
    try:
        return os.open(name, _FILE | os.O_NOATIME, dir_fd=at)
    except PermissionError:  # O_NOATIME is for the file's owner only
        return os.open(name, _FILE, dir_fd=at)


def give_to_owner_of(directory: int, fd: int) -> None:
    """Give an open file to the owner of a directory, where we are root and may."""
    if os.geteuid() == 0:
        status = os.fstat(directory)
        os.fchown(fd, status.st_uid, status.st_gid)


NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
"""What the system answers where bytes, inodes or quota ran out."""


def reopen(fd: int) -> int:
    """Open an open directory anew.

    How far it was listed belongs to what ``open`` made: duplicates share it, also across a
    fork. Of two threads that list one descriptor, each would see a part of the names.
    """
    return os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)


def write_all(fd: int, content: bytes | memoryview) -> None:
    """Write ``content``, however many calls that takes."""
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]


def read_xattrs(target: int | bytes) -> dict[bytes, bytes] | None:
    """Return the extended attributes of a descriptor (or of a path, not followed)."""
    follow = isinstance(target, int)
    try:
        names = os.listxattr(target, follow_symlinks=follow)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.ENOSYS):
            return None
        raise
    if not names:
        return None
    return {os.fsencode(name): os.getxattr(target, name, follow_symlinks=follow) for name in names}


def lends_power(name: str | bytes, at: int) -> bool:
    """Tell whether who runs a file gets rights by it: by its set-id bits or its capabilities."""
    mode = os.stat(name, dir_fd=at, follow_symlinks=False).st_mode
    if not stat.S_ISREG(mode):
        return False
    if mode & (stat.S_ISUID | stat.S_ISGID):
        return True
    if not mode & 0o111:
        return False
    try:
        os.getxattr(
            b"/proc/self/fd/%d/%b" % (at, os.fsencode(name)), _CAPABILITY, follow_symlinks=False
        )
    except OSError:  # it has none, or the file system knows none
        return False
    return True


def allocated(status: os.stat_result) -> int:
    """Return the bytes an inode takes on its file system."""
    return status.st_blocks * _BLOCK


def is_at(fd: int, name: str | bytes, at: int) -> bool:
    """Tell whether an open file or directory still has the name ``name``."""
    try:
        status = os.stat(name, dir_fd=at, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(status, os.fstat(fd))


class SourceReadError(OSError):
    """The source of a copy could not be read; the target is not to blame."""


def copy_bytes(source_fd: int, target_fd: int, size: int) -> None:
    """Copy ``size`` bytes, leaving holes where the source has them.

    Raises:
        SourceReadError: Reading failed.
        OSError: Writing failed.
    """
    os.ftruncate(target_fd, size)
    position = 0
    while position < size:
        start, end = _next_data(source_fd, position, size)
        _copy_range(source_fd, target_fd, start, end)
        position = end


def _next_data(fd: int, position: int, size: int) -> tuple[int, int]:
    """Return the next stretch of data; an empty one at ``size`` if only a hole is left."""
    try:
        start = os.lseek(fd, position, os.SEEK_DATA)
        return min(start, size), min(os.lseek(fd, start, os.SEEK_HOLE), size)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return size, size
        raise SourceReadError(*error.args) from error


def _copy_range(source_fd: int, target_fd: int, start: int, end: int) -> None:
    while start < end:
        try:
            piece = os.pread(source_fd, min(PIECE, end - start), start)
        except OSError as error:
            raise SourceReadError(*error.args) from error
        if not piece:  # it shrank: who calls compares sizes and digests
            return
        view = memoryview(piece)
        while view:
            written = os.pwrite(target_fd, view, start)
            start += written
            view = view[written:]


def lock(fd: int, *, exclusive: bool, wait: bool) -> bool:
    """Take a lock on an open file; it ends with the descriptor, and so with the process.

    Returns:
        False where another process holds it and ``wait`` was not asked for.
    """
    operation = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    try:
        fcntl.flock(fd, operation if wait else operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unlock(fd: int) -> None:
    """Let go of a lock whose file stays open."""
    fcntl.flock(fd, fcntl.LOCK_UN)
