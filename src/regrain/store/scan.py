"""Measure legacy packages: what is there, what it takes, what bringing it in would cost."""

from __future__ import annotations

import contextlib
import os
import stat
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from regrain import disk
from regrain.errors import PackageError, path_of
from regrain.model.layout import MANIFEST, carrier_mode
from regrain.model.manifest import BYTES_MAX, parse_manifest
from regrain.store.checkout import LABELS
from regrain.store.legacy import source_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regrain.store.root import Owner

SLICE_ENTRIES = 2500
SLICE_BYTES = 128 << 20
"""A slice of a large package ends at so many entries or bytes, whichever comes first."""

_LIST_BYTES_A_FILE = 330
_LEDGER_BYTES_A_FILE = 260
"""What an entry costs in ``files.json`` and in the ledger, rounded up (measured)."""


@dataclass(slots=True)
class Usage:
    """What one legacy package holds.

    Attributes:
        package_hash: Its name.
        name: From its manifest.
        version: Likewise.
        files: Regular files, every path counted.
        directories: The root included.
        symlinks: Symbolic links.
        inodes: Each once.
        size: Sum of ``st_size`` of its regular files, every path counted.
        allocated: Bytes on disk, each inode once.
        path_bytes: Sum of the lengths of all paths.
        copied_files: Files that cannot be linked and would have to be copied.
        copied_bytes: What those copies take.
        linked_outside: Files with names outside this package.
        cuts: Paths that part a large package into slices of about equal work.
        sizes: If it was measured closely: size and bytes on disk of each inode that is a file
            and has bytes, in turn.
        copies: What the copies for people beside its file list take.
        newest_ctime_ns: Latest change time of anything in it.
        problem: Why it will fail, empty if nothing is known.
    """

    package_hash: str
    name: str = ""
    version: str = ""
    files: int = 0
    directories: int = 0
    symlinks: int = 0
    inodes: int = 0
    size: int = 0
    allocated: int = 0
    path_bytes: int = 0
    copied_files: int = 0
    copied_bytes: int = 0
    linked_outside: int = 0
    cuts: list[bytes] = field(default_factory=list, repr=False)
    sizes: array[int] = field(default_factory=lambda: array("Q"), repr=False)
    copies: int = 0
    newest_ctime_ns: int = 0
    problem: str = ""
    shared: dict[tuple[int, int], list[int]] = field(default_factory=dict, repr=False)

    @property
    def list_bytes(self) -> int:
        """What its file list will take at the most, copies for people included."""
        entries = self.files + self.directories + self.symlinks
        return entries * _LIST_BYTES_A_FILE + 2 * self.path_bytes + (16 << 10)

    @property
    def ledger_bytes(self) -> int:
        """What its rows in the ledger will take at the most."""
        return self.files * _LEDGER_BYTES_A_FILE + (1 << 10)


def measure(store: int, package_hash: str, owner: Owner, *, closely: bool = False) -> Usage:
    """Walk one legacy package; nothing is opened but directories and the manifest.

    Args:
        store: The open top directory.
        package_hash: The package.
        owner: Who the store belongs to.
        closely: Also find which files cannot be linked, extended attributes included.
    """
    usage = Usage(package_hash)
    try:
        with disk.Closing(disk.open_directory(package_hash, store)) as root:
            _measure_tree(root, usage, owner, closely=closely)
            try:
                manifest = parse_manifest(disk.read_all(MANIFEST, root, BYTES_MAX))
                usage.name, usage.version = manifest.name, manifest.version
            except OSError:
                pass  # a package without a manifest is a package, too
    except OSError as error:
        usage.problem = str(source_error(error, path_of(error)))
    except PackageError as error:
        usage.problem = str(error)
    return usage


