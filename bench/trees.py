"""Look at directory trees without regrain: what they take, and where two of them differ.

The checks of the demonstration and the benchmarks must not rest on the code they check,
so nothing here imports regrain. Every access goes through directory descriptors, because
synthetic trees may be deeper than a path can say.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blake3 import blake3

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHUNK = 1 << 20


@dataclass(slots=True)
class Usage:
    """What some trees take on disk, each inode counted once."""

    files: int = 0
    directories: int = 0
    inodes: int = 0
    allocated: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """Everything a copy of one file, directory or symlink must keep."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    content: str
    link_leader: bytes
    xattrs: dict[str, bytes] = field(default_factory=dict)


def usage(*roots: Path) -> Usage:
    """Sum the allocated bytes and inodes below some paths, themselves included.

    Args:
        roots: Files or directories; those that do not exist count nothing.

    Returns:
        The sums; an inode with several names is counted once.
    """
    total = Usage()
    seen: set[tuple[int, int]] = set()
    for root in roots:
        for _, _, info in _walk(root):
            is_directory = stat.S_ISDIR(info.st_mode)
            total.directories += is_directory
            total.files += not is_directory
            inode = (info.st_dev, info.st_ino)
            if inode not in seen:
                seen.add(inode)
                total.allocated += info.st_blocks * 512
    total.inodes = len(seen)
    return total


def digest(path: Path) -> bytes:
    """Hash the bytes of a file."""
    hasher = blake3()
    with path.open("rb") as stream:
        while block := stream.read(CHUNK):
            hasher.update(block)
    return hasher.digest()


def snapshot(root: Path) -> dict[bytes, Entry]:
    """Describe every entry of a tree, by its path relative to the root.

    Args:
        root: The directory to read; its own entry has the path ``b""``.

    Returns:
        The entries; two trees are the same exactly if their snapshots are equal.
    """
    entries: dict[bytes, Entry] = {}
    leaders: dict[tuple[int, int], bytes] = {}
    base = len(os.fsencode(root)) + 1
    for path, descriptor, info in sorted(_walk(root, describe=True), key=lambda item: item[0]):
        relative = path[base:]
        content, xattrs = descriptor
        linked = info.st_nlink > 1 and not stat.S_ISDIR(info.st_mode)
        inode = (info.st_dev, info.st_ino)
        leader = leaders.setdefault(inode, relative) if linked else b""
        entries[relative] = Entry(
            mode=info.st_mode,
            uid=info.st_uid,
            gid=info.st_gid,
            mtime_ns=info.st_mtime_ns,
            content=content,
            # A file whose other names lie outside the tree is alone in its group.
            link_leader=b"" if leader == relative else leader,
            xattrs=xattrs,
        )
    return entries


def differences(left: Path, right: Path, *, ignore_root: bool = False) -> list[str]:
    """Compare two trees in bytes and metadata.

    Args:
        left: One directory.
        right: The other one.
        ignore_root: Leave out the two directories' own metadata.

    Returns:
        One line for each path that differs; empty if the trees are the same.
    """
    first, second = snapshot(left), snapshot(right)
    if ignore_root:
        first.pop(b"", None)
        second.pop(b"", None)
    lines = []
    for path in sorted(first.keys() | second.keys()):
        one, other = first.get(path), second.get(path)
        if one != other:
            lines.append(f"{os.fsdecode(path) or '.'}: {one} is not {other}")
    return lines


Described = tuple[str, dict[str, bytes]]


def _walk(
    root: Path, *, describe: bool = False
) -> Iterator[tuple[bytes, Described, os.stat_result]]:
    """Yield path, content with xattrs (empty unless asked for) and status of each entry."""
    top = os.fsencode(root)
    try:
        info = os.lstat(top)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(info.st_mode):
        yield top, ("", {}), info
        return
    for path, directories, names, directory in os.fwalk(top, onerror=_fail):
        own_xattrs = _xattrs(directory) if describe else {}
        yield path, ("", own_xattrs), os.fstat(directory)
        # fwalk counts symlinks to directories as directories, but does not enter them.
        for name in (*directories, *names):
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                continue
            described = _describe(name, directory, status) if describe else ("", {})
            yield os.path.join(path, name), described, status


def _fail(error: OSError) -> None:
    """Stop at a directory that cannot be read; fwalk would leave it out without a word."""
    raise error


def _describe(name: bytes, directory: int, info: os.stat_result) -> Described:
    """Read what a file or symlink holds."""
    if stat.S_ISLNK(info.st_mode):
        return os.readlink(name, dir_fd=directory).hex(), {}
    if not stat.S_ISREG(info.st_mode):
        return "", {}
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory)
    try:
        hasher = blake3()
        while block := os.read(descriptor, CHUNK):
            hasher.update(block)
        return hasher.hexdigest(), _xattrs(descriptor)
    finally:
        os.close(descriptor)


def _xattrs(descriptor: int) -> dict[str, bytes]:
    """Read the xattrs of an open file."""
    return {name: os.getxattr(descriptor, name) for name in os.listxattr(descriptor)}
