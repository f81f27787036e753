"""``verify``: prove that what is stored is what was stored.

Units of work are packages (is everything they list there?) and shards of ``objects/``
(does every carrier hash to its name?), handed to worker processes.
"""

from __future__ import annotations

import contextlib
import os
import stat
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from regrain.errors import (
    CorruptionError,
    PackageError,
    RegrainError,
    UnknownFormatError,
    path_of,
    reason,
)
from regrain.maintain.listed import digests_of, entries_of
from regrain.model.entry import Entry, Kind
from regrain.model.layout import parse_carrier
from regrain.store import errands
from regrain.store.compare import first_difference
from regrain.store.legacy import LegacyPackage
from regrain.store.locks import StoreLock
from regrain.store.objects import (
    Carrier,
    carrier_flaw,
    carriers_in,
    carriers_of,
    hash_carrier,
    object_path,
    size_of,
)
from regrain.store.packages import FileLevelPackage
from regrain.store.root import StoreRoot
from regrain.store.workers import deaths_told, signals, spawn_executor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from regrain.store import engines

_DIGESTS_REMEMBERED_MAX = 500_000
_TICK_SECONDS = 0.2
TASKS_AHEAD = 4
PACKAGES_A_TASK = 8
OBJECTS_A_TASK = 500


class Level(StrEnum):
    """How closely to look."""

    QUICK = "quick"
    FULL = "full"
    DEEP = "deep"


class Damage(NamedTuple):
    """Something that is not what was stored.

    Attributes:
        object: The digest concerned, empty where a file list is.
        reason: What is wrong.
        package_hash: A package that needs it.
        path: The path in that package.
    """

    object: str
    reason: str
    package_hash: str
    path: bytes


class Change(NamedTuple):
    """A legacy tree that is not what was migrated."""

    package_hash: str
    path: bytes
    reason: str


@dataclass(slots=True)
class Audit:
    """What ``verify`` found.

    Attributes:
        packages: File-level packages looked at.
        entries: Their entries.
        carriers: Carriers looked at (full and deep: hashed).
        bytes_hashed: Bytes read and hashed.
        damages: What is broken, once for every package and path concerned.
        changes: Legacy trees that differ from their published file list.
        stopped: Whether it was ended early.
    """

    packages: int = 0
    entries: int = 0
    carriers: int = 0
    bytes_hashed: int = 0
    damages: list[Damage] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    stopped: bool = False


# in a worker


