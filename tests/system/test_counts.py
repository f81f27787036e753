"""What work costs in system calls, statements and open files, which unlike seconds never vary.

Each bound stands about a tenth above what was counted when it was written. Who needs more for
a good reason raises it; a slip, such as one more look at every file, shows here at once.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa

from regrain import PackageStore
from tests.command import Regrain
from tests.conftest import remove

PACKAGES = 6
FEW, MANY = 10, 70
"""Files in a package; what a file costs is the difference, freed of all that is paid once."""

FAMILIES = {
    "newfstatat": "status",
    "fstat": "status",
    "statx": "status",
    "pread64": "read",
    "readv": "read",
    "preadv": "read",
    "openat2": "openat",
    "syncfs": "sync",
    "fsync": "sync",
    "fdatasync": "sync",
}
WAITING = {"poll", "ppoll", "select", "pselect6", "epoll_wait", "futex", "mmap"}
CALL = re.compile(r"^\d+ +(?:<\.\.\. )?(\w+)(?P<resumed> resumed>)?.*")
OPENED = re.compile(r"\b(?:openat|openat2|dup|dup2|dup3|fcntl|socket|memfd_create)\b.* = (\d+)")


@dataclass(frozen=True, slots=True)
class Counted:
    """What a command did.

    Attributes:
        calls: How often each kind of call on files was made, by all its processes.
        highest: The largest number that an opened file had in any of them.
    """

    calls: Counter[str]
    highest: int

    @property
    def total(self) -> int:
        return self.calls.total()


def make_store(path: Path, files: int) -> Path:
    """Write a legacy store in which one half of all contents is in every package."""
    for package in range(PACKAGES):
        live = path / f"{package + 1:064x}" / "opt/pm/live"
        live.mkdir(parents=True)
        manifest = f'[package]\nname = "p{package}"\nversion = "1"\n'
        (live.parents[2] / "manifest.toml").write_text(manifest)
        for number in range(files):
            owner = package if number % 2 else "all"
            (live / f"file{number:03}").write_text(f"{owner} {number}\n" * 20)
    return path


def counted(store: Path, *words: str) -> Counted:
    """Run the command, every process of it, under strace."""
    log = store.with_suffix(".strace")
    strace = ["strace", "-f", "--seccomp-bpf", "-qq", "-s", "0", "-e", "signal=none"]
    Regrain(store, prefix=[*strace, "-o", str(log), "-e", "trace=%file,%desc"])(*words)
    calls: Counter[str] = Counter()
    highest = 0
    with log.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            call = CALL.match(line)
            if call and not call["resumed"] and call[1] not in WAITING:
                calls[FAMILIES.get(call[1], call[1])] += 1
            opened = OPENED.search(line)
            if opened:
                highest = max(highest, int(opened[1]))
    return Counted(calls, highest)


Stores = dict[int, dict[str, Counted]]
VERBS = {
    "init": ["init", "--no-predict"],
    "migrate": ["migrate", "--jobs", "1", "--batch", "3"],
    "verify": ["verify"],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    """A small store and one with more files in as many packages, each brought in and verified."""
    if shutil.which("strace") is None:
        pytest.skip("needs strace")
    if subprocess.run(["strace", "-qq", "-o", "/dev/null", "true"], check=False).returncode:
        pytest.skip("strace may not trace here")
    place = tmp_path_factory.mktemp("counts")
    stores = {files: make_store(place / str(files), files) for files in (FEW, MANY)}
    yield {
        files: {verb: counted(store, *words) for verb, words in VERBS.items()}
        for files, store in stores.items()
    }
    remove(place)


@pytest.mark.parametrize(("verb", "most"), [("init", 1.1), ("migrate", 10.4), ("verify", 4.5)])
def test_calls_a_file(runs: Stores, verb: str, most: float) -> None:
    few, many = runs[FEW][verb], runs[MANY][verb]
    a_file = (many.total - few.total) / (PACKAGES * (MANY - FEW))
    assert a_file < most, many.calls - few.calls


@pytest.mark.parametrize(
    ("call", "most"),
    [("openat", 1.1), ("read", 1.15), ("linkat", 0.64), ("status", 5.6), ("sync", 0.01)],
)
def test_calls_of_migrate_a_file(runs: Stores, call: str, most: float) -> None:
    few, many = runs[FEW]["migrate"].calls, runs[MANY]["migrate"].calls
    assert (many[call] - few[call]) / (PACKAGES * (MANY - FEW)) < most


@pytest.mark.parametrize("verb", VERBS)
def test_files_open(runs: Stores, verb: str) -> None:
    few, many = runs[FEW][verb], runs[MANY][verb]
    assert many.highest <= few.highest + 1
    assert many.highest < 45


@contextmanager
def statements() -> Iterator[Counter[str]]:
    """Count what this process says to change any ledger meanwhile.

    What it only asks is left out: near its end a run asks for more work in each of its turns, and
    how many turns it takes is for the scheduler to say.
    """
    said: Counter[str] = Counter()
    changes = 0

    def execute(*arguments: object) -> None:
        nonlocal changes
        if str(arguments[2]).split()[0] in {"INSERT", "UPDATE", "DELETE", "WITH"}:
            changes += 1
            said["statements"] += 1

    def commit(_: object) -> None:
        nonlocal changes
        said["commits"] += bool(changes)
        changes = 0

    sa.event.listen(sa.engine.Engine, "before_cursor_execute", execute)
    sa.event.listen(sa.engine.Engine, "commit", commit)
    try:
        yield said
    finally:
        sa.event.remove(sa.engine.Engine, "before_cursor_execute", execute)
        sa.event.remove(sa.engine.Engine, "commit", commit)


def said_by_migrate(store: Path, batch: int) -> Counter[str]:
    Regrain(store)("init")
    with statements() as said:
        summary = PackageStore.open(store).migration().run(jobs=1, batch=batch)
    assert summary.completed == PACKAGES
    return said


def test_statements_a_batch(workplace: Path) -> None:
    whole = said_by_migrate(make_store(workplace / "whole", FEW), PACKAGES)
    parts = said_by_migrate(make_store(workplace / "parts", FEW), PACKAGES // 3)
    more = said_by_migrate(make_store(workplace / "more", MANY), PACKAGES)
    assert more == whole  # whatever the files
    assert whole["statements"] <= 4 + 5.5 * PACKAGES
    assert (parts["statements"] - whole["statements"]) / 2 <= 3  # for each batch more
    assert parts["commits"] <= 6
    assert whole["commits"] <= 2
