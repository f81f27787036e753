"""Builds trees and legacy stores for the tests.

``Tree`` makes one tree with exact metadata, by directory descriptors, so that
names and depths are not limited by what a path can say. ``make_legacy_store``
makes a whole legacy store: ordinary packages and the awkward ones of
``tests.awkward``. Everything follows from the seed.
"""

from __future__ import annotations

import errno
import json
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Self

from blake3 import blake3

SECOND = 1_000_000_000
BASE_TIME_NS = 1_700_000_000 * SECOND
LIVE = b"opt/pm/live"
ACL_ACCESS = "system.posix_acl_access"
ACL_DEFAULT = "system.posix_acl_default"
CAPABILITY = "security.capability"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Abilities:
    """What this process may do on the file system that the tests run on."""

    owners: bool
    user_xattrs: bool
    trusted_xattrs: bool
    acls: bool
    capabilities: bool


@dataclass(frozen=True, slots=True)
class LegacyPackage:
    """One package of a legacy store that was built here."""

    hash: str
    path: Path
    name: str
    version: str
    what: str


@dataclass(slots=True)
class Metadata:
    """What is set on an inode after its content is there."""

    mode: int
    owner: tuple[int, int] | None = None
    mtime_ns: int = BASE_TIME_NS
    xattrs: Mapping[str, bytes] = field(default_factory=dict)


def probe(directory: Path) -> Abilities:
    """Find out by trying."""
    scratch = directory / ".probe"
    scratch.touch()
    try:
        return Abilities(
            owners=os.geteuid() == 0,
            user_xattrs=_settable(scratch, "user.probe", b"1"),
            trusted_xattrs=_settable(scratch, "trusted.probe", b"1"),
            acls=_settable(scratch, ACL_ACCESS, acl()),
            capabilities=_settable(scratch, CAPABILITY, capability()),
        )
    finally:
        scratch.unlink()


def _settable(path: Path, name: str, value: bytes) -> bool:
    try:
        os.setxattr(path, name, value)
    except OSError as error:
        if error.errno in {errno.EPERM, errno.EACCES, errno.ENOTSUP}:
            return False
        raise
    return True


def acl(user: int = 12345, permissions: int = 4) -> bytes:
    """An access list with one named user, as the kernel keeps it in an xattr."""
    nobody = 0xFFFFFFFF
    rows = [
        (0x01, 6, nobody),
        (0x02, permissions, user),
        (0x04, 4, nobody),
        (0x10, 4, nobody),
        (0x20, 0, nobody),
    ]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *row) for row in rows)


def capability() -> bytes:
    """``cap_net_raw+ep`` as ``setcap`` writes it."""
    cap_net_raw = 1 << 13
    return struct.pack("<IIIII", 0x02000001, cap_net_raw, 0, 0, 0)


def package_hash(seed: int, label: str, digits: int = 64) -> str:
    """Name a package: hexadecimal digits that follow from the seed."""
    return str(blake3(f"{seed}:{label}".encode()).hexdigest())[:digits]


