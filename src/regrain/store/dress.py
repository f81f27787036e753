"""Give what a checkout made its owner, mode, attributes and time."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from regrain import disk
from regrain.errors import RegrainError, reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from regrain.model.entry import Entry

LABELS = (b"security.selinux", b"security.SMACK64", b"security.apparmor")
"""Labels the system gives by its own policy: recorded, not insisted on."""

_PIN = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_SECOND = 10**9
_SAFE_SECONDS = range(2**31)
"""Times every file system can hold; others are read back after they were set."""


def dress(entry: Entry, fd: int) -> None:
    """Give an open file or directory its owner, mode, attributes and time, in this order.

    ``chown`` takes set-id bits and capabilities away, so mode and attributes follow it;
    the time comes last since all before may change it.
    """
    status = os.fstat(fd)
    if (status.st_uid, status.st_gid) != (entry.uid, entry.gid):
        _must(entry, "owner", os.fchown, fd, entry.uid, entry.gid)
    _must(entry, "mode", os.fchmod, fd, entry.mode)
    _set_attributes(entry, fd)
    os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
    _check_time(entry, fd)


def dress_symlink(entry: Entry, name: bytes, at: int) -> None:
    """Give the symbolic link ``name`` in the open directory ``at`` what its entry says.

    It is pinned first, so that a file somebody puts in its place is not dressed instead.
    """
    with disk.Closing(os.open(name, _PIN, dir_fd=at)) as fd:
        status = os.fstat(fd)
        if not stat.S_ISLNK(status.st_mode):
            raise RegrainError("somebody else changes the destination", path=entry.path)
        place = b"/proc/self/fd/%d" % fd
        if (status.st_uid, status.st_gid) != (entry.uid, entry.gid):
            _must(entry, "owner", os.chown, place, entry.uid, entry.gid)
        _set_attributes(entry, place)
        os.utime(place, ns=(entry.mtime_ns, entry.mtime_ns))
        _check_time(entry, fd)


def _must(entry: Entry, what: str, call: Callable[..., None], *arguments: object) -> None:
    try:
        call(*arguments)
    except OSError as error:
        raise RegrainError(
            f"cannot restore the {what} of a file",
            path=entry.path,
            why=reason(error),
            advice="A checkout of files of other owners needs root.",
        ) from error


def _set_attributes(entry: Entry, place: int | bytes) -> None:
    for name, value in (entry.xattrs or {}).items():
        try:
            os.setxattr(place, name, value)
        except OSError as error:
            if name.startswith(LABELS):
                continue
            raise RegrainError(
                f"cannot restore the extended attribute {os.fsdecode(name)}",
                path=entry.path,
                why=reason(error),
                advice="Check out to a file system that keeps such attributes, with rights "
                "to set them.",
            ) from error


def _check_time(entry: Entry, fd: int) -> None:
    """Refuse where the file system silently clamped a time it cannot hold."""
    if entry.mtime_ns // _SECOND in _SAFE_SECONDS:
        return
    stored = os.fstat(fd).st_mtime_ns
    if stored != entry.mtime_ns:
        raise RegrainError(
            "the file system cannot hold a modification time",
            path=entry.path,
            why=f"{entry.mtime_ns} ns was stored as {stored} ns",
            advice="Check out to another file system.",
        )