class _Inspector:
    """What one worker process keeps open and remembers."""

    def __init__(self, path: str, level: Level, stop: Any) -> None:  # noqa: ANN401 -- a shared byte
        self.root = StoreRoot(path)
        self.level = level
        self._stop = stop
        self._good: dict[str, int] = {}

    def close(self) -> None:
        del self.root

    def stopping(self) -> bool:
        return bool(self._stop.value)

    def package(self, package_hash: str) -> Audit:
        """Look at one package, and at ``deep`` at its legacy tree."""
        audit = self.lacks(package_hash)
        if self.level is Level.DEEP:
            self._compare_with_legacy(package_hash, audit)
        return audit

    def lacks(self, package_hash: str) -> Audit:
        """Look at one package's file list, and whether its objects are there."""
        audit = Audit(packages=1)
        try:
            package = FileLevelPackage(self.root.packages, self.root.objects, package_hash)
            for entry in package.entries():
                audit.entries += 1
                if entry.kind is Kind.FILE and entry.size:
                    why = self._look_for(entry)
                    if why:
                        audit.damages.append(Damage(entry.digest, why, package_hash, entry.path))
        except FileNotFoundError:
            return Audit()  # removed while this run went on
        except (CorruptionError, UnknownFormatError, OSError) as error:
            words = reason(error) if isinstance(error, OSError) else error.what
            audit.damages.append(Damage("", f"its file list: {words}", package_hash, b""))
        return audit

    def _look_for(self, entry: Entry) -> str:
        """Say why the bytes of an entry cannot be had; empty if they can."""
        if self._good.get(entry.digest) == entry.size:
            return ""
        if self._bare_size(entry.digest) == entry.size:
            self._remember(entry)
            return ""
        sizes = [
            size_of(self.root.objects, carrier)
            for carrier in carriers_of(self.root.objects, entry.digest)
            if stat.S_ISREG(carrier.status.st_mode)
        ]
        if not sizes:
            return "missing"
        if entry.size not in sizes:
            if sizes[0] < 0:
                return "its compressed data is broken"
            return f"its size is {sizes[0]}, not {entry.size}"
        self._remember(entry)
        return ""

    def _bare_size(self, digest: str) -> int:
        try:
            status = os.stat(object_path(digest), dir_fd=self.root.objects, follow_symlinks=False)
        except FileNotFoundError:
            return -1
        return status.st_size if stat.S_ISREG(status.st_mode) else -1

    def _remember(self, entry: Entry) -> None:
        if len(self._good) >= _DIGESTS_REMEMBERED_MAX:
            self._good.clear()
        self._good[entry.digest] = entry.size

    def _compare_with_legacy(self, package_hash: str, audit: Audit) -> None:
        try:
            legacy = LegacyPackage(self.root.fd, package_hash)
            package = FileLevelPackage(self.root.packages, self.root.objects, package_hash)
            found = first_difference(package.entries(), legacy.entries())
            legacy.check_there()
        except FileNotFoundError:
            return
        except (CorruptionError, UnknownFormatError):
            return  # its list is damaged, which was told already
        except PackageError as error:
            found = ((error.path or "").encode(), error.why or error.what)
        except OSError as error:
            found = (path_of(error), reason(error))
        if found is not None:
            audit.changes.append(Change(package_hash, *found))

    def shard(self, shard: str) -> Audit:
        """Hash every carrier of one shard."""
        audit = Audit()
        for carrier in carriers_in(self.root.objects, shard):
            if self.stopping():
                break
            self.hash(carrier, audit)
        return audit

    def objects(self, digests: list[str]) -> Audit:
        """Hash the carriers of some objects."""
        audit = Audit()
        for digest in digests:
            for carrier in carriers_of(self.root.objects, digest):
                self.hash(carrier, audit)
        return audit

    def hash(self, carrier: Carrier, audit: Audit) -> None:
        audit.carriers += 1
        flaw = carrier_flaw(carrier, self.root.owner)
        if not flaw:
            try:
                digest, size = hash_carrier(self.root.objects, carrier)
                audit.bytes_hashed += size
                if digest != carrier.digest:
                    flaw = f"its bytes hash to {digest}"
            except FileNotFoundError:
                return  # collected meanwhile
            except OSError as error:
                flaw = f"it cannot be read: {reason(error)}"
        if flaw:
            audit.damages.append(Damage(carrier.name, flaw, "", b""))


_inspector: _Inspector | None = None


def _start(path: str, level: Level, stop: Any) -> None:  # noqa: ANN401 -- a shared byte
    global _inspector  # noqa: PLW0603 -- an executor gives its processes no other place
    _inspector = _Inspector(path, level, stop)


def _inspect(task: str, argument: Any) -> Audit:  # noqa: ANN401 -- a name or a list of them
    inspector: _Inspector | None = errands.at_work() or _inspector
    if inspector is None:
        raise RegrainError("a worker process without its store")
    result = Audit()
    for item in argument:
        if inspector.stopping():
            break
        _merge(result, getattr(inspector, task)(item))
    return result


# in the coordinator


@dataclass(frozen=True, slots=True)
class Scope:
    """What to look at.

    Attributes:
        package_hashes: Published packages.
        shards: The shards of ``objects/`` whose carriers are hashed (not at ``quick``).
        level: How closely.
        whole: Whether the packages are all there are; else only their objects are hashed.
    """

    package_hashes: list[str]
    shards: list[str]
    level: Level
    whole: bool


