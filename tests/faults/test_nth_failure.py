"""Every step of the system that a migration takes fails once, at its n-th call.

Each failure must end in its letter of the fault matrix, harm nothing, and be overcome by
the next run. The everyday portion lets each place in the program that calls a function meet
each error once; ``slow`` goes through every single call, or with ``REGRAIN_SWEEP=sample``
through a part of them that the seed chooses (see ``sweeping``).
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from random import Random
from types import FrameType

import pytest

from tests.conftest import remove
from tests.faults.crashes import survey
from tests.faults.faulty import DISK, OS, OS_READS, READS, SYNCS, Call, Faults, injected
from tests.faults.inline import Way, migrate
from tests.faults.judge import after_fault, ledger_problems, outcome_of, recovery_problems
from tests.faults.small import (
    SLICE_ENTRIES,
    Scene,
    copy_of,
    published_before,
)
from tests.faults.sweeping import chosen
from tests.stores import read_ledger, statuses

SLICED = Way(slice_entries=SLICE_ENTRIES)
WAYS = {
    "sliced": SLICED,
    "whole": Way(batch=10),
    "copied and flushed one by one": Way(ingest="copy", sync="fsync", batch=3),
}
WORK, ENDS = ("worker", "publish", "commit"), ("begin", "recover", "end")
SPACE = (errno.ENOSPC, errno.EDQUOT)
NO_LINK = (errno.EMLINK, errno.EXDEV, errno.EPERM)
CLEAN = {"ok", "F", "P", "H", "E"}


def errors_of(function: str, *, all_of_them: bool) -> tuple[int, ...]:
    """The errors a function may end with."""
    if function in (*READS, *OS_READS):
        return (errno.EIO, errno.EMFILE, errno.EACCES) if all_of_them else (errno.EIO, errno.EMFILE)
    if function in SYNCS:
        return (errno.EIO, errno.ENOSPC, errno.EROFS) if all_of_them else (errno.EIO,)
    few = (errno.EIO, errno.ENOSPC, *(NO_LINK if function == "link" else ()))
    return (*few, errno.EDQUOT, errno.EROFS, errno.EMFILE) if all_of_them else few


BESIDE = ("migrate.journal.", "migrate.control.")
"""What goes on beside the work, and may fail without it."""


def allowed(call: Call, error: int) -> set[str]:
    """The letters that the fault matrix allows; never an error that is not ours."""
    if call.stage == "end" or any(room in call.caller for room in BESIDE):
        return CLEAN - {"F"}
    if call.stage in ENDS:
        usual = {"P", "ok"} if error in SPACE else {"H", "E", "ok"}
        return usual | {"H"} if call.function in SYNCS else usual
    if call.function == "link" and error in NO_LINK:
        return {"ok"}
    if call.function in SYNCS:
        return {"H", "P"} if error in SPACE else {"H"}
    if call.function in (*READS, *OS_READS):
        # a legacy tree too deep for the limit fails its package: it would for ever
        return {"F"} if call.place == "legacy" else {"F", "H"}
    return {"P"} if error in SPACE else {"H"}


@dataclass(frozen=True, slots=True)
class Case:
    """One failure."""

    call: Call
    error: int

    def __str__(self) -> str:
        name = errno.errorcode[self.error]
        call = self.call
        return f"{call.function} no. {call.number} in {call.caller} ({call.place}): {name}"


@pytest.fixture(scope="module")
def replacing(place: Path, template: Scene) -> Scene:
    """One whose packages are published but count as pending: each will be replaced."""
    return published_before(template, place / "replacing", SLICED)


def fail_once(template: Scene, way: Way, case: Case, *, system: bool) -> list[str]:
    """Let one call fail; say what did not end as it must."""
    scene = copy_of(template, template.path.with_name("scene"))
    try:
        faults = Faults(scene.path, case.call.function, case.call.number, case.error)
        with injected(faults, system=system):
            letter, ended = outcome_of(scene, way)
        assert faults.fired is not None, f"{case}: it did not fire"
        said = [] if letter in allowed(faults.fired, case.error) else [f"{letter}: {ended!r}"]
        if letter == "F":
            said += wrong_failure(scene, case.error)
            said += ledger_problems(scene.path)
        said += after_fault(scene)
        said += recovery_problems(scene, way)
        return [f"{case}: {line}" for line in said]
    finally:
        remove(scene.path)


def wrong_failure(scene: Scene, error: int) -> Iterator[str]:
    """One package failed, for this reason; the others are done."""
    found = sorted(statuses(scene.path).values())
    if found != ["completed"] * (len(found) - 1) + ["failed"]:
        yield f"{found}"
    ((message,),) = read_ledger(
        scene.path, "SELECT error_message FROM store_migration WHERE status = 'failed'"
    )
    if os.strerror(error) not in message:
        yield f"its message is {message!r}"


def sweep(template: Scene, way: Way, cases: Iterable[Case], *, system: bool = False) -> list[str]:
    """Fail in each of these ways."""
    count, said = 0, []
    for case in cases:
        count += 1
        said += fail_once(template, way, case, system=system)
    assert count, "nothing was tried"
    return said


def sample(calls: list[Call], function: str, stages: tuple[str, ...], seed: int) -> Iterator[Case]:
    """One call of each place in the program, by chance, with each error."""
    random = Random(f"{seed}:{function}")
    places: dict[tuple[str, str, str], list[Call]] = {}
    for call in calls:
        if call.function == function and call.stage in stages:
            places.setdefault((call.stage, call.caller, call.place), []).append(call)
    for found in places.values():
        for error in errors_of(function, all_of_them=False):
            yield Case(random.choice(found), error)


@pytest.fixture(scope="module")
def calls(template: Scene) -> list[Call]:
    return survey(template, SLICED)


def test_the_survey_sees_every_step(template: Scene, calls: list[Call]) -> None:
    """What a sweep does not see it cannot break."""
    assert {call.function for call in calls} >= set(DISK) - {"rename_exchange"}
    assert {call.stage for call in calls} == {*WORK, *ENDS}
    steps = {(call.stage, call.function, call.place) for call in calls}
    assert steps >= {
        ("worker", "open_file", "legacy"),
        ("worker", "create", "temp"),
        ("worker", "rename_noreplace", "temp"),
        ("publish", "open_directory", "legacy"),
        ("publish", "link", "objects"),
        ("publish", "rename_noreplace", "objects"),
        ("commit", "syncfs", ""),
        ("commit", "rename_noreplace", "packages"),
        ("commit", "fsync", "packages"),
    }
    system = survey(template, SLICED, system=True)
    assert {call.function for call in system} >= set(OS) - {"listdir"}


IN_WORK = [name for name in DISK if name not in {"rename_exchange", "rename_replace"}]
AT_ENDS = ("open_directory", "open_file", "list_directory", "create", "make_directory", "fsync")


@pytest.mark.parametrize("function", IN_WORK)
def test_a_failure_at_work(template: Scene, calls: list[Call], seed: int, function: str) -> None:
    assert sweep(template, SLICED, sample(calls, function, WORK, seed)) == []


@pytest.mark.parametrize("function", AT_ENDS)
def test_a_failure_at_begin_or_end(
    template: Scene, calls: list[Call], seed: int, function: str
) -> None:
    assert sweep(template, SLICED, sample(calls, function, ENDS, seed)) == []


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize("function", ["rename_exchange", "fsync"])
def test_a_failure_while_packages_are_replaced(replacing: Scene, function: str, error: int) -> None:
    found = [c for c in survey(replacing, SLICED) if c.function == function]
    cases = [Case(call, error) for call in found if call.stage == "commit"]
    assert sweep(replacing, SLICED, cases) == []


@pytest.mark.parametrize("way", ["whole", "copied and flushed one by one"])
@pytest.mark.parametrize("step", ["objects", "packages"])
def test_a_failure_in_the_midst_of_a_commit(template: Scene, way: str, step: str) -> None:
    """Some names of a batch are there, others are not, no row is."""
    found = survey(template, WAYS[way])
    renames = [c for c in found if c.function == "rename_noreplace" and c.place == step]
    chosen = [renames[0], renames[len(renames) // 2], renames[-1]]
    cases = [Case(call, error) for call in chosen for error in (errno.EIO, errno.ENOSPC)]
    assert sweep(template, WAYS[way], cases) == []


@pytest.mark.parametrize(
    ("function", "stage", "place_"),
    [
        ("create", "worker", "temp"),
        ("syncfs", "commit", ""),
        ("link", "publish", "objects"),
        ("rename_noreplace", "publish", "objects"),
        ("rename_noreplace", "commit", "packages"),
        ("fsync", "commit", "packages"),
    ],
)
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_a_run_that_ends_leaves_nothing_in_hand(
    template: Scene, calls: list[Call], function: str, stage: str, place_: str, error: int
) -> None:
    """What was claimed and not recorded is pending again, not in progress for nobody."""
    scene = copy_of(template, template.path.with_name("in-hand"))
    try:
        call = next(c for c in calls if (c.function, c.stage, c.place) == (function, stage, place_))
        faults = Faults(scene.path, function, call.number, error)
        with injected(faults):
            letter, _ = outcome_of(scene, SLICED)
        assert faults.fired is not None
        assert letter in {"H", "P"}
        assert set(statuses(scene.path).values()) <= {"pending", "completed"}
        assert "pending" in statuses(scene.path).values()
    finally:
        remove(scene.path)


class NoLinks(Faults):
    """No link can be made, nowhere or not at one place; late copies may not be flushed either."""

    def __init__(self, store: Path, error: int, place_: str, flush_error: int = 0) -> None:
        super().__init__(store)
        self.refused = {"link": (error, "", place_), "fsync": (flush_error, "publish", "temp")}

    def called(self, function: str, fd: object, frame: FrameType | None) -> None:
        super().called(function, fd, frame)
        error, stage, place_ = self.refused.get(function, (0, "", ""))
        call = self.calls[-1]
        if error and stage in {"", call.stage} and place_ in {"", call.place}:
            raise OSError(error, os.strerror(error), b"injected")


@pytest.mark.parametrize("sync", ["syncfs", "fsync"])
@pytest.mark.parametrize("place_", ["", "objects"])
@pytest.mark.parametrize("error", NO_LINK)
def test_where_linking_is_impossible_everything_is_copied(
    template: Scene, error: int, place_: str, sync: str
) -> None:
    """As on a file system without hard links; or where that shows when it is too late.

    Then the data of the batch was flushed already, so each copy is before it has its name.
    """
    scene = copy_of(template, template.path.with_name("no-links"))
    way = Way(sync=sync, batch=2)
    try:
        with injected(NoLinks(scene.path, error, place_)) as faults:
            assert outcome_of(scene, way)[0] == "ok"
        tried = sum(call.function == "link" for call in faults.calls)
        assert tried > 5 if place_ else tried == 1
        assert {p.lstat().st_nlink for p in (scene.path / "objects").glob("*/*")} == {1}
        assert after_fault(scene) == []
        made_late = 0
        for name in names_of_late_copies(faults.calls):
            assert name == [("fsync", "temp"), ("rename_noreplace", "objects")]
            made_late += 1
        assert made_late > 5 if place_ else made_late == 0
        assert recovery_problems(scene, way) == []
    finally:
        remove(scene.path)


def test_where_links_are_wanted_and_impossible_their_packages_fail(template: Scene) -> None:
    scene = copy_of(template, template.path.with_name("no-links"))
    try:
        with injected(NoLinks(scene.path, errno.EMLINK, "objects")):
            assert migrate(scene.path, Way("hardlink")).failed == len(scene.packages)
        said = read_ledger(scene.path, "SELECT error_message FROM store_migration")
        assert all("cannot be hard-linked" in message for (message,) in said), said
        assert after_fault(scene) == []
        assert ledger_problems(scene.path) == []
        assert recovery_problems(scene, SLICED) == []
    finally:
        remove(scene.path)


def names_of_late_copies(calls: list[Call]) -> Iterator[list[tuple[str, str]]]:
    """Yield what follows on each copy that is made while objects are published, two steps each."""
    counting = ("fsync", "rename_noreplace")
    steps = [call for call in calls if call.stage == "publish" and call.function in counting]
    for number, call in enumerate(steps):
        if (call.function, call.place) == ("rename_noreplace", "temp"):
            yield [(c.function, c.place) for c in steps[number + 1 : number + 3]]


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_a_flush_of_a_late_copy_that_fails_ends_the_run(template: Scene, error: int) -> None:
    """Whatever its reason, even with space left later: the copy cannot be trusted any more."""
    scene = copy_of(template, template.path.with_name("no-links"))
    try:
        with injected(NoLinks(scene.path, errno.EMLINK, "objects", error)) as faults:
            assert outcome_of(scene, SLICED)[0] == "H"
        steps = [(call.stage, call.function, call.place) for call in faults.calls]
        flush, forget = ("publish", "fsync", "temp"), ("publish", "unlink", "temp")
        after = {following for step, following in pairwise(steps) if step == flush}
        assert after == {forget}  # nobody may take it for a good one
        assert ("publish", "rename_noreplace", "objects") not in steps
        assert after_fault(scene) == []
        assert recovery_problems(scene, SLICED) == []
    finally:
        remove(scene.path)


# every single call


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("function", [*DISK])
def test_every_call_of_disk_fails(template: Scene, seed: int, way: str, function: str) -> None:
    cases = chosen(all_cases(template, way, function, system=False), seed, f"{way}:{function}")
    assert sweep(template, WAYS[way], cases) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("function", [*OS])
def test_every_call_of_os_fails(template: Scene, seed: int, way: str, function: str) -> None:
    cases = chosen(all_cases(template, way, function, system=True), seed, f"{way}:{function}")
    assert sweep(template, WAYS[way], cases, system=True) == []


def all_cases(template: Scene, way: str, function: str, *, system: bool) -> list[Case]:
    """Every call of a function with every error."""
    found = [c for c in survey(template, WAYS[way], system=system) if c.function == function]
    if not found:
        pytest.skip(f"{function} is not called this way")
    return [Case(c, error) for c in found for error in errors_of(function, all_of_them=True)]


def test_a_case_tells_how_to_repeat_it() -> None:
    case = Case(Call("link", 3, "worker", "temp", "migrate.staging._link"), errno.EIO)
    assert re.fullmatch(r"link no\. 3 in migrate\.staging\._link \(temp\): EIO", str(case))
