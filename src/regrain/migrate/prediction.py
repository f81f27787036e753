"""What each way of migrating would save and take, from a sample's figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from regrain.migrate.plan import FIXED_BYTES, FIXED_INODES, INODES_A_PACKAGE
from regrain.migrate.strata import Guess

if TYPE_CHECKING:
    from collections.abc import Iterable

    from regrain.migrate.strata import Kept
    from regrain.store.scan import Usage

WANTED_SHARE = 0.6
"""What a choice has to save for ``plan`` to say that it reaches it."""

_HEADER, _FILE, _DIRECTORY, _SYMLINK = 250, 180, 100, 125
"""Bytes in ``files.json``, without the path."""
_LIST_MARGIN = 0.1
_LEDGER_BYTES_A_FILE = 60
"""Measured on the wheels: 54."""

_BLOCK = 4096
_HANDLING = 1.2
"""What a migration does with files that are linked, to what looking at their names, reading and
hashing them takes: measured on 60 wheels and on a million small files."""
_PACKINGS = 3.0
"""What is compressed is read back, unpacked and hashed."""
_TIMES_OFF = 1.4
"""So many times shorter or longer it may last: so much do two measurements of one thing differ
from one minute to the next on a machine that others use. At the least all workers have a processor
of their own; at the most others leave them one together."""
_START_SECONDS = 1.0

_CARRIER_SECONDS = 0.0001, 0.001
_WRITE_RATE = 500e6, 50e6
"""Making a file, and bytes a second, on a fast disk and on a slow one. Which one it is cannot be
told without writing."""


class Choice(NamedTuple):
    """One way of migrating.

    Attributes:
        ingest: How bytes are brought in.
        compression: Of objects.
        is_possible: Whether the file system can.
        saved: Bytes that are saved once legacy directories are gone, as ``status`` counts them:
            file lists count, the ledger does not.
        share: ``saved`` less what ledger and directories take, of what there is now.
        peak_bytes: Most bytes needed beside the legacy directories.
        peak_inodes: Likewise inodes.
        seconds: How long ``migrate`` takes, from and to.
        fits: Whether there is room for it.
    """

    ingest: str
    compression: str
    is_possible: bool
    saved: Guess
    share: Guess
    peak_bytes: int
    peak_inodes: int
    seconds: tuple[float, float]
    fits: bool

    @property
    def reaches(self) -> str:
        """Whether it saves 60 %: yes, no, or perhaps, as the margin leaves open."""
        low, high = self.share.value - self.share.margin, self.share.value + self.share.margin
        return "yes" if low >= WANTED_SHARE else "perhaps" if high >= WANTED_SHARE else "no"


class Room(NamedTuple):
    """What there is: free bytes, and free inodes, None where there is no limit."""

    size: int
    inodes: int | None


class Subject(NamedTuple):
    """What is to be migrated.

    Attributes:
        usages: All packages, measured closely.
        copies: What copies of manifests and bills of materials for people take.
        kept: What a sample says of their objects.
        walking: How many seconds it took to look at all names.
        jobs: Worker processes.
        can_reflink: Whether the file system shares extents.
        link_outside: Whether inodes with names elsewhere may be linked.
        room: What may be used.
    """

    usages: list[Usage]
    copies: int
    kept: Kept
    walking: float
    jobs: int
    can_reflink: bool
    link_outside: bool
    room: Room


def lists(usages: Iterable[Usage], copies: int) -> Guess:
    """Return what directories in ``packages/`` take: file lists and copies for people."""
    total = copies
    for one in usages:
        size = _HEADER + one.files * _FILE + one.directories * _DIRECTORY
        size += one.symlinks * _SYMLINK + one.path_bytes
        total += -(-size // _BLOCK) * _BLOCK + _BLOCK
    return Guess(float(total), total * _LIST_MARGIN)


def choices(subject: Subject) -> list[Choice]:
    """Say what every way of migrating would save and take."""
    return [
        _choice(subject, ingest, compression)
        for ingest in ("reflink", "hardlink", "copy")
        for compression in ("none", "zstd")
    ]


def _choice(subject: Subject, ingest: str, compression: str) -> Choice:
    usages, kept = subject.usages, subject.kept
    allocated = sum(one.allocated for one in usages)
    files = sum(one.files for one in usages)
    is_packed = compression == "zstd"
    books = FIXED_BYTES // 2 + files * _LEDGER_BYTES_A_FILE
    objects, listed = (
        kept.packed if is_packed else kept.plain,
        lists(usages, subject.copies),
    )
    saved = Guess(allocated - objects.value - listed.value, objects.margin + listed.margin)
    whole = allocated or 1
    share = Guess((saved.value - books) / whole, saved.margin / whole)
    peak_bytes, peak_inodes = _peak(subject, ingest, objects, is_packed=is_packed)
    room = subject.room
    fits = peak_bytes <= room.size and (room.inodes is None or peak_inodes <= room.inodes)
    return Choice(
        ingest,
        compression,
        ingest != "reflink" or subject.can_reflink,
        saved,
        share,
        peak_bytes,
        peak_inodes,
        _seconds(subject, objects, is_packed=is_packed, is_written=is_packed or ingest == "copy"),
        fits,
    )


def _seconds(
    subject: Subject, objects: Guess, *, is_packed: bool, is_written: bool
) -> tuple[float, float]:
    """Return how long ``migrate`` takes, from and to, by what was timed just now."""
    work = _HANDLING * (subject.walking + subject.kept.reading)
    if is_packed:
        work += _PACKINGS * subject.kept.packing
    low, high = work / subject.jobs / _TIMES_OFF, work * _TIMES_OFF
    if is_written:
        carriers = subject.kept.carriers
        low += carriers.low * _CARRIER_SECONDS[0] / subject.jobs + objects.low / _WRITE_RATE[0]
        high += carriers.high * _CARRIER_SECONDS[1] / subject.jobs + objects.high / _WRITE_RATE[1]
    return low, _START_SECONDS + high


def _peak(subject: Subject, ingest: str, objects: Guess, *, is_packed: bool) -> tuple[int, int]:
    """Return the most bytes and inodes that are needed while both layouts exist."""
    usages = subject.usages
    size = FIXED_BYTES + sum(one.list_bytes + one.ledger_bytes for one in usages)
    inodes = FIXED_INODES + INODES_A_PACKAGE * len(usages)
    carriers = int(subject.kept.carriers.high) + 1
    if is_packed or ingest == "copy":
        return size + int(objects.high), inodes + carriers
    if ingest == "reflink":
        return size, inodes + carriers
    for one in usages:
        outside = 0 if subject.link_outside else one.linked_outside
        size += one.copied_bytes + (one.allocated if outside else 0)
        inodes += one.copied_files + outside
    return size, inodes
