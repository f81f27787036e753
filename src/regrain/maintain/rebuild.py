"""Write the ledger anew from what lies on disk, which is the truth.

What cannot be known from the disk: why packages failed (they are pending again), when and
how often things were done. The history, which packages are set aside, what was begun and
what stands against packages are taken over where the old ledger can still be read.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from regrain import disk
from regrain.errors import CorruptionError, UnknownFormatError, reason
from regrain.ledger import Claim, NewCarrier, Outcome, Scanned
from regrain.ledger.elsewhere import fresh_place, schema_of
from regrain.ledger.upkeep import new_ledger
from regrain.maintain.rebuild_files import (
    lies_there,
    mark_place,
    pieces_there,
    put_into_place,
    remembered,
    set_aside,
)
from regrain.model import layout
from regrain.model.digest import is_package_hash
from regrain.model.phase import Phase
from regrain.model.status import Status
from regrain.store.locks import RunDirectory
from regrain.store.objects import (
    Carrier,
    carrier_flaw,
    carriers_in,
    carriers_of,
    hash_carrier,
    size_of,
)
from regrain.store.packages import FileLevelPackage, published
from regrain.store.root import legacy_names
from regrain.store.scan import measure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from regrain.ledger.rebuilding import NewLedger
    from regrain.maintain.rebuild_files import Remembered
    from regrain.store.root import StoreRoot
    from regrain.store.scan import Usage

_NANOSECONDS = 10**9


class Problem(NamedTuple):
    """Something on disk that could not be recorded as sound.

    Attributes:
        package_hash: The package concerned, empty for an object or a name.
        object: The carrier concerned, empty for a package.
        reason: What is wrong.
    """

    package_hash: str
    object: str
    reason: str


@dataclass(slots=True)
class Rebuilt:
    """What was recorded.

    Attributes:
        published: Packages of the file-level layout.
        completed: Those of them that have a legacy directory.
        pending: Packages that have to be migrated (again).
        carriers: Of objects.
        orphans: Objects no package names.
        history: Lines taken over from the old ledger.
        aside: Where the old ledger was moved to, names in ``quarantine/``.
        old_schema: The one it is in, if it was in a server, where it stays.
        lost: Why what only the old ledger knew could not be taken over, or not all of it; empty
            if it was.
        problems: What is broken on disk.
    """

    published: int = 0
    completed: int = 0
    pending: int = 0
    carriers: int = 0
    orphans: int = 0
    history: int = 0
    aside: list[str] = field(default_factory=list)
    old_schema: str = ""
    lost: str = ""
    problems: list[Problem] = field(default_factory=list)


def foresee(root: StoreRoot) -> Rebuilt:
    """Count what a rebuilding would find; look at no bytes, write nothing."""
    there = {name for name in published(root.packages) if is_package_hash(name)}
    legacy = set(legacy_names(root.fd)[0])
    carriers = sum(1 for shard in layout.SHARDS for _ in carriers_in(root.objects, shard))
    pieces = [f"{layout.LEDGER}{piece}" for piece in pieces_there(root)]
    return Rebuilt(
        len(there),
        len(there & legacy),
        len(legacy - there),
        carriers,
        aside=pieces,
        old_schema=schema_of(root.path) or "",
    )


def rebuild(root: StoreRoot, on_package: Callable[[Usage], None]) -> Rebuilt:
    """Replace the ledger by one made from the disk. The caller holds both locks.

    The new one is made in ``temp/``, complete and flushed, before the old one is moved to
    quarantine: killed anywhere, the old one is in place or there, and doing it again works.
    In a server it is made in a schema of its own, beside the old one's.

    Args:
        root: The store.
        on_package: Told each legacy package that was measured.

    Raises:
        RegrainError: The old one is not damaged and cannot be read, or the new one not be made.
    """
    done = Rebuilt(old_schema=schema_of(root.path) or "")
    server = fresh_place(root.path)
    if server is None and not lies_there(root, layout.LEDGER):
        done.aside = set_aside(root)  # what a killed rebuilding left beside a ledger it moved
    known = remembered(root)
    done.lost = known.lost
    with RunDirectory(root) as run:
        ledger = new_ledger(os.path.join(root.path, layout.TEMP, run.name, layout.LEDGER), server)
        try:
            _fill(root, ledger, known, done, on_package)
            ledger.finish()
        except BaseException:
            ledger.discard()
            raise
        finally:
            ledger.close()
        done.aside += put_into_place(root, run) if server is None else mark_place(root, server)
    return done


def _fill(
    root: StoreRoot,
    ledger: NewLedger,
    known: Remembered,
    done: Rebuilt,
    on_package: Callable[[Usage], None],
) -> None:
    ledger.add_history(known.history)
    done.history = len(known.history)
    for shard in layout.SHARDS:
        carriers = list(_usable(root, shard, done))
        ledger.add_carriers(carriers)
        done.carriers += len(carriers)
    legacy, _ = legacy_names(root.fd)
    ledger.queue(measured(root, legacy, on_package))
    settled = _Settled(legacy=set(legacy), phase=root.phase())
    for package in _packages(root, done):
        settled.publish(root, ledger, package, done)
    done.pending = len(legacy) - done.completed
    ledger.drop_objects(settled.damaged)
    ledger.take_over(known.excluded, known.intents, known.integrity)
    _look_at_orphans(root, ledger, done)
    ledger.mark_all_unreferenced()
    detail = f"{done.published} packages published, {done.pending} pending"
    ledger.remember("ledger_rebuilt", detail=detail)


def measured(
    root: StoreRoot, names: Iterable[str], on_package: Callable[[Usage], None]
) -> Iterator[Scanned]:
    """Yield what the ledger keeps of legacy packages."""
    for name in names:
        usage = measure(root.fd, name, root.owner)
        on_package(usage)
        yield Scanned(
            name,
            usage.name,
            usage.version,
            usage.files,
            usage.inodes,
            usage.size,
            usage.allocated,
            tuple(usage.cuts),
        )


# objects


def _usable(root: StoreRoot, shard: str, done: Rebuilt) -> Iterator[NewCarrier]:
    """Yield the carriers that could hold their bytes; report what is wrong with any.

    One with a wrong owner or mode is recorded: its bytes may be the last ones. Where the
    carriers of one object differ in size, their bytes decide.
    """
    sizes: dict[str, int] = {}
    for carrier in carriers_in(root.objects, shard):
        flaw = carrier_flaw(carrier, root.owner)
        if flaw:
            done.problems.append(Problem("", carrier.name, flaw))
        if not stat.S_ISREG(carrier.status.st_mode):
            continue
        size = size_of(root.objects, carrier)
        if size < 0:
            done.problems.append(Problem("", carrier.name, "its compressed data is broken"))
            continue
        if sizes.setdefault(carrier.digest, size) != size and not _hashes(root, carrier):
            done.problems.append(Problem("", carrier.name, "its bytes are not those of its name"))
            continue
        yield _row(carrier, size)


def _row(carrier: Carrier, size: int) -> NewCarrier:
    status = carrier.status
    return NewCarrier(
        bytes.fromhex(carrier.digest),
        carrier.mode,
        carrier.is_bare,
        status.st_mtime_ns,
        size,
        disk.allocated(status),
        carrier.is_compressed,
    )


def _hashes(root: StoreRoot, carrier: Carrier) -> bool:
    try:
        return hash_carrier(root.objects, carrier)[0] == carrier.digest
    except OSError:
        return False


def _is_sound(root: StoreRoot, digest: bytes) -> bool:
    """Tell whether the bytes of an object are those of its name, in every carrier."""
    carriers = list(carriers_of(root.objects, digest.hex()))
    return bool(carriers) and all(_hashes(root, carrier) for carrier in carriers)


def _look_at_orphans(root: StoreRoot, ledger: NewLedger, done: Rebuilt) -> None:
    """Hash what no list names: nothing else vouches for it, and a run was perhaps cut off."""
    orphans = ledger.without_owner()
    bad = [digest for digest in orphans if not _is_sound(root, digest)]
    ledger.drop_objects(bad)
    done.orphans = len(orphans) - len(bad)
    done.problems += [
        Problem("", digest.hex(), "its bytes are not those of its name, and no package names it")
        for digest in bad
    ]


# packages


@dataclass(frozen=True, slots=True)
class _Package:
    """A published package, as its directory and file list say."""

    package_hash: str
    tree_hash: str
    list_hash: str
    sizes: dict[bytes, int]
    files: int
    size: int
    named: int
    allocated: int
    published_at: int


def _packages(root: StoreRoot, done: Rebuilt) -> Iterator[_Package]:
    """Yield the packages whose list can be read, the oldest list first."""
    aged = []
    for name in published(root.packages):
        if is_package_hash(name):
            aged.append((_list_time(root, name), name))
        else:
            done.problems.append(Problem(name, "", "a name in packages/ that is no package hash"))
    for time_ns, name in sorted(aged):
        try:
            yield _read(root, name, time_ns)
        except (CorruptionError, UnknownFormatError) as error:
            done.problems.append(Problem(name, "", f"its file list: {error.what}"))
        except OSError as error:
            done.problems.append(Problem(name, "", f"its file list: {reason(error)}"))


def _list_time(root: StoreRoot, name: str) -> int:
    path = f"{name}/{layout.FILE_LIST}"
    try:
        return os.stat(path, dir_fd=root.packages, follow_symlinks=False).st_mtime_ns
    except OSError:
        return 0  # it cannot be read either, and that is where it is reported


def _read(root: StoreRoot, name: str, time_ns: int) -> _Package:
    package = FileLevelPackage(root.packages, root.objects, name)
    held = package.contents()
    sizes = {bytes.fromhex(digest): size for digest, size in held.sizes.items()}
    with disk.Closing(disk.open_directory(name, root.packages)) as fd:
        parts = (os.stat(part, dir_fd=fd, follow_symlinks=False) for part in os.listdir(fd))
        taken = disk.allocated(os.fstat(fd)) + sum(map(disk.allocated, parts))
    tree_hash, list_hash = package.tree_hash, package.list_hash()
    seconds = time_ns // _NANOSECONDS
    return _Package(
        name, tree_hash, list_hash, sizes, held.files, held.size, held.named, taken, seconds
    )


@dataclass(slots=True)
class _Settled:
    """Decides where each published package stands.

    Attributes:
        legacy: The packages with a legacy directory.
        phase: Of the store.
        damaged: Objects whose bytes turned out to be wrong.
    """

    legacy: set[str]
    phase: Phase
    damaged: set[bytes] = field(default_factory=set)

    def publish(self, root: StoreRoot, ledger: NewLedger, package: _Package, done: Rebuilt) -> None:
        """Record a package. One that lacks bytes keeps its owners, so that no other is lost.

        With a legacy directory it is pending then: the next run brings it in anew.
        """
        name, digests = package.package_hash, sorted(package.sizes)
        there = ledger.sizes_of(digests)
        missing = [digest for digest in digests if digest not in there]
        odd = [digest for digest, size in there.items() if size != package.sizes[digest]]
        bad = {digest for digest in odd if not _is_sound(root, digest)}
        if len(bad) < len(odd):  # the bytes are right, so it is the list that is wrong
            done.problems.append(Problem(name, "", "its file list names wrong sizes"))
            return
        self.damaged |= bad
        done.problems += [Problem(name, digest.hex(), "missing") for digest in missing]
        done.problems += [Problem(name, digest.hex(), "of a wrong size") for digest in bad]
        status = self._status(lacking=bool(missing or bad))
        ledger.publish(_outcome(package, digests), package.published_at, status)
        done.published += 1
        done.completed += name in self.legacy and status is not Status.PENDING

    def _status(self, *, lacking: bool) -> Status:
        if lacking:
            return Status.PENDING
        return Status.ROLLED_BACK if self.phase is Phase.ROLLED_BACK else Status.COMPLETED


def _outcome(package: _Package, digests: list[bytes]) -> Outcome:
    claim = Claim(0, package.package_hash, "", "", package.files, package.size, 0, 0)
    return Outcome(
        claim,
        tree_hash=package.tree_hash,
        list_hash=package.list_hash,
        digests=digests,
        files=package.files,
        size=package.size,
        added=package.allocated,
        deduplicated=package.named,
        verified=False,
    )
