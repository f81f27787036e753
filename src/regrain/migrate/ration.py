"""What a run may still take of a disk that is nearly full: packages are claimed as they fit.

Every package in hand is counted with the most it can take until it is published: copies, file
lists, rows of the ledger, inodes. What its legacy directory gives back counts only once it is
gone, so a batch never rests on space that is not there yet.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from regrain import disk
from regrain.errors import NoSpaceError, PackageError
from regrain.migrate.jobs import Ingest, Options
from regrain.migrate.pace import Demand
from regrain.migrate.plan import INODES_A_PACKAGE
from regrain.model.clock import monotonic
from regrain.model.entry import Entry, Kind
from regrain.model.layout import carrier_mode, compressed_carrier, further_carrier
from regrain.store.checkout import LABELS
from regrain.store.cursor import Cursor
from regrain.store.legacy import listing
from regrain.store.objects import hash_fd, object_path
from regrain.store.scan import Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from regrain.ledger import Claim, Ledger
    from regrain.migrate.room import Floors
    from regrain.store.root import StoreRoot

_PATH_BYTES = 128
"""What a path is taken to be long before its package was looked into."""


class Need(NamedTuple):
    """What a package takes on disk, at the most, until it is published."""

    size: int
    inodes: int

    def __str__(self) -> str:
        """Say it in words."""
        return f"{max(0, self.size)} bytes and {max(0, self.inodes)} inodes"


class Ration:
    """Shares out what is free.

    Args:
        root: The store.
        options: How packages are brought in.
        floors: What is to be left free.
        wait: Seconds for which to wait for space where nothing fits.
        clock: What time it is.

    Attributes:
        is_short: Whether nothing is in hand, and none of the packages that are left fits.
    """

    def __init__(
        self,
        root: StoreRoot,
        options: Options,
        floors: Floors,
        wait: float,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._root = root
        self._options = options
        self._floors = floors
        self._wait = wait
        self._clock = clock
        self._needs: dict[str, Need] = {}
        self._refused: dict[str, Claim] = {}
        self._since = 0.0
        self.is_short = False

    def claim(
        self,
        ledger: Ledger,
        count: int,
        *,
        only: str | None,
        files_max: int,
        in_hand: Collection[str],
    ) -> list[Claim]:
        """Claim packages that fit beside those in hand; the smallest first, as without a limit.

        Where none fits and none is in hand, whose end would make room, those that were taken
        for too large are looked into.
        """

        def claim() -> list[Claim]:
            self._refused.clear()
            fits = self._fits(in_hand)
            return ledger.claim(count, only=only, files_max=files_max, fits=fits)

        claims = claim()
        if claims or in_hand or not self._refused:
            return claims
        disk.syncfs(self._root.fd)  # what was unlinked is not always free before that
        claims = claim() or (claim() if self._look_into_refused() else [])
        self.is_short = bool(self._refused) and not claims
        self._since = self._clock()
        return claims

    def demand(self) -> Demand | None:
        """Hold the run while nothing fits: as a ``Brake``.

        Raises:
            NoSpaceError: It waited long enough.
        """
        if not self.is_short:
            return None
        least = min(self._refused, key=self._needs.__getitem__)
        need, free = self._needs[least], self._free()
        if min(_less(free, need)) >= 0:
            self.is_short = False
            return None
        words = (
            f"package {least} takes up to {need} until its legacy directory can go; {free} can be "
            f"used, with {Need(*self._floors)} to be left free; {len(self._refused)} packages wait"
        )
        if self._clock() - self._since < self._wait:
            return Demand(words)
        raise NoSpaceError(
            "too little space to migrate in place",
            path=self._root.path,
            why=f"{words}; it waited {self._wait:g} s",
            advice="Free some, or lower [migration] free_bytes_min and free_inodes_min; then run "
            "'regrain migrate --delete-legacy' again; it goes on.",
        )

    def _fits(self, in_hand: Collection[str]) -> Callable[[Claim], bool]:
        """Return what takes packages one after the other, as long as there is room for them."""
        left = self._free()
        for name in in_hand:
            left = _less(left, self._needs[name])

        def fits(claim: Claim) -> bool:
            nonlocal left
            name = claim.package_hash
            rest = _less(left, self._needs.setdefault(name, self._worst(claim)))
            if min(rest) < 0:
                self._refused[name] = claim
                return False
            left = rest
            return True

        return fits

    def _free(self) -> Need:
        """Return what may be used."""
        space = os.fstatvfs(self._root.fd)
        size = space.f_bavail * space.f_frsize - self._floors.size
        # Where inodes are made as they are needed, they are no limit.
        inodes = space.f_favail - self._floors.inodes if space.f_files else 1 << 62
        return Need(size, inodes)

    def _worst(self, claim: Claim) -> Need:
        """Return what a package takes if nothing of it can be linked, or is there already."""
        usage = Usage(claim.package_hash, files=claim.files)
        usage.directories = max(1, claim.inodes - claim.files)
        usage.path_bytes = (usage.files + usage.directories) * _PATH_BYTES
        return self._total(usage, claim.allocated, claim.files)

    def _total(self, usage: Usage, copied: int, copies: int) -> Need:
        ingest = self._options.ingest
        reflinks = ingest is Ingest.REFLINK or (ingest is Ingest.AUTO and self._options.can_reflink)
        if reflinks and not self._packs:
            copied = 0
        elif ingest is Ingest.HARDLINK and not self._packs:
            copied = copies = 0
        return Need(copied + usage.list_bytes + usage.ledger_bytes, copies + INODES_A_PACKAGE)

    def _look_into_refused(self) -> bool:
        """Read packages that seemed too large until one fits; False if none does."""
        for claim in self._refused.values():
            self._needs[claim.package_hash] = self._exactly(claim)
            if min(_less(self._free(), self._needs[claim.package_hash])) >= 0:
                return True
        return False

    def _exactly(self, claim: Claim) -> Need:
        """Return what a package takes, linked files and bytes that are there already left out."""
        usage = Usage(claim.package_hash)
        copied = copies = 0
        seen: set[str] = set()
        try:
            with (
                disk.Closing(disk.open_directory(claim.package_hash, self._root.fd)) as top,
                Cursor(top) as cursor,
            ):
                for entry, status in listing(top):
                    usage.path_bytes += len(entry.path)
                    usage.files += entry.kind is Kind.FILE
                    usage.directories += entry.kind is not Kind.FILE
                    if self._is_copied(entry, status) and self._is_new(cursor, entry, seen):
                        copied += disk.allocated(status)
                        copies += 1
        except (PackageError, OSError):  # bringing it in meets it again, and says so
            return self._worst(claim)
        return self._total(usage, copied, copies)

    @property
    def _packs(self) -> bool:
        """Tell whether what compresses is written anew, though it could be shared."""
        return self._options.compression is not None

    def _is_copied(self, entry: Entry, status: os.stat_result) -> bool:
        """Tell whether a file cannot be linked; of several names inside one counts."""
        if entry.kind is not Kind.FILE or not entry.size or entry.hardlink is not None:
            return False
        options = self._options
        may_link = options.can_link and options.ingest in {Ingest.AUTO, Ingest.HARDLINK}
        may_link = may_link and not self._packs
        return (
            not may_link
            or entry.mode != carrier_mode(entry.mode)
            or (entry.uid, entry.gid) != tuple(self._root.owner)
            or not all(name.startswith(LABELS) for name in entry.xattrs or {})
            or (status.st_nlink > 1 and not options.link_outside)
        )

    def _is_new(self, cursor: Cursor, entry: Entry, seen: set[str]) -> bool:
        """Tell whether a file needs a carrier that neither the store nor the package has."""
        parent, _, name = entry.path.rpartition(b"/")
        with disk.Closing(disk.open_file(name, cursor.at(parent))) as fd:
            digest = hash_fd(fd)[0]
        mode = carrier_mode(entry.mode)
        wanted = further_carrier(digest, mode)
        if wanted in seen:
            return False
        seen.add(wanted)
        return not (
            self._has(digest, mode)
            or self._has(wanted, mode)
            or self._has(compressed_carrier(digest), mode)
        )

    def _has(self, name: str, mode: int) -> bool:
        try:
            status = os.stat(object_path(name), dir_fd=self._root.objects, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return stat.S_IMODE(status.st_mode) == mode


def _less(left: Need, need: Need) -> Need:
    return Need(left.size - need.size, left.inodes - need.inodes)
