"""Copy carriers from one store into another; what worker processes do.

Two turns, with a flush of the target's file system between them: ``stage`` writes copies into
the run's pool, ``publish`` reads each back from the disk and gives it its name.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from typing import TYPE_CHECKING, Any, NamedTuple

from regrain import disk
from regrain.errors import HaltedError, RegrainError, reason
from regrain.migrate.disk_errors import flush_error, staging_error
from regrain.model import layout
from regrain.model.layout import (
    carrier_mode,
    compressed_carrier,
    further_carrier,
    staged_path,
)
from regrain.store import errands
from regrain.store.frames import FrameError, hash_frame
from regrain.store.objects import (
    Carrier,
    carriers_of,
    dress_carrier,
    hash_fd,
    object_path,
    size_of,
)
from regrain.store.quarantine import quarantine
from regrain.store.root import StoreRoot
from regrain.store.workers import signals, spawn_executor

if TYPE_CHECKING:
    from concurrent.futures import Executor


class Wish(NamedTuple):
    """A carrier that the target lacks.

    Attributes:
        carrier: Its name in the source.
        size: The bytes of its object.
    """

    carrier: str
    size: int

    @property
    def digest(self) -> str:
        """The object."""
        return self.carrier.partition(".")[0]


class Copy(NamedTuple):
    """What became of one carrier.

    Attributes:
        digest: The object.
        carrier: Its name in the pool, later in ``objects/``; empty where there is none.
        is_compressed: Whether it holds the bytes as a zstd frame.
        mode: Of its inode.
        mtime_ns: Likewise.
        size: Of the object.
        allocated: What it takes on disk.
        is_new: Whether it got its name now; else a whole one had it.
        flaw: Why it could not be copied; empty if it could.
    """

    digest: str
    carrier: str = ""
    is_compressed: bool = False
    mode: int = 0
    mtime_ns: int = 0
    size: int = 0
    allocated: int = 0
    is_new: bool = True
    flaw: str = ""


class Route(NamedTuple):
    """From where to where; plain values, so that they can be sent to a worker.

    Attributes:
        source: The directory of the store that is copied.
        source_id: The id of that store.
        target: Where copies go to.
        run: The run's directory, there below ``temp/``.
        flushes: Whether workers flush what they write and name: they are on other hosts, for which
            the coordinator cannot do it.
    """

    source: str
    source_id: str
    target: str
    run: str
    flushes: bool = False


class Copier:
    """What one worker keeps open.

    Args:
        route: From where to where.
        stop: Its ``value`` tells whether to stop after the object in hand.

    Raises:
        HaltedError: Another store is where that one should be.
    """

    def __init__(self, route: Route, stop: Any) -> None:  # noqa: ANN401 -- a shared byte
        self._stop = stop
        self._flushes = route.flushes
        self._source, self._target = StoreRoot(route.source), StoreRoot(route.target)
        if self._source.store_id != route.source_id:
            raise HaltedError(
                "a worker sees another store",
                path=route.source,
                why=f"its id is {self._source.store_id}, not {route.source_id}",
                advice="Mount the store for all workers at the same path.",
            )
        self._pool = disk.descend(
            f"{layout.TEMP}/{route.run}/{layout.OBJECTS}".encode(), self._target.fd
        )
        self._shards: set[str] = set()
        self._token = secrets.token_hex(
            6
        )  # who does a unit again that was thought lost has another

    def close(self) -> None:
        """Let go of both stores."""
        os.close(self._pool)
        del self._source, self._target

    @property
    def is_stopping(self) -> bool:
        """Whether to begin no further object."""
        return bool(self._stop.value)

    def flush_names(self, copies: list[Copy]) -> None:
        """Flush the names that copies got, where nobody else can do that.

        Raises:
            HaltedError: The disk cannot.
        """
        if not self._flushes:
            return
        for shard in sorted({copy.digest[:2] for copy in copies}):
            with disk.Closing(disk.open_directory(shard, self._target.objects)) as fd:
                try:
                    disk.fsync(fd)
                except OSError as error:
                    raise flush_error(f"objects/{shard}", error) from error

    def stage(self, wish: Wish) -> Copy:
        """Write a copy of a carrier into the pool, of another one where that is gone by now."""
        there = sorted(
            carriers_of(self._source.objects, wish.digest),
            key=lambda carrier: carrier.name != wish.carrier,
        )
        for carrier in there:
            if not stat.S_ISREG(carrier.status.st_mode):
                continue
            try:
                if size_of(self._source.objects, carrier) == wish.size:
                    return self._stage(wish, carrier)
            except disk.SourceReadError as error:
                return Copy(wish.digest, flaw=f"it cannot be read: {reason(error)}")
        return Copy(wish.digest, flaw="no carrier of the right size is there")

    def _stage(self, wish: Wish, carrier: Carrier) -> Copy:
        name = further_carrier(wish.digest, carrier_mode(carrier.mode))
        if carrier.is_compressed:
            name = compressed_carrier(name)
        name = f"{name}.{self._token}"
        place = staged_path(name)
        self._make_shard(place[:1])
        try:
            opened = disk.open_file(object_path(carrier.name), self._source.objects)
        except OSError as error:
            raise disk.SourceReadError(*error.args) from error
        with disk.Closing(opened) as fd:
            status = os.fstat(fd)
            mode = carrier_mode(stat.S_IMODE(status.st_mode))
            with contextlib.suppress(FileNotFoundError):  # a try in this run that did not succeed
                disk.unlink(place, self._pool)
            with disk.Closing(disk.create(place, self._pool)) as target:
                disk.copy_bytes(fd, target, status.st_size)
                dress_carrier(target, self._target.owner, mode, status.st_mtime_ns)
                if self._flushes:
                    disk.fsync(target)
        return Copy(wish.digest, name, carrier.is_compressed, mode, status.st_mtime_ns, wish.size)

    def _make_shard(self, shard: str) -> None:
        if shard not in self._shards:
            with contextlib.suppress(FileExistsError):  # another worker was faster
                disk.make_directory(shard, self._pool, 0o700)
            self._shards.add(shard)

    def publish(self, copy: Copy) -> Copy:
        """Read a flushed copy back from the disk, and give it its name if it is whole."""
        place = staged_path(copy.carrier)
        names = [copy.digest, further_carrier(copy.digest, copy.mode)]
        if copy.is_compressed:
            names = [compressed_carrier(copy.digest)]
        try:
            found, allocated = cold_hash(place, self._pool, is_compressed=copy.is_compressed)
        except FileNotFoundError:
            return self._named_before(copy, names)
        if found != (copy.digest, copy.size):
            disk.unlink(place, self._pool)
            return copy._replace(flaw=self._whose_fault(copy))
        copy = copy._replace(allocated=allocated)
        for name in names:
            is_new = self._name(place, name, copy)
            if is_new is not None:
                return copy._replace(carrier=name, is_new=is_new)
        disk.unlink(place, self._pool)
        return copy._replace(carrier=names[-1], is_new=False)

    def _named_before(self, copy: Copy, names: list[str]) -> Copy:
        """Return a copy that got its name from a worker that was lost before it could say so.

        Raises:
            FileNotFoundError: It has none.
        """
        for name in names:
            path = object_path(name)
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(path, dir_fd=self._target.objects, follow_symlinks=False)
                if status.st_mode == stat.S_IFREG | copy.mode and self._is_whole(path, copy):
                    return copy._replace(carrier=name, allocated=disk.allocated(status))
        raise FileNotFoundError(errno.ENOENT, "a copy is gone that was to get its name", names[0])

    def _name(self, place: str, name: str, copy: Copy) -> bool | None:
        """Give a copy a name; False if a whole carrier has it, None if one of another mode has.

        What has the name and is neither goes to quarantine.
        """
        path = object_path(name)
        try:
            disk.rename_noreplace(place.encode(), self._pool, path.encode(), self._target.objects)
        except FileExistsError:
            if self._is_whole(path, copy):
                mode = os.stat(path, dir_fd=self._target.objects, follow_symlinks=False).st_mode
                if mode != stat.S_IFREG | copy.mode and not copy.is_compressed:
                    return None
                disk.unlink(place, self._pool)
                return False
            quarantine(self._target.fd, layout.OBJECTS, path)
            return self._name(place, name, copy)
        return True

    def _whose_fault(self, copy: Copy) -> str:
        for carrier in carriers_of(self._source.objects, copy.digest):
            with contextlib.suppress(OSError):
                found, _ = cold_hash(
                    object_path(carrier.name),
                    self._source.objects,
                    is_compressed=carrier.is_compressed,
                )
                if found == (copy.digest, copy.size):
                    return "the copy does not hold what was written: memory or disk may be failing"
        return "it is damaged where it comes from: 'regrain verify --repair' there may heal it"

    def _is_whole(self, path: str, copy: Copy) -> bool:
        """Tell whether what has the name holds the object; it is read, since it has no row."""
        try:
            found, _ = cold_hash(path, self._target.objects, is_compressed=copy.is_compressed)
        except OSError:
            return False
        return found == (copy.digest, copy.size)


def cold_hash(path: str, at: int, *, is_compressed: bool) -> tuple[tuple[str, int], int]:
    """Hash what lies on the disk: clean pages that the system remembers are let go of first.

    Returns:
        Digest and size of the content, decompressed; and the bytes the file takes on disk.

    Raises:
        OSError: It cannot be read.
    """
    with disk.Closing(disk.open_file(path, at)) as fd:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        allocated = disk.allocated(os.fstat(fd))
        try:
            return (hash_frame(fd) if is_compressed else hash_fd(fd)), allocated
        except FrameError:
            return ("", 0), allocated


_copier: Copier | RegrainError | None = None


def _start(route: Route, stop: Any) -> None:  # noqa: ANN401 -- a shared byte
    global _copier  # noqa: PLW0603 -- an executor gives its processes no other place
    try:
        _copier = Copier(route, stop)
    except (OSError, RegrainError) as error:
        _copier = HaltedError("a worker cannot open both stores", why=str(error))


def make_executor(jobs: int, route: Route) -> tuple[Executor, Any]:
    """Return an executor of ``jobs`` workers, and the byte that stops them when set."""
    stop = signals()
    return spawn_executor(jobs, _start, route, stop), stop


def _here() -> Copier:
    copier = errands.at_work() or _copier
    if isinstance(copier, Copier):
        return copier
    raise copier or HaltedError("a worker process without its stores")


def stage(wishes: list[Wish]) -> list[Copy]:
    """Copy objects into the pool of the run; fewer than asked for where it is to stop.

    Raises:
        NoSpaceError, HaltedError: The target's disk refused.
    """
    copier = _here()
    done = []
    for wish in wishes:
        if copier.is_stopping:
            break
        try:
            done.append(copier.stage(wish))
        except OSError as error:
            raise staging_error(error, wish.digest.encode()) from error
    return done


def publish(copies: list[Copy]) -> list[Copy]:
    """Give copies their names, each read back from the disk before.

    Raises:
        NoSpaceError, HaltedError: The target's disk refused.
    """
    copier = _here()
    done = []
    for copy in copies:
        try:
            done.append(copier.publish(copy))
        except OSError as error:
            raise staging_error(error, copy.digest.encode()) from error
    copier.flush_names(done)
    return done
