"""Find the carriers a package lacks, and stage those that cannot be links of legacy inodes.

Linking waits until publishing: the legacy inode keeps its one name until its package is
verified, and its link goes straight to ``objects/``. Copies and reflinks wait in the run's
pool, ``temp/<run>/objects/``, named by content and mode; two workers that meet the same
bytes stage them once.

Where most files can be linked, the others need not be copied at once either: another file of
the batch may bring the same carrier by a link. What is left when all are known is copied then.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from typing import TYPE_CHECKING

from regrain import disk
from regrain.errors import HaltedError, PackageError, reason
from regrain.migrate.copies import (
    OpenFile,
    pack_and_read_back,
    write_and_read_back,
)
from regrain.migrate.disk_errors import staging_error
from regrain.migrate.jobs import Ingest, Options, Wanted
from regrain.model.entry import Entry, Kind
from regrain.model.layout import (
    carrier_mode,
    compressed_carrier,
    further_carrier,
    staged_path,
)
from regrain.store.checkout import LABELS
from regrain.store.frames import (
    FrameError,
    Packer,
    block_size,
    content_size,
    has_holes,
)
from regrain.store.legacy import source_error
from regrain.store.objects import dress_carrier, has_frames, object_path

if TYPE_CHECKING:
    from regrain.store.root import Owner

_NOT_OF_A_CARRIER = 0o7022
"""Bits no carrier has: set-id, sticky, write for group and world."""

_READ_BITS = 0o444
_NAMES_REMEMBERED_MAX = 200_000
_LISTING_PAYS = 2000
"""From so many names on, listing all directories of objects is cheaper than looking for each."""


class Stager:
    """Knows what is published and pooled, and stages what is not.

    Args:
        objects: The open ``objects`` directory.
        pool: The open ``temp/<run>/objects``.
        owner: Who carriers belong to.
        options: How.
        copies_later: Leave copies to the caller where others may be linked.

    Attributes:
        wanted: What the current package needs and is not published, by content and mode.
        to_copy: What else it needs, to be copied unless somebody brings it by a link.
    """

    def __init__(
        self, objects: int, pool: int, owner: Owner, options: Options, *, copies_later: bool = False
    ) -> None:
        self._objects = objects
        self._pool = pool
        self._owner = owner
        self._options = options
        self._may_link = options.can_link and (
            options.ingest is Ingest.HARDLINK
            or (options.ingest is Ingest.AUTO and not options.can_reflink)
        )
        self._packer = (
            None
            if options.compression is None
            else Packer(options.compression, block_size(objects))
        )
        self._copies_later = copies_later and self._may_link
        self._shards: set[str] = set()
        self._token = secrets.token_hex(6)  # hosts share process ids, threads do anyway
        self._with_frames: dict[str, bool] = {}
        self._published: set[str] = set()
        self._seen: set[str] = set()
        self.begin()

    def forget(self) -> None:
        """Forget what is published: it will be looked up again."""
        self._seen.clear()
        self._published.clear()
        self._with_frames.clear()

    def begin(self) -> None:
        """Start collecting for the next package or slice."""
        self.wanted: dict[str, Wanted] = {}
        self.to_copy: dict[str, Wanted] = {}

    def ensure(
        self,
        entry: Entry,
        fd: int,
        before: os.stat_result,
        content: bytes | None,
        *,
        inside: bool = True,
    ) -> None:
        """See to it that a carrier with the bytes and the mode of a file can be published.

        Args:
            entry: What it is, its digest included.
            fd: The file, open.
            before: Its status before it was read.
            content: Its bytes, if they are still at hand.
            inside: Whether all names of its inode are in this package.

        Raises:
            PackageError: It may not be brought in as asked for.
            NoSpaceError, HaltedError: The pool cannot be written to.
        """
        mode = carrier_mode(entry.mode)
        name = further_carrier(entry.digest, mode)
        if name in self._published or name in self.wanted:
            return
        is_new = name not in self._seen
        if is_new:
            if len(self._seen) >= _NAMES_REMEMBERED_MAX:
                self.forget()
            self._seen.add(name)
        # A link to what another worker published meanwhile does no harm, but beside a frame it
        # would be a second carrier: so where there may be one, it is looked for each time.
        if (is_new or self._packer is not None) and self._is_in_objects(entry, mode, name):
            self._published.add(name)
            return
        try:
            file = OpenFile(fd, before, content)
            self._stage(name, mode, file, entry, inside=inside)
        except disk.SourceReadError as error:
            raise source_error(error, entry.path) from error
        except OSError as error:
            raise staging_error(error, entry.path) from error

    def now_published(self, name: str) -> None:
        """Take note that a carrier, by its name in the pool, is in ``objects/``."""
        self._published.add(name)

    def is_published(self, name: str) -> bool:
        """Tell whether that is known already, without looking."""
        return name in self._published

    def _is_in_objects(self, entry: Entry, mode: int, further: str) -> bool:
        """Tell whether a good carrier is in ``objects/``; a broken one will be replaced."""
        what = entry.digest, mode, entry.size
        return self.has_plain(*what, further) or (
            self._may_have_frame(entry.digest) and self.has_frame(*what)
        )

    def has_plain(self, digest: str, mode: int, size: int, further: str) -> bool:
        """Tell whether there is a good plain carrier of a mode, by the bare or the further name."""
        for name in (digest, further):
            status = _lstat(object_path(name), self._objects)
            if status is None:
                return False
            if self._is_good(status, mode, size):
                return True
        return False

    def _may_have_frame(self, digest: str) -> bool:
        """Tell whether there are compressed carriers in the directory where one would be.

        Most stores have none, and each directory need be listed only once to know it. One that
        comes later is found when the object is published, or has a plain carrier beside it.
        """
        if self._packer is not None or len(self._seen) < _LISTING_PAYS:
            return True
        shard = digest[:2]
        known = self._with_frames.get(shard)
        if known is None:
            known = self._with_frames[shard] = has_frames(self._objects, shard)
        return known

    def has_frame(self, digest: str, mode: int, size: int) -> bool:
        """Tell whether a compressed carrier serves all who may read a file of ``mode``."""
        path = object_path(compressed_carrier(digest))
        status = _lstat(path, self._objects)
        if (
            status is None
            or not stat.S_ISREG(status.st_mode)
            or (status.st_uid, status.st_gid) != self._owner
            or mode & _READ_BITS & ~status.st_mode
        ):
            return False
        try:
            with disk.Closing(disk.open_file(path, self._objects)) as fd:
                return content_size(fd) == size
        except (FrameError, FileNotFoundError):
            return False

    def _is_good(self, status: os.stat_result, mode: int, size: int) -> bool:
        facts = status.st_mode, status.st_size, status.st_uid, status.st_gid
        return facts == (stat.S_IFREG | mode, size, *self._owner)

    def _stage(self, name: str, mode: int, file: OpenFile, entry: Entry, *, inside: bool) -> None:
        packed = self._packed(name, mode, file, entry)
        if packed is not None:
            self.wanted[name] = _wanted(entry, mode, b"", packed, unpacked_size=entry.size)
            return
        why_not = self._why_not_link(entry, inside=inside)
        if not why_not:
            if self._options.fsync_each:
                disk.fsync(file.fd)
            self.wanted[name] = _wanted(entry, mode, entry.path, file.before)
            self.to_copy.pop(name, None)
            return
        if self._options.ingest is Ingest.HARDLINK:
            raise PackageError(
                "a file cannot be hard-linked",
                path=entry.path,
                why=why_not,
                advice='Use [store] ingest = "auto", which copies such files.',
            )
        if self._copies_later:
            self.to_copy.setdefault(name, _wanted(entry, mode, entry.path, file.before))
            return
        self.wanted[name] = _wanted(entry, mode, b"", self.copied(name, mode, file, entry))

    def copy_later(self, file: OpenFile, one: Wanted) -> Wanted | None:
        """Copy what nobody brought by a link; None if a carrier is published by now.

        Args:
            file: The file, as it is now.
            one: What it was when it was read; from ``to_copy``.

        Raises:
            PackageError: The copy does not hold the bytes that were read.
            NoSpaceError, HaltedError: The pool cannot be written to.
        """
        digest = one.digest.hex()
        name = further_carrier(digest, one.mode)
        entry = Entry(one.source, Kind.FILE, one.mode, *self._owner, one.mtime_ns, digest, one.size)
        if name in self._published or self._is_in_objects(entry, one.mode, name):
            self._published.add(name)
            return None
        try:
            return _wanted(entry, one.mode, b"", self.copied(name, one.mode, file, entry))
        except disk.SourceReadError as error:
            raise source_error(error, entry.path) from error
        except OSError as error:
            raise staging_error(error, entry.path) from error

    def copied(self, name: str, mode: int, file: OpenFile, entry: Entry) -> os.stat_result:
        """Return the status of a copy in the pool, made here or by another worker."""
        while True:
            status = _lstat(staged_path(name), self._pool)
            if status is not None:
                break
            with contextlib.suppress(FileExistsError):  # another worker was faster
                return self._copy(name, mode, file, entry)
        if not self._is_good(status, mode, entry.size):
            raise HaltedError("a staged file is not what it should be", path=name)
        return status

    def _packed(self, name: str, mode: int, file: OpenFile, entry: Entry) -> os.stat_result | None:
        """Return the status of a compressed copy in the pool; None where it is to stay plain.

        That is so where it does not pay, has holes, or has a carrier already: one of another
        mode, or a compressed one that not all may read who may read this.
        """
        packer = self._packer
        if packer is None or not packer.size_max(entry.size):
            return None
        for carrier in (entry.digest, compressed_carrier(entry.digest)):
            if _lstat(object_path(carrier), self._objects) is not None:
                return None
        if has_holes(file.fd, entry.size):
            return None
        pooled = compressed_carrier(name)
        while True:
            status = _lstat(staged_path(pooled), self._pool)
            if status is not None:
                return status
            with contextlib.suppress(FileExistsError):  # another worker was faster
                return self._pack(packer, pooled, mode, file, entry)

    def _why_not_link(self, entry: Entry, *, inside: bool) -> str:
        """Say why the legacy inode must not become a carrier; empty if it may."""
        if not self._may_link:
            return "it is not to be linked, or the file system has no hard links"
        if entry.mode & _NOT_OF_A_CARRIER:
            return f"its mode is {entry.mode:04o}"
        if (entry.uid, entry.gid) != self._owner:
            return f"it belongs to {entry.uid}:{entry.gid}, not to the store's owner"
        if entry.xattrs and not all(name.startswith(LABELS) for name in entry.xattrs):
            return "it has extended attributes"
        if not inside and not self._options.link_outside:
            return "it has names outside its package"
        return ""

    def _copy(self, name: str, mode: int, file: OpenFile, entry: Entry) -> os.stat_result:
        """Stage by reflink or copy."""
        private = self._private(name)
        with disk.Closing(self._create(private)) as target:
            if not self._reflink(file.fd, target, entry):
                write_and_read_back(file, target, entry)
            return self._show(name, mode, entry, target)

    def _pack(
        self, packer: Packer, name: str, mode: int, file: OpenFile, entry: Entry
    ) -> os.stat_result | None:
        """Stage compressed; None if that does not pay."""
        private = self._private(name)
        with disk.Closing(self._create(private)) as target:
            if pack_and_read_back(packer, file, target, entry):
                return self._show(name, mode, entry, target)
        disk.unlink(private, self._pool)
        return None

    def _show(self, name: str, mode: int, entry: Entry, target: int) -> os.stat_result:
        """Let the pool show a file that is complete and checked."""
        dress_carrier(target, self._owner, mode, entry.mtime_ns)
        if self._options.fsync_each:
            disk.fsync(target)
        private, shared = self._private(name).encode(), staged_path(name).encode()
        disk.rename_noreplace(private, self._pool, shared, self._pool)
        return os.fstat(target)

    def _private(self, name: str) -> str:
        """Return what a file is called in the pool until it is complete."""
        return f"{staged_path(name)[:2]}.{self._token}"

    def _create(self, private: str) -> int:
        """Make a file that only this worker knows of."""
        shard = private[:1]
        if shard not in self._shards:
            with contextlib.suppress(FileExistsError):  # another worker was faster
                disk.make_directory(shard, self._pool, 0o700)
            self._shards.add(shard)
        with contextlib.suppress(FileNotFoundError):  # a copy that did not succeed
            disk.unlink(private, self._pool)
        return disk.create(private, self._pool)

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


def facts(status: os.stat_result) -> tuple[int, int, int]:
    """Return what writing to an inode, or changing its mode, changes."""
    return status.st_mtime_ns, status.st_size, status.st_mode


def _wanted(
    entry: Entry, mode: int, source: bytes, status: os.stat_result, *, unpacked_size: int = 0
) -> Wanted:
    return Wanted(
        bytes.fromhex(entry.digest),
        mode,
        source,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        disk.allocated(status),
        unpacked_size,
    )


def _lstat(name: str, at: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=at, follow_symlinks=False)
    except FileNotFoundError:
        return None
