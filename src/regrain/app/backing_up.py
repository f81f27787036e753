"""The facade of ``backup``: an independent copy of a store, and the way back from it.

A backup is a store of its own, at the file level, whose ``store.toml`` says of which store it
is a copy: ``list``, ``verify``, ``checkout`` and all the rest work on it.
"""

from __future__ import annotations

import contextlib
import os
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from regrain.app import url_backups
from regrain.app.backup_places import (
    check_apart,
    check_room,
    check_same,
    is_to_be_made,
    make_store,
    open_backup,
    owner_of,
    told_as_copying,
)
from regrain.app.backups import COMMAND, Backup, Checked
from regrain.app.logs import limits_of
from regrain.app.recovery import check_owner
from regrain.app.undoing import ignore, single_run
from regrain.app.verification import Verdict, verify
from regrain.errors import (
    CorruptionError,
    HaltedError,
    NoSpaceError,
    RegrainError,
    UsageError,
)
from regrain.ledger import open_ledger
from regrain.maintain.audit import Audit, Level
from regrain.maintain.remove import finish_one
from regrain.migrate.add import Adder, Tree
from regrain.migrate.backed_up import (
    BACKUP_CHECKED,
    BACKUP_CREATED,
    BACKUP_DAMAGED,
    BACKUP_MARKED,
    covers,
    detail_of,
)
from regrain.migrate.jobs import Ingest, Options
from regrain.migrate.journal import Journal
from regrain.migrate.replica import Replicated, Replicator, read_back
from regrain.migrate.replica_plan import Manifest, damaged_lists, prepare
from regrain.model.digest import is_package_hash
from regrain.model.events import PackageCompleted, PackageFailed
from regrain.model.place import is_url
from regrain.store import dual, engines
from regrain.store import root as store_root
from regrain.store.locks import RunDirectory, StoreLock
from regrain.store.packages import is_published, published
from regrain.store.root import StoreRoot, legacy_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from regrain.ledger import Ledger
    from regrain.model.events import Event
    from regrain.settings import Settings


class _Wanted(NamedTuple):
    """What a backup lacks of a store.

    Attributes:
        manifest: Of the packages that are published.
        legacy: The packages that only have a legacy directory, and are to be brought in.
        present: How many of those the backup has.
        allocated: What all of it takes on disk at the most.
        inodes: Likewise.
    """

    manifest: Manifest
    legacy: list[str]
    present: int
    allocated: int
    inodes: int


def _wanted(root: StoreRoot, target: StoreRoot | None) -> _Wanted:
    """Look at what a backup lacks, all of it where there is none yet."""
    names = [name for name in published(root.packages) if is_package_hash(name)]
    manifest = prepare(root, target, names)
    old = [n for n in legacy_names(root.fd)[0] if not is_published(root.packages, n)]
    legacy = [n for n in old if target is None or not is_published(target.packages, n)]
    sizes = _legacy_sizes(root) if legacy else {}
    found = [sizes.get(name, (0, 0)) for name in legacy]
    return _Wanted(
        manifest,
        legacy,
        len(old) - len(legacy),
        manifest.allocated + sum(size for size, _ in found),
        manifest.inodes + sum(inodes for _, inodes in found),
    )


def _legacy_sizes(root: StoreRoot) -> dict[str, tuple[int, int]]:
    ledger = open_ledger(root.path, read_only=True)
    try:
        return ledger.legacy_sizes()
    finally:
        ledger.close()


def foresee_backup(root: StoreRoot, place: str) -> Backup:
    """Say what ``create_backup`` would copy; write nothing."""
    if is_url(place):
        return url_backups.foresee(root, place)
    check_apart(root.path, place)
    target = None if is_to_be_made(place) else open_backup(place)
    if target is not None:
        check_same(target, root.store_id)
    wanted = _wanted(root, target)
    return Backup(
        place,
        packages=len(wanted.manifest.parcels) + len(wanted.legacy),
        present=len(wanted.manifest.present) + wanted.present,
        objects=wanted.manifest.objects,
        size=wanted.manifest.size,
        legacy=len(wanted.legacy),
        allocated=wanted.allocated,
        inodes=wanted.inodes,
        failed=wanted.manifest.failed,
    )


