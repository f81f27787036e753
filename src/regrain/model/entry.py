"""One entry of a package's tree, with all the metadata regrain keeps."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from regrain.errors import CorruptionError

NAME_BYTES_MAX = 255
"""The longest name of one component on every file system regrain runs on."""


class Kind(StrEnum):
    """What an entry is. The value is the word in the file list."""

    FILE = "file"
    SYMLINK = "symlink"
    DIRECTORY = "directory"


class Entry(msgspec.Struct, frozen=True):
    """A file, symbolic link or directory of a package.

    Attributes:
        path: Raw bytes relative to the package's root, ``b""`` for the root itself.
        kind: What it is.
        mode: Permission bits with set-id and sticky, 0 to 0o7777.
        uid: Owner.
        gid: Group.
        mtime_ns: Modification time, nanoseconds since 1970.
        digest: Files: BLAKE3-256 of the bytes, 64 hexadecimal digits.
        size: Files: bytes.
        target: Symbolic links: where they point, raw.
        xattrs: Extended attributes, raw names to raw values.
        hardlink: Files that share their inode with an earlier path: that first path.
    """

    path: bytes
    kind: Kind
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    digest: str = ""
    size: int = 0
    target: bytes = b""
    xattrs: dict[bytes, bytes] | None = None
    hardlink: bytes | None = None


def is_inside(path: bytes) -> bool:
    """Tell whether ``path`` can only mean a place inside the package, not the root itself.

    It is not absolute, and no component is empty, ``.``, ``..``, too long or with a NUL.
    """
    framed = b"/" + path + b"/"
    return not (
        b"//" in framed
        or b"/./" in framed
        or b"/../" in framed
        or b"\0" in path
        or (len(path) > NAME_BYTES_MAX and max(map(len, path.split(b"/"))) > NAME_BYTES_MAX)
    )


def check_path(path: bytes) -> bytes:
    """Return ``path`` if it is inside the package.

    Raises:
        CorruptionError: It is not.
    """
    if not is_inside(path):
        raise CorruptionError(
            "a path that does not stay inside its package",
            path=path,
            why="every component must be an ordinary name",
        )
    return path


def normalise_path(path: str | bytes) -> bytes:
    """Turn a path given by a caller into an entry's path: raw, no outer slashes."""
    raw = path.encode("utf-8", "surrogateescape") if isinstance(path, str) else path
    return raw.strip(b"/")
