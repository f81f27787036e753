"""The changes to a store in use that are cut or fail: each one, what it needs, what it leaves."""

from __future__ import annotations

import os
import signal
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from regrain.app import keeping
from regrain.app.store import PackageStore
from regrain.ledger import Ledger
from regrain.settings import Settings
from regrain.settings import Store as StoreSettings
from regrain.store.root import StoreRoot
from tests.compare import Snapshot, differences, snapshot
from tests.conftest import remove
from tests.faults import tally
from tests.faults.crash_driver import Moment, _die_at
from tests.faults.crashes import rows, tree
from tests.faults.faulty import Call, Faults, injected
from tests.faults.judge import ledger_problems, reading_problems
from tests.faults.small import Scene
from tests.reader import check_store, package_tree
from tests.trees import LIVE, Tree, describe

NEW = "c0ffee00" * 8
GONE = "linkable"
"""The package that is removed, or set aside; two others hold some of its bytes."""

LEDGER = "regrain.ledger.queries:Ledger"
COMMITS = (
    "intend",
    "fulfilled",
    "record_added",
    "record_objects",
    "queue",
    "remember",
    "forget_package",
    "exclude",
    "forget_objects",
)
"""Every transaction by which these changes are recorded."""

FILE_LEVEL = Settings()
ONE_BY_ONE = Settings(StoreSettings(sync="fsync", ingest="copy"))
LEGACY = Settings(StoreSettings(use_file_level_storage=False))


@dataclass(frozen=True, slots=True)
class Change:
    """A change to a store.

    Attributes:
        make: Makes it.
        before: What must have been done before.
        adds: Whether ``NEW`` is there afterwards.
        removes: Whether ``GONE`` is not.
        layout: Where ``NEW`` is then.
    """

    make: Callable[[Path], object]
    before: Callable[[Path], object] = lambda _: None
    adds: bool = False
    removes: bool = False
    layout: str = "file_level"


def root(store: Path) -> StoreRoot:
    """Open a store."""
    return PackageStore.open(store).root


def source_of(store: Path) -> Path:
    """The directory that is added, beside the store; made when it is first asked for."""
    path = store.parent / "to-add"
    if not path.exists():
        with Tree(path, Random("to-add")) as new:
            describe(new, "new", "1.0")
            new.file(LIVE + b"/bin/new", b"new bytes\n" * 90, 0o755)
            new.file(LIVE + b"/share/shared", b"bytes that three packages have, in two modes\n")
            new.file(LIVE + b"/share/wide", b"new, group may write\n", 0o664)
            new.file(LIVE + b"/share/first", b"two names\n")
            new.link(LIVE + b"/share/second", LIVE + b"/share/first")
            new.symlink(LIVE + b"/share/link", b"first")
    return path


def gone(store: Path) -> str:
    """The hash of the package that goes; empty where it went."""
    for manifest in store.glob("*/manifest.toml"):
        try:
            name = tomllib.loads(manifest.read_text())["package"]["name"]
        except (UnicodeDecodeError, tomllib.TOMLDecodeError):  # a test has damaged it
            continue
        if name == GONE:
            return manifest.parent.name
    return ""


def add(settings: Settings, store: Path) -> object:
    """Add the new package."""
    return keeping.add_package(root(store), settings, str(source_of(store)), NEW)


def remove_gone(store: Path) -> object:
    """Remove the package, if it is there."""
    name = gone(store)
    return keeping.remove_package(root(store), name) if name else None


def exclude_gone(store: Path) -> object:
    """Set the package aside."""
    return keeping.exclude(root(store), gone(store))


def collect_all(store: Path) -> object:
    """Collect without grace."""
    return keeping.collect(root(store), grace=0)


CHANGES = {
    "add": Change(partial(add, FILE_LEVEL), adds=True),
    "add, flushed one by one": Change(partial(add, ONE_BY_ONE), adds=True),
    "add to legacy": Change(partial(add, LEGACY), adds=True, layout="legacy"),
    "remove": Change(remove_gone, removes=True),
    "exclude": Change(exclude_gone),
    "collect": Change(collect_all, before=remove_gone, removes=True),
}