def create_backup(
    root: StoreRoot,
    settings: Settings,
    place: str,
    *,
    on_event: Callable[[Event], None] = ignore,
    stopping: Callable[[], bool] = lambda: False,
    executor: str | None = None,
) -> Backup:
    """Copy all that a backup lacks into it, verified by reading it back from the disk.

    A backup at a URL is verified by ``check_backup``.

    Packages that only have a legacy directory are brought in from there. What the store does
    not have any more stays in the backup.

    Args:
        root: The store.
        settings: Its settings.
        place: Where the backup is, or is to be: a directory, or a URL.
        on_event: Told how far it is, and what became of each package.
        stopping: Asked often; True ends it after the objects in hand.
        executor: Who has the workers that copy objects into a directory: ``local`` (the default),
            ``dask:ADDRESS`` or ``mpi``. They must see the store and the backup at the same paths.

    Raises:
        UsageError: The directory is neither empty nor a backup, or lies in the store; an engine's
            workers are asked for, and it is a URL.
        EngineError: The engine that ``executor`` names does not answer, or was lost.
        RefusedError: It is the backup of another store, or too small.
        LockedError: Another run holds the store, or the backup.
        NoSpaceError: It is full.
        HaltedError: A disk failed.
    """
    if is_url(place):
        if executor not in (None, engines.LOCAL):
            raise UsageError(
                "'--executor' is not for a backup at a URL",
                why="objects go there from this host, many at a time",
                advice="Leave it out.",
            )
        return url_backups.create(root, settings, place, on_event=on_event, stopping=stopping)
    check_apart(root.path, place)
    with (
        engines.connected(executor) as engine,
        told_as_copying(),
        _reading(root) as (ledger, lock),
    ):
        if is_to_be_made(place):
            make_store(place, owner_of(root), store_root.new_id(), root.store_id)
        target = open_backup(place)
        check_same(target, root.store_id)
        lost = _heal_from(target, root, settings, stopping)
        with single_run(target, COMMAND) as theirs, StoreLock(target, exclusive=False) as held:
            wanted = _wanted(root, target)
            check_room(target, wanted.allocated, wanted.inodes)
            journal = Journal(root, limits_of(settings))

            def emit(event: Event) -> None:
                if isinstance(event, PackageFailed):
                    journal(event)
                on_event(event)

            with RunDirectory(target) as run, engines.abandoned_if_lost(run):
                office = None if engine is None else engines.Office(engine, target, run)
                copier = Replicator(root, target, run, theirs, [lock, held], emit, stopping, office)
                jobs = settings.store.migration_parallel_files
                done = _summed(place, wanted, copier.copy(wanted.manifest, jobs))
                done.present -= len(lost.keys() & set(wanted.manifest.present))
                for name in lost.keys() - done.failed.keys():
                    done.failed[name] = lost[name]
                    emit(PackageFailed(name, "", "", lost[name], None))
                bring = _Bringer(root, target, theirs, run, emit)
                for name in wanted.legacy:
                    if stopping():
                        done.stopped = True
                        break
                    bring(name, done)
        if not done.stopped and not done.failed:
            detail = detail_of(os.path.abspath(place), done.packages + done.present)
            ledger.remember(BACKUP_CREATED, detail=detail)
    return done


@contextlib.contextmanager
def _reading(root: StoreRoot) -> Iterator[tuple[Ledger, StoreLock]]:
    """Hold what keeps other runs and collections out while a store is copied."""
    with single_run(root, COMMAND) as ledger, StoreLock(root, exclusive=False) as lock:
        yield ledger, lock


def _heal_from(
    target: StoreRoot, root: StoreRoot, settings: Settings, stopping: Callable[[], bool]
) -> dict[str, str]:
    """Heal what a check found damaged in a backup, and damaged file lists, from the store.

    Returns:
        Packages of the backup that stay damaged, each with the reason: it does not stand for them.
    """
    from regrain.app.repairing import Order, repair

    try:
        ledger = open_ledger(target.path, read_only=True)
        try:
            concerned = set(ledger.concerns())
        finally:
            ledger.close()
    except CorruptionError:  # what was found damaged is forgotten with it: all is read
        order = Order(places=(root.path,))
    else:
        names = [name for name in published(root.packages) if is_package_hash(name)]
        concerned |= set(damaged_lists(root, target, names))
        if not concerned:
            return {}
        order = Order(texts=sorted(concerned), places=(root.path,))
    found = repair(target, settings, order, stopping=stopping)
    lost: dict[str, str] = {}
    for one in found.report.lost:
        for name in {name for name, _ in one.concerns if name} or {one.name}:
            lost[name] = f"damaged in the backup, and not to be healed from the store: {one.why}"
    return lost


