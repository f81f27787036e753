"""An independent comparison of two directory trees.

Nothing here comes from the code under test: a tree is walked by directory
descriptors (so a path may be longer than PATH_MAX, and a name may be any
bytes), every fact is read from the kernel, and contents are hashed with BLAKE3.

``snapshot`` records a tree as a picklable value; ``differences`` compares two
of them; ``compare`` does both at once.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from blake3 import blake3

PIECE_BYTES = 1 << 20
IGNORED_XATTRS = frozenset({"security.selinux"})
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One name of a tree with all that is known of it.

    ``group`` is the first path of the entry's link group inside the tree, or
    ``None`` where it has no second name there. ``identity``, ``links``,
    ``allocated`` and ``data`` (the byte ranges that are no holes) take part in
    a comparison only when asked for.
    """

    path: bytes
    kind: str
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int = 0
    digest: str = ""
    target: bytes = b""
    device: int = 0
    xattrs: tuple[tuple[str, bytes], ...] = ()
    group: bytes | None = None
    identity: tuple[int, int] = (0, 0)
    links: int = 0
    allocated: int = 0
    data: tuple[tuple[int, int], ...] = ()


Snapshot = dict[bytes, Entry]


def snapshot(tree: Path | str | bytes) -> Snapshot:
    """Record every entry of ``tree``, the root as path ``b""``."""
    found = [*_walk(os.fsencode(tree))]
    names: dict[tuple[int, int], list[bytes]] = {}
    for entry in found:
        if entry.kind != "directory":
            names.setdefault(entry.identity, []).append(entry.path)
    first = {identity: min(paths) for identity, paths in names.items() if len(paths) > 1}
    return {entry.path: _grouped(entry, first.get(entry.identity)) for entry in found}


def compare(
    left: Path | str | bytes,
    right: Path | str | bytes,
    *,
    identity: bool = False,
    holes: bool = False,
) -> list[str]:
    """Compare two trees on disk; see ``differences``."""
    return differences(snapshot(left), snapshot(right), identity=identity, holes=holes)


def differences(
    left: Snapshot, right: Snapshot, *, identity: bool = False, holes: bool = False
) -> list[str]:
    """Say in words how two trees differ; an empty list means that they are equal.

    Args:
        left: The tree as it should be.
        right: The tree as it is.
        identity: Also ask that each name still leads to the same inode.
        holes: Also ask that what is a hole on the left is one on the right.
    """
    said: list[str] = []
    for path in sorted(left.keys() | right.keys()):
        if path not in right:
            said.append(f"{_show(path)}: missing ({left[path].kind})")
        elif path not in left:
            said.append(f"{_show(path)}: unexpected ({right[path].kind})")
        else:
            facts = _entry_differences(left[path], right[path], identity=identity, holes=holes)
            said.extend(f"{_show(path)}: {fact}" for fact in facts)
    return said


def allocated_bytes(*trees: Snapshot) -> int:
    """Add up the allocated bytes of trees, each inode once."""
    inodes = {entry.identity: entry.allocated for tree in trees for entry in tree.values()}
    return sum(inodes.values())


