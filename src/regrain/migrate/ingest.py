"""Bring files in: hash while reading, stage what the store does not have yet.

Runs in a worker process and knows no ledger. Objects are staged in the run's pool,
``temp/<run>/objects/``, under the name they will be published by; two workers that meet
the same bytes stage them once.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from typing import TYPE_CHECKING

from blake3 import blake3

from regrain import disk
from regrain.errors import HaltedError, NoSpaceError, PackageError, RegrainError, reason
from regrain.migrate.jobs import Ingest, Options, Record, StagedCarrier
from regrain.model.digest import EMPTY
from regrain.model.entry import Entry, Kind
from regrain.model.layout import carrier_mode, further_carrier
from regrain.store.checkout import LABELS
from regrain.store.legacy import changed, find, found_directory, source_error, special_file
from regrain.store.objects import hash_fd, object_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from regrain.store.root import Owner

_WORLD = 0o7022
"""Bits no carrier has: set-id, sticky, write for group and world."""

_LINK_IMPOSSIBLE = frozenset({errno.EMLINK, errno.EXDEV, errno.EPERM})
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
_CACHE_NAMES_MAX = 200_000


class StoppedError(RegrainError):
    """The run was asked to stop."""


def staging_error(error: OSError, path: bytes) -> RegrainError:
    """Return what an error while writing into the store means: no space, or the end."""
    if error.errno in _NO_SPACE:
        return NoSpaceError(
            "no space left to stage a file",
            path=path,
            why=reason(error),
            advice="Free space or inodes and run 'regrain migrate' again; it goes on.",
        )
    return HaltedError(
        "cannot write to the store",
        path=path,
        why=reason(error),
        advice="The legacy packages are untouched. Check the disk, then run again.",
    )


class Ingester:
    """Hashes and stages files for one run; one a worker process.

    Args:
        objects: The open ``objects`` directory.
        pool: The open ``temp/<run>/objects``.
        owner: Who carriers belong to.
        options: How.
        stopping: Tells whether to stop before the next file.
    """

    def __init__(
        self,
        objects: int,
        pool: int,
        owner: Owner,
        options: Options,
        stopping: Callable[[], bool],
    ) -> None:
        self._objects = objects
        self._pool = pool
        self._owner = owner
        self._options = options
        self._stopping = stopping
        self._is_root = os.geteuid() == 0
        self._private = b".%d" % os.getpid()
        self._published: dict[str, str] = {}
        self._pooled: dict[str, str] = {}
        self._start = time.monotonic()
        self._throttled_bytes = 0
        self.begin()

    def begin(self) -> None:
        """Start counting for the next package or slice."""
        self.staged: list[StagedCarrier] = []
        self.needed: set[str] = set()
        self.bytes_read = 0

    # one tree

    def ingest(self, root: int, start: bytes, stop: bytes | None) -> Iterator[Record]:
        """Yield a record for everything below ``root`` in the path interval, staged.

        Files with several names are hashed, but staged only when the whole package is
        known (``stage_group``).

        Raises:
            PackageError: The package cannot be brought in.
            NoSpaceError, HaltedError: Nothing can, for now or at all.
        """
        if not start:
            found = found_directory(root, b"")
            yield _record(found.entry, found.status, found.status.st_ctime_ns)
        try:
            for at, name, path, kind in disk.walk(root, start, stop):
                if self._stopping():
                    raise StoppedError("stopped", path=path)
                yield self._one(at, name, path, kind)
        except OSError as error:
            raise source_error(error, os.fsencode(error.filename or b"")) from error

    def _one(self, at: int, name: bytes, path: bytes, kind: str) -> Record:
        try:
            if kind is disk.FILE:
                return self._file(at, name, path)
            found = find(at, name, path, kind)
        except OSError as error:
            raise source_error(error, path) from error
        return _record(found.entry, found.status, found.status.st_ctime_ns)

    def _file(self, at: int, name: bytes, path: bytes) -> Record:
        fd = disk.open_file(name, at)
        try:
            before = os.fstat(fd)
            if not stat.S_ISREG(before.st_mode):
                raise special_file(path, before.st_mode)
            xattrs = disk.read_xattrs(fd)
            content, digest = self._hash(fd, before, path)
            ctime_ns = _unchanged(before, os.fstat(fd), path)
            entry = Entry(
                path,
                Kind.FILE,
                stat.S_IMODE(before.st_mode),
                before.st_uid,
                before.st_gid,
                before.st_mtime_ns,
                digest=digest,
                size=before.st_size,
                xattrs=xattrs,
            )
            if before.st_nlink > 1:
                return _record(entry, before, -1)
            if before.st_size and not self._has(entry):
                ctime_ns = self._stage(at, name, fd, entry, before, content)
            return _record(entry, before, ctime_ns)
        finally:
            os.close(fd)

    def stage_group(self, root: int, records: list[Record]) -> None:
        """Stage the inode of a hard-link group, whose names in this package are all known."""
        first = records[0].entry
        if not first.size or self._has(first):
            return
        parent, _, name = first.path.rpartition(b"/")
        try:
            with (
                disk.Closing(disk.descend(parent, root)) as at,
                disk.Closing(disk.open_file(name, at)) as fd,
            ):
                status = os.fstat(fd)
                facts = (status.st_ino, status.st_size, status.st_mtime_ns)
                if facts != (records[0].inode, first.size, first.mtime_ns):
                    raise changed(first.path)
                inside = status.st_nlink == len(records)
                self._stage(at, name, fd, first, status, None, inside=inside)
        except OSError as error:
            raise source_error(error, first.path) from error

    def _hash(self, fd: int, before: os.stat_result, path: bytes) -> tuple[bytes | None, str]:
        """Read and hash a file; return its bytes too, if it is small."""
        size = before.st_size
        self.bytes_read += size
        if self._options.bytes_per_second_max:
            self._throttle(size)
        if size == 0:
            return b"", EMPTY
        if size < disk.PIECE:
            content = os.read(fd, size + 1)
            if len(content) != size:
                raise changed(path)
            return content, blake3(content).hexdigest()
        digest, found = hash_fd(fd)
        if found != size:
            raise changed(path)
        return None, digest

    def _throttle(self, size: int) -> None:
        """Sleep as long as this worker is ahead of its share of the read rate."""
        self._throttled_bytes += size
        due = self._start + self._throttled_bytes / self._options.bytes_per_second_max
        while (ahead := due - time.monotonic()) > 0 and not self._stopping():
            time.sleep(min(ahead, 0.2))

    # does the store have it?

    def _has(self, entry: Entry) -> bool:
        """Tell whether a good carrier is published or pooled; note what is pooled."""
        key = f"{entry.digest}{carrier_mode(entry.mode):o}"
        if key in self._published:
            return True
        pooled = self._pooled.get(key)
        if pooled is not None:
            self.needed.add(pooled)
            return True
        mode = carrier_mode(entry.mode)
        for name in (entry.digest, further_carrier(entry.digest, mode)):
            status = _lstat(object_path(name), self._objects)
            if status is None:
                return False
            if self._is_good(status, mode, entry.size):
                self._remember(self._published, key, name)
                return True
        return False

    def _is_good(self, status: os.stat_result, mode: int, size: int) -> bool:
        return (
            status.st_mode == stat.S_IFREG | mode
            and status.st_size == size
            and status.st_uid == self._owner.uid
            and status.st_gid == self._owner.gid
        )

    def _remember(self, cache: dict[str, str], key: str, name: str) -> None:
        if len(cache) >= _CACHE_NAMES_MAX:
            cache.clear()
        cache[key] = name

    # staging

    def _stage(
        self,
        at: int,
        name: bytes,
        fd: int,
        entry: Entry,
        before: os.stat_result,
        content: bytes | None,
        *,
        inside: bool = True,
    ) -> int:
        """Put a carrier into the pool; return the source's change time afterwards.

        Args:
            at: The directory the source is in.
            name: Its name there.
            fd: The source, open.
            entry: What it is.
            before: Its status before it was read.
            content: Its bytes, if they are still at hand.
            inside: Whether all its names are in this package.
        """
        why_not = self._why_not_link(entry, inside=inside)
        while (carrier := self._free_name(entry)) is not None:
            try:
                if not why_not and self._link(at, name, carrier):
                    return self._linked(fd, carrier, entry, before)
                self._copy(fd, carrier, entry, content, why_not)
                break
            except FileExistsError:  # the other worker was faster: look what it staged
                continue
            except disk.SourceReadError as error:
                raise source_error(error, entry.path) from error
            except OSError as error:
                raise staging_error(error, entry.path) from error
        return before.st_ctime_ns if before.st_nlink == 1 else -1

    def _free_name(self, entry: Entry) -> str | None:
        """Return the name to stage under: bare if that is free, else with the mode.

        None where another worker has staged it in the meantime.
        """
        mode = carrier_mode(entry.mode)
        key = f"{entry.digest}{mode:o}"
        published = _lstat(object_path(entry.digest), self._objects)
        names = [entry.digest, further_carrier(entry.digest, mode)]
        if published is not None and published.st_size == entry.size:
            del names[0]
        for name in names:
            status = _lstat(name, self._pool)
            if status is None:
                self._remember(self._pooled, key, name)
                self.needed.add(name)
                return name
            if self._is_good(status, mode, entry.size):
                self._remember(self._pooled, key, name)
                self.needed.add(name)
                return None
        raise HaltedError("a staged file is not what it should be", path=names[-1])

    def _why_not_link(self, entry: Entry, *, inside: bool) -> str:
        """Say why the legacy inode must not become a carrier; empty if it may."""
        options = self._options
        if options.ingest in (Ingest.COPY, Ingest.REFLINK):
            return "linking is not asked for"
        if options.ingest is Ingest.AUTO and options.can_reflink:
            return "a reflink is better"
        if entry.mode & _WORLD:
            return f"its mode is {entry.mode:04o}"
        if (entry.uid, entry.gid) != self._owner:
            return f"it belongs to {entry.uid}:{entry.gid}, not to the store's owner"
        if entry.xattrs and not all(name.startswith(LABELS) for name in entry.xattrs):
            return "it has extended attributes"
        if not inside and not options.link_outside:
            return "it has names outside its package"
        return ""

    def _link(self, at: int, name: bytes, carrier: str) -> bool:
        """Link the source into the pool; False where that is impossible."""
        try:
            disk.link(name, at, carrier.encode(), self._pool)
        except FileNotFoundError as error:
            raise disk.SourceReadError(*error.args) from error
        except OSError as error:
            if error.errno in _LINK_IMPOSSIBLE:
                return False
            raise
        return True

    def _linked(self, fd: int, carrier: str, entry: Entry, before: os.stat_result) -> int:
        """Check that it was the inode that was read which got the carrier's name."""
        if self._options.fsync_each:
            disk.fsync(fd)
        after = os.fstat(fd)
        if _facts(after) != _facts(before) or after.st_nlink <= before.st_nlink:
            raise changed(entry.path)
        self._staged(carrier, entry, after)
        return after.st_ctime_ns if before.st_nlink == 1 else -1

    def _copy(
        self, fd: int, carrier: str, entry: Entry, content: bytes | None, why_not_link: str
    ) -> None:
        """Stage by reflink or copy, complete and checked before the pool shows it."""
        if self._options.ingest is Ingest.HARDLINK:
            raise PackageError(
                "a file cannot be hard-linked",
                path=entry.path,
                why=why_not_link or "its link count is at the limit, or the system forbids it",
                advice='Use [store] ingest = "auto", which copies such files.',
            )
        with contextlib.suppress(FileNotFoundError):
            disk.unlink(self._private, self._pool)
        with disk.Closing(disk.create(self._private, self._pool)) as target:
            if not self._reflink(fd, target, entry):
                _write_and_read_back(fd, target, entry, content)
            if self._is_root:
                os.fchown(target, *self._owner)
            os.fchmod(target, carrier_mode(entry.mode))
            _drop_inherited_acl(target)
            os.utime(target, ns=(entry.mtime_ns, entry.mtime_ns))
            if self._options.fsync_each:
                disk.fsync(target)
            disk.rename_noreplace(self._private, self._pool, carrier.encode(), self._pool)
            self._staged(carrier, entry, os.fstat(target))

    def _reflink(self, fd: int, target: int, entry: Entry) -> bool:
        options = self._options
        if options.ingest is Ingest.COPY or not (
            options.can_reflink or options.ingest is Ingest.REFLINK
        ):
            return False
        try:
            disk.reflink(fd, target)
        except OSError as error:
            if error.errno not in disk.NO_REFLINK:
                raise
            if options.ingest is Ingest.AUTO:
                return False
            raise PackageError(
                "a file cannot be reflinked",
                path=entry.path,
                why=reason(error),
                advice='Use [store] ingest = "auto" on this file system.',
            ) from error
        return True

    def _staged(self, carrier: str, entry: Entry, status: os.stat_result) -> None:
        self.staged.append(
            StagedCarrier(
                carrier,
                bytes.fromhex(entry.digest),
                carrier_mode(entry.mode),
                status.st_ino,
                status.st_size,
                status.st_mtime_ns,
                status.st_ctime_ns,
                disk.allocated(status),
            )
        )