def _measure_tree(root: int, usage: Usage, owner: Owner, *, closely: bool) -> None:
    status = os.fstat(root)
    usage.directories = usage.inodes = 1
    usage.allocated = disk.allocated(status)
    usage.newest_ctime_ns = status.st_ctime_ns
    cutter = _Cutter(usage.cuts)
    for at, name, path, kind in disk.walk(root):
        status = os.stat(name, dir_fd=at, follow_symlinks=False)
        cutter.step(path, status.st_size)
        usage.path_bytes += len(path)
        usage.newest_ctime_ns = max(usage.newest_ctime_ns, status.st_ctime_ns)
        first = kind is disk.DIRECTORY or _is_first(status, usage)
        if first:
            usage.inodes += 1
            usage.allocated += disk.allocated(status)
        if kind is disk.FILE:
            usage.files += 1
            usage.size += status.st_size
            if closely and first:
                _look_closely(at, name, path, status, usage, owner)
        elif kind is disk.DIRECTORY:
            usage.directories += 1
        elif kind is disk.SYMLINK:
            usage.symlinks += 1
        elif not usage.problem:
            usage.problem = f"a special file: '{os.fsdecode(path)}'"
    for links, inside in usage.shared.values():
        if links > inside:
            usage.linked_outside += inside
    usage.shared.clear()  # once migrated most inodes are in it, and callers keep many of these


def _look_closely(
    at: int, name: bytes, path: bytes, status: os.stat_result, usage: Usage, owner: Owner
) -> None:
    if not _is_linkable(at, name, status, owner):
        usage.copied_files += 1
        usage.copied_bytes += _rounded(status.st_size)
    if status.st_size:
        usage.sizes.extend((status.st_size, disk.allocated(status)))
    if path == MANIFEST.encode() or (path.startswith(b"sbom.") and b"/" not in path):
        usage.copies += disk.allocated(status)


class _Cutter:
    """Notes a path wherever enough work lies behind it."""

    def __init__(self, cuts: list[bytes]) -> None:
        self._cuts = cuts
        self._entries = self._bytes = 0

    def step(self, path: bytes, size: int) -> None:
        if self._entries >= SLICE_ENTRIES or self._bytes >= SLICE_BYTES:
            self._cuts.append(path)
            self._entries = self._bytes = 0
        self._entries += 1
        self._bytes += size


def _is_first(status: os.stat_result, usage: Usage) -> bool:
    """Tell whether an inode is seen for the first time in its package."""
    if status.st_nlink == 1:
        return True
    known = usage.shared.setdefault((status.st_dev, status.st_ino), [status.st_nlink, 0])
    known[1] += 1
    return known[1] == 1


def _is_linkable(at: int, name: bytes, status: os.stat_result, owner: Owner) -> bool:
    if not status.st_size:
        return True
    mode = stat.S_IMODE(status.st_mode)
    if mode != carrier_mode(mode) or (status.st_uid, status.st_gid) != owner:
        return False
    names = os.listxattr(b"/proc/self/fd/%d/%b" % (at, name), follow_symlinks=False)
    return all(os.fsencode(attribute).startswith(LABELS) for attribute in names)


def _rounded(size: int, block: int = 4096) -> int:
    return -(-size // block) * block


def processes_using(path: str, package_hashes: frozenset[str]) -> Iterator[tuple[int, str]]:
    """Yield (process id, path) of processes that have files of legacy packages open.

    Descriptors, mapped files, working and root directories count. Only processes this user may
    look into are seen.
    """
    last = None
    for _, pid, target in open_files(path, package_hashes):
        if pid != last:
            yield pid, target
        last = pid


def open_files(path: str, package_hashes: frozenset[str]) -> Iterator[tuple[str, int, str]]:
    """Yield (package, process id, path) of all that ``processes_using`` tells one of a process."""
    prefix = os.path.realpath(path) + "/"
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) == os.getpid():
            continue
        for target in _files_of(pid):
            below = target.removeprefix(prefix) if target.startswith(prefix) else ""
            name = below.partition("/")[0]
            if name in package_hashes:
                yield name, int(pid), target


def _files_of(pid: str) -> Iterator[str]:
    with contextlib.suppress(OSError):
        links = [f"/proc/{pid}/fd/{fd}" for fd in os.listdir(f"/proc/{pid}/fd")]
        for link in (*(f"/proc/{pid}/{name}" for name in ("cwd", "root", "exe")), *links):
            with contextlib.suppress(OSError):  # it closed that one meanwhile: others are left
                yield os.readlink(link)
    try:
        with open(f"/proc/{pid}/maps", encoding="utf-8", errors="surrogateescape") as maps:
            for line in maps:
                _, _, target = line.rstrip("\n").partition("/")
                if target:
                    yield "/" + target
    except OSError:  # it ended, or belongs to somebody else
        return
