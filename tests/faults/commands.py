"""Every command on a small store inside this process: how to get there, what must hold after.

One table for all sweeps: what a command needs before it, what may be said of the store at any
moment, and what must be true when the same command was given once more.
"""

from __future__ import annotations

import gc
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from regrain.app import keeping
from regrain.errors import (
    CorruptionError,
    FinishedWithFailuresError,
    HaltedError,
    NoSpaceError,
    PackageError,
    RefusedError,
    RegrainError,
)
from regrain.ledger import open_ledger
from regrain.migrate.orders import Summary
from regrain.model.phase import Phase
from tests import packed, repairs
from tests.compare import differences
from tests.conftest import remove
from tests.faults import backing, keeping_scenes, repacking, repairing, undoing
from tests.faults.crashes import rows, tree
from tests.faults.disks import in_child
from tests.faults.inline import Way, cutover, initialise, migrate
from tests.faults.judge import after_fault, complete_problems, recovery_problems
from tests.faults.small import SLICE_ENTRIES, Scene, make_legacy, make_template
from tests.stores import record

SLICED = Way(batch=2, slice_entries=SLICE_ENTRIES)
COPIED = Way(batch=3, ingest="copy", sync="fsync")
BACKUP, SAVED, RESTORED = "backup", "saved", "restored"

Problems = Callable[[Scene], list[str]]


@dataclass(frozen=True, slots=True)
class Command:
    """A command, and what must hold around it.

    Attributes:
        prepare: Makes the store right before it, at a path, by a seed.
        run: Does it.
        any_time: What is wrong at any moment, also in the midst of it.
        at_last: Gives the command again; what is wrong then.
        short: The letter of an outcome that its runner only asserts.
    """

    prepare: Callable[[Path, int], Scene]
    run: Callable[[Scene], object]
    any_time: Problems
    at_last: Problems
    short: str = "E"


def outcome_of(command: Command, scene: Scene) -> tuple[str, str]:
    """Run a command; tell how it ended in a letter of the fault matrix, and what it said.

    Raises:
        Exception: Whatever is not one of the program's own errors.
    """
    try:
        done = command.run(scene)
    except RegrainError as error:
        for kind, letter in _LETTERS.items():
            if isinstance(error, kind):
                return letter, str(error)
        return "E", str(error)
    except AssertionError as error:  # by the runner: the report of the command says so
        return command.short, str(error)
    if isinstance(done, Summary) and done.failed:
        return "F", str(done)
    return "ok", ""


_LETTERS: dict[type[RegrainError], str] = {
    NoSpaceError: "P",
    HaltedError: "H",
    CorruptionError: "Q",
    RefusedError: "K",
    FinishedWithFailuresError: "F",
    PackageError: "F",
}


def copied(before: Scene, path: Path, *, anew: bool) -> Scene:
    """Copy a store; what it was is what it is now (``anew``), or what it once was."""
    remove(path)
    subprocess.run(["cp", "-a", "--", before.path, path], check=True)
    packages = {n: replace(p, path=path / n) for n, p in before.packages.items()}
    there = {n: p for n, p in packages.items() if p.path.is_dir()}
    fresh = {**before.before, **record(there)} if anew else before.before
    return Scene(path, packages, fresh)


def settled_problems(scene: Scene) -> list[str]:
    """What a second recovery changes: nothing may."""
    root = keeping_scenes.root
    keeping.collect(root(scene.path), grace=10**9)
    before, recorded = tree(scene), rows(scene)
    keeping.collect(root(scene.path), grace=10**9)
    said = [f"a second recovery: {d}" for d in differences(before, tree(scene), identity=True)]
    return said + ([] if rows(scene) == recorded else ["a second recovery changed rows"])


# the way forward


def _migrating(way: Way) -> Command:
    return Command(
        make_template,
        lambda scene: migrate(scene.path, way),
        after_fault,
        lambda scene: recovery_problems(scene, way) + settled_problems(scene),
    )


def _migrated(path: Path, seed: int, way: Way | None = None) -> Scene:
    scene = make_template(path, seed)
    migrate(scene.path, way or undoing.WAY)
    return Scene(scene.path, scene.packages, record(scene.packages))


def _before_cutover(path: Path, seed: int) -> Scene:
    scene = make_legacy(path, seed)
    initialise(path)
    migrate(path)
    ledger = open_ledger(str(path))
    ledger.remember("backup_marked", detail="before the test")
    ledger.close()
    return scene


def _cut_over(scene: Scene) -> None:
    done = cutover(scene.path, Way())
    assert not done.failures, done.failures


def _not_cut_over(scene: Scene) -> list[str]:
    _cut_over(scene)
    phase = keeping_scenes.root(scene.path).phase()
    said = [] if phase is Phase.FILE_LEVEL else [f"the phase is {phase}"]
    return said + complete_problems(scene) + settled_problems(scene)


def _whole(scene: Scene) -> list[str]:
    return [line for line in complete_problems(scene) if not line.startswith("temp/")]


# the way back, and what takes a layout away


def _undoing(step: str) -> Command:
    def prepare(path: Path, seed: int) -> Scene:
        scene = _migrated(path, seed)
        for one in undoing.BEFORE[step]:
            undoing.run(one, scene)
        return scene

    def at_last(scene: Scene) -> list[str]:
        undoing.run(step, scene)
        return undoing.state_problems(step, scene) + settled_problems(scene)

    return Command(
        prepare, lambda scene: undoing.run(step, scene), undoing.reading_problems, at_last, "K"
    )


