"""A cutover that is killed, or fails, at any step: the old phase or the new, and then the new."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from regrain.errors import RegrainError
from regrain.ledger import open_ledger
from regrain.model.phase import Phase
from regrain.store.root import StoreRoot
from tests.conftest import remove
from tests.faults.crash_driver import Crasher, Moment
from tests.faults.crashes import DISK, KILLED, LEDGER
from tests.faults.faulty import READS, SYNCS, WRITES, Call, Faults, injected
from tests.faults.inline import Way, cutover, initialise, migrate
from tests.faults.judge import complete_problems
from tests.faults.small import Scene, copy_of, make_legacy
from tests.stores import read_ledger

WAY = Way()
PHASES = {Phase.DUAL, Phase.FILE_LEVEL}
SWITCH = "regrain.store.root:write_store_file"
STATEMENTS = ("standings", "concerns", "last_event", "remember", "intents", "in_progress")
ERRORS = {"read": (errno.EIO, errno.EMFILE), "write": (errno.EIO, errno.ENOSPC, errno.EROFS)}


@pytest.fixture(scope="module")
def template(place: Path, seed: int) -> Scene:
    """A store that is ready to be cut over; what it is about to write is not there yet."""
    scene = make_legacy(place / "template", seed)
    initialise(scene.path)
    migrate(scene.path)
    ledger = open_ledger(str(scene.path))
    ledger.remember("backup_marked", detail="before the test")
    ledger.close()
    return scene


@pytest.fixture
def scene(template: Scene) -> Iterator[Scene]:
    made = copy_of(template, template.path.with_name("scene"))
    yield made
    remove(made.path)


def survey(template: Scene) -> list[Call]:
    scene = copy_of(template, template.path.with_name("survey"))
    try:
        with injected(Faults(scene.path)) as faults:
            assert cutover(scene.path, WAY).switched
        return faults.calls
    finally:
        remove(scene.path)


def phase(scene: Scene) -> Phase:
    return StoreRoot(str(scene.path)).phase()


def assert_ends_well(scene: Scene) -> None:
    """Whatever phase it is: everything can be read, and the same command leads to the end."""
    assert phase(scene) in PHASES
    assert [p for p in complete_problems(scene) if not p.startswith("temp/")] == []
    done = cutover(scene.path, WAY)
    assert done.failures == []
    assert done.switched or done.already
    assert phase(scene) is Phase.FILE_LEVEL
    assert complete_problems(scene) == []
    lines = "SELECT detail FROM history WHERE event = 'phase'"
    assert read_ledger(scene.path, lines) == [("file_level",)]
    assert cutover(scene.path, WAY).already


def moments(template: Scene) -> list[Moment]:
    """Before and after every step that writes or flushes, and every statement."""
    counts: dict[str, int] = {}
    for call in survey(template):
        if call.function in (*WRITES, *SYNCS):
            counts[call.function] = counts.get(call.function, 0) + 1
    assert counts.keys() >= {"create", "write_all", "fsync", "rename_replace"}
    steps = [(f"{DISK}:{name}", n + 1) for name, total in counts.items() for n in range(total)]
    steps += [(f"{LEDGER}.{name}", 1) for name in STATEMENTS]
    return [Moment(target, when, n) for target, n in steps for when in ("before", "after")]


@pytest.mark.timeout(600)
def test_killed_at_every_step(crash: Crasher, template: Scene) -> None:
    phases = set()
    for moment in moments(template):
        scene = copy_of(template, template.path.with_name("scene"))
        try:
            assert crash("cutover", scene.path, WAY, moment) == KILLED, str(moment)
            phases.add(phase(scene))
            assert_ends_well(scene)
        finally:
            remove(scene.path)
    assert phases == PHASES


def test_the_switch_is_one_step(crash: Crasher, template: Scene) -> None:
    """Before the rename of ``store.toml`` the old phase, after it the new."""
    for when, expected in (("before", Phase.DUAL), ("after", Phase.FILE_LEVEL)):
        scene = copy_of(template, template.path.with_name("scene"))
        try:
            moment = Moment(f"{DISK}:rename_replace", when)
            assert crash("cutover", scene.path, WAY, moment) == KILLED
            assert phase(scene) is expected
            assert_ends_well(scene)
        finally:
            remove(scene.path)


def cases(template: Scene) -> Iterator[tuple[Call, int]]:
    """One call of each place in the program that calls a step, with each error."""
    places: dict[tuple[str, str, str], Call] = {}
    for call in survey(template):
        places[call.function, call.caller, call.place] = call
    for call in places.values():
        kind = "read" if call.function in READS else "write"
        for error in ERRORS[kind]:
            yield call, error


@pytest.mark.timeout(600)
def test_a_failure_at_any_step(template: Scene) -> None:
    """It is an error of ours, or the gate says it; never the new phase without being it."""
    count = 0
    for call, error in cases(template):
        scene = copy_of(template, template.path.with_name("scene"))
        try:
            faults = Faults(scene.path, call.function, call.number, error)
            with injected(faults):
                said = outcome(scene)
            assert faults.fired is not None, f"{call}"
            assert said == "", f"{call} {os.strerror(error)}: {said}"
            assert read_ledger(scene.path, "SELECT * FROM integrity") == []  # it proves nothing
            assert_ends_well(scene)
            count += 1
        finally:
            remove(scene.path)
    assert count > 20


def outcome(scene: Scene) -> str:
    try:
        done = cutover(scene.path, WAY)
    except RegrainError:
        return ""
    if done.switched:
        return "" if phase(scene) is Phase.FILE_LEVEL else "it says switched and is not"
    return "" if done.failures else "neither switched nor closed"