def audit(
    root: StoreRoot,
    scope: Scope,
    *,
    jobs: int,
    on_result: Callable[[Audit], None],
    stopping: Callable[[], bool],
    office: engines.Office | None = None,
) -> Audit:
    """Look at packages and objects.

    Args:
        root: The store.
        scope: What to look at, and how closely.
        jobs: Worker processes.
        on_result: Told the findings so far, now and then.
        stopping: Tells whether to stop.
        office: Hands out units of work where an engine has the workers.

    Returns:
        All findings; every damage names the packages and paths it concerns.
    """
    result = Audit()
    executor, stop = _workers(root, scope.level, jobs, office)
    tasks = _tasks(root, scope)[::-1]
    running: set[Future[Audit]] = set()
    try:
        while (tasks or running) and not result.stopped:
            with deaths_told():
                while tasks and len(running) < TASKS_AHEAD * jobs:
                    running.add(executor.submit(_inspect, *tasks.pop()))
                done, running = wait(running, _TICK_SECONDS, FIRST_COMPLETED)
                for future in done:
                    _merge(result, future.result())
            on_result(result)
            result.stopped = stopping()
    finally:
        stop.value = 1
        executor.shutdown(wait=True, cancel_futures=True)
    _look_again(_Inspector(root.path, scope.level, signals()), result)
    concerned = _concerned(root, result.damages, scope.package_hashes)
    once = {(damage.object, damage.package_hash, damage.path): damage for damage in concerned}
    result.damages = sorted(once.values())
    result.changes.sort()
    return result


def _workers(
    root: StoreRoot, level: Level, jobs: int, office: engines.Office | None
) -> tuple[Executor, Any]:
    if office is not None:
        return office.dispatcher(_Inspector, (root.path, level))
    stop = signals()
    return spawn_executor(jobs, _start, root.path, level, stop), stop


def _look_again(inspector: _Inspector, result: Audit) -> None:
    """Keep of what packages lack only what they still lack while nothing is collected.

    One that was removed under the first look, and perhaps added again since, lacks nothing.
    """
    suspects = sorted({damage.package_hash for damage in result.damages if damage.package_hash})
    if not suspects:
        return
    root = inspector.root
    result.damages = [damage for damage in result.damages if not damage.package_hash]
    with contextlib.ExitStack() as stack:
        if os.geteuid() in (0, root.owner.uid):
            stack.enter_context(StoreLock(root, exclusive=False))
        for name in suspects:
            result.damages += inspector.lacks(name).damages


def _tasks(root: StoreRoot, scope: Scope) -> list[tuple[str, list[str] | list[list[str]]]]:
    """Return units of work: (what to do, with each of which)."""
    names = scope.package_hashes
    tasks: list[tuple[str, list[str] | list[list[str]]]] = [
        ("package", names[at : at + PACKAGES_A_TASK])
        for at in range(0, len(names), PACKAGES_A_TASK)
    ]
    if scope.level is Level.QUICK:
        return tasks
    if scope.whole:
        return tasks + [("shard", [shard]) for shard in scope.shards]
    digests = sorted(digests_of(root, names, set(scope.shards)))
    return tasks + [
        ("objects", [digests[at : at + OBJECTS_A_TASK]])
        for at in range(0, len(digests), OBJECTS_A_TASK)
    ]


def _merge(into: Audit, other: Audit) -> None:
    into.packages += other.packages
    into.entries += other.entries
    into.carriers += other.carriers
    into.bytes_hashed += other.bytes_hashed
    into.damages += other.damages
    into.changes += other.changes


def _concerned(
    root: StoreRoot, damages: list[Damage], package_hashes: list[str]
) -> Iterator[Damage]:
    """Say of each damaged carrier which packages and paths it concerns."""
    reasons: dict[str, str] = {}
    for damage in damages:
        if damage.package_hash:
            yield damage
        else:
            parsed = parse_carrier(damage.object)
            reasons[parsed[0] if parsed else damage.object] = damage.reason
    if not reasons:
        return
    named = set()
    for name in package_hashes:
        for entry in entries_of(root, name):
            why = reasons.get(entry.digest)
            if why is not None:
                named.add(entry.digest)
                yield Damage(entry.digest, why, name, entry.path)
    for digest in reasons.keys() - named:
        yield Damage(digest, reasons[digest], "", b"")