@contextmanager
def observed(faults: Faults, *, system: bool = False) -> Iterator[Faults]:
    """Wrap the functions of the disk, and the ledger's transactions."""
    originals = {name: getattr(Ledger, name) for name in COMMITS}

    def wrapped(name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            faults.calls.append(Call(name, numbers.setdefault(name, 0) + 1, "", "", "ledger"))
            numbers[name] += 1
            return originals[name](*arguments, **named)

        return call

    numbers: dict[str, int] = {}
    for name in COMMITS:
        setattr(Ledger, name, wrapped(name))
    try:
        with injected(faults, system=system):
            yield faults
    finally:
        for name, original in originals.items():
            setattr(Ledger, name, original)


def moment_of(call: Call, when: str) -> Moment:
    """When to die: at this call."""
    where = LEDGER + "." if call.caller == "ledger" else "regrain.disk:"
    return Moment(f"{where}{call.function}", when, call.number)


def killed(change: Callable[[Path], object], store: Path, moment: Moment) -> bool:
    """Make a change in a process that dies at this moment; False if it did not come."""
    pid = os.fork()
    if pid == 0:
        try:
            _die_at(moment, store)
            change(store)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    died = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    tally.count(tally.command_of_test(), "SIGKILL", "killed", times=died)
    return died


# what must hold


def problems(scene: Scene, change: Change) -> list[str]:
    """What is wrong right after a cut: packages that were there are whole, or gone for good."""
    there = {package.hash for package in PackageStore.open(scene.path).packages()}
    kept = scene.packages.keys() - ({gone_of(scene)} if change.removes else set())
    said = [f"{name}: lost" for name in kept - there]
    said += reading_problems(scene, (scene.packages.keys() & there) | kept)
    said += new_problems(scene)
    said += [p for p in after_fault_of(scene) if "is not empty" not in p]
    return said


def gone_of(scene: Scene) -> str:
    """The hash of the package that goes, by what the scene was."""
    return scene.named(GONE).hash


def after_fault_of(scene: Scene) -> list[str]:
    """What the independent reader says of the file-level layout."""
    legacy = [name for name in os.listdir(scene.path) if len(name) in {32, 64}]
    return check_store(scene.path, legacy=legacy, orphans=True).problems


def new_problems(scene: Scene) -> list[str]:
    """How the package that is added differs from its source, if it is to be seen at all."""
    store = PackageStore.open(scene.path)
    if not store.has_package(NEW):
        return []
    wanted = snapshot(source_of(scene.path))
    place = scene.path.parent / "out"
    store.get_package(NEW).checkout(place)
    try:
        found: Snapshot = snapshot(place)
    finally:
        remove(place)
    said = differences(wanted, found)
    if (scene.path / "packages" / NEW).exists():
        listed = package_tree(check_store(scene.path, orphans=True), NEW)
        said += differences(wanted, listed)
    return [f"new: {line}" for line in said]


def converges(scene: Scene, change: Change) -> list[str]:
    """What the next command does not put right, and what a second one changes again."""
    # A collection that takes nothing does nothing but finish what was begun.
    keeping.collect(root(scene.path), grace=10**9)
    said = [f"recovered: {line}" for line in [*problems(scene, change), *leftovers(scene)]]
    said += [f"recovered: {line}" for line in ledger_problems(scene.path)]
    before, recorded = tree(scene), rows(scene)
    keeping.collect(root(scene.path), grace=10**9)
    said += [f"a second time: {d}" for d in differences(before, tree(scene), identity=True)]
    if rows(scene) != recorded:
        said.append("a second recovery changed rows")
    return said


def leftovers(scene: Scene) -> list[str]:
    """What lies in temp/, trash/ and quarantine/."""
    return [
        f"{place}: {names}"
        for place in ("temp", "trash", "quarantine")
        if (names := os.listdir(scene.path / place))
    ]


def arrives(scene: Scene, change: Change) -> list[str]:
    """Make the change again: it must be made then."""
    change.make(scene.path)
    said = [f"again: {line}" for line in [*problems(scene, change), *leftovers(scene)]]
    said += [f"again: {line}" for line in ledger_problems(scene.path)]
    store = PackageStore.open(scene.path)
    if change.adds and not store.has_package(NEW):
        said.append("again: the new package is not there")
    if change.adds and store.get_package(NEW).layout.value != change.layout:
        said.append("again: it is in the other layout")
    if change.removes and store.has_package(gone_of(scene)):
        said.append("again: the package is still there")
    return said
