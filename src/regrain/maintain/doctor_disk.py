"""Doctor: the file system a store lies on."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from regrain import disk
from regrain.maintain.abilities import Abilities, Mount, mount_of, probe
from regrain.maintain.doctor_findings import Finding, Weight
from regrain.model import clock, layout
from regrain.store.locks import RunDirectory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regrain.store.root import StoreRoot

_CHECK = "file system"
_YEAR_2100 = 4_102_444_800
_YEAR_9999 = 253_402_300_799
_NO_WRITING = frozenset({errno.EROFS, errno.ENOSPC, errno.EDQUOT})


def file_system(fd: int, *, server_keeps_locks: bool = False) -> Iterator[Finding]:
    """Name the file system, and say where its kind is a danger."""
    mount = mount_of(fd)
    if mount is None:
        yield Finding(
            _CHECK,
            Weight.ADVICE,
            "the kernel does not say which file system the store lies on",
            "Mount /proc where regrain runs.",
        )
    else:
        yield from judge_mount(mount, server_keeps_locks=server_keeps_locks)


def judge_mount(mount: Mount, *, server_keeps_locks: bool = False) -> Iterator[Finding]:
    """Judge a mount by its name and options.

    Args:
        mount: It.
        server_keeps_locks: Whether a database server keeps the store's locks, too.
    """
    point = os.fsdecode(mount.point)
    figures: dict[str, object] = {"kind": mount.kind, "mount_point": point}
    yield Finding(_CHECK, Weight.OK, f"the store lies on {mount.kind}", figures=figures)
    if mount.is_network and server_keeps_locks:
        yield Finding(
            _CHECK,
            Weight.ADVICE,
            f"{mount.kind} is shared with other machines, and locks there cannot be trusted; "
            "the server that has the ledger keeps the store's locks, too",
            "Steer the store, and clean it up, from one machine at a time: that is locked by "
            "files alone.",
            figures,
        )
    elif mount.is_network:
        yield Finding(
            _CHECK,
            Weight.WARNING,
            f"{mount.kind} is shared with other machines, and locks there cannot be trusted",
            "Run regrain on one machine only, best on the one that has the disk, "
            "and never at the same time on two; or keep the ledger in PostgreSQL, whose server "
            "then keeps the locks.",
            figures,
        )
    elif mount.kind.startswith("fuse"):
        yield Finding(
            _CHECK,
            Weight.ADVICE,
            f"{mount.kind} is a program's file system; what it promises depends on that program",
            "Make sure that it flushes on fsync and keeps locks between processes.",
            figures,
        )
    if mount.is_read_only:
        yield Finding(
            _CHECK,
            Weight.WARNING,
            f"'{point}' is mounted read-only, so packages can be read and nothing else",
            "Remount it writable; if the kernel did this, look at its messages first.",
            figures,
        )
    if mount.quotas:
        yield Finding(
            "space",
            Weight.ADVICE,
            f"quotas are on ({', '.join(mount.quotas)}), so there may be less left than is free",
            "Ask 'quota' or the file system's own tool what the store's owner has left.",
        )


def space(fd: int, bytes_min: int, inodes_min: int) -> Iterator[Finding]:
    """Judge what is left; what only root may use does not count."""
    status = os.fstatvfs(fd)
    free, reserved = status.f_bavail * status.f_frsize, status.f_bfree - status.f_bavail
    figures: dict[str, object] = {
        "free_bytes": free,
        "reserved_bytes": reserved * status.f_frsize,
        "free_inodes": status.f_favail if status.f_files else None,
        "reserved_inodes": status.f_ffree - status.f_favail if status.f_files else None,
    }
    inodes = f"{status.f_favail:,} inodes" if status.f_files else "inodes without a limit"
    yield Finding(
        "space",
        Weight.OK,
        f"{free:,} bytes and {inodes} are free, "
        f"and {reserved * status.f_frsize:,} bytes more are reserved for root",
        figures=figures,
    )
    if free < bytes_min:
        yield Finding(
            "space",
            Weight.WARNING,
            f"{free:,} bytes are free, under the {bytes_min:,} of free_bytes_min",
            "Free some space before the next run.",
            figures,
        )
    if status.f_files and status.f_favail < inodes_min:
        yield Finding(
            "space",
            Weight.WARNING,
            f"{status.f_favail:,} inodes are free, under the {inodes_min:,} of free_inodes_min",
            "Remove files, or move the store to a file system with more inodes.",
            figures,
        )


def abilities(root: StoreRoot, *, may_try: bool) -> Iterator[Finding]:
    """Find out by trying what the file system can do."""
    if not may_try:
        yield _untried("nothing was to be written", "Leave out --dry-run to have it tried.")
        return
    if os.geteuid() not in (0, root.owner.uid):
        yield _untried("this user does not own the store", "Run as its owner, or as root.")
        return
    try:
        directory = RunDirectory(root)
    except OSError as error:
        if error.errno not in _NO_WRITING and not isinstance(error, FileNotFoundError):
            raise
        yield _untried(
            f"'{layout.TEMP}' cannot be written to: {os.strerror(error.errno or 0)}",
            "Mend that and run it again.",
        )
        return
    with directory:
        found = probe(directory.pool)
    yield from judge_abilities(found)


def _untried(why: str, advice: str) -> Finding:
    return Finding(
        _CHECK, Weight.ADVICE, f"what the file system can do was not tried: {why}", advice
    )


def judge_abilities(found: Abilities) -> Iterator[Finding]:
    """Say what the abilities of a file system mean for a store."""
    words = [name.replace("_", " ") for name, value in found._asdict().items() if value is True]
    yield Finding(
        _CHECK,
        Weight.OK,
        f"tried and found: {', '.join(words) or 'nothing'}; times in steps of "
        f"{found.time_step_ns:,} ns up to {_day(found.time_max)}",
        figures=dict(found._asdict()),
    )
    for is_bad, weight, message, advice in _consequences(found):
        if is_bad:
            yield Finding(_CHECK, weight, message, advice)


def _consequences(found: Abilities) -> list[tuple[bool, Weight, str, str]]:
    return [
        (
            not found.rename_noreplace or not found.rename_exchange,
            Weight.ERROR,
            (
                "names cannot be renamed without replacing, or not be exchanged, "
                "on which the write protocol rests"
            ),
            "Move the store to ext4, xfs or btrfs.",
        ),
        (
            not found.syncfs,
            Weight.ERROR,
            "the file system cannot be flushed as a whole",
            'Set sync = "fsync" under [store], or move the store to another file system.',
        ),
        (
            found.folds_case or found.normalises,
            Weight.WARNING,
            "names that differ only in case or in Unicode's composition are taken for one here",
            (
                "Move the store to a directory without folding of names, "
                "since packages may hold such names."
            ),
        ),
        (
            not found.hard_links and not found.reflink,
            Weight.ADVICE,
            "files can neither share extents nor have two names, so every object is a copy",
            "Plan with the space of all distinct files beside the legacy tree.",
        ),
        (
            not found.unnamed_files,
            Weight.ADVICE,
            "files without a name cannot be made, so that reflinks are not found either",
            'Set ingest = "reflink" under [store] if you know that the file system has them.',
        ),
        (
            not found.user_xattrs,
            Weight.ADVICE,
            "files cannot have extended attributes of users here",
            "Check out packages that have such attributes to another file system.",
        ),
        (
            found.time_step_ns > 1,
            Weight.ADVICE,
            f"modification times are rounded to {found.time_step_ns:,} ns here",
            "Check out to another file system where exact times matter.",
        ),
        (
            found.time_max < _YEAR_2100,
            Weight.ADVICE,
            f"modification times after {_day(found.time_max)} cannot be held here",
            "Move the store to a file system with larger inodes or times in time.",
        ),
    ]


def _day(seconds: int) -> str:
    """Return a day, or that it is beyond what a calendar can say."""
    return clock.day_name(seconds) if seconds <= _YEAR_9999 else "the year 9999 and later"


def count_tree(root: int) -> tuple[int, int]:
    """Return how many things lie below an open directory, and what they take on disk."""
    count = taken = 0
    for at, name, _, _ in disk.walk(root):
        count += 1
        taken += disk.allocated(os.stat(name, dir_fd=at, follow_symlinks=False))
    return count, taken
