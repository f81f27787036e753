"""What is said to come next, and what dry runs foresee, agree with what then happens."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest

from regrain.store.scan import processes_using
from tests import awkward
from tests.command import Regrain
from tests.conftest import remove
from tests.stores import migrate_all, statuses
from tests.trees import LegacyPackage

AT_ONCE = {
    "REGRAIN_MIGRATION__SETTLE": "0",
    "REGRAIN_STORE__MIGRATION_PARALLEL_FILES": "1",
}


@pytest.fixture
def regrain(store_path: Path, plain_store: dict[str, LegacyPackage]) -> Regrain:
    """A migrated store."""
    regrain = Regrain(store_path, AT_ONCE)
    migrate_all(regrain, plain_store)
    return regrain


def next_of(regrain: Regrain) -> str:
    found = regrain("status", "--json").document["next_command"]
    assert isinstance(found, str)
    return found


def test_the_next_command_leads_on(regrain: Regrain, seed: int) -> None:
    """Whoever only does what he is told ends at the end, new directories or not."""
    said = []
    for number in range(2):
        awkward.add_ordinary(regrain.store, "late", str(number), seed)
        for _ in range(9):
            command = next_of(regrain)
            words = command.split()[1:]
            said.append(" ".join(words))
            place = str(regrain.store.with_name("backup"))
            words = [place if word == "DEST" else word for word in words]
            done = regrain(*words, "--json").documents[-1]
            if done.get("next_command") == "regrain cleanup --execute":
                assert regrain("cleanup", "--execute").text.endswith(f"Next: {next_of(regrain)}\n")
            if words == ["verify"]:
                break
    verified, saved = "verify --level deep", "backup create DEST"
    once = ["migrate", verified, saved, "cutover", "cleanup", "verify"]
    assert said == [*once, "migrate", "cleanup", "verify"]
    assert not [path for path in regrain.store.iterdir() if len(path.name) == 64]


def test_cleanup_does_not_lead_back_to_itself(regrain: Regrain, seed: int) -> None:
    """What it cannot take is for `migrate`."""
    regrain("cutover", "--no-backup")
    new = awkward.add_ordinary(regrain.store, "late", "1", seed)
    for _ in range(2):
        done = regrain("cleanup", "--execute", "--json").documents[-1]
        assert done["next_command"] == next_of(regrain) == "regrain migrate"
    regrain("exclude", new.hash)
    assert regrain("cleanup", "--json").document["next_command"] == next_of(regrain)


def test_what_was_rolled_back_is_counted(
    regrain: Regrain, plain_store: dict[str, LegacyPackage]
) -> None:
    regrain("rollback")
    status = regrain("status", "--json").document
    assert status["rolled_back_packages"] == status["total_packages"] == len(plain_store)
    assert f"{len(plain_store)} rolled back" in regrain("status").text
    foreseen = regrain("migrate", "-n", "--json").document
    assert (foreseen["rolled_back_packages"], foreseen["pending_packages"]) == (3, 0)


def test_a_rollback_that_would_be_refused_says_so(regrain: Regrain) -> None:
    regrain("cutover", "--no-backup")
    regrain("cleanup", "--execute")
    little = {"REGRAIN_MIGRATION__FREE_BYTES_MIN": str(1 << 60)}
    for options in (["-n"], []):
        assert "3 packages need " in regrain("rollback", *options, code=5, env=little).stderr
    assert regrain("rollback", "-n", "--json").document["packages"] == 3


# migrate -n


def test_migrate_foresees_what_its_options_do(
    regrain: Regrain, plain_store: dict[str, LegacyPackage], seed: int
) -> None:
    name, other, third = plain_store
    new = awkward.add_ordinary(regrain.store, "late", "1", seed)

    def foreseen(*options: str) -> tuple[int, str]:
        result = regrain("migrate", "-n", *options, "--json")
        return result.document["pending_packages"], result.stderr

    os.utime(plain_store[name].path / "manifest.toml", ns=(0, 1))
    assert foreseen() == (1, "")
    assert foreseen("--only", "nobody") == (0, "")
    assert foreseen("--limit", "0") == (0, "")
    count, said = foreseen("--rescan")
    assert count == 1
    assert said.startswith(f"changed: package {name}: ")
    assert foreseen("--accept-legacy", name)[0] == 2
    remove(plain_store[other].path)
    assert other in foreseen()[1]
    regrain("migrate", "-n", "--accept-legacy", other, code=5)
    os.mkfifo(plain_store[third].path / "pipe")
    regrain("migrate", "-n", "--accept-legacy", third, code=1)
    assert regrain("status", "--json").document["integrity"] == []
    assert new.hash not in statuses(regrain.store)
    done = regrain("migrate", "--accept-legacy", name, "--json").documents[-1]
    assert done["completed"] == 2


def test_migrate_foresees_retries_and_refusals(regrain: Regrain, seed: int) -> None:
    new = awkward.add_ordinary(regrain.store, "late", "1", seed)
    os.mkfifo(new.path / "pipe")
    regrain("migrate", code=3)
    (new.path / "pipe").unlink()
    assert regrain("migrate", "-n", "--json").document["pending_packages"] == 0
    assert regrain("migrate", "-n", "--retry-failed", "--json").document["pending_packages"] == 1
    off = {"REGRAIN_STORE__MIGRATION_ENABLED": "false"}
    regrain("migrate", "-n", code=5, env=off)


# processes


BUSY = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
fd = os.open(sys.argv[1], os.O_RDONLY)
assert libc.mmap(None, 4096, 1, 2, fd, 0)  # as a library is: no descriptor stays
os.close(fd)
print("ready", flush=True)
while True:
    for fd in [os.open("/dev/null", os.O_RDONLY) for _ in range(200)]:
        os.close(fd)
"""


def test_a_process_that_opens_and_closes_is_seen(workplace: Path) -> None:
    """Its descriptors go while they are looked at; what it has mapped counts all the same."""
    name = "ab" * 32
    (workplace / name).mkdir()
    (workplace / name / "library").write_bytes(bytes(mmap.PAGESIZE))
    command = [sys.executable, "-c", BUSY, str(workplace / name / "library")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            for _ in range(40):
                found = processes_using(str(workplace), frozenset({name}))
                assert [pid for pid, _ in found] == [process.pid]
        finally:
            process.kill()
