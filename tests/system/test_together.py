"""Eight processes work on one store side by side: nobody fails, nothing is lost.

Each logs what it did, when it began and ended, and how it went. A package that some remove
may be absent for others; whether it could be at that moment follows from the log alone.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest
from blake3 import blake3

from tests.archives import ARCHIVERS
from tests.command import Regrain
from tests.compare import differences, snapshot
from tests.reader import Store, check_store
from tests.stores import new_layout_differences, read_ledger
from tests.system.together_actors import FILE_SYSTEM, Item, Plan
from tests.trees import LIVE, Tree, describe, package_hash

pytestmark = pytest.mark.both_databases

QUOTA = {
    "add-1": 15,
    "add-2": 15,
    "remove": 12,
    "read": 250,
    "checkout": 30,
    "collect": 8,
    "care": 3,
    "migrate": 3,
}
"""What each does at the least; all go on until all have done theirs."""

ROLES = tuple(QUOTA)

START_SECONDS = 3.0
ACTORS = "tests.system.together_actors"
(_PACK,) = [archiver for archiver in ARCHIVERS if archiver.name == "python-pax"]


# --- the packages -------------------------------------------------------------------------


def make_items(place: Path, store: Path, seed: int) -> list[Item]:
    """Make packages that share most of their files, and modes that do not always agree."""
    common = [  # of digits, so that compressing pays
        Random(f"{seed}:common:{n}").randbytes(200 + 997 * n % 20_000).hex().encode()
        for n in range(40)
    ]
    makers = [("directory", 10), ("archive", 8), ("legacy", 6), ("lasting", 4)]
    return [
        make_item(place, store, seed, kind, number, common)
        for kind, count in makers
        for number in range(count)
    ]


def make_item(
    place: Path, store: Path, seed: int, kind: str, number: int, common: list[bytes]
) -> Item:
    label = f"{kind}{number}"
    random = Random(f"{seed}:{label}")
    digits = 32 if number % 3 == 1 else 64
    name = package_hash(seed, label, digits)
    stays = kind == "lasting"
    root = store / name if stays and number % 2 else place / "pool" / name
    with Tree(root, random) as tree:
        describe(tree, label, "1.0")
        for index in random.sample(range(len(common)), 25):
            mode = random.choice((0o644, 0o644, 0o755, 0o444))
            tree.file(LIVE + b"/share/%02d" % index, common[index], mode)
        for index in range(4):
            tree.file(LIVE + b"/own/%d" % index, random.randbytes(random.randrange(9_000)))
        tree.symlink(LIVE + b"/lib", b"share")
    if kind == "archive":
        archive = place / "pool" / f"{label}.sp"
        _PACK.pack(root, archive)
        name = blake3(archive.read_bytes()).hexdigest()
        return Item(name, archive, snapshot(root), legacy=False, stays=False)
    return Item(name, root, snapshot(root), legacy=kind == "legacy", stays=stays)


# --- the log ------------------------------------------------------------------------------


class Step(NamedTuple):
    """One line of a log."""

    begin: float
    end: float
    operation: str
    package: str
    outcome: str


@dataclass(slots=True)
class History:
    """What happened to one package, by all processes.

    ``changes``: the steps that brought or removed it, and took effect at some moment between
    their begin and their end.
    """

    changes: list[Step]

    def may_be(self, present: bool, begin: float, end: float) -> bool:
        """Tell whether the package can have been present (absent) at a moment of a span."""
        makes_so = "added" if present else "removed"
        beside = [c for c in self.changes if c.begin <= end and c.end >= begin]
        if any(change.outcome == makes_so for change in beside):
            return True
        return makes_so in self.latest(begin)

    def latest(self, moment: float) -> set[str]:
        """What the last change before a moment may have been; several that overlap may be it."""
        before = [change for change in self.changes if change.end < moment]
        begun = max((change.begin for change in before), default=0.0)
        return {change.outcome for change in before if change.end >= begun} or {"removed"}


def read_logs(place: Path, roles: Iterable[str] = ROLES) -> list[Step]:
    lines = [line for role in roles for line in (place / f"{role}.log").read_text().splitlines()]
    return sorted(Step(*json.loads(line)) for line in lines)


def histories(items: list[Item], steps: list[Step]) -> dict[str, History]:
    found = {item.name: History([]) for item in items}
    for item in items:
        if item.stays:
            found[item.name].changes.append(Step(0, 0, "init", item.name, "added"))
    for step in steps:
        if step.outcome in {"added", "removed"}:
            found[step.package].changes.append(step)
    return found


def wrong_steps(steps: list[Step], found: dict[str, History]) -> Iterator[str]:
    """Say which outcomes the contract does not allow."""
    for step in steps:
        if step.outcome.startswith("error"):
            yield f"{step.operation} {step.package}: {step.outcome}"
        elif step.outcome in {"present", "absent"}:
            is_present = step.outcome == "present"
            if not found[step.package].may_be(is_present, step.begin, step.end):
                yield f"{step.operation} {step.package}: {step.outcome}, which it cannot have been"


# --- the test -----------------------------------------------------------------------------


def work(plan: Plan, module: str) -> list[Step]:
    """Let all processes work to their end; return what they did."""
    roles = tuple(plan.operations)
    with (plan.place / "plan").open("wb") as stream:
        pickle.dump(plan, stream)
    command = [sys.executable, "-m", module, str(plan.place / "plan")]
    actors = {role: subprocess.Popen([*command, role], stdin=subprocess.DEVNULL) for role in roles}
    try:
        codes = {role: actor.wait(plan.seconds + 100) for role, actor in actors.items()}
    finally:
        for actor in actors.values():
            actor.kill()
            actor.wait()
    assert codes == dict.fromkeys(roles, 0)
    return read_logs(plan.place, roles)


def judge_end(regrain: Regrain, plan: Plan, found: dict[str, History]) -> None:
    """Everything that should be there is, and nothing else, and all agree about it."""
    for item in plan.items:
        if item.legacy:
            regrain("exclude", item.name, "--undo", code=None)
    regrain("migrate", env={"REGRAIN_MIGRATION__SETTLE": "0"})
    regrain("gc", "--execute", "--grace", "0s")
    there = {row["package_hash"] for row in regrain("list", "--json").document["packages"]}
    now = time.monotonic()
    by_name = {item.name: item for item in plan.items}
    for name, history in found.items():
        assert history.may_be(name in there, now, now), (name, name in there, history)
    assert there <= by_name.keys()
    legacy = there & set(os.listdir(plan.store))
    store = check_store(plan.store, legacy=legacy)
    assert store.problems == []
    assert store.packages.keys() == there
    trees = {name: by_name[name].tree for name in there}
    assert new_layout_differences(store, trees, there) == []
    for name in legacy:
        assert differences(trees[name], snapshot(plan.store / name)) == []
    assert owners_in_ledger(plan.store) == owners_by_lists(store)
    regrain("verify", "--level", "deep")
    findings = regrain("doctor", "--json", code=None).document["findings"]
    grave = [f for f in findings if f["level"] not in {"ok", "advice"}]
    assert [finding for finding in grave if finding["check"] not in FILE_SYSTEM] == []
    for number, name in enumerate(sorted(there)):
        out = plan.place / f"end-{number}"
        regrain("checkout", name, out)
        assert differences(trees[name], snapshot(out)) == []


def owners_in_ledger(path: Path) -> set[tuple[str, str]]:
    query = (
        "SELECT package_hash, lower(hex(digest)) FROM object_owners"
        " JOIN objects ON objects.id = object_id LEFT JOIN packages ON packages.id = package_id"
    )
    return set(read_ledger(path, query))


def owners_by_lists(store: Store) -> set[tuple[str, str]]:
    return {
        (name, entry["hash"])
        for name, entries in store.packages.items()
        for entry in entries
        if entry["type"] == "file" and entry["size"]
    }


def run_together(
    workplace: Path,
    seed: int,
    seconds: float,
    operations: dict[str, int],
    *,
    legacy_comes: bool = True,
    actors: str = ACTORS,
) -> Counter[str]:
    """Work side by side, then judge; return how often each operation was done.

    Args:
        workplace: An empty directory.
        seed: Of everything random.
        seconds: How long, at the most.
        operations: What each role does at the least.
        legacy_comes: Whether legacy packages appear meanwhile.
        actors: The module that plays the roles.
    """
    place = workplace / "place"
    place.mkdir()
    regrain = Regrain(workplace / "store")
    regrain.store.mkdir()
    made = make_items(place, regrain.store, seed)
    items = [item for item in made if legacy_comes or not item.legacy]
    regrain("init")
    for item in items:
        if item.stays and not item.source.is_relative_to(regrain.store):
            regrain("add", item.source, "--hash", item.name)
    begin = time.monotonic() + START_SECONDS
    plan = Plan(regrain.store, place, seed, begin, seconds, operations, items)
    steps = work(plan, actors)
    counted = tell(seed, steps)
    found = histories(items, steps)
    wrong = list(wrong_steps(steps, found))
    assert not wrong, f"{len(wrong)} of {len(steps)}:\n" + "\n".join(wrong[:8])
    judge_end(regrain, plan, found)
    return counted


def tell(seed: int, steps: list[Step]) -> Counter[str]:
    """Print how often each operation was done, and how it ended; return the former."""
    counted = Counter(step.operation for step in steps if step.operation != "seen")
    outcomes = Counter(f"{s.operation}: {s.outcome}" for s in steps if s.operation != "seen")
    took = max(step.end for step in steps) - min(step.begin for step in steps)
    say = [f"REGRAIN_TEST_SEED={seed}, {sum(counted.values())} operations in {took:.0f} s"]
    say += [f"{n:6}  {what.strip().splitlines()[-1]}" for what, n in sorted(outcomes.items())]
    print("\n".join(say))  # noqa: T201 -- the figures are part of what this test is for
    return counted


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_eight_processes(workplace: Path, seed: int) -> None:
    counted = run_together(workplace, seed, 80, QUOTA)
    assert sum(counted.values()) >= sum(QUOTA.values())


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_eight_processes_for_a_minute(workplace: Path, seed: int) -> None:
    counted = run_together(workplace, seed + 1, 60, dict.fromkeys(ROLES, 1_000_000))
    assert sum(counted.values()) >= 2 * sum(QUOTA.values()), counted


PACKERS = "tests.system.packed_actors"
PACKED_QUOTA = {**QUOTA, "add-2": 0, "repack": 9, "repair": 4, "remote": 40}


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_ten_processes_while_objects_change_their_form(workplace: Path, seed: int) -> None:
    """Migration and additions compress; ``repack`` goes back and forth; ``repair`` looks on."""
    counted = run_together(workplace, seed + 2, 200, PACKED_QUOTA, actors=PACKERS)
    for verb, times in {"repair": 4, "push": 5, "pull": 5, "migrate": 3}.items():
        assert counted[verb] >= times, counted
    assert sum(counted[f"repack {choice}"] for choice in ("all", "cold", "none")) >= 9, counted


@pytest.mark.both_databases(False)
def test_the_judge_of_moments() -> None:
    """What the log allows and what not."""
    history = History([Step(1, 2, "add", "p", "added"), Step(5, 6, "remove", "p", "removed")])
    assert history.may_be(False, 0.1, 0.5)
    assert not history.may_be(True, 0.1, 0.5)
    assert history.may_be(True, 0.5, 1.5)
    assert not history.may_be(False, 3, 4)
    assert history.may_be(False, 3, 5)
    assert not history.may_be(True, 7, 8)
    both = History([Step(1, 4, "add", "p", "added"), Step(2, 3, "remove", "p", "removed")])
    assert both.may_be(True, 9, 9)
    assert both.may_be(False, 9, 9)