class Tree:
    """Builds one tree; directories get their metadata last, deepest first."""

    def __init__(self, root: Path, rng: Random) -> None:
        """Make the root directory; it must not be there."""
        root.mkdir(parents=True)
        self.root = root
        self.rng = rng
        self._directories: dict[bytes, Metadata] = {b"": Metadata(0o755)}

    def __enter__(self) -> Self:
        """Build inside a ``with``: leaving it finishes the directories."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the directories their metadata."""
        if error is None:
            self.finish()

    def time_ns(self) -> int:
        """A modification time of nanosecond grain."""
        return BASE_TIME_NS + self.rng.randrange(SECOND * 86_400)

    def directory(
        self,
        path: bytes,
        mode: int = 0o755,
        *,
        owner: tuple[int, int] | None = None,
        mtime_ns: int | None = None,
        xattrs: Mapping[str, bytes] | None = None,
    ) -> None:
        """Make a directory (or describe one that is there), with its parents."""
        if path:
            os.close(self._enter(path))
        time_ns = self.time_ns() if mtime_ns is None else mtime_ns
        self._directories[path] = Metadata(mode, owner, time_ns, xattrs or {})

    def file(
        self,
        path: bytes,
        data: bytes = b"",
        mode: int = 0o644,
        *,
        owner: tuple[int, int] | None = None,
        mtime_ns: int | None = None,
        xattrs: Mapping[str, bytes] | None = None,
    ) -> None:
        """Make a file of these bytes."""
        self.sparse(
            path, [(0, data)], len(data), mode, owner=owner, mtime_ns=mtime_ns, xattrs=xattrs
        )

    def sparse(
        self,
        path: bytes,
        pieces: list[tuple[int, bytes]],
        size: int,
        mode: int = 0o644,
        *,
        owner: tuple[int, int] | None = None,
        mtime_ns: int | None = None,
        xattrs: Mapping[str, bytes] | None = None,
    ) -> None:
        """Make a file of ``size`` bytes with data only where ``pieces`` say."""
        time_ns = self.time_ns() if mtime_ns is None else mtime_ns
        with self._parent(path) as (directory, name):
            descriptor = os.open(name, _CREATE, 0o600, dir_fd=directory)
            try:
                os.ftruncate(descriptor, size)
                for offset, data in pieces:
                    _write(descriptor, offset, data)
                _apply(descriptor, Metadata(mode, owner, time_ns, xattrs or {}))
            finally:
                os.close(descriptor)

    def symlink(
        self,
        path: bytes,
        target: bytes,
        *,
        owner: tuple[int, int] | None = None,
        mtime_ns: int | None = None,
        xattrs: Mapping[str, bytes] | None = None,
    ) -> None:
        """Make a symbolic link."""
        time_ns = self.time_ns() if mtime_ns is None else mtime_ns
        with self._parent(path) as (directory, name):
            os.symlink(target, name, dir_fd=directory)
            if owner is not None:
                os.chown(name, *owner, dir_fd=directory, follow_symlinks=False)
            for key, value in (xattrs or {}).items():
                through = b"/proc/self/fd/%d/%s" % (directory, name)
                os.setxattr(through, key, value, follow_symlinks=False)
            os.utime(name, ns=(time_ns, time_ns), dir_fd=directory, follow_symlinks=False)

    def link(self, path: bytes, existing: bytes) -> None:
        """Give a file of this tree a second name."""
        with self._parent(existing) as (source, old), self._parent(path) as (directory, name):
            os.link(old, name, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False)

    def special(self, path: bytes, kind: int, device: int = 0) -> None:
        """Make a FIFO, a socket or a device."""
        with self._parent(path) as (directory, name):
            os.mknod(name, kind | 0o644, device, dir_fd=directory)

    def chain(self, path: bytes, names: list[bytes], data: bytes) -> None:
        """Make directories one inside the other below ``path``, a file in the last one.

        Comes back up by ``..``, so that a chain of thousands stays cheap.
        """
        current = self._enter(path)
        try:
            for name in names:
                os.mkdir(name, dir_fd=current)
                current = _replace(current, name)
            descriptor = os.open(b"bottom", _CREATE, 0o644, dir_fd=current)
            _write(descriptor, 0, data)
            _apply(descriptor, Metadata(0o644, None, self.time_ns()))
            os.close(descriptor)
            for _ in names:
                _apply(current, Metadata(0o755, None, self.time_ns()))
                current = _replace(current, b"..")
        finally:
            os.close(current)

    def finish(self) -> None:
        """Give every directory its metadata, the deepest first."""
        for path in sorted(
            self._directories, key=lambda p: (p.count(b"/"), p != b""), reverse=True
        ):
            descriptor = self._enter(path)
            try:
                _apply(descriptor, self._directories[path])
            finally:
                os.close(descriptor)

    def _enter(self, path: bytes) -> int:
        current = os.open(self.root, _DIRECTORY)
        at = b""
        for name in path.split(b"/") if path else []:
            at = at + b"/" + name if at else name
            if at not in self._directories:
                os.mkdir(name, dir_fd=current)
                self._directories[at] = Metadata(0o755, None, self.time_ns())
            current = _replace(current, name)
        return current

    @contextmanager
    def _parent(self, path: bytes) -> Iterator[tuple[int, bytes]]:
        parent, _, name = path.rpartition(b"/")
        directory = self._enter(parent)
        try:
            yield directory, name
        finally:
            os.close(directory)