# a store in use


def _changing(name: str) -> Command:
    change = keeping_scenes.CHANGES[name]

    def prepare(path: Path, seed: int) -> Scene:
        scene = _migrated(path, seed)
        change.before(scene.path)
        return scene

    def run(scene: Scene) -> object:
        return change.make(scene.path)

    def at_last(scene: Scene) -> list[str]:
        return keeping_scenes.converges(scene, change) + keeping_scenes.arrives(scene, change)

    return Command(prepare, run, lambda scene: keeping_scenes.problems(scene, change), at_last)


# healing and packing


def _damaged(path: Path, seed: int) -> Scene:
    whole = _migrated(path.with_name(f"{path.name}-whole"), seed, Way(batch=10, ingest="copy"))
    scene = repairing.damaged_copy(whole, path.name)
    remove(whole.path)
    return scene


def _repaired(scene: Scene) -> list[str]:
    repairing.repair(scene.path)
    return repairs.problems(scene)


def _packing(step: str) -> Command:
    def prepare(path: Path, seed: int) -> Scene:
        scene = packed.make_packed(path, seed)
        migrate(path, Way(ingest="copy"))
        undoing.cutover(path)
        for one in repacking.BEFORE[step]:
            repacking.run(one, scene)
        return scene

    def at_last(scene: Scene) -> list[str]:
        repacking.run(step, scene)
        return repacking.state_problems(step, scene) + settled_problems(scene)

    return Command(
        prepare, lambda scene: repacking.run(step, scene), repacking.any_time_problems, at_last
    )


# copies elsewhere


def _half(path: Path, seed: int) -> Scene:
    scene = make_template(path, seed)
    migrate(path, Way(), limit=2)
    return Scene(path, scene.packages, record(scene.packages))


def _saved(path: Path, seed: int) -> Scene:
    scene = _half(path, seed)
    # Apart, since whoever copies inline keeps descriptors, and a file system busy.
    in_child(lambda: backing.create(path, path.with_name(SAVED)).failed)
    return scene


def _back_up(scene: Scene) -> None:
    done = backing.create(scene.path, scene.path.with_name(BACKUP))
    assert not done.failed, done.failed


def _restore(scene: Scene) -> None:
    backing.restore(scene.path.with_name(RESTORED), scene.path.parents[1] / SAVED)


def _copying(
    prepare: Callable[[Path, int], Scene], work: Callable[[Scene], None], to: str
) -> Command:
    def at_last(scene: Scene) -> list[str]:
        work(scene)
        return backing.faults_in(scene.path.with_name(to), scene, all_there=True)

    def any_time(scene: Scene) -> list[str]:
        said = backing.faults_in(scene.path.with_name(to), scene, all_there=False)
        return said + undoing.reading_problems(scene)

    return Command(prepare, work, any_time, at_last)


COMMANDS: dict[str, Command] = {
    "migrate": _migrating(SLICED),
    "migrate, copied and flushed one by one": _migrating(COPIED),
    "migrate in place": _undoing("in_place"),
    "migrate after rollback": _undoing("forward"),
    "cutover": Command(_before_cutover, _cut_over, _whole, _not_cut_over, "T"),
    "cleanup": _undoing("cleanup"),
    "rollback": _undoing("rollback"),
    "rollback of one": _undoing("roll_one_back"),
    "rollback --purge": _undoing("purge"),
    "add": _changing("add"),
    "add, flushed one by one": _changing("add, flushed one by one"),
    "add to legacy": _changing("add to legacy"),
    "remove": _changing("remove"),
    "exclude": _changing("exclude"),
    "gc": _changing("collect"),
    "repair": Command(
        _damaged, lambda s: repairing.repair(s.path), undoing.reading_problems, _repaired
    ),
    "repack": _packing("compress"),
    "repack to plain": _packing("expand"),
    "backup": _copying(_half, _back_up, BACKUP),
    "restore": _copying(_saved, _restore, RESTORED),
}


@dataclass(frozen=True, slots=True)
class Arena:
    """A directory in which one command is tried again and again.

    Attributes:
        name: Of the command.
        command: The command.
        place: Where copies of the store, and all that the command makes, come to lie.
        before: The store right before the command.
    """

    name: str
    command: Command
    place: Path
    before: Scene

    def fresh(self) -> Scene:
        """A copy of the store, and nothing left of an earlier trial."""
        for name in (BACKUP, RESTORED, "out"):
            remove(self.place / name)
        anew = self.name != "repair" and not self.name.startswith(("rollback", "migrate in"))
        scene = copied(self.before, self.place / "store", anew=anew)
        if self.name.startswith("add"):
            keeping_scenes.source_of(scene.path)
        return scene


def arena(name: str, folder: Path, seed: int) -> Arena:
    """Prepare everything that a command needs."""
    place = folder / "arena"
    place.mkdir()
    command = COMMANDS[name]
    before = command.prepare(folder / "before", seed)
    gc.collect()  # what is in a ring of references keeps descriptors, and a file system busy
    return Arena(name, command, place, before)
