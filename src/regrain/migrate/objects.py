"""Give objects their names: link legacy inodes into ``objects/``, move staged copies there.

Runs in a worker process, after the data of the whole batch was flushed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from regrain import disk
from regrain.errors import CorruptionError, PackageError, RegrainError
from regrain.migrate.copies import OpenFile
from regrain.migrate.disk_errors import flush_error, staging_error
from regrain.migrate.jobs import Ingest, Options, PublishedCarrier, Wanted
from regrain.migrate.staging import Stager
from regrain.model import layout
from regrain.model.entry import Entry, Kind
from regrain.model.layout import compressed_carrier, further_carrier, staged_path
from regrain.store.checkout import LABELS
from regrain.store.cursor import Cursor
from regrain.store.frames import FrameError, hash_frame
from regrain.store.legacy import changed, source_error
from regrain.store.objects import hash_fd, object_path
from regrain.store.quarantine import quarantine

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from regrain.store.root import Owner

_LINK_IMPOSSIBLE = frozenset({errno.EMLINK, errno.EXDEV, errno.EPERM})
_NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE})


class StaleCarrierError(RegrainError):
    """What was to become a carrier is not what it was when it was read or staged."""


class _TakenError(Exception):
    """A staged copy is not in the pool any more: another package's turn published it."""


class Places(NamedTuple):
    """Open directories of a store: its top, ``objects`` and the run's pool."""

    top: int
    objects: int
    pool: int