def _summed(place: str, wanted: _Wanted, copied: Replicated) -> Backup:
    return Backup(
        place,
        packages=copied.packages,
        present=len(wanted.manifest.present) + wanted.present,
        objects=copied.objects,
        size=copied.size,
        failed=copied.failed,
        stopped=copied.stopped,
    )


class _Bringer:
    """Brings packages that only have a legacy directory into a backup, by copy."""

    def __init__(
        self,
        root: StoreRoot,
        target: StoreRoot,
        ledger: Ledger,
        run: RunDirectory,
        emit: Callable[[Event], None],
    ) -> None:
        options = Options(
            ingest=Ingest.COPY,
            can_reflink=False,
            can_link=False,
            link_outside=False,
            fsync_each=False,
            verify=True,
        )
        self._root, self._target, self._emit = root, target, emit
        self._adder = Adder(target, run, ledger, options, partial(finish_one, target, ledger))

    def __call__(self, name: str, done: Backup) -> None:
        """Bring one in; one that cannot be is told, and the others go on."""
        if not is_published(self._root.fd, name):
            return  # removed, or migrated, meanwhile
        try:
            added = self._adder.add(Tree(self._root.fd, name, is_ours=False), name)
            read_back(self._target, name)
        except (NoSpaceError, HaltedError):
            raise
        except RegrainError as error:
            done.failed[name] = str(error)
            self._emit(PackageFailed(name, "", "", str(error), error.path))
            return
        done.packages += 1
        done.legacy += 1
        done.objects += added.new_objects
        done.size += added.added_bytes
        self._emit(PackageCompleted(name, "", "", added.files, added.size, 0, 0))


# check


def check_backup(
    root: StoreRoot | None,
    settings: Settings,
    place: str,
    *,
    on_result: Callable[[Audit], None] = ignore,
    stopping: Callable[[], bool] = lambda: False,
) -> Checked:
    """Read every byte of a backup, and say which packages of a store it lacks.

    What is damaged stands against its package in the backup's ledger until it is healed: the
    gate of the cutover asks that, and the next ``create_backup`` copies it anew.

    Raises:
        RefusedError: It is the backup of another store.
    """
    if is_url(place):
        found = url_backups.check(root, place, on_result=on_result, stopping=stopping)
        if root is not None and not found.verdict.audit.stopped:
            _remember(root, place.rstrip("/"), found.verdict)
        return found
    backup = open_backup(place)
    if root is not None:
        check_same(backup, root.store_id)
    verdict = verify(
        backup,
        settings,
        [],
        level=Level.DEEP,
        subset=None,
        on_result=on_result,
        stopping=stopping,
    )
    if root is None or verdict.audit.stopped:
        return Checked(verdict)
    _remember(root, os.path.abspath(backup.path), verdict)
    names = dual.package_hashes(root)
    absent = [str(name) for name in names if not covers(root, backup.packages, name)]
    return Checked(verdict, root.path, absent)


def _remember(root: StoreRoot, place: str, verdict: Verdict) -> None:
    """Tell the store's history what a check found; one who may not write there only reads."""
    if os.geteuid() not in (0, root.owner.uid):
        return
    event = BACKUP_DAMAGED if verdict.is_damaged else BACKUP_CHECKED
    with contextlib.suppress(RegrainError):  # it concerns the backup, not this ledger
        ledger = open_ledger(root.path)
        try:
            ledger.remember(event, detail=detail_of(place, verdict.audit.packages))
        finally:
            ledger.close()


# the word of somebody else


def mark_backup(root: StoreRoot, note: str, *, dry_run: bool = False) -> None:
    """Write down that a backup was made; the gate takes the word for a day."""
    if not note.strip():
        raise UsageError("a mark needs a note", advice="Say where the backup is, or what made it.")
    check_owner(root)
    if dry_run:
        return
    ledger = open_ledger(root.path)
    try:
        ledger.remember(BACKUP_MARKED, detail=note)
    finally:
        ledger.close()
