"""Package archives for the tests: by several archivers, and by hand, good and hostile.

What is made by hand is put together from headers and records, so that a test can say
every byte; nothing here comes from the code under test.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict, Unpack

import pytest
import zstandard

from tests.compare import Snapshot
from tests.trees import SECOND

BLOCK = 512
END = bytes(2 * BLOCK)
MANIFEST = b'[package]\nname = "made"\nversion = "1.0"\nrevision = 1\narch = "arm64"\n'
GNU, USTAR = b"ustar  \0", b"ustar\x0000"


# --- archives by archivers ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Archiver:
    """A way to make an archive of a tree, and what that way can keep.

    ``whole_seconds``: times lose their fraction. ``xattrs``: they are kept. ``holes``: so
    are they. ``deep``: paths longer than PATH_MAX can be packed. ``raw``: so can names of
    any bytes and length. ``early``: so can times before 1970.
    """

    name: str
    command: tuple[str, ...]
    whole_seconds: bool = False
    xattrs: bool = True
    holes: bool = False
    deep: bool = True
    raw: bool = True
    early: bool = True

    def pack(self, tree: Path, archive: Path) -> None:
        """Make ``archive`` of ``tree``; skip where the archiver is not there."""
        program = self.command[0]
        if program == "python":
            _pack_python(tree, archive, self.command[1])
        elif shutil.which(program) is None:
            pytest.skip(f"needs {program}")
        else:
            done = subprocess.run(
                [*self.command, "-cf", archive, "-C", tree, "."], capture_output=True, check=False
            )
            assert done.returncode == 0, done.stderr.decode(errors="replace")

    def kept(self, tree: Snapshot) -> Snapshot:
        """What this archiver keeps of a tree."""
        found = {}
        for path, entry in tree.items():
            xattrs = entry.xattrs if self.xattrs else ()
            time_ns = entry.mtime_ns
            if self.whole_seconds:
                time_ns = time_ns // SECOND * SECOND
            found[path] = replace(entry, xattrs=xattrs, mtime_ns=time_ns)
        return found


_GNU_EXACT = ("tar", "--format=posix", "--xattrs", "--acls")
ARCHIVERS = (
    Archiver("gnu-tar-posix", _GNU_EXACT),
    Archiver("gnu-tar-posix-sparse", (*_GNU_EXACT, "--sparse"), holes=True),
    Archiver("gnu-tar", ("tar", "--format=gnu"), whole_seconds=True, xattrs=False),
    Archiver(
        "gnu-tar-sparse",
        ("tar", "--format=gnu", "--sparse"),
        whole_seconds=True,
        xattrs=False,
        holes=True,
    ),
    # libarchive writes a time of -0.5 s as "-1.5"
    Archiver("bsdtar-pax", ("bsdtar", "--format=pax"), early=False),
    Archiver(
        "bsdtar-gnu",
        ("bsdtar", "--format=gnutar"),
        whole_seconds=True,
        xattrs=False,
        early=False,
    ),
    Archiver("python-pax", ("python", "pax"), xattrs=False, deep=False),
    Archiver("python-gnu", ("python", "gnu"), whole_seconds=True, xattrs=False, deep=False),
    Archiver(
        "python-ustar",
        ("python", "ustar"),
        whole_seconds=True,
        xattrs=False,
        deep=False,
        raw=False,
        early=False,
    ),
)
_FORMATS = {
    "pax": tarfile.PAX_FORMAT,
    "gnu": tarfile.GNU_FORMAT,
    "ustar": tarfile.USTAR_FORMAT,
}


def _pack_python(tree: Path, archive: Path, format_: str) -> None:
    with tarfile.open(archive, "w", format=_FORMATS[format_], encoding="utf-8") as tar:
        for path in _paths(tree):
            info = tar.gettarinfo(path, os.path.relpath(path, tree))
            time_ns = os.lstat(path).st_mtime_ns
            if format_ == "pax":  # its own would be a float
                sign, rest = ("-", -time_ns) if time_ns < 0 else ("", time_ns)
                info.pax_headers = {"mtime": f"{sign}{rest // SECOND}.{rest % SECOND:09d}"}
            info.mtime = time_ns // SECOND
            if info.isreg():
                with open(path, "rb") as content:
                    tar.addfile(info, content)
            else:
                tar.addfile(info)


def _paths(tree: Path) -> Iterator[str]:
    for folder, directories, files in os.walk(tree):
        yield folder
        links = [name for name in directories if os.path.islink(os.path.join(folder, name))]
        yield from (os.path.join(folder, name) for name in sorted([*files, *links]))


# --- archives by hand --------------------------------------------------------------------


def octal(value: int, length: int) -> bytes:
    """A number as most write it."""
    return b"%0*o\0" % (length - 1, value)


class Fields(TypedDict, total=False):
    """What a header may say that is not the usual; ``tail`` stands from byte 345 on."""

    target: bytes
    mode: bytes
    uid: bytes
    gid: bytes
    raw_size: bytes
    mtime: bytes
    magic: bytes
    tail: bytes
    checksum: bytes


_PLACES = {"mode": 100, "uid": 108, "gid": 116, "raw_size": 124, "mtime": 136}
_PLACES |= {"target": 157, "magic": 257, "tail": 345}


def header(name: bytes, kind: bytes = b"0", size: int = 0, **fields: Unpack[Fields]) -> bytes:
    """One header block."""
    usual: Fields = {
        "mode": octal(0o755 if kind == b"5" else 0o644, 8),
        "uid": octal(0, 8),
        "gid": octal(0, 8),
        "raw_size": octal(size, 12),
        "mtime": octal(1_700_000_000, 12),
        "magic": USTAR,
    }
    block = bytearray(BLOCK)
    parts = [(_PLACES[key], value) for key, value in (usual | fields).items() if key in _PLACES]
    for at, part in [(0, name), (156, kind), *parts]:
        assert isinstance(part, bytes)
        block[at : at + len(part)] = part
    block[148:156] = b" " * 8
    block[148:156] = fields.get("checksum") or b"%06o\0 " % sum(block)
    assert len(block) == BLOCK
    return bytes(block)


def padded(data: bytes) -> bytes:
    """Data filled up to whole blocks."""
    return data + bytes(-len(data) % BLOCK)


def file(
    name: bytes, data: bytes = b"data\n", kind: bytes = b"0", **fields: Unpack[Fields]
) -> bytes:
    """A regular file."""
    return header(name, kind, len(data), **fields) + padded(data)


def folder(name: bytes, **fields: Unpack[Fields]) -> bytes:
    """A directory."""
    return header(name, b"5", **fields)


def symlink(name: bytes, target: bytes) -> bytes:
    """A symbolic link."""
    return header(name, b"2", target=target)


def hard_link(name: bytes, target: bytes) -> bytes:
    """A hard link."""
    return header(name, b"1", target=target)


def record(key: bytes, value: bytes) -> bytes:
    """One record of an extended header, its length included in its length."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def pax(*records: tuple[bytes, bytes], raw: bytes | None = None, kind: bytes = b"x") -> bytes:
    """An extended header of POSIX."""
    data = b"".join(record(*pair) for pair in records) if raw is None else raw
    return header(b"PaxHeaders/x", kind, len(data)) + padded(data)


