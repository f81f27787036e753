"""Hand out carriers as they are: hard links of objects, for shared checkouts."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from regrain import disk
from regrain.errors import CorruptionError
from regrain.model.layout import carrier_mode, further_carrier
from regrain.model.phase import Layout
from regrain.store.dress import LABELS
from regrain.store.objects import hash_fd, object_path

if TYPE_CHECKING:
    from collections.abc import Iterable

    from regrain.model.entry import Entry
    from regrain.store.root import StoreRoot
    from regrain.store.source import PackageSource

LINK_IMPOSSIBLE = frozenset({errno.EMLINK, errno.EXDEV, errno.EPERM})
"""What linking answers where a copy must do."""

_ONLY_ITS_OWN = 1
_NAMES_MAX = 30_000
"""A carrier with more names is not linked again: a group of names may have to follow."""


class Facts(NamedTuple):
    """What tells an inode from another, and what writing to it changes."""

    device: int
    inode: int
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int


class Share:
    """Links carriers out of the store for one package, each checked before.

    Readers open no ledger, so what they have of a carrier is the record in the file list. It
    is trusted unread if its modification time is the one that its file has there; else it is
    another package's, or was written to since, and is hashed.

    Args:
        root: The store.
        source: The package; one that is not published has no carriers to link.
    """

    def __init__(self, root: StoreRoot, source: PackageSource) -> None:
        self._objects = root.objects
        self._owner = root.owner
        self._package = source.hash
        self._possible = source.layout is Layout.FILE_LEVEL

    def link(self, entry: Entry, name: bytes, at: int) -> bool:
        """Give a carrier of a file the name ``name`` in the open directory ``at``.

        Returns:
            False where the file needs an inode of its own, or the system does not link.

        Raises:
            CorruptionError: The carrier does not hold the bytes of its name.
        """
        if not self._possible or not self._is_plain(entry):
            return False
        try:
            found = self._find(entry)
        except OSError:  # if it matters, making a copy meets it again and says so
            return False
        return found is not None and self._hand_out(*found, name, at)

    def _is_plain(self, entry: Entry) -> bool:
        """Tell whether a file has nothing that a carrier cannot have."""
        return (
            entry.size > 0
            and entry.mode == carrier_mode(entry.mode)
            and (entry.uid, entry.gid) == self._owner
            and _only_labels(entry.xattrs or ())
        )

    def _find(self, entry: Entry) -> tuple[bytes, Facts] | None:
        """Return where a good carrier with the metadata of a file lies, and its facts."""
        for carrier in (entry.digest, further_carrier(entry.digest, entry.mode)):
            path = object_path(carrier).encode()
            try:
                facts = _facts(path, self._objects)
            except FileNotFoundError:
                continue
            if self._has_metadata_of(entry, path, facts):
                return (path, facts) if self._is_good(entry, path, facts) else None
        return None

    def _has_metadata_of(self, entry: Entry, path: bytes, facts: Facts) -> bool:
        return (
            facts.mode == stat.S_IFREG | entry.mode
            and (facts.uid, facts.gid) == (entry.uid, entry.gid)
            and _only_labels(disk.read_xattrs(b"/proc/self/fd/%d/%b" % (self._objects, path)) or ())
        )

    def _is_good(self, entry: Entry, path: bytes, facts: Facts) -> bool:
        """Check the bytes; False if the carrier changes at this moment."""
        if facts.size != entry.size:
            why = f"has {facts.size} bytes instead of {entry.size}"
            raise self._damaged(entry, path, why)
        if facts.mtime_ns == entry.mtime_ns:
            return True
        with disk.Closing(disk.open_file(path, self._objects)) as fd:
            digest, _ = hash_fd(fd)
            if digest != entry.digest:
                raise self._damaged(entry, path, f"hashes to {digest}")
            return facts_of(os.fstat(fd)) == facts

    def _hand_out(self, path: bytes, facts: Facts, name: bytes, at: int) -> bool:
        """Link; what got the name must be what was checked."""
        try:
            disk.link(path, self._objects, name, at)
        except FileNotFoundError:  # collected meanwhile
            return False
        except OSError as error:
            if error.errno not in LINK_IMPOSSIBLE:
                raise
            self._possible = error.errno != errno.EXDEV
            return False
        if _facts(name, at) == facts:
            return True
        disk.unlink(name, at)
        return False

    def _damaged(self, entry: Entry, path: bytes, why: str) -> CorruptionError:
        return CorruptionError(
            "an object does not hold the bytes of its name",
            path=entry.path,
            package=self._package,
            why=f"objects/{path.decode()} {why}",
            advice="Run 'regrain verify' to find what else is damaged.",
        )


class ExactShare(Share):
    """Links carriers into a tree that must equal its file list in everything, times included.

    A carrier that has another name already, in a legacy directory or anywhere else, is left
    alone, as it would be on the way in: a tree shares no inode with what is outside it, and
    its files share inodes only where its list says so.

    Args:
        root: The store.
        source: A published package.
        link_outside: Whether carriers may have names elsewhere; once a package, then.
    """

    def __init__(self, root: StoreRoot, source: PackageSource, *, link_outside: bool) -> None:
        super().__init__(root, source)
        self._link_outside = link_outside
        self._used: set[int] = set()

    def candidate(self, entry: Entry) -> int | None:
        """Return the inode of the carrier that could be linked for a file, unread."""
        if not self._possible or not self._is_plain(entry) or entry.hardlink is not None:
            return None
        for carrier in (entry.digest, further_carrier(entry.digest, entry.mode)):
            path = object_path(carrier).encode()
            try:
                facts = _facts(path, self._objects)
                if self._has_metadata_of(entry, path, facts) and facts.size == entry.size:
                    return facts.inode
            except OSError:
                continue
        return None

    def _has_metadata_of(self, entry: Entry, path: bytes, facts: Facts) -> bool:
        return (
            facts.mtime_ns == entry.mtime_ns
            and facts.inode not in self._used
            and super()._has_metadata_of(entry, path, facts)
            and self._is_free(path)
        )

    def _is_free(self, path: bytes) -> bool:
        status = os.stat(path, dir_fd=self._objects, follow_symlinks=False)
        return status.st_nlink < (_NAMES_MAX if self._link_outside else _ONLY_ITS_OWN + 1)

    def _is_good(self, entry: Entry, path: bytes, facts: Facts) -> bool:
        with disk.Closing(disk.open_file(path, self._objects)) as fd:
            digest, _ = hash_fd(fd)
            if digest != entry.digest:
                raise self._damaged(entry, path, f"hashes to {digest}")
            is_still = facts_of(os.fstat(fd)) == facts
        if is_still:
            self._used.add(facts.inode)
        return is_still


def _only_labels(names: Iterable[bytes]) -> bool:
    return all(name.startswith(LABELS) for name in names)


def _facts(name: bytes, at: int) -> Facts:
    return facts_of(os.stat(name, dir_fd=at, follow_symlinks=False))


def facts_of(status: os.stat_result) -> Facts:
    """Return what tells a carrier from another; it may get and lose names outside."""
    return Facts(
        status.st_dev,
        status.st_ino,
        status.st_mode,
        status.st_uid,
        status.st_gid,
        status.st_size,
        status.st_mtime_ns,
    )
