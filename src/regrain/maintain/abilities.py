"""What the file system of a store is and can do: read off the kernel, or found by trying."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NamedTuple

from regrain import disk

if TYPE_CHECKING:
    from collections.abc import Callable

_OCTAL = re.compile(rb"\\([0-7]{3})")
_NANOSECONDS = 10**9
_FAR_FUTURE = 1 << 40
"""Seconds: the year 36812. The kernel cuts a time down to what the file system can hold."""

NETWORK = frozenset(
    {
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "coda",
        "fuse.blobfuse2",
        "fuse.ceph",
        "fuse.ceph-fuse",
        "fuse.davfs",
        "fuse.gcsfuse",
        "fuse.glusterfs",
        "fuse.goofys",
        "fuse.juicefs",
        "fuse.lizardfs",
        "fuse.mfs",
        "fuse.rclone",
        "fuse.s3fs",
        "fuse.seaweedfs",
        "fuse.sshfs",
        "gfs2",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "orangefs",
        "smb3",
        "smbfs",
        "virtiofs",
        "wekafs",
    }
)
"""File systems that other machines (or a host) write to at the same time."""


class Mount(NamedTuple):
    """A line of mountinfo.

    Attributes:
        point: Where it is mounted.
        kind: The file system, as ``ext4`` or ``fuse.sshfs``.
        source: What is mounted.
        options: Of the mount and of the file system.
    """

    point: bytes
    kind: str
    source: bytes
    options: tuple[str, ...]

    @property
    def is_network(self) -> bool:
        """Whether locks there cannot be trusted."""
        return self.kind in NETWORK

    @property
    def is_read_only(self) -> bool:
        """Whether nothing can be written."""
        return "ro" in self.options

    @property
    def quotas(self) -> list[str]:
        """The options that say that quotas are kept."""
        return [option for option in self.options if "quota" in option and option != "noquota"]


def parse_mounts(text: bytes) -> dict[int, Mount]:
    """Return the mounts in ``/proc/self/mountinfo`` by their ids; odd lines are left out."""
    mounts = {}
    for line in text.splitlines():
        before, dash, after = line.partition(b" - ")
        own, system = before.split(b" "), after.split(b" ")
        if dash and len(own) >= 6 and len(system) >= 2 and own[0].isdigit():
            options = b",".join([own[5], *system[2:3]]).decode("utf-8", "replace")
            mounts[int(own[0])] = Mount(
                _unescaped(own[4]),
                _unescaped(system[0]).decode("utf-8", "replace"),
                _unescaped(system[1]),
                tuple(options.split(",")),
            )
    return mounts


def _unescaped(field: bytes) -> bytes:
    """Undo the kernel's octal escapes of blanks, tabs, newlines and backslashes."""
    return _OCTAL.sub(lambda match: bytes((int(match[1], 8) & 0xFF,)), field)


def mount_of(fd: int) -> Mount | None:
    """Return the mount that an open file lies on, None where the kernel does not say."""
    try:
        with open(f"/proc/self/fdinfo/{fd}", "rb") as stream:
            facts = dict(line.split(b":", 1) for line in stream if b":" in line)
        with open("/proc/self/mountinfo", "rb") as stream:
            mounts = parse_mounts(stream.read())
        return mounts.get(int(facts[b"mnt_id"]))
    except (OSError, KeyError, ValueError):
        return None


LINKS_MAX = {
    "ext2": 32_000,  # EXT2_LINK_MAX, fs/ext2/ext2.h
    "ext3": 32_000,  # EXT3_LINK_MAX; ext4 keeps to its own
    "ext4": 65_000,  # EXT4_LINK_MAX, fs/ext4/ext4.h
    "xfs": (1 << 31) - 1,  # XFS_MAXLINK, fs/xfs/libxfs/xfs_format.h
    "btrfs": 65_535,  # BTRFS_LINK_MAX, fs/btrfs/ctree.h; in one directory, too
    "f2fs": 32_000,  # F2FS_LINK_MAX, fs/f2fs/f2fs.h
}
"""How many names an inode may have, as the kernel's sources say. Others: unknown."""


