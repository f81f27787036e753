"""Entries and metadata that are easy to lose on the way from one layout to another.

Each kind is one small function that works below a directory of its own. A kind that this
machine, file system or user cannot make is left out and named to the caller.
"""

from __future__ import annotations

import errno
import os
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from pathlib import Path

NANOSECOND = 10**9
MEBIBYTE = 1 << 20
# What a kernel or file system says to what it cannot do.
IMPOSSIBLE = {errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EINVAL, errno.EILSEQ}


def add_awkward_entries(root: Path, chooser: random.Random) -> list[str]:
    """Make one directory of each kind.

    Args:
        root: A directory that does not exist yet.
        chooser: Decides the bytes of the files, so that packages differ or agree with it.

    Returns:
        The kinds that could not be made here.
    """
    root.mkdir()
    skipped = []
    for make in KINDS:
        kind = make.__name__.strip("_")
        directory = root / kind
        directory.mkdir()
        try:
            make(directory, chooser)
        except OSError as error:
            if error.errno not in IMPOSSIBLE:
                raise
            skipped.append(f"{kind} ({error.strerror})")
    # Only now, as every kind goes on changing its files.
    for path, directories, names, descriptor in os.fwalk(root):
        if os.path.basename(path) == "times":
            continue
        for name in (*directories, *names):
            stamp = 1_700_000_000 * NANOSECOND + 123_456_789
            os.utime(name, ns=(stamp, stamp), dir_fd=descriptor, follow_symlinks=False)
    return skipped


def _text(chooser: random.Random) -> bytes:
    """Make the content of a file; few variants, so that packages share some."""
    return f"awkward {chooser.randrange(100)}\n".encode()


def _empty(directory: Path, _: random.Random) -> None:
    (directory / "file").touch()
    (directory / "directory").mkdir()


def _symlinks(directory: Path, chooser: random.Random) -> None:
    (directory / "target").write_bytes(_text(chooser))
    (directory / "folder").mkdir()
    links = {
        b"relative": b"target",
        b"to-folder": b"folder",
        b"absolute": b"/etc/hostname",
        b"dangling": b"../nowhere/at/all",
        b"to-itself": b"to-itself",
        b"not-utf8": b"caf\xe9/\xff\xfe",
        b"newline": b"two\nlines",
        b"long": b"l" * 4000,
    }
    for name, target in links.items():
        os.symlink(target, os.path.join(os.fsencode(directory), name))


def _hard_links(directory: Path, chooser: random.Random) -> None:
    for group, mode in (("plain", 0o644), ("shared", 0o664), ("program", 0o755)):
        first = directory / group
        first.write_bytes(group.encode() + _text(chooser))
        first.chmod(mode)
        (directory / f"{group}-links").mkdir()
        for name in ("a", "z"):
            (directory / f"{group}-links" / name).hardlink_to(first)


def _sparse(directory: Path, chooser: random.Random) -> None:
    pieces = {"hole-first": (MEBIBYTE,), "hole-between": (0, MEBIBYTE), "hole-last": (0,)}
    for name, offsets in pieces.items():
        with (directory / name).open("wb") as file:
            for offset in offsets:
                file.seek(offset)
                file.write(_text(chooser))
            file.truncate(2 * MEBIBYTE)
    with (directory / "only-a-hole").open("wb") as file:
        file.truncate(MEBIBYTE)


def _modes(directory: Path, chooser: random.Random) -> None:
    for mode in (0o4755, 0o2755, 0o6755, 0o1644, 0o664, 0o666, 0o777, 0o600, 0o444, 0o400):
        path = directory / f"file-{mode:04o}"
        path.write_bytes(_text(chooser))
        path.chmod(mode)
    for mode in (0o700, 0o775, 0o1777, 0o2755, 0o555):
        path = directory / f"directory-{mode:04o}"
        path.mkdir()
        (path / "inside").write_bytes(_text(chooser))
        path.chmod(mode)


def _xattrs(directory: Path, chooser: random.Random) -> None:
    file, folder = directory / "file", directory / "folder"
    file.write_bytes(_text(chooser))
    folder.mkdir()
    for path in (file, folder):
        os.setxattr(path, "user.text", b"plain")
        os.setxattr(path, "user.empty", b"")
        os.setxattr(path, "user.binary", bytes(range(256)))
        os.setxattr(path, b"user.not-utf8-\xff", b"raw")


def _acls(directory: Path, chooser: random.Random) -> None:
    file, folder = directory / "file", directory / "folder"
    file.write_bytes(_text(chooser))
    folder.mkdir()
    os.setxattr(file, "system.posix_acl_access", _acl(reader=1234))
    os.setxattr(folder, "system.posix_acl_access", _acl(reader=1234))
    os.setxattr(folder, "system.posix_acl_default", _acl(reader=4321))


def _acl(reader: int) -> bytes:
    """Encode ``u::rwx,u:<reader>:r-x,g::r-x,m::r-x,o::---`` as the kernel wants it."""
    nobody = 0xFFFFFFFF
    owner, user, group, mask, other = 0x01, 0x02, 0x04, 0x10, 0x20
    entries = [(owner, 7, nobody), (user, 5, reader), (group, 5, nobody), (mask, 5, nobody)]
    entries.append((other, 0, nobody))
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def _owners(directory: Path, chooser: random.Random) -> None:
    file, folder, link = directory / "file", directory / "folder", directory / "link"
    file.write_bytes(_text(chooser))
    folder.mkdir()
    link.symlink_to("file")
    for path, uid in ((file, 1234), (folder, 1235), (link, 1236)):
        os.chown(path, uid, 4321, follow_symlinks=False)


def _times(directory: Path, chooser: random.Random) -> None:
    stamps = {
        "one-nanosecond": 1,
        "before-1970": -NANOSECOND - 1,
        "nanoseconds": 1_234_567_890_123_456_789,
        "after-2038": 4_000_000_000 * NANOSECOND + 999_999_999,
    }
    for name, stamp in stamps.items():
        (directory / name).write_bytes(_text(chooser))
        (directory / f"link-{name}").symlink_to(name)
        for path in (directory / name, directory / f"link-{name}"):
            os.utime(path, ns=(stamp, stamp), follow_symlinks=False)


def _names(directory: Path, chooser: random.Random) -> None:
    names = [
        b"not-utf8-\xff\xfe\x80",
        b"n" * 255,
        b"new\nline",
        b"'quotes\" and `ticks`",
        b"back\\slash",
        b" spaces ",
        b"-rf",
        b"...",
        b"\x01\x1b[31mcontrol\x7f",
        b"case",
        b"CASE",
        "composed-\u00e9".encode(),
        "decomposed-e\u0301".encode(),
        b"files.json",
        b"manifest.toml",
    ]
    base = os.fsencode(directory)
    for name in names:
        with open(os.path.join(base, name), "wb") as file:
            file.write(_text(chooser))
    os.mkdir(os.path.join(base, b"folder-\xff\n"))


def _deep(directory: Path, chooser: random.Random) -> None:
    """Go below the longest path the kernel takes, one short step at a time."""
    here = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for level in range(25):
            name = f"level{level:02d}-" + "d" * 200
            os.mkdir(name, dir_fd=here)
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
            os.close(here)
            here = below
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        bottom = os.open("bottom", flags, 0o644, dir_fd=here)
        os.write(bottom, _text(chooser))
        os.close(bottom)
    finally:
        os.close(here)


KINDS: tuple[Callable[[Path, random.Random], None], ...] = (
    *(_empty, _symlinks, _hard_links, _sparse, _modes, _xattrs, _acls, _owners),
    *(_times, _names, _deep),
)
