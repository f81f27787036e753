"""Every cell of the table in docs/locks.md: who works beside whom, who waits, who is refused.

A process is stopped at a moment that is known (see ``holder``); the commands are real ones.
Whether a command waits, and for what, the kernel says in ``/proc/locks``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random

import pytest

from tests.command import Regrain
from tests.conftest import remove
from tests.reader import PACKAGE_HASH, check_store
from tests.sampling import few_of
from tests.stores import read_ledger
from tests.trees import LIVE, Tree, describe, package_hash

pytestmark = pytest.mark.both_databases

SECONDS_MAX = 60.0
SPARES = 4


# --- the store ----------------------------------------------------------------------------


def tree(place: Path, label: str, size: int, *, common: bytes = b"") -> Path:
    """Make a package's tree."""
    with Tree(place, Random(label)) as made:
        describe(made, label, "1.0")
        made.file(LIVE + b"/own", label.encode() * size)
        made.file(LIVE + b"/common", common or b"common to all\n" * 50)
    return place


@dataclass(slots=True)
class Scene:
    """A store with packages of every kind, and commands to run on it."""

    regrain: Regrain
    place: Path
    kept: str
    legacy: list[str]
    spares: list[str]
    number: int = 0
    aside: set[str] = field(default_factory=set)

    def command(self, what: str) -> list[str | Path]:
        """The words of one more command of a kind; each time about something else."""
        self.number += 1
        if what == "add":
            source = tree(self.place / f"new{self.number}", f"new{self.number}", 10)
            return ["add", source, "--hash", package_hash(0, str(source))]
        if what == "remove":
            return ["remove", "--execute", self.spares.pop()]
        words: dict[str, list[str | Path]] = {
            "read": ["cat", self.kept, "manifest.toml"],
            "list": ["list"],
            "checkout": ["checkout", self.kept, self.place / f"out{self.number}"],
            "exclude": ["exclude", self.legacy.pop()] if what == "exclude" else [],
            "gc": ["gc", "--execute", "--grace", "0s"],
            "verify": ["verify", "--level", "deep"],
            "migrate": ["migrate"],
            "rebuild": ["doctor", "--rebuild-ledger"],
            "doctor": ["doctor"],
            "status": ["status"],
        }
        return words[what]

    def run(self, what: str) -> None:
        """Run a command to its end: it must do its work."""
        self.regrain(*self.command(what))


