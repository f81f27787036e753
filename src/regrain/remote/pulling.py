"""Pull packages: what a host lacks of one is fetched and hashed, then its tree is put together."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from regrain import disk
from regrain.disk_linux import memory_file
from regrain.errors import CorruptionError, NoSpaceError
from regrain.model.entry import Entry, Kind
from regrain.model.layout import SHARDS
from regrain.remote import keys
from regrain.remote.crew import side_by_side
from regrain.remote.lists import frame_bytes_max
from regrain.remote.place import Remote, damaged
from regrain.store.frames import FrameError, content_size, hash_frame, pour, unpacked
from regrain.store.objects import object_path, open_stored
from regrain.store.packages import FileLevelPackage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from regrain.store.objects import Stored

_IN_MEMORY_BYTES_MAX = 16 << 20
_UNKNOWN = 1 << 62


class Arrival(FileLevelPackage):
    """A package whose list was fetched; its objects were fetched, too, or are in the store.

    Args:
        packages: The directory that has ``<package-hash>/files.json``.
        fetched: Where fetched objects lie.
        objects: Those of the store.
        package_hash: The package.
    """

    def __init__(self, packages: int, fetched: int, objects: int, package_hash: str) -> None:
        super().__init__(packages, objects, package_hash)
        self._fetched = fetched

    def open_stored(self, entry: Entry) -> Stored:
        """Open what holds the bytes of a file's entry, the fetched object first."""
        if entry.kind is Kind.FILE and entry.size:
            with contextlib.suppress(CorruptionError):
                return open_stored(self._fetched, entry.digest, entry.mode, entry.size)
        return super().open_stored(entry)

    def lacking(self) -> dict[str, int]:
        """Return the objects that neither was fetched nor are in the store, each with its size."""
        found: dict[str, int] = {}
        for entry in self.entries():
            if entry.kind is Kind.FILE and entry.size and entry.digest not in found:
                try:
                    os.close(self.open_stored(entry).fd)
                except CorruptionError:
                    found[entry.digest] = entry.size
        return found


def make_shards(fetched: int) -> None:
    """Make the directories that fetched objects lie in."""
    for shard in SHARDS:
        disk.make_directory(shard, fetched, 0o700)


def check_room(fd: int, lacking: dict[str, int]) -> None:
    """Refuse what cannot fit: the objects, and the tree that is made of them.

    Raises:
        NoSpaceError: It does not; the message has the figures.
    """
    space = os.fstatvfs(fd)
    free, wanted = space.f_bavail * space.f_frsize, sum(lacking.values())
    if wanted > free:
        raise NoSpaceError(
            "too little space for the package",
            why=f"{wanted} bytes are to be fetched, {free} are free",
            advice="Free space, then pull it again.",
        )


def fetch_objects(
    remote: Remote,
    lacking: dict[str, int],
    fetched: int,
    jobs: int,
    stopping: Callable[[], bool],
) -> int:
    """Fetch objects, each hashed before it counts; return the bytes that were fetched.

    Raises:
        CorruptionError: One is missing there, or is not what its name says.
        StoppedError: A stop was asked for.
    """

    def fetch(one: tuple[str, int]) -> int:
        digest, size = one
        part = f"{digest}.part"
        with disk.Closing(disk.create(part, fetched, 0o600)) as target:
            length = _fetch(remote, digest, size, lambda raw: pour(raw, target))
        disk.rename_noreplace(part.encode(), fetched, object_path(digest).encode(), fetched)
        return length

    return sum(side_by_side(fetch, lacking.items(), jobs, stopping))


def check_objects(
    remote: Remote,
    wanted: Iterable[tuple[str, int]],
    jobs: int,
    stopping: Callable[[], bool],
) -> Iterable[tuple[str, CorruptionError | None]]:
    """Fetch and hash objects, and keep nothing; yield each with what is wrong with it.

    Raises:
        StoppedError: A stop was asked for.
    """

    def check(one: tuple[str, int]) -> tuple[str, CorruptionError | None]:
        digest, size = one
        try:
            _fetch(remote, digest, size, hash_frame)
        except CorruptionError as error:
            return digest, error
        return digest, None

    return side_by_side(check, wanted, jobs, stopping)


def is_whole(remote: Remote, digest: str, size: int) -> bool:
    """Tell whether an object is there whole; it is fetched and hashed for that."""
    try:
        _fetch(remote, digest, size, hash_frame)
    except CorruptionError:
        return False
    return True


def fetch_unsized(remote: Remote, digest: str) -> int:
    """Fetch an object of whose size nothing is known; return it open for reading, decompressed.

    It is hashed first and unpacked then, so that a frame that holds too much fills no disk.

    Raises:
        CorruptionError: It is not there, or is not what its name says.
    """
    key = keys.object_key(digest)
    with disk.Closing(_nowhere(_UNKNOWN)) as raw:
        if not remote.fetch(key, raw, _UNKNOWN):
            raise damaged(remote.url, key, "it is not there")
        try:
            if hash_frame(raw)[0] != digest:
                raise damaged(remote.url, key, "its content has another hash than its name says")
            return unpacked(raw)[0]
        except FrameError as error:
            raise damaged(remote.url, key, error.strerror or str(error)) from error


def _fetch(remote: Remote, digest: str, size: int, unpack: Callable[[int], tuple[str, int]]) -> int:
    """Fetch a frame and unpack it; nothing in it is trusted. Return how long it was."""
    key = keys.object_key(digest)
    with disk.Closing(_nowhere(size)) as raw:
        if not remote.fetch(key, raw, frame_bytes_max(size)):
            raise damaged(remote.url, key, "it is not there, although a package needs it")
        try:
            if content_size(raw) != size:
                raise damaged(remote.url, key, f"it does not hold the {size} bytes it should")
            found = unpack(raw)
        except (disk.SourceReadError, FrameError) as error:
            raise damaged(remote.url, key, error.strerror or str(error)) from error
        if found != (digest, size):
            raise damaged(remote.url, key, "its content has another hash than its name says")
        return os.fstat(raw).st_size


def _nowhere(size: int) -> int:
    """Open a file without a name for a frame: in memory if it is small."""
    if size <= _IN_MEMORY_BYTES_MAX:
        return memory_file()
    import tempfile

    with tempfile.TemporaryFile(buffering=0) as opened:
        return os.dup(opened.fileno())
