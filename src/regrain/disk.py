"""The only owner of fsync, link, reflink, rename and unlink, and of walks by descriptor.

Names are bytes and are always taken relative to an open directory, one component at a
time, never through a symbolic link. Errors come as OSError: who calls knows what they
mean there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import sys
from typing import TYPE_CHECKING

from regrain.disk_bytes import (
    NO_SPACE,
    PIECE,
    Closing,
    Held,
    SourceReadError,
    allocated,
    copy_bytes,
    give_to_owner_of,
    is_at,
    lends_power,
    lock,
    open_directory,
    open_file,
    read_xattrs,
    reopen,
    unlock,
    write_all,
)
from regrain.disk_linux import (
    NO_REFLINK,
    die_with_parent,
    reflink,
    rename_exchange,
    rename_noreplace,
    syncfs,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

__all__ = [
    "DIRECTORY",
    "FILE",
    "NO_REFLINK",
    "NO_SPACE",
    "PIECE",
    "SPECIAL",
    "SYMLINK",
    "Closing",
    "Held",
    "SourceReadError",
    "allocated",
    "can_link",
    "copy_bytes",
    "create",
    "descend",
    "die_with_parent",
    "fsync",
    "give_to_owner_of",
    "is_at",
    "kind_of",
    "link",
    "list_directory",
    "lock",
    "make_directory",
    "open_directory",
    "open_file",
    "read_all",
    "read_xattrs",
    "reflink",
    "remove_tree",
    "rename_exchange",
    "rename_noreplace",
    "rename_replace",
    "reopen",
    "shares_extents",
    "syncfs",
    "unlink",
    "unlock",
    "walk",
    "write_all",
    "write_atomic",
    "write_new",
    "write_snapshot",
]

_PINNED_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_UNNAMED_FILE = os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC
_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def descend(path: bytes, at: int) -> int:
    """Open the directory ``path`` (``b""``: ``at`` itself) below ``at``, by components."""
    fd = os.dup(at)
    for name in path.split(b"/") if path else ():
        try:
            child = open_directory(name, fd)
        finally:
            os.close(fd)
        fd = child
    return fd


def create(name: str | bytes, at: int, mode: int = 0o600) -> int:
    """Make a new file and open it for reading and writing; it must not exist."""
    return os.open(name, _NEW_FILE, mode, dir_fd=at)


def make_directory(name: str | bytes, at: int, mode: int = 0o755) -> None:
    """Make a directory of exactly ``mode``, whatever the umask is."""
    os.mkdir(name, 0o700, dir_fd=at)
    if mode != 0o700:
        with Closing(open_directory(name, at)) as fd:
            os.fchmod(fd, mode)


def link(source: bytes, source_fd: int, target: bytes, target_fd: int) -> None:
    """Give the inode of ``source`` a second name; FileExistsError if that is taken."""
    os.link(source, target, src_dir_fd=source_fd, dst_dir_fd=target_fd, follow_symlinks=False)


def rename_replace(source: str, source_fd: int, target: str, target_fd: int) -> None:
    """Rename over whatever ``target`` is."""
    os.rename(source, target, src_dir_fd=source_fd, dst_dir_fd=target_fd)


def unlink(name: str | bytes, at: int) -> None:
    """Remove a name that is no directory."""
    os.unlink(name, dir_fd=at)


def fsync(fd: int) -> None:
    """Flush a file or directory to stable storage."""
    os.fsync(fd)


def write_atomic(
    name: str, content: bytes, at: int, mode: int = 0o644, *, via: int | None = None
) -> None:
    """Replace file ``name`` as a whole, durably: all of it or nothing after a power cut.

    Args:
        name: The file, in the open directory ``at``.
        content: All it is to hold.
        at: Where it is.
        mode: What it gets.
        via: An open directory where it is made before it is renamed into place; by
            default the same.
    """
    _replace(name, content, at, mode, at if via is None else via, durable=True)


def write_new(name: str, content: bytes, at: int, mode: int = 0o644, *, via: int) -> None:
    """Write file ``name`` as ``write_atomic`` does; FileExistsError if anybody was faster."""
    temporary = f".{name}.{secrets.token_hex(8)}"  # machines share process ids
    try:
        _fill(temporary, content, via, at, mode, durable=True)
        try:
            link(temporary.encode(), via, name.encode(), at)
        except PermissionError:  # no links there; network file systems have nothing else
            rename_noreplace(temporary.encode(), via, name.encode(), at)
    finally:
        with contextlib.suppress(OSError):
            unlink(temporary, via)
    fsync(at)


def write_snapshot(name: str, content: bytes, at: int, mode: int = 0o644) -> None:
    """Replace file ``name`` as a whole, but not durably: for what can be derived again."""
    _replace(name, content, at, mode, at, durable=False)


def _replace(name: str, content: bytes, at: int, mode: int, via: int, *, durable: bool) -> None:
    temporary = f".{name}.{os.getpid()}"
    with contextlib.suppress(FileNotFoundError):
        unlink(temporary, via)
    try:
        _fill(temporary, content, via, at, mode, durable=durable)
        rename_replace(temporary, via, name, at)
    except BaseException:
        with contextlib.suppress(OSError):
            unlink(temporary, via)
        raise
    if durable:
        fsync(at)


def _fill(name: str, content: bytes, via: int, at: int, mode: int, *, durable: bool) -> None:
    """Make a file in ``via`` that belongs to the owner of ``at``."""
    with Closing(create(name, via)) as fd:
        write_all(fd, content)
        give_to_owner_of(at, fd)
        os.fchmod(fd, mode)
        if durable:
            fsync(fd)


def read_all(name: str | bytes, at: int, bytes_max: int = 64 << 20) -> bytes:
    """Return the content of a small regular file.

    Raises:
        OSError: EINVAL for what is no regular file, EFBIG above ``bytes_max``.
    """
    with Closing(open_file(name, at)) as fd:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", name)
        if status.st_size > bytes_max:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), name)
        pieces = []
        while piece := os.read(fd, PIECE):
            pieces.append(piece)
        return b"".join(pieces)


def shares_extents(at: int) -> bool:
    """Find out, by trying, whether files in the directory ``at`` can be reflinked.

    The trial files never get a name, so that even a dry run may ask.
    """
    try:
        with (
            Closing(os.open(b".", _UNNAMED_FILE, 0o600, dir_fd=at)) as source,
            Closing(os.open(b".", _UNNAMED_FILE, 0o600, dir_fd=at)) as target,
        ):
            write_all(source, b"x" * 4096)
            reflink(source, target)
    except OSError:  # whatever the reason, it cannot be relied on
        return False
    return True


def can_link(at: int) -> bool:
    """Find out, by trying in the private directory ``at``, whether files may be hard-linked."""
    names = (b".link-1", b".link-2")
    try:
        os.close(create(names[0], at))
        link(names[0], at, names[1], at)
    except OSError:
        return False
    finally:
        for name in names:
            with contextlib.suppress(OSError):
                unlink(name, at)
    return True


# What os.fsencode looks up anew for every name.
_ENCODING, _ERRORS = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()

FILE, DIRECTORY, SYMLINK, SPECIAL = "file", "directory", "symlink", "special"
"""What a name in a directory is, as the directory itself says."""


def list_directory(fd: int) -> list[tuple[bytes, str]]:
    """Return the names in an open directory, each with what it is; nothing is opened."""
    with os.scandir(fd) as found:
        return [
            (
                item.name.encode(_ENCODING, _ERRORS),
                FILE if item.is_file(follow_symlinks=False) else _kind(item),
            )
            for item in found
        ]


def _kind(item: os.DirEntry[str]) -> str:
    if item.is_dir(follow_symlinks=False):
        return DIRECTORY
    return SYMLINK if item.is_symlink() else SPECIAL


def kind_of(name: str | bytes, at: int) -> str:
    """Return what ``name`` is."""
    mode = os.stat(name, dir_fd=at, follow_symlinks=False).st_mode
    for test, kind in ((stat.S_ISREG, FILE), (stat.S_ISDIR, DIRECTORY), (stat.S_ISLNK, SYMLINK)):
        if test(mode):
            return kind
    return SPECIAL


def walk(
    root: int, start: bytes = b"", stop: bytes | None = None
) -> Generator[tuple[int, bytes, bytes, str], None, None]:
    """Yield what lies below ``root`` in the order of raw path bytes.

    A directory comes as an entry of its own, later its content does: between ``a`` and
    ``a/b`` there may be ``a-b``. Only the path interval ``start <= path < stop`` is
    visited, so that several processes can share one tree.

    Yields:
        Open parent directory (valid until the next step), name in it, path below
        ``root``, what it is.

    Raises:
        OSError: A directory cannot be read; its ``filename`` is the path below ``root``.
    """
    stack = [_level(reopen(root), b"")]
    try:
        while stack:
            fd, prefix, names, kinds = stack[-1]
            for name in names:
                path = prefix + name
                if stop is not None and path >= stop:
                    return
                if name[-1] == _SLASH:
                    if path >= start or start.startswith(path):
                        stack.append(_enter(name[:-1], fd, path))
                        break
                elif path >= start:
                    yield fd, name, path, kinds[name]
            else:
                os.close(fd)
                stack.pop()
    finally:
        for fd, *_ in stack:
            os.close(fd)


def _enter(
    name: bytes, at: int, path: bytes
) -> tuple[int, bytes, Iterator[bytes], dict[bytes, str]]:
    try:
        return _level(open_directory(name, at), path)
    except OSError as error:
        error.filename = path[:-1]
        raise


def _level(fd: int, prefix: bytes) -> tuple[int, bytes, Iterator[bytes], dict[bytes, str]]:
    """Return one level of a walk: a directory's content stands behind it, as ``name/``."""
    try:
        kinds = dict(list_directory(fd))
    except BaseException:
        os.close(fd)
        raise
    names = [*kinds, *(name + b"/" for name, kind in kinds.items() if kind is DIRECTORY)]
    names.sort()
    return fd, prefix, iter(names), kinds


