"""The crash table, row by row: what readers see after a cut, and what recovery makes of it.

``slow`` cuts at every single step, or with ``REGRAIN_SWEEP=sample`` at some that the seed
chooses (see ``sweeping``).
"""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest

from regrain.app.store import PackageStore
from regrain.model.phase import Layout
from tests.conftest import remove
from tests.faults.crash_driver import Crasher, Moment
from tests.faults.crashes import (
    BEFORE_OBJECTS,
    DISK,
    KILLED,
    LEDGER,
    OBJECTS,
    ONE_BATCH,
    PACKAGES,
    RECORDED,
    WAYS,
    assert_converges,
    layouts,
    on_disk,
    orphans,
    recover,
    rows,
    survey,
)
from tests.faults.faulty import Call, Faults, injected
from tests.faults.inline import Way, initialise, migrate
from tests.faults.judge import after_fault, complete_problems, ledger_problems, reading_problems
from tests.faults.small import SLICE_ENTRIES, Scene, copy_of, make_legacy
from tests.faults.sweeping import chosen
from tests.sampling import each_with_one
from tests.stores import read_ledger, statuses


@pytest.mark.parametrize(("row", "way"), each_with_one(BEFORE_OBJECTS, WAYS))
def test_cut_before_any_object_is_published(
    crash: Crasher, scene: Scene, row: str, way: str
) -> None:
    assert crash("migrate", scene.path, WAYS[way], BEFORE_OBJECTS[row]) == KILLED
    assert set(layouts(scene).values()) == {Layout.LEGACY}
    assert on_disk(scene) == set()
    assert after_fault(scene) == []
    assert [event.given_up for event in recover(scene, WAYS[way])] == [4]
    assert set(statuses(scene.path).values()) == {"pending"}
    assert os.listdir(scene.path / "temp") == []
    assert_converges(scene, WAYS[way])


@pytest.mark.parametrize(("row", "way"), each_with_one(OBJECTS, WAYS))
def test_cut_after_objects_were_published(crash: Crasher, scene: Scene, row: str, way: str) -> None:
    assert crash("migrate", scene.path, WAYS[way], OBJECTS[row]) == KILLED
    assert set(layouts(scene).values()) == {Layout.LEGACY}
    assert after_fault(scene) == []
    left = on_disk(scene)
    assert left
    (found,) = recover(scene, WAYS[way])
    assert (found.packages, found.given_up, found.quarantined) == (0, 4, 0)
    assert found.objects >= len(left)
    assert orphans(scene).keys() == left == on_disk(scene)
    assert None not in orphans(scene).values()  # gc counts its grace from then
    assert ledger_problems(scene.path) == []
    assert_converges(scene, WAYS[way])


@pytest.mark.parametrize(("count", "way"), each_with_one([1, 2, 3], WAYS))
def test_cut_between_two_packages(crash: Crasher, scene: Scene, count: int, way: str) -> None:
    """Each package is in one state or the other."""
    moment = Moment(f"{DISK}:rename_noreplace", "after", count, "packages")
    assert crash("migrate", scene.path, WAYS[way], moment) == KILLED
    found = list(layouts(scene).values())
    assert found.count(Layout.FILE_LEVEL) == count
    assert after_fault(scene) == []
    (event,) = recover(scene, WAYS[way])
    assert (event.packages, event.given_up) == (count, 4 - count)
    assert sorted(statuses(scene.path).values()) == ["completed"] * count + ["pending"] * (
        4 - count
    )
    assert_converges(scene, WAYS[way])


@pytest.mark.parametrize(("row", "way"), each_with_one(PACKAGES, WAYS))
def test_cut_after_packages_were_published(
    crash: Crasher, scene: Scene, row: str, way: str
) -> None:
    assert crash("migrate", scene.path, WAYS[way], PACKAGES[row]) == KILLED
    assert set(layouts(scene).values()) == {Layout.FILE_LEVEL}
    assert after_fault(scene) == []
    (event,) = recover(scene, WAYS[way])
    assert (event.packages, event.given_up, event.quarantined) == (4, 0, 0)
    assert complete_problems(scene) == []
    assert orphans(scene) == {}
    assert_converges(scene, WAYS[way])


