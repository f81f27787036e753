"""One of the processes that work on a store side by side: does its part, logs every step.

Called as ``python -m tests.system.together_actors PLAN ROLE``: ``PLAN`` is a pickle of
``Plan``. The log is a file of JSON lines ``[begin, end, operation, package, outcome]``, times
from the clock that all processes share.
"""

from __future__ import annotations

import itertools
import json
import pickle
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from blake3 import blake3

from regrain import PackageStore
from regrain.app import care, keeping
from regrain.app.standing import figures
from regrain.app.verification import verify
from regrain.errors import RefusedError, UnknownPackageError
from regrain.maintain.audit import Level
from regrain.maintain.doctor_findings import Weight
from regrain.settings import Migration, Settings, Store
from tests import databases
from tests.compare import Snapshot, differences, snapshot

FILE_SYSTEM = ("space", "file system", "versions", "configuration")
"""What ``doctor`` says of the machine is no finding here."""

HOT_SECONDS = 0.4
PACE_SECONDS = 0.005
"""Whoever is quick pauses so long, or nobody else would have the processor."""


@dataclass(frozen=True, slots=True)
class Item:
    """A package that may come and go.

    ``source``: a directory or an archive to add; for ``legacy`` ones the tree that a package
    manager moves into the store. ``stays``: there from the beginning, never removed.
    """

    name: str
    source: Path
    tree: Snapshot
    legacy: bool
    stays: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """What all actors work with.

    ``operations``: by role; all work on until all have done theirs, or ``seconds`` are over.
    """

    store: Path
    place: Path
    seed: int
    begin: float
    seconds: float
    operations: dict[str, int]
    items: list[Item]


SETTINGS = Settings(store=Store(migration_parallel_files=1), migration=Migration(settle=0))