LEGACY = [package_hash(0, f"legacy{number}") for number in range(6)]
ADDED = [package_hash(0, f"added{number}") for number in range(SPARES + 1)]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Six legacy packages, one of them migrated; five that were added."""
    place = tmp_path_factory.mktemp("locks")
    regrain = Regrain(place / "store")
    regrain.store.mkdir()
    for number, name in enumerate(LEGACY):
        tree(regrain.store / name, f"legacy{number}", 100 + 100 * number)
    regrain("init")
    regrain("migrate", "--limit", "1")
    for number, name in enumerate(ADDED):
        source = tree(place / f"added{number}", f"added{number}", 10)
        regrain("add", source, "--hash", name)
    yield regrain.store
    remove(place)


@pytest.fixture
def scene(template: Path, workplace: Path, store_path: Path) -> Scene:
    """A copy of the store, its hard links among it."""
    subprocess.run(["cp", "-a", "--", template, store_path], check=True)
    return Scene(Regrain(store_path), workplace, ADDED[0], LEGACY[1:], ADDED[1:])


# --- processes ----------------------------------------------------------------------------


class Holder:
    """A process that stands still where it holds what it holds."""

    def __init__(self, store: Path, *words: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.system.holder", str(store), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.says("ready")

    def says(self, word: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline().strip() == word

    def go_on(self) -> None:
        """Let it go on to its end."""
        out, _ = self.process.communicate("\n", SECONDS_MAX)
        assert (self.process.returncode, out.strip()) == (0, "done")


@contextlib.contextmanager
def held(store: Path, *words: str) -> Iterator[Holder]:
    """A holder that is gone at the end, whatever happens."""
    holder = Holder(store, *words)
    try:
        yield holder
    finally:
        holder.process.kill()
        holder.process.communicate()


def until(what: Callable[[], bool], why: str) -> None:
    """Wait for something that must come."""
    deadline = time.monotonic() + SECONDS_MAX
    while not what():
        assert time.monotonic() < deadline, why
        time.sleep(0.01)


def locks(store: Path, name: str) -> list[tuple[str, str, int]]:
    """The flock locks on a file of a store: held or waiting, kind, process."""
    inode = (store / name).stat().st_ino
    found = []
    for line in Path("/proc/locks").read_text().splitlines():
        words = line.split()[1:]
        state = "waits" if words[0] == "->" else "holds"
        words = words[1:] if state == "waits" else words
        if words[0] == "FLOCK" and words[4].rpartition(":")[2] == str(inode):
            found.append((state, words[2], int(words[3])))
    return found


def waits(store: Path, process: subprocess.Popen[bytes]) -> bool:
    """Whether a process stands in line for the store: in the turnstile, or behind it."""
    turnstile = locks(store, "migration/turnstile.lock")
    in_line = [*turnstile, *(lock for lock in locks(store, "migration/store.lock"))]
    is_first = ("holds", "WRITE", process.pid) in turnstile
    return is_first or any(state == "waits" and pid == process.pid for state, _, pid in in_line)


def run_all(scene: Scene, holder: Holder, *, beside: str, waiting: str, refused: str) -> None:
    """Run commands while another process stands still; those that wait end when it does."""
    for what in beside.split():
        scene.run(what)
    for what in refused.split():
        said = scene.regrain(*scene.command(what), code=11).stderr
        assert f"process {holder.process.pid}" in said, said
    with contextlib.ExitStack() as stack:
        started = {
            what: stack.enter_context(scene.regrain.running(*scene.command(what)))
            for what in waiting.split()
        }
        for what, process in started.items():
            until(partial(waits, scene.regrain.store, process), f"{what} goes on")
        holder.go_on()
        codes = {what: process.wait(SECONDS_MAX) for what, process in started.items()}
    assert codes == dict.fromkeys(started, 0)
    scene.regrain("verify", "--level", "deep")


READERS = "read list checkout verify doctor status"
WRITERS = "add remove exclude"


# --- the table ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "who",
    [
        "read",
        "verify",
        *(pytest.param(one, marks=pytest.mark.slow) for one in ("checkout", "doctor")),
    ],
)
def test_nobody_waits_for_who_takes_no_lock(scene: Scene, who: str) -> None:
    with held(scene.regrain.store, who, scene.kept) as holder:
        beside = f"{READERS} {WRITERS} gc migrate rebuild"
        run_all(scene, holder, beside=beside, waiting="", refused="")


def test_beside_add_remove_and_exclude(scene: Scene) -> None:
    with held(scene.regrain.store, "shared") as holder:
        beside = f"{READERS} {WRITERS} migrate"
        run_all(scene, holder, beside=beside, waiting="gc rebuild", refused="")


def test_beside_a_turn_of_gc(scene: Scene) -> None:
    with held(scene.regrain.store, "alone") as holder:
        waiting = f"{WRITERS} gc migrate"
        run_all(scene, holder, beside=READERS, waiting=waiting, refused="")
    with held(scene.regrain.store, "alone") as holder:
        run_all(scene, holder, beside="", waiting="rebuild", refused="")


def test_beside_a_migration(scene: Scene) -> None:
    with held(scene.regrain.store, "migrate") as holder:
        beside = f"{READERS} {WRITERS}"
        run_all(scene, holder, beside=beside, waiting="gc", refused="migrate rebuild")


def test_beside_a_rebuilding(scene: Scene) -> None:
    with held(scene.regrain.store, "rebuild") as holder:
        run_all(scene, holder, beside=READERS, waiting=f"{WRITERS} gc", refused="migrate rebuild")


def test_beside_a_run_that_only_reads(scene: Scene) -> None:
    with held(scene.regrain.store, "run") as holder:
        beside = f"{READERS} {WRITERS} gc"
        run_all(scene, holder, beside=beside, waiting="", refused="migrate rebuild")


@pytest.mark.parametrize("what", ["add", "remove", "exclude"])
def test_writers_share_the_store_and_publish_one_by_one(scene: Scene, what: str) -> None:
    store = scene.regrain.store
    with (
        held(store, "publish") as holder,
        scene.regrain.running(*scene.command(what)) as writer,
    ):
        mine = ("waits", "WRITE", writer.pid)
        until(lambda: mine in locks(store, "migration/publish.lock"), f"{what} does not wait")
        assert ("holds", "READ", writer.pid) in locks(store, "migration/store.lock")
        holder.go_on()
        assert writer.wait(SECONDS_MAX) == 0


def test_a_collection_has_the_store_to_itself(scene: Scene) -> None:
    store = scene.regrain.store
    scene.run("remove")
    with held(store, "shared") as holder, scene.regrain.running(*scene.command("gc")) as gc:
        alone = ("holds", "WRITE", gc.pid)
        until(lambda: alone in locks(store, "migration/turnstile.lock"), "gc is not first in line")
        assert alone not in locks(store, "migration/store.lock")
        with held(store, "ledger") as writing:
            holder.go_on()
            until(lambda: alone in locks(store, "migration/store.lock"), "gc is not alone")
            writing.go_on()
        assert gc.wait(SECONDS_MAX) == 0


def test_the_ledger_is_read_while_it_is_written(scene: Scene) -> None:
    with held(scene.regrain.store, "ledger") as holder:
        for what in ("status", "doctor", "list"):
            scene.run(what)
        scene.regrain("verify", timeout=SECONDS_MAX / 2)  # deep ones note what they proved
        holder.go_on()


# --- waiting ------------------------------------------------------------------------------


def test_gc_gives_up_after_its_patience(scene: Scene) -> None:
    store = scene.regrain.store
    with held(store, "shared") as writer, held(store, "collect", "0.3") as gc:
        out, _ = gc.process.communicate("\n", SECONDS_MAX)
        assert gc.process.returncode == 11
        assert "its writers did not pause within 0.3 s" in out
        assert [lock[0] for lock in locks(store, "migration/turnstile.lock")] == []
        scene.run("add")
        writer.go_on()


def test_gc_gets_its_turn_however_many_come(scene: Scene) -> None:
    store = scene.regrain.store
    scene.run("remove")
    with contextlib.ExitStack() as stack:
        busy = [stack.enter_context(held(store, "busy")) for _ in range(4)]
        scene.run("gc")
        for holder in busy:
            holder.go_on()
    assert read_ledger(store, "SELECT * FROM objects WHERE unreferenced_since IS NOT NULL") == []


def test_a_migration_gives_way_to_gc_and_forgets_what_it_knew(
    workplace: Path, store_path: Path
) -> None:
    """What a worker saw published may be collected in between; then it is staged anew."""
    regrain, text = Regrain(store_path), b"came, went, comes again\n" * 9
    store_path.mkdir()
    names = [package_hash(0, f"legacy{number}") for number in range(8)]
    for number, name in enumerate(names):
        has_text = number in {0, 7}  # the smallest is taken first, the largest last
        common = text if has_text else b"%d" % number
        tree(store_path / name, f"legacy{number}", 100 + 100 * number, common=common)
    regrain("init")
    with held(store_path, "migrate") as holder:
        regrain("remove", "--execute", names[0])
        with regrain.running("gc", "--execute", "--grace", "0s") as gc:
            until(lambda: waits(store_path, gc), "gc does not wait")
            assert "legacy7" not in [row[0] for row in published(store_path)]
            holder.go_on()
            assert gc.wait(SECONDS_MAX) == 0
    collected = read_ledger(store_path, "SELECT detail FROM history WHERE event = 'collected'")
    assert not collected[0][0].startswith("0 objects"), collected
    store = check_store(store_path, legacy=names[1:])
    assert store.problems == []
    assert store.packages.keys() == set(names[1:])
    assert regrain("cat", names[7], (LIVE + b"/common").decode()).stdout == text
    regrain("verify", "--level", "deep")


def published(store: Path) -> list[tuple[str, ...]]:
    query = "SELECT name FROM store_migration WHERE status = 'completed'"
    return read_ledger(store, query)


def test_a_newborn_run_is_not_taken_for_dead(scene: Scene) -> None:
    store = scene.regrain.store
    with held(store, "newborn") as holder, scene.regrain.running(*scene.command("gc")) as gc:
        mine = ("waits", "WRITE", gc.pid)
        until(lambda: mine in locks(store, "temp"), "gc does not wait for a run to be made")
        assert len(os.listdir(store / "temp")) == 1
        holder.go_on()
        assert gc.wait(SECONDS_MAX) == 0


# --- the end of a holder ------------------------------------------------------------------


HOLDERS = ("shared", "alone", "publish", "run", "temp", "ledger", "rebuild")


@pytest.mark.parametrize("who", few_of(HOLDERS, 3))
def test_a_killed_holder_frees_everything(scene: Scene, who: str) -> None:
    with held(scene.regrain.store, who) as holder:
        holder.process.send_signal(signal.SIGKILL)
        assert holder.process.wait(SECONDS_MAX) == -signal.SIGKILL
        for what in ("add", "remove", "exclude", "gc", "migrate", "rebuild", "verify"):
            scene.run(what)
    assert os.listdir(scene.regrain.store / "temp") == []


def test_a_killed_migration_frees_everything(scene: Scene) -> None:
    with held(scene.regrain.store, "migrate") as holder:
        holder.process.kill()
        holder.process.wait(SECONDS_MAX)
        for what in ("add", "remove", "gc", "migrate", "verify"):
            scene.run(what)
    assert os.listdir(scene.regrain.store / "temp") == []
    assert check_store(scene.regrain.store, legacy=package_names(scene)).problems == []


def package_names(scene: Scene) -> list[str]:
    return [name for name in os.listdir(scene.regrain.store) if PACKAGE_HASH.match(name)]
