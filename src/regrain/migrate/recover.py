"""Clean up after a run that was killed: the crash table, from the disk's point of view."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from typing import TYPE_CHECKING

from regrain import disk
from regrain.errors import CorruptionError, UnknownFormatError
from regrain.ledger import NewCarrier, Outcome
from regrain.migrate.disk_errors import flush_error
from regrain.model import layout
from regrain.model.entry import Kind
from regrain.model.events import Recovered
from regrain.store.frames import FrameError
from regrain.store.locks import empty_dead_runs, forget_dead_runs, publish_lock
from regrain.store.objects import (
    Carrier,
    carrier_flaw,
    carriers_in,
    carriers_of,
    hash_carrier,
    object_path,
    size_of,
)
from regrain.store.packages import FileLevelPackage, is_published
from regrain.store.quarantine import quarantine

if TYPE_CHECKING:
    from regrain.ledger import Claim, Ledger
    from regrain.store.root import StoreRoot


def recover(root: StoreRoot, ledger: Ledger, *, verified: bool) -> Recovered | None:
    """Bring disk and ledger together again; None where the last run ended well.

    Temporary directories of dead runs are emptied, which makes room. Objects no row names
    are hashed: good ones are recorded, others moved to quarantine. A claimed package that was
    published is checked and recorded; one that was not goes back to pending. The directories
    go last, since where nothing is claimed they alone tell that there is something to do.
    Doing it twice changes nothing.

    Args:
        root: The store.
        ledger: Its ledger.
        verified: Whether runs compare packages with their source before publishing.
    """
    claims = ledger.in_progress()
    dead = empty_dead_runs(root)
    if not claims and not dead:
        return None
    adopted, damaged = adopt_strangers(root, ledger)
    proven, completed = len(adopted), 0
    recorded = ledger.recorded_packages() if claims else {}
    for claim in claims:
        with publish_lock(root):  # nobody removes it meanwhile
            is_there = is_published(root.packages, claim.package_hash)
            is_there = is_there and not _is_old(root, claim, recorded)
            if is_there and ledger.still_claimed([claim.package_hash]):
                outcome = _check(root, claim, adopted, verified=verified)
                if outcome is not None:
                    ledger.record([outcome], [])
                    completed += 1
                    continue
                quarantine(root.fd, layout.PACKAGES, claim.package_hash)
                damaged += 1
            ledger.give_up([claim.package_hash])
    found = Recovered(len(dead), completed, len(claims) - completed, proven, damaged)
    ledger.remember("recovered", detail=repr(found))
    forget_dead_runs(root, dead)
    return found


def _is_old(root: StoreRoot, claim: Claim, recorded: dict[str, str]) -> bool:
    """Tell whether what is published is what the package was claimed anew to replace."""
    try:
        package = FileLevelPackage(root.packages, root.objects, claim.package_hash)
        return package.list_hash() == recorded.get(claim.package_hash)
    except (CorruptionError, UnknownFormatError):
        return False


def adopt_strangers(root: StoreRoot, ledger: Ledger) -> tuple[dict[bytes, int], int]:
    """Record good objects without a row; return their bytes on disk, and how many were bad.

    Everything is flushed first: whoever gave them their names did not come to it, perhaps.
    """
    try:
        disk.syncfs(root.fd)
    except OSError as error:
        raise flush_error("what a run left", error) from error
    adopted: dict[bytes, int] = {}
    bad = 0
    for shard in layout.SHARDS:
        known = ledger.carriers_in(shard)
        strangers = [
            carrier for carrier in carriers_in(root.objects, shard) if carrier.key not in known
        ]
        rows = _proven(root, strangers)
        bad += len(strangers) - len(rows)
        if rows:
            ledger.record_objects(rows)
            for row in rows:
                adopted[row.digest] = adopted.get(row.digest, 0) + row.allocated
    return adopted, bad


def adopt(root: StoreRoot, ledger: Ledger, digests: list[bytes]) -> None:
    """Record objects that are on disk without a row, once their bytes are proven.

    Raises:
        CorruptionError: One of them is not what its name says, or is gone.
    """
    for digest in digests:
        rows = _proven(root, list(carriers_of(root.objects, digest.hex())))
        if not rows:
            raise CorruptionError(
                "an object is damaged; it was moved to quarantine",
                path=f"objects/{object_path(digest.hex())}",
                advice="Run 'regrain migrate' again: it brings the object in anew.",
            )
        ledger.record_objects(rows)


def _proven(root: StoreRoot, carriers: list[Carrier]) -> list[NewCarrier]:
    """Return rows for the carriers that hash to their names; quarantine the others."""
    rows = []
    for carrier in carriers:
        if carrier_flaw(carrier, root.owner) or not _hashes(root, carrier):
            quarantine(root.fd, layout.OBJECTS, object_path(carrier.name))
        else:
            rows.append(row_of(root, carrier))
    return rows


def row_of(root: StoreRoot, carrier: Carrier) -> NewCarrier:
    """Return what the ledger keeps of a carrier."""
    status = carrier.status
    return NewCarrier(
        bytes.fromhex(carrier.digest),
        stat.S_IMODE(status.st_mode),
        carrier.is_bare,
        status.st_mtime_ns,
        size_of(root.objects, carrier),
        disk.allocated(status),
        carrier.is_compressed,
    )


def _hashes(root: StoreRoot, carrier: Carrier) -> bool:
    try:
        return hash_carrier(root.objects, carrier)[0] == carrier.digest
    except FrameError:
        return False


def _check(
    root: StoreRoot, claim: Claim, adopted: dict[bytes, int], *, verified: bool
) -> Outcome | None:
    """Return what to record of a published package; None if it is not whole."""
    try:
        found, named = whole(root, claim, verified=verified)
    except (CorruptionError, UnknownFormatError):
        return None
    new = [adopted.pop(digest) for digest in found.digests if digest in adopted]
    return replace(
        found,
        added=sum(new) + _list_allocated(root, claim.package_hash),
        deduplicated=named - len(new),
    )


def whole(root: StoreRoot, claim: Claim, *, verified: bool) -> tuple[Outcome, int]:
    """Read the file list of a published package, and see that all its objects are there.

    Returns:
        What to record of it, as if nothing of it were new or shared; and how many of its files
        name an object.

    Raises:
        CorruptionError, UnknownFormatError: It is not whole.
    """
    digests: set[bytes] = set()
    files = size = named = 0
    package = FileLevelPackage(root.packages, root.objects, claim.package_hash)
    for entry in package.entries():
        if entry.kind is Kind.FILE:
            files, size = files + 1, size + entry.size
            if entry.size:
                os.close(package.open_stored(entry).fd)
                digests.add(bytes.fromhex(entry.digest))
                named += 1
    outcome = Outcome(
        claim,
        tree_hash=package.tree_hash,
        list_hash=package.list_hash(),
        digests=sorted(digests),
        files=files,
        size=size,
        added=0,
        deduplicated=0,
        verified=verified,
    )
    return outcome, named


def _list_allocated(root: StoreRoot, package_hash: str) -> int:
    with disk.Closing(disk.open_directory(package_hash, root.packages)) as fd:
        files = (os.stat(name, dir_fd=fd) for name in os.listdir(fd))
        return disk.allocated(os.fstat(fd)) + sum(disk.allocated(status) for status in files)