def _replace(current: int, name: bytes) -> int:
    following = os.open(name, _DIRECTORY, dir_fd=current)
    os.close(current)
    return following


def _write(descriptor: int, offset: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        done = os.pwrite(descriptor, view, offset)
        view, offset = view[done:], offset + done


def _apply(descriptor: int, metadata: Metadata) -> None:
    # chown strips set-id bits and capabilities; an ACL changes the mode's group bits
    if metadata.owner is not None:
        os.fchown(descriptor, *metadata.owner)
    os.fchmod(descriptor, metadata.mode)
    for name, value in metadata.xattrs.items():
        os.setxattr(descriptor, name, value)
    os.utime(descriptor, ns=(metadata.mtime_ns, metadata.mtime_ns))


def describe(
    tree: Tree,
    name: str,
    version: str,
    *,
    sbom: tuple[str, ...] = ("sbom.spdx.json",),
    dependencies: Mapping[str, str] | None = None,
) -> None:
    """Add the package's own manifest and its bills of materials."""
    lines = ["[package]", f'name = "{name}"', f'version = "{version}"', "revision = 1"]
    lines += ['arch = "arm64"', "", "[dependencies]"]
    lines += [f'{key} = "{value}"' for key, value in (dependencies or {}).items()]
    tree.file(b"manifest.toml", ("\n".join(lines) + "\n").encode())
    for bill in sbom:
        text = json.dumps({"spdxVersion": "SPDX-2.3", "name": name, "versionInfo": version})
        tree.file(bill.encode(), text.encode())


def ordinary(tree: Tree, name: str, version: str, shared: Random) -> None:
    """A package as most are: a program, a library, some text.

    What comes from ``shared`` is the same in every version; the rest is not.
    """
    describe(tree, name, version, dependencies={"libc": "2.38"})
    program = tree.rng.randbytes(30_000)
    tree.file(LIVE + b"/bin/" + name.encode(), program, 0o755)
    tree.file(LIVE + b"/lib/lib" + name.encode() + b".so.1.2", shared.randbytes(70_000), 0o755)
    tree.symlink(LIVE + b"/lib/lib" + name.encode() + b".so.1", b"lib" + name.encode() + b".so.1.2")
    tree.file(LIVE + b"/share/doc/LICENSE", b"Permission is hereby granted.\n" * 40)
    for index in range(12):
        common = shared.randbytes(shared.randrange(1, 9_000))
        tree.file(LIVE + b"/share/data/%02d.bin" % index, common)
    tree.file(LIVE + b"/share/data/VERSION", version.encode())


def many_small(tree: Tree, name: str, count: int, *, distinct: int | None = None) -> None:
    """A package of ``count`` small files, ``distinct`` contents among them."""
    describe(tree, name, "1.0")
    variety = count if distinct is None else distinct
    salt = tree.rng.randbytes(8).hex()
    made: set[bytes] = set()
    root = os.fsencode(tree.root)
    for index in range(count):
        folder = LIVE + b"/share/%s/%03d" % (name.encode(), index // 200)
        if folder not in made:
            tree.directory(folder)
            made.add(folder)
        which = index % variety
        text = f"{salt} {which}\n" * (1 + which % 37)
        path = b"%s/%s/%06d.txt" % (root, folder, index)
        descriptor = os.open(path, _CREATE, 0o644)
        os.write(descriptor, text.encode())
        os.utime(descriptor, ns=(BASE_TIME_NS + index, BASE_TIME_NS + index))
        os.close(descriptor)


def large_file(tree: Tree, name: str, size: int) -> None:
    """A package with one file of ``size`` bytes and some at the edges of a piece."""
    describe(tree, name, "1.0")
    tree.file(LIVE + b"/share/big.bin", tree.rng.randbytes(size), 0o444)
    for edge in (4095, 4096, 4097, 65_536, (1 << 20) - 1, 1 << 20, (1 << 20) + 1):
        tree.file(LIVE + b"/share/edge-%d.bin" % edge, tree.rng.randbytes(edge))