def gnu_long(name: bytes, kind: bytes = b"L") -> bytes:
    """A long name as GNU writes it."""
    data = name + b"\0"
    return header(b"././@LongLink", kind, len(data), magic=GNU) + padded(data)


def sparse_tail(pairs: list[tuple[int, int]], size: int, *, more: bool = False) -> bytes:
    """The part of an old GNU header that describes a sparse file."""
    regions = b"".join(octal(a, 12) + octal(b, 12) for a, b in pairs)
    return bytes(41) + regions.ljust(96, b"\0") + (b"\1" if more else b"\0") + octal(size, 12)


def sparse_records(name: bytes, size: int) -> list[tuple[bytes, bytes]]:
    """The records of a sparse file of format 1.0."""
    return [
        (b"GNU.sparse.major", b"1"),
        (b"GNU.sparse.minor", b"0"),
        (b"GNU.sparse.name", name),
        (b"GNU.sparse.realsize", b"%d" % size),
    ]


def archive(*parts: bytes, end: bytes = END) -> bytes:
    """A whole archive: a manifest, then what is given."""
    return file(b"manifest.toml", MANIFEST) + b"".join(parts) + end


def compressed(data: bytes, level: int = 3, *, checksum: bool = True) -> bytes:
    """One zstd frame."""
    compressor = zstandard.ZstdCompressor(level=level, write_checksum=checksum)
    return compressor.compress(data)


def skippable(data: bytes) -> bytes:
    """A zstd frame that carries nothing."""
    return b"\x53\x2a\x4d\x18" + len(data).to_bytes(4, "little") + data


def with_good_checksums(data: bytes) -> bytes:
    """The same with the checksum of everything that looks like a header set right."""
    mended = bytearray(data)
    for at in range(0, len(mended) - BLOCK + 1, BLOCK):
        if mended[at + 257 : at + 262] == b"ustar":
            mended[at + 148 : at + 156] = b" " * 8
            mended[at + 148 : at + 156] = b"%06o\0 " % sum(mended[at : at + BLOCK])
    return bytes(mended)