class Actor:
    """One process: what it knows, and its log."""

    def __init__(self, plan: Plan, role: str, settings: Settings = SETTINGS) -> None:
        self.plan = plan
        self.role = role
        self.random = Random(f"{plan.seed}:{role}")
        self.store = PackageStore.open(plan.store, settings)
        self.root = self.store.root
        self.coming = [item for item in plan.items if not item.stays and not item.legacy]
        self.legacy = [item for item in plan.items if not item.stays and item.legacy]
        self.log = (plan.place / f"{role}.log").open("w")

    def steps(self) -> dict[str, Callable[[], None]]:
        """What each role does, again and again."""
        return {
            "add-1": self.add,
            "add-2": self.add,
            "remove": self.remove,
            "read": self.read,
            "checkout": self.check_out,
            "collect": self.collect,
            "care": self.care,
            "migrate": self.migrate,
        }

    def run(self) -> None:
        """Do as much as is allowed, in as much time."""
        step = self.steps()[self.role]
        time.sleep(max(0.0, self.plan.begin - time.monotonic()))
        enough = self.plan.operations[self.role]
        for number in itertools.count():
            if number == enough:
                (self.plan.place / f"{self.role}.enough").touch()
            if number >= enough and all(
                (self.plan.place / f"{role}.enough").exists() for role in self.plan.operations
            ):
                break
            if time.monotonic() > self.plan.begin + self.plan.seconds:
                break
            step()
        self.log.close()

    @contextmanager
    def step(self, operation: str, item: Item | None) -> Iterator[list[str]]:
        """Log one operation; its outcome is what was put into the list, or the error."""
        said: list[str] = []
        begin = time.monotonic()
        try:
            yield said
        except UnknownPackageError as error:
            is_item = item is not None and error.what == "no such package"
            said[:] = ["absent" if is_item else f"error: {error}"]
        except Exception:  # noqa: BLE001 -- whatever happens is what is judged
            said[:] = [f"error: {traceback.format_exc()}"]
        self.note(begin, time.monotonic(), operation, item, said[0] if said else "done")

    def note(
        self, begin: float, end: float, operation: str, item: Item | None, outcome: str
    ) -> None:
        name = "" if item is None else item.name
        self.log.write(json.dumps([begin, end, operation, name, outcome]) + "\n")

    def hot(self, items: list[Item]) -> Item:
        """Choose one; every other time the one that all others choose at this time."""
        if self.random.random() < 0.5:
            return self.random.choice(items)
        turn = int(time.monotonic() / HOT_SECONDS)
        return Random(f"{self.plan.seed}:{turn}").choice(items)

    # packages come and go

    def add(self) -> None:
        item = self.hot(self.coming)
        name = item.name if item.source.is_dir() else None
        with self.step("add archive" if name is None else "add directory", item) as said:
            added = self.store.add_package(item.source, name)
            assert added.package_hash == item.name
            said.append("present" if added.already_present else "added")

    def remove(self) -> None:
        items = self.legacy if self.random.random() < 0.2 else self.coming
        there = [item for item in items if self.store.has_package(item.name)]
        item = self.hot(there or items)
        with self.step("remove", item) as said:
            self.store.remove_package(item.name)
            said.append("removed")

    def appear(self) -> None:
        """A package manager that knows nothing of regrain installs a package."""
        item = self.random.choice(self.legacy)
        spare = self.plan.place / f"spare-{item.name}"
        if not spare.exists():
            subprocess.run(["cp", "-a", "--", item.source, spare], check=True)
        with self.step("appear", item) as said:
            try:
                spare.rename(self.plan.store / item.name)
                said.append("added")
            except OSError:  # it is installed
                said.append("skipped")

    def set_aside(self) -> None:
        item = self.random.choice(self.legacy)
        with self.step("exclude", item) as said:
            try:
                keeping.exclude(self.root, item.name, undo=self.random.random() < 0.5)
                said.append("done")
            except RefusedError as error:  # it may go at any time
                is_gone = "no legacy directory" in error.what
                said.append("done" if is_gone else f"error: {error}")

    def migrate(self) -> None:
        for _ in range(self.random.randrange(1, 4)):
            self.appear()
        if self.random.random() < 0.3:
            self.set_aside()
        with self.step("migrate", None):
            self.go_on()

    def go_on(self) -> None:
        """Migrate what waits."""
        done = self.store.migration().run(jobs=1, batch=self.random.choice((1, 2, 5)))
        assert not done.failed, done

    # packages are read

    def read(self) -> None:
        if self.random.random() < 0.1:
            self.list_all()
            return
        item = self.random.choice(self.plan.items)
        files = sorted(path for path, entry in item.tree.items() if entry.kind == "file")
        path = self.random.choice(files)
        with self.step("read", item) as said:
            package = self.store.get_package(item.name)
            content = package.read(path)
            good = blake3(content).hexdigest() == item.tree[path].digest
            said.append("present" if good else f"error: other bytes in {path!r}")
        time.sleep(PACE_SECONDS)

    def list_all(self) -> None:
        begin = time.monotonic()
        with self.step("list", None):
            found = set()
            for package in self.store.packages():
                try:
                    assert package.name
                    found.add(package.hash)
                except UnknownPackageError:
                    pass
            end = time.monotonic()
            for item in self.plan.items:
                there = "present" if item.name in found else "absent"
                self.note(begin, end, "seen", item, there)

    def check_out(self) -> None:
        item = self.random.choice(self.plan.items)
        mode = self.random.choice(("exact", "shared"))
        out = self.plan.place / f"out-{self.role}"
        with self.step(f"checkout {mode}", item) as said:
            self.store.get_package(item.name).checkout(out, mode)
            said.append("present")
            wrong = different(item, out, mode)
            if wrong:
                said[:] = [f"error: {wrong[:3]}"]
        if out.exists():
            subprocess.run(["rm", "-rf", "--", out], check=True)

    # the store is looked after

    def collect(self) -> None:
        with self.step("gc", None):
            keeping.collect(self.root, grace=0)
        time.sleep(10 * PACE_SECONDS)

    def care(self) -> None:
        self.random.choice((self.verify, self.verify, self.doctor, self.status))()

    def verify(self) -> None:
        level = self.random.choice(tuple(Level))
        with self.step(f"verify {level.value}", None) as said:
            found = verify(
                self.root,
                SETTINGS,
                [],
                level=level,
                subset=None,
                on_result=lambda _: None,
                stopping=lambda: False,
            )
            books = found.books
            if found.is_damaged or found.audit.changes or (books and books.disagree):
                said.append(f"error: {found}")

    def doctor(self) -> None:
        with self.step("doctor", None) as said:
            found = care.doctor(str(self.plan.store), SETTINGS, care.Source("", ()))
            grave = [
                f"{finding.check}: {finding.message}"
                for finding in found
                if finding.level in (Weight.WARNING, Weight.ERROR)
                and finding.check not in FILE_SYSTEM
            ]
            if grave:
                said.append(f"error: {grave}")

    def status(self) -> None:
        with self.step("status", None):
            assert figures(self.root, self.store.migration().state(), SETTINGS)["next_command"]


def different(item: Item, out: Path, mode: str) -> list[str]:
    """Say how a checkout differs; a shared one has the times of the store's own files."""
    found = snapshot(out)
    if mode == "exact":
        return differences(item.tree, found)
    wanted = {path: (e.kind, e.size, e.digest, e.target) for path, e in item.tree.items()}
    there = {path: (e.kind, e.size, e.digest, e.target) for path, e in found.items()}
    return [] if wanted == there else [f"{sorted(wanted.items() ^ there.items())[:4]}"]


if __name__ == "__main__":
    databases.as_told()
    with Path(sys.argv[1]).open("rb") as stream:
        plan = pickle.load(stream)
    Actor(plan, sys.argv[2]).run()
