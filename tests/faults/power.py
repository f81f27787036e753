"""Power cuts: a run is recorded write by write, then cut at any flush, and looked at.

What stood before a flush that ended is on the disk; of what was written after it any part may be,
in any order. So each cut is tried twice: with nothing of the next epoch, and with a part of it
that chance chooses. A disk may not lose less than that, and may not lose more.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from regrain.ledger import Ledger
from tests.faults import tally
from tests.faults.blockdevice import Written, events
from tests.faults.commands import Arena, arena, outcome_of
from tests.faults.disks import Disk, at_home, in_child
from tests.faults.small import Scene

TABLES = ("store_refs", "store_migration", "objects", "carriers", "object_owners", "packages")


class Promise(NamedTuple):
    """What a ledger held after a commit."""

    ledger: str
    held: str


@dataclass(frozen=True, slots=True)
class Cut:
    """A moment at which the power goes.

    Attributes:
        flush: After so many flushes.
        position: Where in the log that is.
        part: Whether a part of the next epoch came to be written.
    """

    flush: int
    position: int
    part: bool

    def __str__(self) -> str:
        return f"cut after flush {self.flush}{' and a part of what follows' * self.part}"


@dataclass(frozen=True, slots=True)
class Recording:
    """A run of a command, write by write.

    Attributes:
        disk: Its image is as it was before the run.
        arena: The command.
        scene: The store.
        log: What the disk was told.
        promised: What a ledger held after each commit, and where in the log that was.
        letter: How the command ended.
    """

    disk: Disk
    arena: Arena
    scene: Scene
    log: list[Written]
    promised: list[tuple[int, Promise]]
    letter: str

    def cuts(self) -> list[Cut]:
        """Every moment that there is."""
        flushes = [event for event in self.log if event.is_flush]
        return [
            Cut(number, flush.end, part)
            for number, flush in enumerate(flushes, 1)
            for part in (False, True)
        ]


def record_run(
    name: str, disk: Disk, seed: int, before_run: Callable[[], object] = lambda: None
) -> Recording:
    """Prepare a command on a disk, then run it there, recorded; the image is as before it.

    Args:
        name: The command.
        disk: Where.
        seed: Of all that is random.
        before_run: Done in the process of the run, before it.
    """
    with disk.plain() as point:
        made = [*_prepared(name, point, seed)]
    (at,) = made
    log = disk.image.with_name("log")
    kept = disk.image.with_name("kept.img")
    copy_image(disk.image, kept)
    with disk.served(log):
        letter, promised = in_child(lambda: _run(at, log, before_run))
    kept.replace(disk.image)
    return Recording(
        disk, at, at.before, [*events(log)], [(p, Promise(*d)) for p, d in promised], letter
    )


def _prepared(name: str, point: Path, seed: int) -> Iterator[Arena]:
    at = arena(name, point, seed)
    scene = at.fresh()
    subprocess.run(["sync", "-f", point], check=True)
    yield Arena(at.name, at.command, at.place, scene)


def _run(at: Arena, log: Path, before_run: Callable[[], object]) -> tuple[str, list[Any]]:
    promised: list[tuple[int, Promise]] = []
    with promises(lambda: log.stat().st_size, lambda *promise: promised.append(promise)):
        before_run()
        letter, _ = outcome_of(at.command, at_home(at.before))
    return letter, promised


@contextmanager
def promises(now: Callable[[], int], note: Callable[[int, Promise], None]) -> Iterator[None]:
    """Have it noted what a ledger holds after each commit, and when that was."""
    original = Ledger._transaction

    @contextmanager
    def transaction(ledger: Ledger, *arguments: Any, **named: Any) -> Iterator[Any]:
        with original(ledger, *arguments, **named) as connection:
            yield connection
            held = _held(lambda query: connection.exec_driver_sql(query).fetchall())
            (_, _, path), *_ = connection.exec_driver_sql("PRAGMA database_list").fetchall()
        note(now(), Promise(path, held))

    Ledger._transaction = transaction  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        Ledger._transaction = original  # type: ignore[method-assign]


def _held(ask: Callable[[str], Sequence[Any]]) -> str:
    """All that a ledger holds but its history, as one text."""
    tables = {
        table: sorted(map(repr, map(tuple, ask(f"SELECT * FROM {table}")))) for table in TABLES
    }
    return json.dumps(tables)


def ledger_at(path: Path) -> str:
    """All that a ledger holds, to be compared with what was promised; empty where it is not."""
    if not path.exists():
        return ""
    with closing(sqlite3.connect(path)) as connection:
        try:
            return _held(lambda query: connection.execute(query).fetchall())
        except sqlite3.DatabaseError as error:  # its tables are not there yet
            return f"{error}"


def copy_image(image: Path, to: Path) -> None:
    """Copy an image with its holes."""
    subprocess.run(["cp", "--sparse=always", image, to], check=True)


def images(recording: Recording, cuts: Sequence[Cut], random: Random) -> Iterator[tuple[Cut, Path]]:
    """Yield the disk as each cut leaves it; the image is valid until the next step."""
    now, then = (recording.disk.image.with_name(name) for name in ("now.img", "then.img"))
    copy_image(recording.disk.image, now)
    log, done, flushes = recording.log, 0, 0
    for cut in cuts:
        while flushes < cut.flush:
            flushes += log[done].is_flush
            _apply(now, [log[done]])
            done += 1
        copy_image(now, then)
        if cut.part:
            epoch = _epoch(log, done)
            _apply(then, random.sample(epoch, random.randint(0, len(epoch))))
        yield cut, then


def _epoch(log: list[Written], start: int) -> list[Written]:
    """What is written from here to the next flush."""
    end = next((n for n in range(start, len(log)) if log[n].is_flush), len(log))
    return log[start:end]


def _apply(image: Path, written: Sequence[Written]) -> None:
    with image.open("r+b") as stream:
        for event in written:
            if not event.is_flush:
                stream.seek(event.offset)
                stream.write(event.content)


def cut_problems(recording: Recording, cut: Cut, image: Path) -> list[str]:
    """Mount what a cut left; say what is wrong, and what after the same command."""
    with recording.disk.plain(image):
        said: list[str] = in_child(lambda: _looked_at(recording, cut))
    if not said:
        tally.count(recording.arena.name, f"power cut, {recording.disk.kind}", "killed")
    return [f"{recording.arena.name}, {recording.disk.kind}, {cut}: {line}" for line in said]


def _looked_at(recording: Recording, cut: Cut) -> list[str]:
    scene, command = at_home(recording.scene), recording.arena.command
    try:
        said = _broken_promises(recording, scene, cut)
        said += [f"then {line}" for line in command.any_time(scene)]
        return said + [f"at last {line}" for line in command.at_last(scene)]
    except Exception as error:  # noqa: BLE001 -- it must not raise, whatever it is
        return [f"the next run: {error!r}"]


def _broken_promises(recording: Recording, scene: Scene, cut: Cut) -> list[str]:
    """Whether the ledger has forgotten a commit that had been acknowledged when the power went."""
    said = []
    for ledger in {promise.ledger for _, promise in recording.promised}:
        path = Path(ledger)
        if not path.is_relative_to(scene.path.parent):  # on another disk
            continue
        mine = [
            (at, promise.held) for at, promise in recording.promised if promise.ledger == ledger
        ]
        owed = [n for n, (position, _) in enumerate(mine) if position <= cut.position]
        if not owed:
            continue
        there = ledger_at(path)
        kept = [n for n, (_, held) in enumerate(mine) if held == there]
        if not kept or kept[-1] < owed[-1]:
            name = path.parent.name
            said.append(
                f"{name}: commit {owed[-1]} of {len(mine)} was acknowledged; {kept} is there"
            )
    return said