class ObjectPublisher:
    """Publishes the objects that packages want.

    Args:
        places: The open directories.
        owner: Who carriers belong to.
        options: How packages are brought in.
        stager: Copies what turns out not to be linkable, and is told what is published.

    Attributes:
        damaged: Broken objects that were in the way and went to quarantine: digest, reason.
    """

    def __init__(self, places: Places, owner: Owner, options: Options, stager: Stager) -> None:
        self.damaged: list[tuple[str, str]] = []
        self._places = places
        self._owner = owner
        self._options = options
        self._stager = stager

    def copy(self, source: int, to_copy: Iterable[Wanted]) -> Iterator[Wanted]:
        """Copy files into the pool; yield what is to be published of them.

        Args:
            source: The open directory of the package.
            to_copy: What it has that nobody brings by a link.

        Raises:
            StaleCarrierError: One changed; the package must be read again.
            PackageError: One cannot be read, or not be copied faithfully.
            NoSpaceError, HaltedError: The disk refused.
        """
        with Cursor(source) as cursor:
            for one in to_copy:
                staged = self._copy(cursor, one)
                if staged is not None:
                    yield staged

    def _copy(self, cursor: Cursor, one: Wanted) -> Wanted | None:
        parent, _, name = one.source.rpartition(b"/")
        try:
            with disk.Closing(disk.open_file(name, cursor.at(parent))) as fd:
                status = os.fstat(fd)
                if _facts(status) != one.facts:
                    raise _stale(one)
                try:
                    return self._stager.copy_later(OpenFile(fd, status, None), one)
                except PackageError as error:
                    if os.fstat(fd).st_ctime_ns != one.ctime_ns:
                        raise _stale(one) from error
                    raise
        except OSError as error:
            if error.errno in _NOT_THERE:
                raise _stale(one) from error
            raise source_error(error, one.source) from error

    def publish(self, source: int, wanted: Iterable[Wanted]) -> Iterator[PublishedCarrier]:
        """Publish carriers; yield those that were not there before, each once it has its name.

        Args:
            source: The open directory of the package.
            wanted: What it needs.

        Raises:
            StaleCarrierError: One changed; the package must be read again.
            PackageError: One may not be brought in as asked for, or cannot be read.
            NoSpaceError, HaltedError: The disk refused.
        """
        with Cursor(source) as cursor:
            for one in wanted:
                name = further_carrier(one.digest.hex(), one.mode)
                if self._stager.is_published(name):
                    if not one.source:
                        self._drop_copy(one.copy)
                    continue
                try:
                    found = self._publish(cursor, name, one)
                except _TakenError:
                    self._must_be_there(name, one)
                    found = None
                except OSError as error:
                    raise staging_error(error, one.source or name.encode()) from error
                self._stager.now_published(name)
                if found is not None:
                    yield found

    def _publish(self, cursor: Cursor, name: str, one: Wanted) -> PublishedCarrier | None:
        """Publish one carrier; None if a good one of its mode is there."""
        if one.source:
            parent, _, source = one.source.rpartition(b"/")
            at = self._vouch_for_source(cursor, parent, source, one)
        else:
            at, source = self._places.pool, staged_path(one.copy).encode()
            self._vouch_for_copy(one.copy, one)
        digest = one.digest.hex()
        if self._came_otherwise(digest, name, one):
            if not one.source:
                self._drop_copy(one.copy)
            return None
        if one.unpacked_size:
            return self._publish_packed(source, one)
        for target in (digest, name):
            path = object_path(target)
            if self._name(at, source, path, one):
                return PublishedCarrier(
                    one.digest, one.mode, target == digest, one.mtime_ns, one.size, one.allocated
                )
            if self._is_good(path, one):
                if not one.source:
                    self._drop_copy(name)
                return None
        raise CorruptionError("two carriers of one mode", path=object_path(name))

    def _came_otherwise(self, digest: str, name: str, one: Wanted) -> bool:
        """Tell whether others published it meanwhile, plain what is compressed here, or so.

        That is so where one of two files has holes, which stays plain, and where somebody adds
        beside a run that compresses. Both carriers beside each other would do no harm but waste;
        so a run that does not compress itself spares the look.
        """
        if one.unpacked_size:
            return self._stager.has_plain(digest, one.mode, one.unpacked_size, name)
        return self._options.compression is not None and self._stager.has_frame(
            digest, one.mode, one.size
        )

    def _publish_packed(self, source: bytes, one: Wanted) -> PublishedCarrier | None:
        """Publish a compressed carrier; None if one is there that serves."""
        digest = one.digest.hex()
        path = object_path(compressed_carrier(digest))
        while True:
            try:
                self._move(source, path)
            except FileExistsError:
                if self._stager.has_frame(digest, one.mode, one.unpacked_size):
                    self._drop_copy(one.copy)
                    return None
                if self._stager.has_frame(digest, 0, one.unpacked_size):
                    self._drop_copy(
                        one.copy
                    )  # not all may read it: the next look stages a plain one
                    raise _stale(one) from None
                quarantine(self._places.top, layout.OBJECTS, path)
                continue
            return PublishedCarrier(
                one.digest,
                one.mode,
                is_bare=False,
                mtime_ns=one.mtime_ns,
                size=one.unpacked_size,
                allocated=one.allocated,
                is_compressed=True,
            )

    def _name(self, at: int, source: bytes, path: str, one: Wanted) -> bool:
        """Give an inode its name in ``objects/``; False if a whole carrier has that name.

        One that is there but broken is moved to quarantine, never overwritten.
        """
        try:
            if one.source:
                self._link(at, source, path, one)
            else:
                self._move(source, path)
        except FileExistsError:
            there = os.stat(path, dir_fd=self._places.objects, follow_symlinks=False)
            if (
                stat.S_ISREG(there.st_mode)
                and there.st_size == one.size
                and (there.st_uid, there.st_gid) == self._owner
            ):
                return False
            quarantine(self._places.top, layout.OBJECTS, path)
            self.damaged.append((one.digest.hex(), _flaw(there, one)))
            return self._name(at, source, path, one)
        return True

    def _drop_copy(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            disk.unlink(staged_path(name), self._places.pool)

    def _move(self, name: bytes, path: str) -> None:
        try:
            disk.rename_noreplace(name, self._places.pool, path.encode(), self._places.objects)
        except FileNotFoundError as error:
            raise _TakenError from error

    def _link(self, at: int, source: bytes, path: str, one: Wanted) -> None:
        try:
            disk.link(source, at, path.encode(), self._places.objects)
        except FileNotFoundError as error:
            raise _stale(one) from error
        except OSError as error:
            if error.errno not in _LINK_IMPOSSIBLE:
                raise
            self._copy_instead(at, source, path, one)
            return
        status = os.stat(path, dir_fd=self._places.objects, follow_symlinks=False)
        if status.st_ino != one.inode:  # somebody swapped the name between look and link
            quarantine(self._places.top, layout.OBJECTS, path)
            raise _stale(one)

    def _copy_instead(self, at: int, source: bytes, path: str, one: Wanted) -> None:
        """Stage a copy, flush it by itself, since the batch was flushed before, and name it."""
        if self._options.ingest is Ingest.HARDLINK:
            raise PackageError(
                "a file cannot be hard-linked",
                path=one.source,
                why="its link count is at the limit, or the system forbids it",
                advice='Use [store] ingest = "auto", which copies such files.',
            )
        name = further_carrier(one.digest.hex(), one.mode)
        entry = Entry(
            one.source,
            Kind.FILE,
            one.mode,
            *self._owner,
            one.mtime_ns,
            digest=one.digest.hex(),
            size=one.size,
        )
        with disk.Closing(disk.open_file(source, at)) as fd:
            self._stager.copied(name, one.mode, OpenFile(fd, os.fstat(fd), None), entry)
        with disk.Closing(disk.open_file(staged_path(name), self._places.pool)) as fd:
            try:
                disk.fsync(fd)
            except OSError as error:
                self._drop_copy(name)  # flushing it again would prove nothing
                raise flush_error("a staged file", error) from error
        self._move(staged_path(name).encode(), path)

    # what is there

    def _is_good(self, path: str, one: Wanted) -> bool:
        status = os.stat(path, dir_fd=self._places.objects, follow_symlinks=False)
        return status.st_mode == stat.S_IFREG | one.mode and status.st_size == one.size

    def _must_be_there(self, name: str, one: Wanted) -> None:
        """Check that a copy that left the pool was published, for another package."""
        digest, size = one.digest.hex(), one.unpacked_size or one.size
        if not (
            self._stager.has_plain(digest, one.mode, size, name)
            or self._stager.has_frame(digest, one.mode, size)
        ):
            raise StaleCarrierError("a staged object is gone", path=name)

    # is it still what was read

    def _vouch_for_source(self, cursor: Cursor, parent: bytes, name: bytes, one: Wanted) -> int:
        """Check an inode that is to be linked; return the open directory it is in."""
        try:
            at = cursor.at(parent)
            status = os.stat(name, dir_fd=at, follow_symlinks=False)
            if _facts(status) != one.facts:
                raise _stale(one)
            if status.st_ctime_ns != one.ctime_ns:
                self._look_closer(at, name, one)
        except OSError as error:
            if error.errno in _NOT_THERE:
                raise _stale(one) from error
            raise source_error(error, one.source) from error
        return at

    def _vouch_for_copy(self, name: str, one: Wanted) -> None:
        at = staged_path(name)
        try:
            status = os.stat(at, dir_fd=self._places.pool, follow_symlinks=False)
            if (*_facts(status), status.st_ctime_ns) != (*one.facts, one.ctime_ns):
                self._look_closer(self._places.pool, at.encode(), one)
        except FileNotFoundError as error:
            raise _TakenError from error
        except StaleCarrierError:
            self._drop_copy(name)
            raise

    def _look_closer(self, at: int, name: bytes, one: Wanted) -> None:
        """Let bytes and attributes decide, where an inode was touched, if only by a link to it."""
        try:
            with disk.Closing(disk.open_file(name, at)) as fd:
                before = os.fstat(fd)
                xattrs = disk.read_xattrs(fd) or {}
                digest, size = hash_frame(fd) if one.unpacked_size else hash_fd(fd)
                after = os.fstat(fd)
        except FrameError as error:
            raise _stale(one) from error
        if (
            bytes.fromhex(digest) != one.digest
            or size != (one.unpacked_size or one.size)
            or before.st_mode != stat.S_IFREG | one.mode
            or (before.st_uid, before.st_gid) != self._owner
            or not all(label.startswith(LABELS) for label in xattrs)
            or after.st_ctime_ns != before.st_ctime_ns
        ):
            raise _stale(one)


def _facts(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns


def _stale(one: Wanted) -> StaleCarrierError:
    return StaleCarrierError(str(changed(one.source)), path=one.source or one.digest.hex())


def _flaw(there: os.stat_result, one: Wanted) -> str:
    """Say what is wrong with an object that is in the way of a good one."""
    if not stat.S_ISREG(there.st_mode):
        return "it is no regular file"
    if there.st_size != one.size:
        return f"it has {there.st_size} bytes instead of {one.size}"
    return f"it belongs to {there.st_uid}:{there.st_gid}, not to the store's owner"
