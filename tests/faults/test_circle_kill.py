"""SIGKILL at random moments of every step of the circle, until each has ended well.

After every kill all packages are read, whole; the same command finishes what was begun. At the
end the legacy tree is the pristine copy again, in everything.
"""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from regrain import PackageStore
from tests import awkward
from tests.command import Regrain
from tests.compare import Snapshot, differences, snapshot
from tests.faults.judge import package_differences
from tests.faults.test_kill import MARK, assert_all_die
from tests.reader import check_store
from tests.stores import new_layout_differences, read_ledger, record, statuses
from tests.trees import Abilities, LegacyPackage

AT_ONCE = {
    "REGRAIN_MIGRATION__SETTLE": "0",
    "REGRAIN_MIGRATION__FREE_BYTES_MIN": "1000000",
    "REGRAIN_MIGRATION__FREE_INODES_MIN": "10",
}
STEPS = {
    "migrate": ("migrate", "--jobs", "2", "--batch", "2"),
    "cutover": ("cutover", "--no-backup", "--wait", "60"),
    "cleanup": ("cleanup", "--execute"),
    "rollback": ("rollback",),
    "forward": ("migrate", "--jobs", "2"),
}
SUBJECTS = ("link-groups", "modes", "xattrs", "owners", "sparse", "symlinks", "times", "empties")
PHASES = {
    "migrate": "dual",
    "cutover": "file_level",
    "cleanup": "clean",
    "rollback": "rolled_back",
    "forward": "dual",
}
TRIES_MAX = 12
"""A step that ends before the kill as often is let be: it is too short to be hit."""


@dataclass(slots=True)
class Around:
    """A store on its way, and those who kill it.

    Attributes:
        regrain: The command.
        random: Where moments come from.
        before: What the packages were.
        seconds: How long a step works, as far as is known.
        fired: How often each step was killed while it held the store.
    """

    regrain: Regrain
    random: Random
    before: dict[str, Snapshot]
    seconds: dict[str, float] = field(default_factory=dict)
    fired: Counter[str] = field(default_factory=Counter)

    def kill(self, step: str) -> bool:
        """Start a step and kill it somewhere; False if it had ended before."""
        mark = uuid.uuid4().hex
        holder = self.regrain.store / "migration" / "run.lock"
        with self.regrain.running(*STEPS[step], env={MARK: mark}) as run:
            while str(run.pid) not in holder.read_text() and run.poll() is None:
                time.sleep(0.001)
            begin = time.monotonic()
            end = begin + self.random.random() * self.seconds.get(step, 0.3)
            while time.monotonic() < end and run.poll() is None:
                time.sleep(0.001)
            whole = self.random.random() < 0.5
            if run.poll() is None:
                (os.killpg if whole else os.kill)(run.pid, signal.SIGKILL)
            died = run.wait(60) == -signal.SIGKILL
            if not died:
                self.seconds[step] = time.monotonic() - begin
            assert_all_die(mark)
        self.fired[step] += died
        return died

    def finish(self, step: str) -> None:
        """The same command, left alone, does what is left."""
        self.regrain(*STEPS[step])
        assert PackageStore.open(self.regrain.store).phase == PHASES[step]

    def assert_all_is_read(self, step: str) -> None:
        """Every package is served, whole, whatever was being done."""
        store = PackageStore.open(self.regrain.store)
        assert {str(package.hash) for package in store.packages()} == self.before.keys()
        for name, tree in self.before.items():
            found = [*package_differences(store.get_package(name), tree)]
            assert not found, f"{step}, {name}: {found[:5]}"

    def assert_pristine(self) -> None:
        """Every legacy directory is what it was."""
        for name, tree in self.before.items():
            found = differences(tree, snapshot(self.regrain.store / name), holes=True)
            assert not found, f"{name}: {found[:5]}"


def make_store(path: Path, seed: int, able: Abilities) -> dict[str, LegacyPackage]:
    """Make packages of every sort, and some more so that a step takes a while."""
    made = awkward.make_plain_store(path, seed, 16, 40)
    for subject in SUBJECTS:
        package = awkward.add_awkward(path, subject, seed, able)
        made[package.hash] = package
    return made


def go_around(around: Around, kills: int) -> None:
    """Go once around; every step is killed so many times, if it can be hit."""
    for step in STEPS:
        hit = 0
        for _ in range(TRIES_MAX * kills):
            if hit == kills:
                break
            if around.kill(step):
                hit += 1
            elif step != "cutover":
                break  # it is done, and done again it would be too quick
            around.assert_all_is_read(step)
        around.finish(step)
        around.assert_all_is_read(step)
        if step == "rollback":
            around.assert_pristine()


def assert_sound(around: Around) -> None:
    """The store is whole, in both layouts, and the ledger agrees."""
    path = around.regrain.store
    around.assert_pristine()
    store = check_store(path, legacy=around.before, orphans=True)
    assert store.problems == []
    assert store.packages.keys() == around.before.keys()
    assert new_layout_differences(store, around.before, around.before) == []
    assert set(statuses(path).values()) == {"completed"}
    assert read_ledger(path, "SELECT * FROM intents") == []
    assert read_ledger(path, "SELECT * FROM integrity") == []
    around.regrain("verify", "--level", "deep")


def circle(workplace: Path, seed: int, able: Abilities, kills: int, rounds: int) -> Counter[str]:
    path = workplace / "store"
    packages = make_store(path, seed, able)
    around = Around(Regrain(path, AT_ONCE), Random(f"{seed}:circle"), record(packages))
    around.regrain("init")
    for _ in range(rounds):
        go_around(around, kills)
    assert_sound(around)
    print(f"REGRAIN_TEST_SEED={seed}, killed: {dict(around.fired)}")  # noqa: T201 -- to repeat it
    return around.fired


@pytest.mark.timeout(300)
def test_the_circle_with_kills(workplace: Path, seed: int, able: Abilities) -> None:
    fired = circle(workplace, seed, able, 1, 1)
    assert sum(fired.values()) >= 3, fired


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_circle_with_many_kills(workplace: Path, seed: int, able: Abilities) -> None:
    fired = circle(workplace, seed + 1, able, 4, 4)
    assert sum(fired.values()) >= 50, fired
    assert all(fired[step] for step in STEPS), fired
