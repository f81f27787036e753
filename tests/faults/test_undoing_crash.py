"""SIGKILL at every write of cleanup, rollback, purge and the way forward; then the same again."""

from __future__ import annotations

import importlib
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from regrain.errors import RegrainError
from regrain.model.phase import Phase
from tests.compare import differences, snapshot
from tests.conftest import remove
from tests.faults import undoing
from tests.faults.crash_driver import Crasher, Ended, Moment
from tests.faults.faulty import SYNCS, WRITES
from tests.faults.inline import migrate
from tests.faults.judge import ledger_problems, package_differences
from tests.faults.small import Scene, copy_of
from tests.stores import read_ledger, statuses

LEDGER = "regrain.ledger.queries:Ledger"
STATEMENTS = (
    "intend",
    "intend_all",
    "condemn",
    "cleaned",
    "fulfilled",
    "fulfilled_all",
    "restored",
    "all_rolled_back",
    "taken_up",
    "queue_again",
    "unpublished",
    "forget_objects",
    "remember",
)
TARGETS = (
    *(f"regrain.disk:{name}" for name in (*WRITES, *SYNCS, "_remove_file")),
    *(f"{LEDGER}.{name}" for name in STATEMENTS),
)
KILLED = Ended(signal.SIGKILL, 0)
MOMENTS_MIN = {"cleanup": 60, "rollback": 40, "purge": 40, "forward": 5, "roll_one_back": 8}
BEFORE = {
    "cleanup": ("cutover",),
    "rollback": ("cutover", "cleanup"),
    "purge": ("rollback",),
    "forward": ("rollback",),
    "roll_one_back": (),
}


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Count the calls of every target."""
    calls: Counter[str] = Counter()
    originals = []
    for target in TARGETS:
        module, _, path = target.partition(":")
        owner: Any = importlib.import_module(module)
        *classes, name = path.split(".")
        for part in classes:
            owner = getattr(owner, part)
        original = getattr(owner, name)
        originals.append((owner, name, original))
        setattr(owner, name, _counting(original, target, calls))
    try:
        yield calls
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)


def _counting(original: Callable[..., Any], target: str, calls: Counter[str]) -> Any:
    def call(*arguments: Any, **named: Any) -> Any:
        calls[target] += 1
        return original(*arguments, **named)

    return call


def run(step: str, scene: Scene) -> None:
    options = {"name": scene.named("grouped").hash} if step == "roll_one_back" else {}
    getattr(undoing, step)(scene.path, **options)


@pytest.fixture(scope="module")
def migrated(template: Scene) -> Iterator[Scene]:
    made = copy_of(template, template.path.with_name("migrated"))
    migrate(made.path, undoing.WAY)
    yield Scene(made.path, made.packages, template.before)
    remove(made.path)


def reading_problems(scene: Scene) -> list[str]:
    """How what a reader is given differs from what the packages were."""
    store, said = undoing.opened(scene.path), []
    for name, tree in scene.before.items():
        try:
            found = package_differences(store.get_package(name), tree)
            said += [f"{name}: {line}" for line in found]
        except (RegrainError, OSError) as error:
            said.append(f"{name}: {error!r}")
    return said


def state_problems(step: str, scene: Scene) -> list[str]:
    """What is wrong once the step was given again."""
    path = scene.path
    phase = undoing.root_of(path).phase()
    legacy = {name: (path / name).is_dir() for name in scene.packages}
    said = [
        f"{folder}: {list((path / folder).iterdir())}"
        for folder in ("temp", "trash")
        if any((path / folder).iterdir())
    ]
    said += [f"intent: {row}" for row in read_ledger(path, "SELECT * FROM intents")]
    said += [f"concern: {row}" for row in read_ledger(path, "SELECT * FROM integrity")]
    wanted = {
        "cleanup": (Phase.CLEAN, {"completed"}),
        "rollback": (Phase.ROLLED_BACK, {"rolled_back"}),
        "purge": (Phase.ROLLED_BACK, {"pending"}),
        "forward": (Phase.DUAL, {"completed"}),
        "roll_one_back": (Phase.DUAL, {"completed", "rolled_back"}),
    }[step]
    if (phase, set(statuses(path).values())) != wanted:
        said.append(f"{phase}, {statuses(path)}")
    if step == "cleanup":
        said += [f"{name}: there" for name, is_there in legacy.items() if is_there]
        uncleaned = "SELECT package_hash FROM store_migration WHERE cleaned_at IS NULL"
        said += [f"not recorded: {row}" for row in read_ledger(path, uncleaned)]
        freed = "SELECT package_hash FROM store_migration WHERE freed_bytes IS NULL"
        said += [f"not measured: {row}" for row in read_ledger(path, freed)]
    else:
        for name, tree in scene.before.items():
            found = differences(tree, snapshot(path / name), holes=True)
            said += [f"{name}: {line}" for line in found]
    if step == "purge":
        said += [f"left: {p}" for p in (path / "objects").glob("*/*")]
        said += [f"left: {p}" for p in (path / "packages").iterdir()]
    return said + ledger_problems(path)


@pytest.fixture(scope="module", params=sorted(BEFORE))
def stage(request: pytest.FixtureRequest, migrated: Scene) -> Iterator[tuple[str, Scene]]:
    """A store right before a step."""
    step = request.param
    made = copy_of(migrated, migrated.path.with_name(f"before-{step}"))
    scene = Scene(made.path, made.packages, migrated.before)
    for one in BEFORE[step]:
        run(one, scene)
    yield step, scene
    remove(scene.path)


def fresh(scene: Scene) -> Scene:
    made = scene.path.with_name("scene")
    remove(made)
    subprocess.run(["cp", "-a", "--", scene.path, made], check=True)
    packages = {
        name: type(p)(p.hash, made / name, p.name, p.version, p.what)
        for name, p in scene.packages.items()
    }
    return Scene(made, packages, scene.before)


@pytest.mark.timeout(400)
def test_killed_anywhere_the_same_command_finishes(
    stage: tuple[str, Scene], crash: Crasher
) -> None:
    step, before = stage
    survey = fresh(before)
    with counted() as calls:
        run(step, survey)
    assert state_problems(step, survey) == []
    moments = [
        Moment(target, when, number)
        for target in TARGETS
        for number in range(1, calls[target] + 1)
        for when in (("before", "after") if target.startswith(LEDGER) else ("before",))
    ]
    assert len(moments) >= MOMENTS_MIN[step]
    wrong = []
    for moment in moments:
        scene = fresh(before)
        options = {"name": scene.named("grouped").hash} if step == "roll_one_back" else {}
        ended = crash(f"tests.faults.undoing:{step}", scene.path, undoing.WAY, moment, **options)
        if ended != KILLED:
            wrong.append(f"{moment}: it did not die: {ended}")
        wrong += [f"{moment}: then {line}" for line in reading_problems(scene)]
        run(step, scene)
        wrong += [f"{moment}: at last {line}" for line in state_problems(step, scene)]
        wrong += [f"{moment}: read at last {line}" for line in reading_problems(scene)]
        run(step, scene)
        wrong += [f"{moment}: once more {line}" for line in state_problems(step, scene)]
    assert wrong == []