_SLASH = ord("/")


def remove_tree(name: str | bytes, at: int) -> None:
    """Remove a directory and all below it, by descriptors, or a single file."""
    if not stat.S_ISDIR(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode):
        _remove_file(name, at)
        return
    frames: list[tuple[int, str | bytes, list[bytes]]] = []
    try:
        frames.append(_open_to_empty(name, at))
        while frames:
            fd, own_name, directories = frames[-1]
            if directories:
                frames.append(_open_to_empty(directories.pop(), fd))
            else:
                frames.pop()
                os.close(fd)
                os.rmdir(own_name, dir_fd=frames[-1][0] if frames else at)
    finally:
        for fd, *_ in frames:
            os.close(fd)


def _open_to_empty(name: str | bytes, at: int) -> tuple[int, str | bytes, list[bytes]]:
    """Open a directory, remove its files, return what is left to descend into."""
    try:
        fd = open_directory(name, at)
    except PermissionError:  # its owner may not read it, but may change that
        with Closing(os.open(name, _PINNED_DIRECTORY, dir_fd=at)) as pinned:
            os.chmod(b"/proc/self/fd/%d" % pinned, stat.S_IRWXU)
        fd = open_directory(name, at)
    try:
        if os.fstat(fd).st_mode & stat.S_IRWXU != stat.S_IRWXU:
            os.fchmod(fd, stat.S_IRWXU)
        listed = list_directory(fd)
        for child, kind in listed:
            if kind is not DIRECTORY:
                _remove_file(child, fd)
    except BaseException:
        os.close(fd)
        raise
    return fd, name, [child for child, kind in listed if kind is DIRECTORY]


def _remove_file(name: str | bytes, at: int) -> None:
    """Unlink; a file that lends power loses it first, lest a hard link elsewhere keeps it."""
    if lends_power(name, at):
        with Closing(open_file(name, at)) as fd:
            os.fchmod(fd, 0o600)
    os.unlink(name, dir_fd=at)