@pytest.mark.parametrize(("row", "way"), each_with_one(RECORDED, WAYS))
def test_cut_after_packages_were_recorded(crash: Crasher, scene: Scene, row: str, way: str) -> None:
    assert crash("migrate", scene.path, WAYS[way], RECORDED[row]) == KILLED
    assert set(layouts(scene).values()) == {Layout.FILE_LEVEL}
    assert set(statuses(scene.path).values()) == {"completed"}
    assert after_fault(scene) == []
    recorded = rows(scene)
    recover(scene, WAYS[way])
    assert rows(scene) == recorded
    assert complete_problems(scene) == []
    assert_converges(scene, WAYS[way])


def test_what_a_recovered_package_counts_is_what_a_run_counts(
    crash: Crasher, template: Scene
) -> None:
    """Savings and counts do not depend on who recorded a package."""
    columns = "package_hash, file_count, byte_count, space_saved, added_bytes, tree_hash"
    query = f"SELECT {columns} FROM store_migration ORDER BY 1"
    found = []
    for killed in (False, True):
        scene = copy_of(template, template.path.with_name("counted"))
        try:
            if killed:
                moment = Moment(f"{LEDGER}.record", "before")
                assert crash("migrate", scene.path, ONE_BATCH, moment) == KILLED
            migrate(scene.path, ONE_BATCH)
            found.append(read_ledger(scene.path, query))
        finally:
            remove(scene.path)
    assert [row[:3] + row[5:] for row in found[0]] == [row[:3] + row[5:] for row in found[1]]
    assert sum(row[3] for row in found[0]) == sum(row[3] for row in found[1])


# recovery is cut, too

IN_RECOVERY = {
    "before sweeping": Moment(f"{DISK}:remove_tree", "before"),
    "while sweeping": Moment(f"{DISK}:remove_tree", "after"),
    "after sweeping": Moment("regrain.migrate.recover:empty_dead_runs", "after"),
    "before the first orphan": Moment(f"{LEDGER}.record_objects", "before"),
    "after the third shard": Moment(f"{LEDGER}.record_objects", "after", 3),
    "before the first package": Moment(f"{LEDGER}.record", "before"),
    "after the first package": Moment(f"{LEDGER}.record", "after"),
    "before a package is put back": Moment(f"{LEDGER}.give_up", "before"),
    "after a package was put back": Moment(f"{LEDGER}.give_up", "after"),
    "at its end": Moment(f"{LEDGER}.remember", "before"),
    "before it is forgotten": Moment("regrain.migrate.recover:forget_dead_runs", "before"),
    "after it was forgotten": Moment("regrain.migrate.recover:forget_dead_runs", "after"),
}


@pytest.mark.parametrize("second", IN_RECOVERY)
def test_cut_in_the_midst_of_recovery(crash: Crasher, scene: Scene, second: str) -> None:
    first = Moment(f"{DISK}:rename_noreplace", "after", 2, "packages")
    assert crash("migrate", scene.path, ONE_BATCH, first) == KILLED
    before = layouts(scene)
    assert crash("migrate", scene.path, ONE_BATCH, IN_RECOVERY[second], limit=0) == KILLED
    assert layouts(scene) == before
    assert after_fault(scene) == []
    recover(scene, ONE_BATCH)
    assert sorted(statuses(scene.path).values()) == ["completed"] * 2 + ["pending"] * 2
    assert ledger_problems(scene.path) == []
    assert_converges(scene, ONE_BATCH)


