"""Packages in the file-level layout: ``packages/<hash>/files.json`` over objects."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blake3 import blake3

from regrain import disk
from regrain.errors import CorruptionError, UnknownPackageError
from regrain.model import file_list
from regrain.model.entry import Entry, Kind, is_inside
from regrain.model.layout import FILE_LIST, MANIFEST
from regrain.model.manifest import BYTES_MAX, Manifest, parse_manifest
from regrain.model.phase import Layout
from regrain.store.objects import Stored, open_object, open_stored

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROBE = 4096
_END = b"\n" + file_list.FOOTER
_NO_FILE = frozenset({errno.ELOOP, errno.ENXIO, errno.ENODEV})


@dataclass(slots=True)
class Contents:
    """What a file list holds.

    Attributes:
        sizes: Its distinct objects, each with the bytes of its content.
        files: Regular files.
        size: Their bytes, each path counted.
        named: Those that have an object: an empty file has none.
    """

    sizes: dict[str, int]
    files: int = 0
    size: int = 0
    named: int = 0


class FileLevelPackage:
    """A published package, pinned by its open file list.

    Attributes:
        listed_at_ns: When the file list was written, by the clock of its file system.
    """

    layout = Layout.FILE_LEVEL

    def __init__(self, packages: int, objects: int, package_hash: str) -> None:
        """Open it.

        Raises:
            FileNotFoundError: It is not published.
            CorruptionError: Its file list is missing or not of this package.
        """
        self.hash = package_hash
        self._objects = objects
        directory = disk.open_directory(package_hash, packages)
        try:
            self._held = disk.Held(disk.open_file(FILE_LIST, directory))
        except FileNotFoundError as error:
            if not disk.is_at(directory, package_hash, packages):
                raise  # unpublished in between: not there, rather than damaged
            raise CorruptionError(
                "a published package without its file list",
                package=package_hash,
                advice="Run 'regrain verify' on it.",
            ) from error
        except OSError as error:
            if error.errno not in _NO_FILE:
                raise
            raise _no_file_list(package_hash) from error
        finally:
            os.close(directory)
        status = os.fstat(self._held.fd)
        if not stat.S_ISREG(status.st_mode):
            raise _no_file_list(package_hash)
        self._size, self.listed_at_ns = status.st_size, status.st_mtime_ns
        line = self._line_at(0)
        try:
            _, self.tree_hash = file_list.parse_header(line, package_hash)
        except CorruptionError as error:
            error.package = package_hash
            raise
        end = os.pread(self._held.fd, len(_END), max(0, self._size - len(_END)))
        if end != _END:
            raise CorruptionError("a file list that ends too early", package=package_hash)
        self._body = len(line) + 1

    def entries(self) -> Iterator[Entry]:
        """Yield all entries, checked on the way (see ``file_list.parse``)."""
        return file_list.parse(self._lines(), self.hash)

    def list_hash(self) -> str:
        """Return the BLAKE3 of the file list's bytes, all its metadata included."""
        hasher = blake3()
        position = 0
        while piece := os.pread(self._held.fd, disk.PIECE, position):
            hasher.update(piece)
            position += len(piece)
        return hasher.hexdigest()

    def contents(self) -> Contents:
        """Read the whole list, and count what it holds."""
        found = Contents({})
        for entry in self.entries():
            if entry.kind is Kind.FILE:
                found.files += 1
                found.size += entry.size
                if entry.size:
                    found.named += 1
                    if found.sizes.setdefault(entry.digest, entry.size) != entry.size:
                        raise CorruptionError(
                            "a file list that gives one object two sizes", package=self.hash
                        )
        return found

    def tree(self) -> Iterator[Entry]:
        """Yield all entries; digests cost nothing here."""
        return self.entries()

    def lookup(self, path: bytes) -> Entry | None:
        """Find one entry by bisecting the sorted lines, without reading the whole list."""
        if path and not is_inside(path):
            return None
        low, high = self._body, self._size - len(file_list.FOOTER)
        while low < high:
            middle = (low + high) // 2
            start = self._line_start(middle, low)
            line = self._line_at(start)
            entry = file_list.parse_line(line.removesuffix(b","))
            if entry.path == path:
                return entry
            if entry.path < path:
                low = start + len(line) + 1
            else:
                high = start
        return None

    def open_content(self, entry: Entry) -> int:
        """Open the bytes of a file's entry, decompressed where only that serves.

        Raises:
            CorruptionError: No carrier of the right size is there.
        """
        if not self._has_object(entry):
            return _nothing()
        with self._telling(entry):
            return open_object(self._objects, entry.digest, entry.mode, entry.size)

    def open_stored(self, entry: Entry) -> Stored:
        """Open what holds the bytes of a file's entry, as it is.

        Raises:
            CorruptionError: No carrier of the right size is there.
        """
        if not self._has_object(entry):
            return Stored(_nothing())
        with self._telling(entry):
            return open_stored(self._objects, entry.digest, entry.mode, entry.size)

    def _has_object(self, entry: Entry) -> bool:
        if entry.kind is not Kind.FILE:
            raise UnknownPackageError("not a file", path=entry.path, package=self.hash)
        return entry.size > 0

    @contextlib.contextmanager
    def _telling(self, entry: Entry) -> Iterator[None]:
        """Say of damage which package and file need the object."""
        try:
            yield
        except CorruptionError as error:
            error.package = self.hash
            words = f"'{os.fsdecode(entry.path)}' needs it"
            error.why = (
                (f"{error.why}; {words}" if error.why else words)
                .encode("utf-8", "backslashreplace")
                .decode()
            )
            raise

    def manifest(self) -> Manifest:
        """Return the package's own manifest, read as the file it is."""
        entry = self.lookup(MANIFEST.encode())
        if entry is None or entry.kind is not Kind.FILE or entry.size > BYTES_MAX:
            return Manifest()
        with disk.Closing(self.open_content(entry)) as fd:
            return parse_manifest(os.read(fd, entry.size))

    def _lines(self) -> Iterator[bytes]:
        position, rest = 0, b""
        while piece := os.pread(self._held.fd, disk.PIECE, position):
            position += len(piece)
            lines = (rest + piece).split(b"\n")
            rest = lines.pop()
            self._check_line(len(rest))
            yield from lines
        if rest:
            yield rest

    def _line_start(self, position: int, low: int) -> int:
        """Return where the line begins that holds the byte at ``position``, at least ``low``."""
        end = position
        while position > low:
            begin = max(low, position - _PROBE)
            found = os.pread(self._held.fd, position - begin, begin).rfind(b"\n")
            if found >= 0:
                return begin + found + 1
            position = begin
            self._check_line(end - begin)
        return low

    def _line_at(self, start: int) -> bytes:
        """Return the line that begins at ``start``, without its newline."""
        pieces = []
        while piece := os.pread(self._held.fd, _PROBE, start):
            end = piece.find(b"\n")
            if end >= 0:
                pieces.append(piece[:end])
                break
            pieces.append(piece)
            start += len(piece)
            self._check_line(len(pieces) * _PROBE)
        return b"".join(pieces)

    def _check_line(self, size: int) -> None:
        if size > file_list.LINE_BYTES_MAX:
            raise CorruptionError("a line without end in a file list", package=self.hash)


def _no_file_list(package_hash: str) -> CorruptionError:
    return CorruptionError(
        "a published package whose file list is no file",
        package=package_hash,
        advice="Run 'regrain verify' on it.",
    )


def _nothing() -> int:
    return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)


def published(packages: int) -> list[str]:
    """Return the hashes of all published packages, sorted."""
    with disk.Closing(disk.reopen(packages)) as own:
        return sorted(os.listdir(own))


def is_published(packages: int, package_hash: str) -> bool:
    """Tell whether the package can be read from the file-level layout."""
    try:
        found = os.stat(package_hash, dir_fd=packages, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(found.st_mode)
