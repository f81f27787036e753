"""Put carriers into the run's pool, ``temp/<run>/objects/``, from where they are published.

A carrier waits there under the name it will be published by; two workers that meet the
same bytes stage them once.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from regrain import disk
from regrain.errors import HaltedError, NoSpaceError, PackageError, RegrainError, reason
from regrain.migrate.jobs import Ingest, Options, StagedCarrier
from regrain.model.layout import carrier_mode, further_carrier
from regrain.store.checkout import LABELS
from regrain.store.legacy import changed, source_error
from regrain.store.objects import hash_fd, object_path

if TYPE_CHECKING:
    from regrain.model.entry import Entry
    from regrain.store.root import Owner

_NOT_OF_A_CARRIER = 0o7022
"""Bits no carrier has: set-id, sticky, write for group and world."""

_LINK_IMPOSSIBLE = frozenset({errno.EMLINK, errno.EXDEV, errno.EPERM})
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
_NAMES_REMEMBERED_MAX = 200_000
_PUBLISHED = ""


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


class OpenFile(NamedTuple):
    """A legacy file that was read.

    Attributes:
        at: The open directory it is in.
        name: Its name there.
        fd: The file, open.
        before: Its status before it was read.
        content: Its bytes, if they are still at hand.
    """

    at: int
    name: bytes
    fd: int
    before: os.stat_result
    content: bytes | None


class Stager:
    """Knows what is published and pooled, and stages what is not.

    Args:
        objects: The open ``objects`` directory.
        pool: The open ``temp/<run>/objects``.
        owner: Who carriers belong to.
        options: How.

    Attributes:
        staged: What was staged since ``begin``.
        needed: Names in the pool that the current package needs, by whomever staged.
    """

    def __init__(self, objects: int, pool: int, owner: Owner, options: Options) -> None:
        self._objects = objects
        self._pool = pool
        self._owner = owner
        self._options = options
        self._is_root = os.geteuid() == 0
        self._private = b".%d" % os.getpid()
        self._known: dict[str, str] = {}
        self.begin()

    def begin(self) -> None:
        """Start counting for the next package or slice."""
        self.staged: list[StagedCarrier] = []
        self.needed: set[str] = set()

    def ensure(self, file: OpenFile, entry: Entry, *, inside: bool = True) -> int:
        """See to it that a carrier with the bytes and the mode of a file exists.

        Args:
            file: The source.
            entry: What it is, its digest included.
            inside: Whether all names of its inode are in this package.

        Returns:
            The source's change time afterwards, in nanoseconds.

        Raises:
            PackageError: It changed, or may not be brought in as asked for.
            NoSpaceError, HaltedError: The pool cannot be written to.
        """
        mode = carrier_mode(entry.mode)
        key = f"{entry.digest}{mode:o}"
        ctime_ns = file.before.st_ctime_ns
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= _NAMES_REMEMBERED_MAX:
                self._known.clear()
            name = self._missing(entry, mode)
            if name:
                try:
                    name, ctime_ns = self._stage(name, file, entry, inside=inside)
                except disk.SourceReadError as error:
                    raise source_error(error, entry.path) from error
                except OSError as error:
                    raise staging_error(error, entry.path) from error
            known = self._known[key] = name
        if known:
            self.needed.add(known)
        return ctime_ns

    def _missing(self, entry: Entry, mode: int) -> str:
        """Return the name a carrier should be staged under; empty if one is published.

        One that is published but broken is replaced: publishing moves it to quarantine.
        """
        free = ""
        for name in (entry.digest, further_carrier(entry.digest, mode)):
            status = _lstat(object_path(name), self._objects)
            if status is not None and self._is_good(status, mode, entry.size):
                return _PUBLISHED
            if status is None or status.st_size != entry.size:
                free = free or name
        return free or name

    def _is_good(self, status: os.stat_result, mode: int, size: int) -> bool:
        return (
            status.st_mode == stat.S_IFREG | mode
            and status.st_size == size
            and status.st_uid == self._owner.uid
            and status.st_gid == self._owner.gid
        )

    def _stage(self, name: str, file: OpenFile, entry: Entry, *, inside: bool) -> tuple[str, int]:
        """Link or copy into the pool; return the name taken and the source's change time."""
        mode = carrier_mode(entry.mode)
        why_not = self._why_not_link(entry, inside=inside)
        while True:
            try:
                if not why_not and self._link(file, name):
                    return name, self._linked(name, file, entry)
                self._copy(name, file, entry, why_not)
            except FileExistsError:  # another worker was faster: look what it staged
                status = _lstat(name, self._pool)
                if status is None or self._is_good(status, mode, entry.size):
                    return name, file.before.st_ctime_ns
                if name != entry.digest:
                    raise HaltedError("a staged file is not what it should be", path=name) from None
                name = further_carrier(entry.digest, mode)
            else:
                return name, file.before.st_ctime_ns

    def _why_not_link(self, entry: Entry, *, inside: bool) -> str:
        """Say why the legacy inode must not become a carrier; empty if it may."""
        options = self._options
        if options.ingest in (Ingest.COPY, Ingest.REFLINK) or (
            options.ingest is Ingest.AUTO and options.can_reflink
        ):
            return "linking is not what was asked for"
        if entry.mode & _NOT_OF_A_CARRIER:
            return f"its mode is {entry.mode:04o}"
        if (entry.uid, entry.gid) != self._owner:
            return f"it belongs to {entry.uid}:{entry.gid}, not to the store's owner"
        if entry.xattrs and not all(name.startswith(LABELS) for name in entry.xattrs):
            return "it has extended attributes"
        if not inside and not options.link_outside:
            return "it has names outside its package"
        return ""

    def _link(self, file: OpenFile, name: str) -> bool:
        """Link the source into the pool; False where that is impossible."""
        try:
            disk.link(file.name, file.at, name.encode(), self._pool)
        except FileNotFoundError as error:
            raise disk.SourceReadError(*error.args) from error
        except OSError as error:
            if error.errno in _LINK_IMPOSSIBLE:
                return False
            raise
        return True

    def _linked(self, name: str, file: OpenFile, entry: Entry) -> int:
        """Check that it was the inode that was read which got the carrier's name."""
        if self._options.fsync_each:
            disk.fsync(file.fd)
        before, after = file.before, os.fstat(file.fd)
        if facts(after) != facts(before) or after.st_nlink <= before.st_nlink:
            raise changed(entry.path)
        self._note(name, entry, after)
        return after.st_ctime_ns

    def _copy(self, name: str, file: OpenFile, entry: Entry, why_not_link: str) -> None:
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
            if not self._reflink(file.fd, target, entry):
                _write_and_read_back(file, target, entry)
            if self._is_root:
                os.fchown(target, *self._owner)
            os.fchmod(target, carrier_mode(entry.mode))
            _drop_inherited_acl(target)
            os.utime(target, ns=(entry.mtime_ns, entry.mtime_ns))
            if self._options.fsync_each:
                disk.fsync(target)
            disk.rename_noreplace(self._private, self._pool, name.encode(), self._pool)
            self._note(name, entry, os.fstat(target))

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

    def _note(self, name: str, entry: Entry, status: os.stat_result) -> None:
        self.staged.append(
            StagedCarrier(
                name,
                bytes.fromhex(entry.digest),
                carrier_mode(entry.mode),
                status.st_ino,
                status.st_size,
                status.st_mtime_ns,
                status.st_ctime_ns,
                disk.allocated(status),
            )
        )


def facts(status: os.stat_result) -> tuple[int, int, int]:
    """Return what writing to an inode, or changing its mode, changes."""
    return status.st_mtime_ns, status.st_size, status.st_mode


def _lstat(name: str, at: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=at, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _write_and_read_back(file: OpenFile, target: int, entry: Entry) -> None:
    """Copy, then compare what the copy holds with the digest of what was read."""
    is_sparse = disk.allocated(file.before) < entry.size
    if file.content is not None and not is_sparse:
        disk.write_all(target, file.content)
        good = os.pread(target, len(file.content) + 1, 0) == file.content
    else:
        disk.copy_bytes(file.fd, target, entry.size)
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