# the phase, and init


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", ["rename_replace", "fsync", "write_all"])
def test_cut_while_the_phase_is_replaced(
    crash: Crasher, scene: Scene, step: str, when: str
) -> None:
    toml = scene.path / "store.toml"
    toml.write_text(toml.read_text().replace('"dual"', '"rolled_back"'))
    moment = Moment(f"{DISK}:{step}", when, next_call(scene, step))
    assert crash("migrate", scene.path, ONE_BATCH, moment) == KILLED
    replaced = (step, when) == ("rename_replace", "after")
    assert PackageStore.open(scene.path).phase.value == ("dual" if replaced else "rolled_back")
    assert reading_problems(scene) == []
    assert migrate(scene.path, ONE_BATCH).completed == 4
    assert PackageStore.open(scene.path).phase.value == "dual"
    assert complete_problems(scene) == []


def next_call(scene: Scene, step: str) -> int:
    """At which of its calls a function works for ``store.toml``."""
    copy = copy_of(scene, scene.path.with_name("phase"))
    try:
        with injected(Faults(copy.path)) as faults:
            migrate(copy.path, ONE_BATCH)
        return next(
            c.number for c in faults.calls if c.function == step and "write_store_file" in c.caller
        )
    finally:
        remove(copy.path)


def test_cut_anywhere_in_init(crash: Crasher, place: Path, seed: int) -> None:
    """A store that is half made is no store, or is completed by the same command."""
    legacy = make_legacy(place / "legacy", seed)
    plain, random = Way(slice_entries=SLICE_ENTRIES), Random(seed)
    made = copy_of(legacy, place / "init")
    with injected(Faults(made.path)) as faults:
        initialise(made.path, SLICE_ENTRIES)
    remove(made.path)
    steps = [f"{DISK}:{call.function} {call.number}" for call in faults.calls]
    steps = [*random.sample(steps, 12), steps[0], steps[-1]]
    steps += [f"{LEDGER}.queue 1", f"{LEDGER}.remember 1"]
    said = []
    for step in steps:
        target, _, number = step.partition(" ")
        moment = Moment(target, random.choice(("before", "after")), int(number))
        made = copy_of(legacy, place / "init")
        assert crash("init", made.path, plain, moment) == KILLED, moment
        initialise(made.path, SLICE_ENTRIES)
        migrate(made.path, plain)
        said += [f"{moment}: {line}" for line in complete_problems(made)]
        remove(made.path)
    remove(legacy.path)
    assert said == []


# any step of the system


def one_of_each_place(calls: list[Call], random: Random) -> list[Call]:
    """One call, by chance, of each place in the program that calls a function."""
    places: dict[tuple[str, ...], list[Call]] = {}
    for call in calls:
        caller = call.caller.partition(" ")[0]
        places.setdefault((call.function, caller, call.place), []).append(call)
    return [random.choice(found) for found in places.values()]


def kill_at(crash: Crasher, template: Scene, way: Way, call: Call, when: str) -> list[str]:
    scene = copy_of(template, template.path.with_name("killed"))
    moment = Moment(f"{DISK}:{call.function}", when, call.number)
    try:
        if crash("migrate", scene.path, way, moment) != KILLED:
            return [f"{moment}: it did not die"]
        said = after_fault(scene)
        migrate(scene.path, way)
        said += complete_problems(scene)
        return [f"{moment} ({call.caller}): {line}" for line in said]
    finally:
        remove(scene.path)


def test_killed_at_a_step_of_each_sort(crash: Crasher, template: Scene, seed: int) -> None:
    way, random = Way(batch=2, slice_entries=SLICE_ENTRIES), Random(seed)
    said = []
    places = one_of_each_place(survey(template, way), random)
    assert len(places) > 30
    for call in random.sample(places, 24):
        said += kill_at(crash, template, way, call, random.choice(("before", "after")))
    assert said == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_every_step(
    crash: Crasher, template: Scene, seed: int, when: str, way: str
) -> None:
    steps = chosen(survey(template, WAYS[way]), seed, f"{when}:{way}")
    said = [line for c in steps for line in kill_at(crash, template, WAYS[way], c, when)]
    assert said == []