class Abilities(NamedTuple):
    """What was found by trying.

    Attributes:
        reflink: Files can share extents.
        hard_links: A file can have two names.
        user_xattrs: Files can have attributes of users.
        rename_noreplace: A rename refuses to replace.
        rename_exchange: Two names can be swapped in one step.
        unnamed_files: Files can be made without a name (O_TMPFILE).
        syncfs: The file system can be flushed as a whole.
        folds_case: Names that differ in case only are one.
        normalises: Names that differ in Unicode's composition only are one.
        time_step_ns: The finest difference of modification times.
        time_max: The latest modification time, in Unix seconds.
    """

    reflink: bool
    hard_links: bool
    user_xattrs: bool
    rename_noreplace: bool
    rename_exchange: bool
    unnamed_files: bool
    syncfs: bool
    folds_case: bool
    normalises: bool
    time_step_ns: int
    time_max: int


def probe(fd: int) -> Abilities:
    """Find out by trying, in the empty private directory ``fd``."""
    return Abilities(
        reflink=disk.shares_extents(fd),
        hard_links=_works(_link, fd),
        user_xattrs=_works(_set_attribute, fd),
        rename_noreplace=_works(_refuse_to_replace, fd),
        rename_exchange=_works(_exchange, fd),
        unnamed_files=_works(_unnamed, fd),
        syncfs=_works(disk.syncfs, fd),
        folds_case=_is_one(fd, b"Case", b"cASE"),
        normalises=_is_one(fd, "caf\u00e9".encode(), "cafe\u0301".encode()),
        time_step_ns=_time_step(fd),
        time_max=_time_max(fd),
    )


def _works(trial: Callable[[int], None], fd: int) -> bool:
    try:
        trial(fd)
    except (OSError, _WrongAnswerError):
        return False
    return True


class _WrongAnswerError(Exception):
    """The file system did something else than it was asked to."""


def _expect(answer: object) -> None:
    if not answer:
        raise _WrongAnswerError


def _make(fd: int, *names: bytes) -> None:
    for name in names:
        os.close(disk.create(name, fd))


def _inode(name: bytes, fd: int) -> int:
    return os.stat(name, dir_fd=fd, follow_symlinks=False).st_ino


def _link(fd: int) -> None:
    _make(fd, b"link")
    disk.link(b"link", fd, b"linked", fd)
    _expect(_inode(b"link", fd) == _inode(b"linked", fd))


def _set_attribute(fd: int) -> None:
    with disk.Closing(disk.create(b"attribute", fd)) as file:
        os.setxattr(file, "user.regrain", b"tried")
        _expect(os.getxattr(file, "user.regrain") == b"tried")


def _refuse_to_replace(fd: int) -> None:
    _make(fd, b"new", b"old")
    try:
        disk.rename_noreplace(b"new", fd, b"old", fd)
    except FileExistsError:
        disk.rename_noreplace(b"new", fd, b"moved", fd)
        return
    raise _WrongAnswerError


def _exchange(fd: int) -> None:
    _make(fd, b"one", b"two")
    before = _inode(b"one", fd), _inode(b"two", fd)
    disk.rename_exchange(b"one", fd, b"two", fd)
    _expect((_inode(b"two", fd), _inode(b"one", fd)) == before)


def _unnamed(fd: int) -> None:
    os.close(os.open(b".", os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600, dir_fd=fd))


def _is_one(fd: int, name: bytes, other: bytes) -> bool:
    """Tell whether two spellings name one file."""
    _make(fd, name)
    try:
        os.stat(other, dir_fd=fd, follow_symlinks=False)
    except OSError:
        return False
    return True


def _time_step(fd: int) -> int:
    """Return what the file system rounds modification times down to, in nanoseconds."""
    wanted = 3 * _NANOSECONDS + 123_456_789  # an odd second, since FAT counts in twos
    with disk.Closing(disk.create(b"step", fd)) as file:
        os.utime(file, ns=(0, wanted))
        kept = os.fstat(file).st_mtime_ns
    steps = (10**exponent for exponent in range(10))
    return next((step for step in steps if wanted - wanted % step == kept), 2 * _NANOSECONDS)


def _time_max(fd: int) -> int:
    with disk.Closing(disk.create(b"time", fd)) as file:
        os.utime(file, ns=(0, _FAR_FUTURE * _NANOSECONDS))
        return os.fstat(file).st_mtime_ns // _NANOSECONDS
