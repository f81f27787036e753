"""The file list of a package: ``files.json``, one entry a line, sorted by raw path bytes.

The form is fixed in ``docs/formats.md``. Entries are written and read one at a time, so
a package of a million files needs no more memory than one of ten.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from blake3 import blake3
from msgspec.structs import replace

from regrain.errors import CorruptionError, MalformedHashError, UnknownFormatError
from regrain.model.digest import PackageHash
from regrain.model.entry import NAME_BYTES_MAX, Entry, Kind, check_path
from regrain.model.layout import FORMAT
from regrain.model.list_line import (
    SIZE_MAX,
    Hex,
    Line,
    entry_line,
    hashed_form,
    parse_line,
    parse_unchecked,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = [
    "FOOTER",
    "LINE_BYTES_MAX",
    "entry_line",
    "hashed_form",
    "header",
    "parse",
    "parse_header",
    "parse_line",
    "tree_hash",
]

LINE_BYTES_MAX = 64 << 20
"""A longer line is damage: names, targets and attributes of one entry are far smaller."""

FOOTER = b"]}\n"
_HASHED_AT_ONCE = 500
_NO_NAMES = frozenset({b"", b".", b".."})
_DIRECTORY = Kind.DIRECTORY


class _Header(msgspec.Struct, forbid_unknown_fields=True):
    format: int
    package_hash: str
    tree_hash: Hex
    entries: list[Line]


_decode_header = msgspec.json.Decoder(_Header).decode


def header(package_hash: str, tree_hash: str) -> bytes:
    """Return the first line of a file list; ``entry_line`` and ``FOOTER`` follow."""
    return (
        f'{{"format":{FORMAT},"package_hash":"{package_hash}",'
        f'"tree_hash":"{tree_hash}","entries":[\n'
    ).encode()


def tree_hash(entries: Iterable[Entry]) -> str:
    """Return the BLAKE3 over ``entries`` in order, the root left out."""
    hasher = blake3()
    for entry in entries:
        if entry.path:
            hasher.update(hashed_form(entry))
    return hasher.hexdigest()


def parse_header(raw: bytes, package_hash: str | None = None) -> tuple[PackageHash, str]:
    """Return package hash and tree hash from a file list's first line.

    Raises:
        CorruptionError: It is no such line, or names another package than ``package_hash``.
        UnknownFormatError: A newer version wrote it.
    """
    try:
        head = _decode_header(raw + b"]}")
        found = PackageHash(head.package_hash)
    except (msgspec.MsgspecError, UnicodeDecodeError, MalformedHashError) as error:
        raise CorruptionError("a file list without a proper first line", why=str(error)) from error
    if head.format != FORMAT:
        raise UnknownFormatError(
            f"a file list of format {head.format}",
            package=found,
            why=f"this version knows format {FORMAT}",
            advice="Use a newer regrain.",
        )
    if package_hash is not None and found != package_hash:
        raise CorruptionError("a file list that names another package", package=package_hash)
    return found, head.tree_hash


def parse(lines: Iterable[bytes], package_hash: str) -> Iterator[Entry]:
    """Yield the entries of a file list, root first; everything is checked on the way.

    Args:
        lines: The lines of the file, with or without their newlines.
        package_hash: The package it must be of.

    Raises:
        CorruptionError: Broken, truncated, unsorted, or ``tree_hash`` does not fit; what
            was yielded before must then not be relied on.
    """
    source = iter(lines)
    _, wanted = parse_header(next(source, b""), package_hash)
    checker = _Order()
    hasher = blake3()
    forms: list[bytes] = []
    closed, goes_on = False, True
    for raw in source:
        stripped = raw.removesuffix(b"\n")
        if closed or goes_on == (stripped == b"]}"):
            raise CorruptionError("a file list that ends where it should not", package=package_hash)
        if stripped == b"]}":
            closed = True
            continue
        goes_on = stripped.endswith(b",")
        entry = parse_unchecked(stripped.removesuffix(b","))
        checker.check(entry)
        if entry.path:
            forms.append(hashed_form(entry))
            if len(forms) == _HASHED_AT_ONCE:
                hasher.update(b"".join(forms))
                forms.clear()
        yield entry
    hasher.update(b"".join(forms))
    if not closed or checker.count == 0:
        raise CorruptionError("a file list that ends too early", package=package_hash)
    if hasher.hexdigest() != wanted:
        raise CorruptionError(
            "a file list whose entries do not give its tree_hash", package=package_hash
        )


class _Order:
    """Checks what only shows between entries: order, parents, hard-link groups."""

    def __init__(self) -> None:
        self.count = 0
        self._last = self._parent = b""
        self._bytes_left = SIZE_MAX
        self._directories: set[bytes] = set()
        self._firsts: set[int] = set()

    def check(self, entry: Entry) -> None:
        path = entry.path
        if self.count == 0:
            if path or entry.kind is not Kind.DIRECTORY:
                raise CorruptionError("a file list that does not begin with its root directory")
        else:
            if path <= self._last:
                raise CorruptionError("entries out of order in a file list", path=path)
            parent, slash, name = path.rpartition(b"/")
            if parent != self._parent and parent not in self._directories:
                check_path(path)
                raise CorruptionError("an entry whose directory is not in the file list", path=path)
            self._parent = parent
            # Its directory was an entry before it, so only the last component is new.
            if (
                name in _NO_NAMES
                or b"\0" in name
                or len(name) > NAME_BYTES_MAX
                or (slash and not parent)
            ):
                check_path(path)
        if entry.kind is _DIRECTORY:
            self._directories.add(path)
        elif entry.hardlink is None:
            self._firsts.add(_inode_facts(entry))
        elif _inode_facts(replace(entry, path=entry.hardlink, hardlink=None)) not in self._firsts:
            raise CorruptionError("a hard link to what is not the same file", path=path)
        self._bytes_left -= entry.size
        if self._bytes_left < 0:
            raise CorruptionError("more bytes in a file list than can be", path=path)
        self._last = path
        self.count += 1


def _inode_facts(entry: Entry) -> int:
    """Return a number that stands for all an inode has, and for the first of its paths.

    A number instead of the entry keeps the memory of a long list small.
    """
    if entry.xattrs is None:
        return hash((entry, ()))
    return hash((replace(entry, xattrs=None), tuple(sorted(entry.xattrs.items()))))
