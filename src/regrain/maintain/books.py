"""Compare the ledger with the disk, which is the truth."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from regrain import disk
from regrain.errors import CorruptionError, UnknownFormatError
from regrain.model import layout
from regrain.model.digest import is_package_hash
from regrain.model.status import Status
from regrain.store.locks import dead_runs
from regrain.store.objects import carriers_in
from regrain.store.packages import FileLevelPackage, published

if TYPE_CHECKING:
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
    """

    unpublished: list[str] = field(default_factory=list)
    changed_lists: list[str] = field(default_factory=list)
    unrecorded: list[str] = field(default_factory=list)
    unknown_carriers: list[str] = field(default_factory=list)
    missing_carriers: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    quarantined: list[str] = field(default_factory=list)

    @property
    def disagree(self) -> bool:
        """Whether ledger and disk part anywhere; a writer at work may be the reason."""
        return any(
            (
                self.unpublished,
                self.changed_lists,
                self.unrecorded,
                self.unknown_carriers,
                self.missing_carriers,
            )
        )


def check_books(root: StoreRoot, ledger: Ledger) -> Books:
    """Compare every package and carrier on disk with its row; change nothing."""
    there = {name for name in published(root.packages) if is_package_hash(name)}
    recorded = ledger.recorded_packages()
    completed = {row.package_hash for row in ledger.package_rows(Status.COMPLETED)}
    books = Books(
        unpublished=sorted((recorded.keys() | completed) - there),
        unrecorded=sorted(there - recorded.keys()),
        changed_lists=sorted(
            name for name in there & recorded.keys() if _list_hash(root, name) != recorded[name]
        ),
        leftovers=[
            *(f"{layout.TEMP}/{name}" for name in dead_runs(root)),
            *(f"{layout.TRASH}/{name}" for name in _names(root, layout.TRASH)),
        ],
        quarantined=_names(root, layout.QUARANTINE),
    )
    for shard in layout.SHARDS:
        known = ledger.carriers_in(shard)
        found = {
            (bytes.fromhex(carrier.digest), stat.S_IMODE(carrier.status.st_mode)): carrier.name
            for carrier in carriers_in(root.objects, shard)
        }
        books.unknown_carriers += sorted(found[key] for key in found.keys() - known)
        books.missing_carriers += sorted(
            layout.further_carrier(digest.hex(), mode) for digest, mode in known - found.keys()
        )
    return books


def _list_hash(root: StoreRoot, package_hash: str) -> str:
    try:
        return FileLevelPackage(root.packages, root.objects, package_hash).list_hash()
    except (CorruptionError, UnknownFormatError, OSError):
        return ""  # it is damaged beyond comparing; the audit says how


def _names(root: StoreRoot, place: str) -> list[str]:
    with disk.Closing(disk.open_directory(place, root.fd)) as fd:
        return sorted(os.listdir(fd))
