"""Heal objects: what is damaged goes to quarantine, good bytes take its name in the same step.

A new carrier is a copy of its own: it shares no inode and no blocks with what it was made of,
so that the next bad sector hits one of them.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import replace as changed
from typing import TYPE_CHECKING

from regrain import disk
from regrain.ledger import NewCarrier
from regrain.maintain.patients import Action, Patient, Recorded, Treatment, treatments
from regrain.maintain.repaired import Outcome, Repair, Subject
from regrain.maintain.sources import also_damaged, examine, find, needs_of
from regrain.model import layout
from regrain.store.objects import (
    Carrier,
    carriers_of,
    dress_carrier,
    hash_fd,
    object_path,
    size_of,
)
from regrain.store.quarantine import quarantine, replace
from regrain.store.root import prepare

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from regrain.ledger import Ledger
    from regrain.maintain.sources import Backup, Source
    from regrain.store.locks import RunDirectory
    from regrain.store.root import StoreRoot


def diagnose(root: StoreRoot, ledger: Ledger, digests: Iterable[str]) -> Iterator[Patient]:
    """Yield objects, each with all that is known of it."""
    needs = needs_of(root, digests)
    for digest in sorted(needs):
        rows, owned = ledger.carriers_of(bytes.fromhex(digest))
        recorded = {row.mode: Recorded(row.is_bare, row.mtime_ns) for row in rows}
        yield Patient(digest, examine(root, digest), recorded, needs[digest], owned)


def foresee(root: StoreRoot, patient: Patient, backups: Iterable[Backup]) -> list[Repair]:
    """Say what healing an object would do; change nothing."""
    todo = treatments(patient)
    source = find(root, patient, backups) if todo else None
    shared = also_damaged(root, patient)
    return [_told(patient, one, source, _outcome(one, source), "", shared) for one in todo]


class Healer:
    """Heals objects, one after the other.

    Args:
        root: The store, whose lock the caller shares.
        ledger: Its ledger.
        run: Private space.
        backups: Where else objects may be.
    """

    def __init__(
        self, root: StoreRoot, ledger: Ledger, run: RunDirectory, backups: Iterable[Backup]
    ) -> None:
        self._root = root
        self._ledger = ledger
        self._run = run
        self._backups = list(backups)

    def heal(self, patient: Patient) -> list[Repair]:
        """Do what can be done about one object, and write down which carriers it has now."""
        todo = treatments(patient)
        source = find(self._root, patient, self._backups) if todo else None
        shared = also_damaged(self._root, patient)
        done = []
        for one in todo:
            is_done, aside = self._act(patient, one, source)
            outcome = _outcome(one, source) if is_done else Outcome.LOST
            done.append(_told(patient, one, source, outcome, aside, shared))
        self._record(patient)
        return done

    def _act(self, patient: Patient, one: Treatment, source: Source | None) -> tuple[bool, str]:
        """Do it; return whether it was done, and what quarantine calls what was moved there."""
        match one.action:
            case Action.DRESS:
                return self._dress(one)
            case Action.RENEW:
                return self._renew(patient, one, source)
            case Action.MAKE:
                return self._make(patient, one, source), ""
            case Action.UNPACK:
                return source is not None, self._move_aside(one.name)
            case Action.ASIDE:
                return True, self._move_aside(one.name)

    def _dress(self, one: Treatment) -> tuple[bool, str]:
        path = object_path(one.name)
        with disk.Closing(disk.open_file(path, self._root.objects)) as fd:
            if os.geteuid() == 0:
                os.fchown(fd, *self._root.owner)
            os.fchmod(fd, one.mode)
            disk.fsync(fd)
        return True, ""

    def _renew(self, patient: Patient, one: Treatment, source: Source | None) -> tuple[bool, str]:
        if not self._stage(patient, one, source):
            return False, self._move_aside(one.name)
        staged = f"{self._run.name}/{layout.OBJECTS}/{one.name}"
        path = object_path(one.name)
        aside = replace(self._root.fd, path, layout.TEMP, staged, self._root.objects)
        return True, aside

    def _make(self, patient: Patient, one: Treatment, source: Source | None) -> bool:
        if not self._stage(patient, one, source):
            return False
        shard = one.name[:2]
        self._see_to_shard(shard)
        pool, name = self._run.pool, one.name.encode()
        with disk.Closing(disk.open_directory(shard, self._root.objects)) as parent:
            try:
                disk.rename_noreplace(name, pool, name, parent)
            except FileExistsError:  # somebody brought it in meanwhile
                disk.unlink(name, pool)
            disk.fsync(parent)
        return True

    def _move_aside(self, name: str) -> str:
        """Take a damaged carrier out of the way: who brings those bytes in anew heals it."""
        aside = quarantine(self._root.fd, layout.OBJECTS, object_path(name))
        with disk.Closing(disk.open_directory(name[:2], self._root.objects)) as shard:
            disk.fsync(shard)
        return aside

    def _see_to_shard(self, shard: str) -> None:
        """Make a directory of ``objects/`` that is missing, or has something in its place."""
        try:
            status = os.stat(shard, dir_fd=self._root.objects, follow_symlinks=False)
        except FileNotFoundError:
            prepare(self._root.fd)
            return
        if not stat.S_ISDIR(status.st_mode):
            quarantine(self._root.fd, layout.OBJECTS, shard)
            prepare(self._root.fd)

    def _stage(self, patient: Patient, one: Treatment, source: Source | None) -> bool:
        """Copy good bytes into the pool, complete, flushed and read back; False if there are none.

        The mode is that of files which are published, so it gives nobody what he had not.
        """
        if source is None:
            return False
        with disk.Closing(self._create(one.name)) as target:
            status = os.fstat(source.held.fd)
            try:
                disk.copy_bytes(source.held.fd, target, status.st_size)
            except disk.SourceReadError:  # it went bad under our hands
                return False
            mtime_ns = _time(patient, one.mode, status)
            dress_carrier(target, self._root.owner, one.mode, mtime_ns)
            disk.fsync(target)
            os.posix_fadvise(target, 0, 0, os.POSIX_FADV_DONTNEED)  # read from the disk
            os.lseek(target, 0, os.SEEK_SET)
            return hash_fd(target)[0] == patient.digest

    def _create(self, name: str) -> int:
        with contextlib.suppress(FileNotFoundError):
            disk.unlink(name, self._run.pool)
        return disk.create(name, self._run.pool)

    def _record(self, patient: Patient) -> None:
        """Write down the carriers there are; those that could not be had again stay recorded."""
        now = changed(patient, conditions=examine(self._root, patient.digest))
        bad = {one.name for one in treatments(now)}
        rows = [
            _row(self._root, carrier)
            for carrier in carriers_of(self._root.objects, patient.digest)
            if carrier.name not in bad
        ]
        self._ledger.carriers_are(
            bytes.fromhex(patient.digest), rows, keep_others=bool(bad) and patient.is_needed
        )


def _time(patient: Patient, mode: int, source: os.stat_result) -> int:
    """Return the modification time of a new carrier: that of the one it replaces, if known."""
    if mode in patient.recorded:
        return patient.recorded[mode].mtime_ns
    return next((need.mtime_ns for need in patient.needs), source.st_mtime_ns)


def _row(root: StoreRoot, carrier: Carrier) -> NewCarrier:
    return NewCarrier(
        bytes.fromhex(carrier.digest),
        carrier.mode,
        carrier.is_bare,
        carrier.status.st_mtime_ns,
        size_of(root.objects, carrier),
        disk.allocated(carrier.status),
        carrier.is_compressed,
    )


def _outcome(one: Treatment, source: Source | None) -> Outcome:
    if one.action is Action.ASIDE:
        return Outcome.ASIDE
    has_bytes = one.action is Action.DRESS or source is not None
    return Outcome.HEALED if has_bytes else Outcome.LOST


def _told(
    patient: Patient,
    one: Treatment,
    source: Source | None,
    outcome: Outcome,
    aside: str,
    shared: Iterable[object],
) -> Repair:
    where = "" if outcome is not Outcome.HEALED or source is None else source.where
    return Repair(
        Subject.OBJECT,
        one.name,
        one.why,
        outcome,
        "its own inode" if one.action is Action.DRESS else where,
        aside,
        tuple((need.package_hash, need.path) for need in patient.needs),
        tuple((need.package_hash, need.path) for need in shared),  # type: ignore[attr-defined]
    )