def _record(entry: Entry, status: os.stat_result, ctime_ns: int) -> Record:
    return Record(entry, status.st_dev, status.st_ino, ctime_ns, status.st_nlink)


def _lstat(name: str, at: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=at, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _facts(status: os.stat_result) -> tuple[int, int, int]:
    """Return what writing to an inode, or changing its mode, changes."""
    return status.st_mtime_ns, status.st_size, status.st_mode


def _unchanged(before: os.stat_result, after: os.stat_result, path: bytes) -> int:
    """Return the change time, if all is what it was before reading.

    An inode of several names may get or lose one meanwhile, which moves its change time.
    """
    if _facts(after) != _facts(before) or (
        before.st_nlink == 1 and after.st_ctime_ns != before.st_ctime_ns
    ):
        raise changed(path)
    return after.st_ctime_ns


def _write_and_read_back(fd: int, target: int, entry: Entry, content: bytes | None) -> None:
    """Copy, then compare what the copy holds with the digest of what was read."""
    sparse = disk.allocated(os.fstat(fd)) < entry.size
    if content is not None and not sparse:
        disk.write_all(target, content)
        good = os.pread(target, len(content) + 1, 0) == content
    else:
        disk.copy_bytes(fd, target, entry.size)
        os.lseek(target, 0, os.SEEK_SET)
        good = hash_fd(target) == (entry.digest, entry.size)
    if not good:
        raise PackageError(
            "a copy does not hold the bytes that were read",
            path=entry.path,
            advice="Memory or disk may be failing; check both before going on.",
        )


def _drop_inherited_acl(fd: int) -> None:
    with contextlib.suppress(OSError):
        os.removexattr(fd, "system.posix_acl_access")
