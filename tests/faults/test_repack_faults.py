"""``repack`` is killed at every write, or that fails: nothing is lost, the command finishes."""

from __future__ import annotations

import errno
import re
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from regrain.errors import RegrainError
from tests.compare import differences
from tests.conftest import remove
from tests.faults import repacking
from tests.faults.crash_driver import Crasher, Ended, Moment
from tests.faults.faulty import SYNCS, WRITES, Call, Faults, injected
from tests.faults.inline import Way, migrate
from tests.faults.judge import after_fault, complete_problems, recovery_problems
from tests.faults.small import Scene
from tests.faults.sweeping import Case, chosen, sample
from tests.faults.test_undoing_crash import LEDGER, counted
from tests.faults.undoing import cutover
from tests.packed import compressed_of, make_packed

TARGETS = (
    *(f"regrain.disk:{name}" for name in (*WRITES, *SYNCS)),
    *(f"{LEDGER}.{name}" for name in ("represented", "remember")),
)
MOMENTS_MIN = 60
KILLED = Ended(signal.SIGKILL, 0)

FEW = 6
"""Cases of a sweep that are tried every day."""


def few(cases: Sequence[Case], seed: int, sweep: str) -> list[Case]:
    """Return some cases of a sweep."""
    picked = sample(cases, seed, sweep)
    return picked[:: -(-len(picked) // FEW)]


@pytest.fixture(scope="module")
def plain(place: Path, seed: int) -> Iterator[Scene]:
    """A store whose objects are plain; no reader falls back to legacy."""
    made = make_packed(place / "plain", seed)
    migrate(made.path, Way(ingest="copy"))
    cutover(made.path)
    yield made
    remove(made.path)


@pytest.fixture(scope="module", params=sorted(repacking.BEFORE))
def step_before(request: pytest.FixtureRequest, plain: Scene) -> Iterator[tuple[str, Scene]]:
    """A step, and a store right before it."""
    made = repacking.fresh(plain)
    for step in repacking.BEFORE[request.param]:
        repacking.run(step, made)
    kept = plain.path.with_name(f"before-{request.param}")
    made.path.rename(kept)
    packages = {
        name: type(p)(p.hash, kept / name, p.name, p.version, p.what)
        for name, p in made.packages.items()
    }
    yield request.param, Scene(kept, packages, made.before)
    remove(kept)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("choose", [few, pytest.param(chosen, marks=pytest.mark.slow)])
def test_killed_anywhere_the_same_command_finishes(
    step_before: tuple[str, Scene],
    crash: Crasher,
    seed: int,
    choose: Callable[[Sequence[Moment], int, str], list[Moment]],
) -> None:
    step, before = step_before
    survey = repacking.fresh(before)
    with counted(TARGETS) as calls:
        repacking.run(step, survey)
    assert repacking.state_problems(step, survey) == []
    wanted = repacking.carriers(survey)
    moments = [
        Moment(target, when, number)
        for target in TARGETS
        for number in range(1, calls[target] + 1)
        for when in (("before", "after") if target.startswith(LEDGER) else ("before",))
    ]
    assert len(moments) >= MOMENTS_MIN
    wrong = []
    for moment in choose(moments, seed, step):
        scene = repacking.fresh(before)
        ended = crash(f"tests.faults.repacking:{step}", scene.path, Way(), moment)
        if ended != KILLED:
            wrong.append(f"{moment}: it did not die: {ended}")
        wrong += [f"{moment}: then {line}" for line in repacking.any_time_problems(scene)]
        repacking.run(step, scene)
        wrong += [f"{moment}: at last {line}" for line in repacking.state_problems(step, scene)]
        found = differences(wanted, repacking.carriers(scene))
        wrong += [f"{moment}: not as without a kill: {line}" for line in found]
        rows = repacking.rows(scene)
        repacking.run(step, scene)
        wrong += [] if repacking.rows(scene) == rows else [f"{moment}: rows changed once more"]
    assert wrong == []


@pytest.mark.timeout(400)
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
@pytest.mark.parametrize("system", [False, True], ids=["disk", "os"])
@pytest.mark.parametrize("choose", [few, pytest.param(chosen, marks=pytest.mark.slow)])
def test_a_failing_write_loses_nothing(
    step_before: tuple[str, Scene],
    seed: int,
    error: int,
    system: bool,
    choose: Callable[[Sequence[Call], int, str], list[Call]],
) -> None:
    step, before = step_before
    survey = repacking.fresh(before)
    with injected(Faults(survey.path), system=system) as faults:
        repacking.run(step, survey)
    writes = ("write", "fchmod", "utime", "ftruncate") if system else (*WRITES, *SYNCS)
    calls = [call for call in faults.calls if call.function in writes]
    assert len(calls) > 20
    wrong, fired = [], 0
    picked = choose(calls, seed, step)
    for call in picked:
        scene = repacking.fresh(before)
        injection = Faults(scene.path, call.function, call.number, error)
        with injected(injection, system=system):
            try:
                repacking.run(step, scene)
            except RegrainError:
                pass
            except Exception as raised:  # noqa: BLE001 -- finding such is what this is for
                wrong.append(f"{call}: raw {raised!r}")
        fired += injection.fired is not None
        wrong += [f"{call}: then {line}" for line in repacking.any_time_problems(scene)]
        repacking.run(step, scene)
        wrong += [f"{call}: at last {line}" for line in repacking.state_problems(step, scene)]
    assert fired >= len(picked) - 1
    assert wrong == []


@pytest.mark.timeout(400)
@pytest.mark.parametrize("choose", [few, pytest.param(chosen, marks=pytest.mark.slow)])
def test_killed_while_objects_come_in_compressed(
    place: Path,
    crash: Crasher,
    seed: int,
    choose: Callable[[Sequence[Moment], int, str], list[Moment]],
) -> None:
    before, way = make_packed(place / "pending", seed), Way(compression="zstd", batch=1)
    survey = repacking.fresh(before)
    targets = (*TARGETS, f"{LEDGER}.record")
    with counted(targets) as calls:
        migrate(survey.path, way)
    assert complete_problems(survey) == []
    wanted = compressed_of(survey.path)
    assert len(wanted) == repacking.OBJECTS + 1
    moments = [
        Moment(target, "before", number)
        for target in targets
        for number in range(1, calls[target] + 1)
    ]
    assert len(moments) >= MOMENTS_MIN
    wrong = []
    for moment in choose(moments, seed, "ingest"):
        scene = repacking.fresh(before)
        if crash("migrate", scene.path, way, moment) != KILLED:
            wrong.append(f"{moment}: it did not die")
        wrong += [f"{moment}: then {line}" for line in after_fault(scene)]
        wrong += [f"{moment}: at last {line}" for line in recovery_problems(scene, way)]
        if compressed_of(scene.path) != wanted:
            wrong.append(f"{moment}: others are compressed")
    remove(before.path)
    assert wrong == []


def test_a_protocol_that_is_broken_is_caught(
    plain: Scene, crash: Crasher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were the old carrier to go first, a kill in between would lose it: the sweep sees that."""
    scene = repacking.fresh(plain)
    moment = Moment("regrain.ledger.queries:Ledger.represented", "before")
    ended = crash("tests.faults.repacking:compress_wrongly", scene.path, Way(), moment)
    assert ended == KILLED
    assert repacking.any_time_problems(scene) != []


@pytest.mark.parametrize("step", sorted(repacking.BEFORE))
def test_nothing_goes_before_what_replaces_it_is_on_the_disk(plain: Scene, step: str) -> None:
    """Flushed before it is named, its name flushed before the old one goes, that one's at last."""
    scene = repacking.fresh(plain)
    for one in repacking.BEFORE[step]:
        repacking.run(one, scene)
    with injected(Faults(scene.path)) as faults:
        repacking.run(step, scene)
    letters = {
        ("write_all", "temp"): "w",
        ("syncfs", ""): "S",
        ("rename_noreplace", "objects"): "r",
        ("fsync", "objects"): "f",
        ("unlink", "objects"): "u",
    }
    told = "".join(letters.get((call.function, call.place), "") for call in faults.calls)
    told = re.sub(r"^[^w]*", "", told)  # recovery, and the run's own directory
    # A unit of work is made before the first of it is committed, so its writes may all come first.
    assert re.fullmatch(r"(w*Sr{1,2}f{1,2}u{1,2}f{1,2})+w*", told), told
    assert told.startswith("w")
    assert told.count("r") == told.count("u") == repacking.OBJECTS
