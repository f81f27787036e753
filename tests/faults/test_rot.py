"""What lies still is damaged before a command: bytes turn, files end early or are gone.

The rule for every command and every damage: a package that had a whole copy in either layout has
one afterwards; nobody is handed bytes that are not the package's; the error is one of ours. Then
the clock: it jumps by years while a command works.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from itertools import cycle, product
from pathlib import Path
from random import Random
from typing import Any

import pytest

from regrain import RegrainError
from regrain.app.store import PackageStore
from regrain.model import clock
from regrain.model.phase import Layout
from tests.compare import differences, snapshot
from tests.conftest import remove
from tests.faults import keeping_scenes, tally
from tests.faults.commands import COMMANDS, Arena, arena, outcome_of
from tests.faults.judge import package_differences
from tests.faults.small import Scene
from tests.faults.sweeping import sample
from tests.reader import check_store, object_bytes_problem, package_tree
from tests.repairs import cut, lose, turn_over

DAMAGES: dict[str, Callable[[Path], None]] = {"turned": turn_over, "cut": cut, "gone": lose}
TARGETS = ("object", "file list", "legacy file", "ledger")
CASES = [*product(TARGETS, DAMAGES)]
EVERY_DAY = 1
DIGITS = 64
MUST_NOTICE = {
    ("cleanup", "object"): {"K", "Q"},
    ("cleanup", "file list"): {"K", "Q"},
    ("cleanup", "legacy file"): {"K"},
    ("cutover", "file list"): {"T", "Q", "K"},
    ("rollback --purge", "legacy file"): {"K"},
    ("rollback", "object"): {"Q", "F"},
    ("rollback", "file list"): {"Q", "F"},
    **{(name, "ledger"): {"Q"} for name in COMMANDS},
}
"""Where a command may not end as if nothing were wrong, and the letters that it may end with."""

LEDGER_IS_LEFT_ALONE = {"restore", "repair"}
"""A restored store gets a ledger of its own; a repair is for damage."""


@pytest.fixture(params=COMMANDS)
def at(request: pytest.FixtureRequest, place: Path, seed: int) -> Iterator[Arena]:
    folder = place / "rot"
    remove(folder)
    folder.mkdir()
    yield arena(request.param, folder, seed)
    remove(folder)


def target(scene: Scene, what: str, random: Random) -> Path | None:
    """A file of this sort; None where there is none."""
    path = scene.path
    if what == "ledger":
        return path / "state.sqlite"
    if what == "object":
        found = sorted((path / "objects").glob("*/*"))
    elif what == "file list":
        found = sorted((path / "packages").glob("*/files.json"))
    else:
        files = (f for name in sorted(scene.packages) for f in sorted((path / name).rglob("*")))
        found = [f for f in files if f.is_file() and not f.is_symlink() and f.stat().st_size]
    return random.choice(found) if found else None


def whole(scene: Scene) -> set[str]:
    """The packages that have a whole copy in one layout at least, by the tests' own reading."""
    store = check_store(scene.path, orphans=True)
    damaged = {
        digest
        for digest, carriers in store.carriers.items()
        if all(object_bytes_problem(carrier) for carrier in carriers)
    }
    found = set()
    for name, before in scene.before.items():
        legacy = scene.path / name
        if legacy.is_dir() and not differences(before, snapshot(legacy)):
            found.add(name)
        elif name in store.packages:
            named = {e["hash"] for e in store.packages[name] if e["type"] == "file" and e["size"]}
            there = named <= store.carriers.keys() and not named & damaged
            if there and not differences(before, package_tree(store, name)):
                found.add(name)
    return found


def handed_on(scene: Scene) -> list[str]:
    """What readers are given from the new layout that is not the package's."""
    store, said = PackageStore.open(scene.path), []
    for name, before in scene.before.items():
        try:
            package = store.get_package(name)
            if package.layout is Layout.FILE_LEVEL:
                said += [f"{name}: {line}" for line in package_differences(package, before)]
        except RegrainError:
            continue
    return said


def damage(at: Arena, what: str, how: str, seed: int) -> list[str]:
    """Damage something, run the command; say what is wrong then."""
    scene = at.fresh()
    file = target(scene, what, Random(f"{seed}:{at.name}:{what}:{how}"))
    if file is None:
        return []
    if what == "legacy file" and at.name in FIRST_READ:
        return []  # nobody knows yet what it was
    if at.name == "migrate after rollback" and (what == "legacy file" or how != "gone"):
        return []  # the legacy directory is the truth then, and shares its inodes with objects
    aside = scene.path.with_name("aside")
    subprocess.run(["cp", "-a", "--", file, aside], check=True)
    has_others = len(list(file.parent.glob(f"{file.name[:DIGITS]}*"))) > 1
    DAMAGES[how](file)
    before = whole(scene)
    case = f"{at.name}: {what} {how}"
    letter, words = outcome_of(at.command, scene)
    tally.count(at.name, f"{what} {how}", letter)
    gone = {keeping_scenes.gone_of(scene)} if at.name == "remove" else set()
    said = [f"lost: {name}" for name in before - whole(scene) - gone]
    said += handed_on(scene)
    wanted = MUST_NOTICE.get((at.name, what))
    if what == "ledger" and at.name in LEDGER_IS_LEFT_ALONE:
        wanted = None
    if what == "object" and has_others:  # what it holds is still there, under another name
        wanted = None
    if wanted is not None and letter not in wanted:
        said.append(f"it ended with {letter}: {words}")
    return [f"{case}: {line}" for line in said]


FIRST_READ = {"migrate", "migrate, copied and flushed one by one", "migrate in place"}


@pytest.mark.parametrize(
    "choose",
    [
        pytest.param(
            lambda cases, seed, name: sample(cases, seed, name)[:EVERY_DAY],
            id="some",
            marks=pytest.mark.slow,
        ),
        pytest.param(lambda cases, *_: cases, id="all", marks=pytest.mark.slow),
    ],
)
def test_nothing_that_was_whole_is_lost(at: Arena, seed: int, choose: Callable[..., Any]) -> None:
    cases = choose(CASES, seed, f"rot, {at.name}")
    assert [line for what, how in cases for line in damage(at, what, how, seed)] == []


YEARS = 10 * 365 * 86_400


@pytest.mark.slow
@pytest.mark.parametrize("jumps", [(YEARS, -YEARS), (-YEARS,), (YEARS,)], ids=str)
def test_the_clock_jumps(
    at: Arena, monkeypatch: pytest.MonkeyPatch, jumps: tuple[int, ...]
) -> None:
    """Nothing but words and waiting times hangs on what the time is."""
    scene, asked, real = at.fresh(), cycle(jumps), clock.now
    fired = []

    def now() -> int:
        fired.append(next(asked))
        return real() + fired[-1]

    with monkeypatch.context() as patch:
        patch.setattr(clock, "now", now)
        letter, words = outcome_of(at.command, scene)
    if not fired:
        pytest.skip("it does not ask for the time")
    tally.count(at.name, "clock jumps", letter)
    # A mark of a backup is good for a day: in another year the gate asks for one.
    assert letter == "ok" or (at.name, letter) == ("cutover", "T"), words
    assert at.command.any_time(scene) == []
    assert at.command.at_last(scene) == []