def _walk(tree: bytes) -> Iterator[Entry]:
    current = os.open(tree, _DIRECTORY)
    seen: dict[tuple[int, int], tuple[str, tuple[tuple[int, int], ...]]] = {}
    try:
        yield _entry(b"", os.fstat(current), xattrs=_xattrs(current))
        stack = [(b"", iter(_names(current)))]
        while stack:
            prefix, names = stack[-1]
            name = next(names, None)
            if name is None:
                stack.pop()
                if stack:
                    current = _move(current, b"..")
                continue
            path = prefix + b"/" + name if prefix else name
            status = os.stat(name, dir_fd=current, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                current = _move(current, name)
                yield _entry(path, os.fstat(current), xattrs=_xattrs(current))
                stack.append((path, iter(_names(current))))
            elif stat.S_ISREG(status.st_mode):
                yield _file(path, name, current, seen)
            else:
                yield _special(path, name, current, status)
    finally:
        os.close(current)


def _move(current: int, name: bytes) -> int:
    following = os.open(name, _DIRECTORY, dir_fd=current)
    os.close(current)
    return following


def _names(directory: int) -> list[bytes]:
    return sorted(os.fsencode(name) for name in os.listdir(directory))


def _file(
    path: bytes,
    name: bytes,
    directory: int,
    seen: dict[tuple[int, int], tuple[str, tuple[tuple[int, int], ...]]],
) -> Entry:
    descriptor = os.open(name, _FILE, dir_fd=directory)
    try:
        status = os.fstat(descriptor)
        inode = (status.st_dev, status.st_ino)
        if inode not in seen:
            seen[inode] = (_digest(descriptor), _data_ranges(descriptor, status.st_size))
        digest, data = seen[inode]
        return _entry(path, status, xattrs=_xattrs(descriptor), digest=digest, data=data)
    finally:
        os.close(descriptor)


def _special(path: bytes, name: bytes, directory: int, status: os.stat_result) -> Entry:
    through = b"/proc/self/fd/%d/%s" % (directory, name)
    if stat.S_ISLNK(status.st_mode):
        target = os.readlink(name, dir_fd=directory)
        return _entry(path, status, xattrs=_xattrs(through), target=target)
    return _entry(path, status, xattrs=_xattrs(through))


def _entry(
    path: bytes,
    status: os.stat_result,
    *,
    xattrs: tuple[tuple[str, bytes], ...],
    digest: str = "",
    target: bytes = b"",
    data: tuple[tuple[int, int], ...] = (),
) -> Entry:
    kind = _KINDS[stat.S_IFMT(status.st_mode)]
    return Entry(
        path=path,
        kind=kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        mtime_ns=status.st_mtime_ns,
        size=status.st_size if kind == "file" else 0,
        digest=digest,
        target=target,
        device=status.st_rdev if kind.endswith("device") else 0,
        xattrs=xattrs,
        identity=(status.st_dev, status.st_ino),
        links=status.st_nlink,
        allocated=status.st_blocks * 512,
        data=data,
    )


def _grouped(entry: Entry, group: bytes | None) -> Entry:
    return entry if group is None else replace(entry, group=group)


def _xattrs(place: int | bytes) -> tuple[tuple[str, bytes], ...]:
    if isinstance(place, int):
        names: Iterable[str] = os.listxattr(place)
        return tuple((n, os.getxattr(place, n)) for n in sorted(names) if n not in IGNORED_XATTRS)
    names = os.listxattr(place, follow_symlinks=False)
    return tuple(
        (n, os.getxattr(place, n, follow_symlinks=False))
        for n in sorted(names)
        if n not in IGNORED_XATTRS
    )


def _digest(descriptor: int) -> str:
    hasher = blake3()
    while piece := os.read(descriptor, PIECE_BYTES):
        hasher.update(piece)
    return str(hasher.hexdigest())


def _data_ranges(descriptor: int, size: int) -> tuple[tuple[int, int], ...]:
    ranges: list[tuple[int, int]] = []
    at = 0
    while at < size:
        try:
            begin = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError:  # ENXIO: only a hole is left
            break
        at = os.lseek(descriptor, begin, os.SEEK_HOLE)
        ranges.append((begin, at))
    return tuple(ranges)


def _entry_differences(left: Entry, right: Entry, *, identity: bool, holes: bool) -> list[str]:
    if left.kind != right.kind:
        return [f"type {left.kind} != {right.kind}"]
    said: list[str] = []
    if left.mode != right.mode:
        said.append(f"mode {left.mode:04o} != {right.mode:04o}")
    for name in ("uid", "gid", "mtime_ns", "size", "digest", "target", "device", "group"):
        mine, its = getattr(left, name), getattr(right, name)
        if mine != its:
            said.append(f"{name} {_short(mine)} != {_short(its)}")
    said.extend(_xattr_differences(dict(left.xattrs), dict(right.xattrs)))
    if identity and left.identity != right.identity:
        said.append(f"inode {left.identity} != {right.identity}")
    if holes and not _covered(right.data, left.data):
        said.append(f"holes lost: data at {left.data} became data at {right.data}")
    return said


def _xattr_differences(left: dict[str, bytes], right: dict[str, bytes]) -> list[str]:
    said: list[str] = []
    for name in sorted(left.keys() | right.keys()):
        if name not in right:
            said.append(f"xattr {name!r} missing")
        elif name not in left:
            said.append(f"xattr {name!r} unexpected")
        elif left[name] != right[name]:
            said.append(f"xattr {name!r} {_short(left[name])} != {_short(right[name])}")
    return said


def _covered(inner: tuple[tuple[int, int], ...], outer: tuple[tuple[int, int], ...]) -> bool:
    return all(any(a <= begin and end <= b for a, b in outer) for begin, end in inner)


def _show(path: bytes) -> str:
    return _short(path) if path else "the root"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 160 else f"{text[:120]}…{text[-30:]}"
