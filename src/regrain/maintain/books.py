"""Compare the ledger with the disk, which is the truth.

Between a rename and the row that follows it the two part for a moment, so what does not
agree is looked at again while nobody writes.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from regrain import disk
from regrain.errors import CorruptionError, LockedError, UnknownFormatError
from regrain.ledger import open_ledger
from regrain.model import layout
from regrain.model.digest import is_package_hash
from regrain.model.status import Status
from regrain.store.locks import StoreLock, dead_runs
from regrain.store.objects import Carrier, carriers_in
from regrain.store.packages import FileLevelPackage, published

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regrain.ledger import Ledger
    from regrain.store.root import StoreRoot


@dataclass(slots=True)
class Books:
    """Where ledger and disk part.

    Attributes:
        unpublished: Packages the ledger calls completed that are not there: a loss.
        changed_lists: Published packages whose file list is not the one recorded: damage.
        unrecorded: Published packages the ledger does not know.
        unknown_carriers: Carriers on disk without a row: orphans of a run that was killed.
        missing_carriers: Rows whose carrier is not there.
        leftovers: Names in ``temp/`` and ``trash/``.
        quarantined: Names in ``quarantine/``.
        resized: Carriers whose size is not the one recorded.
        touched: Other carriers whose modification time is not the one recorded.
    """

    unpublished: list[str] = field(default_factory=list)
    changed_lists: list[str] = field(default_factory=list)
    unrecorded: list[str] = field(default_factory=list)
    unknown_carriers: list[str] = field(default_factory=list)
    missing_carriers: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    quarantined: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    touched: list[str] = field(default_factory=list)

    @property
    def disagree(self) -> bool:
        """Whether ledger and disk part anywhere; a writer at work may be the reason."""
        return any(self._parted)

    @property
    def _parted(self) -> tuple[list[str], ...]:
        return (
            self.unpublished,
            self.changed_lists,
            self.unrecorded,
            self.unknown_carriers,
            self.missing_carriers,
        )

    @property
    def shards(self) -> list[str]:
        """The shards of ``objects/`` where they part."""
        return sorted({name[:2] for name in self.unknown_carriers + self.missing_carriers})

    def common(self, before: Books) -> Books:
        """Return this look, without disagreements that an earlier look did not find.

        Which carriers changed is what the earlier one found, since it looked at them all.
        """
        both = [
            sorted(set(now) & set(then))
            for now, then in zip(self._parted, before._parted, strict=True)
        ]
        stays = [self.leftovers, self.quarantined, before.resized, before.touched]
        return Books(*[*both, *stays])


@contextlib.contextmanager
def alone(root: StoreRoot) -> Iterator[None]:
    """Keep writers out, where this user may and they pause in time; else look beside them."""
    with contextlib.ExitStack() as stack:
        if os.geteuid() in (0, root.owner.uid):
            with contextlib.suppress(LockedError):
                stack.enter_context(StoreLock(root, exclusive=True))
        yield


def compare_books(root: StoreRoot) -> Books:
    """Compare ledger and disk; only what does not agree twice, the second time alone, counts.

    Raises:
        CorruptionError: The ledger cannot be used.
    """
    with contextlib.closing(open_ledger(root.path, read_only=True)) as ledger:
        books = check_books(root, ledger)
    if not books.disagree:
        return books
    with alone(root), contextlib.closing(open_ledger(root.path, read_only=True)) as ledger:
        return check_books(root, ledger, among=books)


def check_books(root: StoreRoot, ledger: Ledger, *, among: Books | None = None) -> Books:
    """Compare every package and carrier on disk with its row; change nothing.

    Args:
        root: The store.
        ledger: Its ledger.
        among: Look at nothing but what these name.
    """
    there = {name for name in published(root.packages) if is_package_hash(name)}
    recorded = ledger.recorded_packages()
    completed = {row.package_hash for row in ledger.package_rows(Status.COMPLETED)}
    both = there & recorded.keys()
    if among is not None:
        both &= set(among.changed_lists)
    books = Books(
        unpublished=sorted((recorded.keys() | completed) - there),
        unrecorded=sorted(there - recorded.keys()),
        changed_lists=sorted(name for name in both if _list_hash(root, name) != recorded[name]),
        leftovers=[
            *(f"{layout.TEMP}/{name}" for name in dead_runs(root)),
            *(f"{layout.TRASH}/{name}" for name in _names(root, layout.TRASH)),
        ],
        quarantined=_names(root, layout.QUARANTINE),
    )
    for shard in layout.SHARDS if among is None else among.shards:
        known = ledger.carriers_in(shard)
        found = {carrier.key: carrier for carrier in carriers_in(root.objects, shard)}
        books.unknown_carriers += sorted(found[key].name for key in found.keys() - known.keys())
        books.missing_carriers += sorted(
            _name(digest.hex(), mode, is_compressed)
            for digest, mode, is_compressed in known.keys() - found.keys()
        )
        for key in sorted(found.keys() & known.keys()):
            _compare_facts(found[key], known[key], books)
    return books if among is None else books.common(among)


def _compare_facts(carrier: Carrier, recorded: tuple[int, int], books: Books) -> None:
    """Note a carrier that is not what it was when it was recorded, by size or time."""
    size, mtime_ns = recorded
    # The size of a compressed one is another, as it should be.
    if not carrier.is_compressed and carrier.status.st_size != size:
        books.resized.append(carrier.name)
    elif carrier.status.st_mtime_ns != mtime_ns:
        books.touched.append(carrier.name)


def _name(digest: str, mode: int, is_compressed: bool) -> str:  # noqa: FBT001 -- as rows have it
    if is_compressed:
        return layout.compressed_carrier(digest)
    return layout.further_carrier(digest, mode)


def _list_hash(root: StoreRoot, package_hash: str) -> str:
    try:
        return FileLevelPackage(root.packages, root.objects, package_hash).list_hash()
    except (CorruptionError, UnknownFormatError, OSError):
        return ""  # it is damaged beyond comparing; the audit says how


def _names(root: StoreRoot, place: str) -> list[str]:
    with disk.Closing(disk.open_directory(place, root.fd)) as fd:
        return sorted(os.listdir(fd))
