"""Push packages: the objects first, the file list last, so that what is listed is complete."""

from __future__ import annotations

import contextlib
import os
import tempfile
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING

import zstandard
from blake3 import blake3

from regrain import disk
from regrain.errors import CorruptionError, PackageError
from regrain.model import file_list
from regrain.model.entry import Entry, Kind
from regrain.remote import keys
from regrain.remote.crew import side_by_side
from regrain.remote.lists import LIST_BYTES_MAX, fetch_list, scratch
from regrain.remote.pulling import is_whole
from regrain.store.packages import FileLevelPackage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from regrain.remote.lease import Lease
    from regrain.remote.place import Remote
    from regrain.store.source import PackageSource

_LEVEL = 3


@dataclass(slots=True)
class Pushed:
    """What became of a package.

    Attributes:
        package_hash: It.
        already_present: Whether it was listed there before, the same in everything.
        files: Regular files.
        size: Their bytes.
        objects: Objects that were put there.
        sent_bytes: What they take there.
    """

    package_hash: str
    already_present: bool = False
    files: int = 0
    size: int = 0
    objects: int = 0
    sent_bytes: int = 0


@dataclass(slots=True)
class _Written:
    """A file list that was written down: where, and what it names."""

    content: IO[bytes]
    list_hash: str
    objects: dict[str, Entry] = field(default_factory=dict)
    files: int = 0
    size: int = 0


class Pusher:
    """Pushes packages to a place.

    Args:
        remote: The place.
        lease: By which collections there know of it.
        jobs: Requests at once.
        again: Put everything anew, whatever is there: this mends what is damaged.
        proves: Fetch and hash what is there, and put anew what is damaged.
        stopping: Tells whether a stop was asked for.
    """

    def __init__(
        self,
        remote: Remote,
        lease: Lease,
        jobs: int,
        *,
        again: bool,
        proves: bool = False,
        stopping: Callable[[], bool],
    ) -> None:
        self._remote = remote
        self._lease = lease
        self._jobs = jobs
        self._again = again
        # A directory's names may outlive a power cut that their bytes did not.
        self._proves = proves or remote.is_directory
        self._proves_listed = proves
        self._stopping = stopping
        self._known: set[str] = set()

    def push(self, source: PackageSource) -> Pushed:
        """Push one package.

        Raises:
            PackageError: It changes while it is read, or another tree is listed by its name.
            CorruptionError: It is damaged in the store, or its list is damaged there.
            StoppedError: A stop was asked for; the package is not listed.
        """
        with tempfile.TemporaryFile() as content:
            written = _write_list(source, content)
            result = Pushed(source.hash, files=written.files, size=written.size)
            result.already_present = is_listed = self._is_there(source.hash, written)
            if is_listed and not self._proves_listed:
                return result

            def send(entry: Entry) -> int:
                return self._send(source, entry)

            wanted = (e for e in written.objects.values() if e.digest not in self._known)
            for sent in side_by_side(send, wanted, self._jobs, self._stopping):
                result.objects += sent > 0
                result.sent_bytes += sent
            self._remote.flush()
            self._lease.check()  # else a collection may have begun meanwhile
            if not is_listed:
                self._list(source.hash, written)
            self._known.update(written.objects)
        return result

    def _list(self, package_hash: str, written: _Written) -> None:
        """Put the file list, all it names being there."""
        key = keys.list_key(package_hash)
        with tempfile.TemporaryFile() as frame:
            _compress(written.content.fileno(), frame.fileno())
            if self._again or self._proves_listed:
                self._remote.put(key, frame.fileno())
            elif not self._remote.put_new(key, frame.fileno()):
                self._is_listed(package_hash, written)  # another push was faster
        self._remote.flush()

    def _is_there(self, package_hash: str, written: _Written) -> bool:
        """Tell whether its list is there; one to be mended may be damaged."""
        if not self._again and not self._proves_listed:
            return self._is_listed(package_hash, written)
        with contextlib.suppress(CorruptionError):
            return self._is_listed(package_hash, written) and not self._again
        return False

    def _is_listed(self, package_hash: str, written: _Written) -> bool:
        """Tell whether the package is listed there.

        Raises:
            PackageError: Another one is, by its name.
        """
        with scratch() as directory:
            if not fetch_list(self._remote, package_hash, directory):
                return False
            there = FileLevelPackage(directory, directory, package_hash)
            if there.list_hash() == written.list_hash:
                return True
        raise PackageError(
            "another tree has this name there",
            package=package_hash,
            path=f"{self._remote.url}/{keys.list_key(package_hash)}",
            advice="A package never changes: find out which one is right. If this one, "
            "delete that key and push again.",
        )

    def _send(self, source: PackageSource, entry: Entry) -> int:
        """Put an object there if it is not; return the bytes that were put."""
        key = keys.object_key(entry.digest)
        anew = self._again
        if not anew and self._remote.head(key) is not None:
            if not self._proves or is_whole(self._remote, entry.digest, entry.size):
                return 0
            anew = True
        with tempfile.TemporaryFile() as frame:
            with disk.Closing(source.open_content(entry)) as fd:
                found = _compress(fd, frame.fileno(), entry.size)
            if found != entry.digest:
                raise PackageError(
                    "a file is not what its list says, or changed while it was read",
                    package=source.hash,
                    path=entry.path,
                    advice="'regrain verify' says whether it is damaged; then push again.",
                )
            if anew:
                self._remote.put(key, frame.fileno())
            elif not self._remote.put_new(key, frame.fileno()):
                return 0
            return os.fstat(frame.fileno()).st_size


def _write_list(source: PackageSource, content: IO[bytes]) -> _Written:
    """Write a package's file list, as ``files.json`` is; its end is only known after its body."""
    written = _Written(content, "")
    tree = blake3()
    with tempfile.TemporaryFile() as body:
        separator = b""
        for entry in source.entries():
            body.write(separator + file_list.entry_line(entry))
            separator = b",\n"
            if entry.path:
                tree.update(file_list.hashed_form(entry))
            if entry.kind is Kind.FILE:
                written.files += 1
                written.size += entry.size
                if entry.size:
                    written.objects.setdefault(entry.digest, entry)
        body.seek(0)
        whole = blake3()
        for piece in _list_pieces(source.hash, tree.hexdigest(), body):
            whole.update(piece)
            content.write(piece)
    content.flush()
    if os.fstat(content.fileno()).st_size > LIST_BYTES_MAX:
        raise PackageError("its file list is too long to be pushed", package=source.hash)
    written.list_hash = whole.hexdigest()
    return written


def _list_pieces(package_hash: str, tree_hash: str, body: IO[bytes]) -> Iterator[bytes]:
    yield file_list.header(package_hash, tree_hash)
    while piece := body.read(disk.PIECE):
        yield piece
    yield b"\n" + file_list.FOOTER


def _compress(source: int, target: int, size: int | None = None) -> str:
    """Write the frame of an open file to another; return the digest of what was read.

    A file that has another size than it should have gives the digest of nothing that is wanted.
    """
    length = os.fstat(source).st_size
    if size is not None and size != length:
        return ""
    library = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compressobj(size=length)
    hasher = blake3()
    position = 0
    while position < length:
        piece = os.pread(source, min(disk.PIECE, length - position), position)
        if not piece:
            return ""
        position += len(piece)
        hasher.update(piece)
        disk.write_all(target, library.compress(piece))
    disk.write_all(target, library.flush())
    return hasher.hexdigest()
