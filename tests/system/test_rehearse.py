"""Rehearsals on real file systems: before and after ``init``, good, bad, ended early."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests import awkward, mounts
from tests.command import Regrain, Result
from tests.compare import snapshot
from tests.conftest import remove
from tests.stores import assert_unchanged, migrate_all, read_ledger
from tests.system.calling import state
from tests.trees import Abilities, LegacyPackage

STEPS = [
    "copy",
    "init",
    "listen",
    "migrate",
    "verify deep",
    "read",
    "cutover",
    "cleanup",
    "verify",
    "rollback",
    "compare",
    "purge",
]
SMALL = {
    "REGRAIN_MIGRATION__SETTLE": "0",
    "REGRAIN_MIGRATION__FREE_BYTES_MIN": "1000000",
    "REGRAIN_MIGRATION__FREE_INODES_MIN": "10",
    "REGRAIN_STORE__MIGRATION_PARALLEL_FILES": "1",
}
EVERYTHING = ("rehearse", "--sample", "100%", "--seed", "7")


@pytest.fixture
def regrain(store_path: Path) -> Regrain:
    return Regrain(store_path, SMALL)


def beside(path: Path) -> list[str]:
    """What lies beside a store."""
    return sorted(name for name in os.listdir(path.parent) if name != path.name)


def summary(said: Result) -> dict[str, Any]:
    (found,) = said.of_type("summary")
    return found


def check_go(said: Result, packages: int) -> dict[str, Any]:
    """All steps were made, all is well, and the figures are possible."""
    found = summary(said)
    assert (found["go"], found["problems"]) == (True, []), said
    assert [step["name"] for step in found["steps"]] == STEPS
    assert [step["step"] for step in said.of_type("status")] == list(range(1, len(STEPS) + 1))
    assert all(step["ok"] and step["seconds"] > 0 for step in found["steps"])
    assert found["sample"]["packages"] == packages
    taken = {step["name"]: step for step in found["steps"]}
    before = taken["copy"]
    # the copies and the directory they lie in, which takes nothing on btrfs
    assert 0 <= before["allocated_bytes"] - found["sample"]["allocated_bytes"] <= 1 << 16
    assert taken["migrate"]["inodes"] > taken["init"]["inodes"] > before["inodes"]
    assert taken["cleanup"]["inodes"] < taken["migrate"]["inodes"]
    assert found["peak_allocated_bytes"] >= max(s["allocated_bytes"] for s in found["steps"])
    assert found["latency"]["alone"]["reads"] > 10
    assert found["latency"]["while_migrating"]["reads"] > 0
    assert 0 < found["latency"]["alone"]["median_seconds"] < 1
    assert found["slowdown"] > 0
    low, high = found["estimate"]["saved_bytes"]
    assert low <= high < found["store"]["allocated_bytes"]
    return found


# go


@pytest.mark.parametrize(
    "kind", ["ext4", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("xfs", "btrfs"))]
)
def test_awkward_packages_before_init(
    workplace: Path, seed: int, able: Abilities, kind: str
) -> None:
    """Everything a tree can hold goes around, and the original is as it was in everything."""
    with mounts.mounted(kind, workplace) as point:
        place = point / "pm" / "store"
        packages = awkward.make_legacy_store(place, seed, able)
        before, neighbours = snapshot(place), beside(place)
        found = check_go(Regrain(place, SMALL)(*EVERYTHING, "--json"), len(packages))
        assert sorted(found["package_hashes"]) == sorted(packages)
        assert found["next_command"] == "regrain init"
        assert found["scratch"] == str(point / "pm")
        assert_unchanged(place, before)
        assert beside(place) == neighbours
        # all was in the sample: what it saved is what it says of the whole
        before_bytes, after_bytes = (
            next(s["allocated_bytes"] for s in found["steps"] if s["name"] == name)
            for name in ("copy", "cleanup")
        )
        assert found["estimate"]["after_bytes"] == pytest.approx([after_bytes] * 2, rel=0.01)
        saved = found["estimate"]["saved_bytes"][0]
        assert saved == pytest.approx(before_bytes - after_bytes, abs=1 << 17)
        remove(place)


def test_a_store_in_use(regrain: Regrain, plain_store: dict[str, LegacyPackage], seed: int) -> None:
    """Half migrated, with one package that is excluded: rehearsed in ``temp/``, left as it is."""
    regrain("init")
    regrain("migrate", "--only", "jq")
    excluded = awkward.add_special(regrain.store, seed, 0o010000)
    regrain("init")
    regrain("exclude", excluded.hash)
    before, neighbours = state(regrain.store), beside(regrain.store)
    rows = read_ledger(regrain.store, "SELECT * FROM store_migration ORDER BY id")
    found = check_go(regrain(*EVERYTHING, "--json"), len(plain_store))
    assert found["scratch"] == str(regrain.store / "temp")
    assert found["next_command"] == "regrain migrate"
    assert state(regrain.store) == before
    assert beside(regrain.store) == neighbours
    assert read_ledger(regrain.store, "SELECT * FROM store_migration ORDER BY id") == rows


@pytest.mark.slow
def test_a_store_without_legacy_directories(
    regrain: Regrain, plain_store: dict[str, LegacyPackage]
) -> None:
    migrate_all(regrain, plain_store)
    regrain("cutover", "--no-backup")
    regrain("cleanup", "--execute")
    before = state(regrain.store)
    found = check_go(regrain(*EVERYTHING, "--json"), len(plain_store))
    assert sorted(found["package_hashes"]) == sorted(plain_store)
    assert state(regrain.store) == before


def test_what_people_read(regrain: Regrain, plain_store: dict[str, LegacyPackage]) -> None:
    said = regrain("rehearse", "--seed", "7")
    lines = said.text.splitlines()
    assert lines[0].startswith("rehearsed with 3 of 3 packages")
    assert "seed 7" in lines[0]
    assert [line.split("  ")[0] for line in lines[3:15]] == STEPS
    assert "go: every package came back as it was, and nothing speaks against it" in lines
    assert lines[-1] == "Next: regrain init"
    assert [line.split(",")[0] for line in said.stderr.splitlines()] == [
        f"step {number} of {len(STEPS)}: {name}" for number, name in enumerate(STEPS, 1)
    ]


@pytest.mark.slow
def test_the_copy_is_kept(regrain: Regrain, plain_store: dict[str, LegacyPackage]) -> None:
    neighbours = beside(regrain.store)
    found = summary(regrain(*EVERYTHING, "--keep", "--json"))
    kept = Path(found["kept"])
    assert kept.is_dir()
    assert Regrain(kept, SMALL)("status", "--json").document["phase"] == "rolled_back"
    regrain("rehearse")  # removes what killed ones left, and nothing else
    assert kept.is_dir()
    assert beside(regrain.store) == sorted([*neighbours, kept.parent.name])


# no go


def test_a_package_that_cannot_be_migrated(
    regrain: Regrain, plain_store: dict[str, LegacyPackage], seed: int
) -> None:
    bad = awkward.add_special(regrain.store, seed, 0o010000)
    before, neighbours = state(regrain.store), beside(regrain.store)
    found = summary(regrain(*EVERYTHING, "--json", code=5))
    assert found["go"] is False
    assert any(bad.hash in one and "the-special-file" in one for one in found["problems"])
    assert [step["name"] for step in found["steps"]] == STEPS  # the others go around
    assert [step["name"] for step in found["steps"] if not step["ok"]] == ["copy"]
    assert (state(regrain.store), beside(regrain.store)) == (before, neighbours)
    # known before anything is copied, whatever is in the sample
    dry = regrain("rehearse", "--json", "-n", code=5).document
    assert any(bad.hash in one for one in dry["problems"])
    said = regrain("rehearse", "--scratch", regrain.store.parent, "-n", code=5)
    assert "speaks against a migration:\n" in said.text


def test_a_step_that_fails(
    ext4: Path, seed: int, plain_store: dict[str, LegacyPackage], workplace: Path
) -> None:
    """What ext4 cannot do fails every package; the rehearsal ends there, and says which."""
    place = ext4 / "pm" / "store"
    for name, version in (("jq", "1.6"), ("jq", "1.7")):
        awkward.add_ordinary(place, name, version, seed)
    before = state(place)
    regrain = Regrain(place, {**SMALL, "REGRAIN_STORE__INGEST": "reflink"})
    found = summary(regrain(*EVERYTHING, "--json", code=5))
    assert [step["name"] for step in found["steps"]] == STEPS[: STEPS.index("migrate") + 1]
    assert found["steps"][-1]["ok"] is False
    assert len(found["problems"]) == 2
    assert all("reflink" in one for one in found["problems"])
    assert found["estimate"] is None
    assert (state(place), beside(place)) == (before, [])


# refused


def test_too_little_space(regrain: Regrain, plain_store: dict[str, LegacyPackage]) -> None:
    before, neighbours = state(regrain.store), beside(regrain.store)
    for key, figure in (("FREE_BYTES_MIN", str(1 << 60)), ("FREE_INODES_MIN", str(1 << 60))):
        said = regrain("rehearse", env={f"REGRAIN_MIGRATION__{key}": figure}, code=5)
        assert "too little space to rehearse" in said.stderr
        assert figure in said.stderr
    assert (state(regrain.store), beside(regrain.store)) == (before, neighbours)


def test_a_place_that_proves_nothing(
    regrain: Regrain, plain_store: dict[str, LegacyPackage], ext4: Path
) -> None:
    for place in (ext4, regrain.store.parent / "none"):
        said = regrain("rehearse", "--scratch", place, code=5)
        assert "no place for a rehearsal" in said.stderr
        assert "--scratch" in said.stderr
    assert os.listdir(ext4) == ["lost+found"]
    before = state(regrain.store)
    (package, *_) = plain_store
    for place in (regrain.store, regrain.store / package):
        for keep in ((), ("--keep",)):
            said = regrain("rehearse", "--scratch", place, *keep, code=5)
            assert "it lies in the directory that is to be left as it is" in said.stderr
    assert state(regrain.store) == before
    elsewhere = regrain.store.parent / "elsewhere"
    elsewhere.mkdir()
    assert summary(regrain("rehearse", "--scratch", elsewhere, "--json"))["go"] is True
    assert os.listdir(elsewhere) == []


def test_nothing_to_rehearse_with(regrain: Regrain) -> None:
    regrain.store.mkdir()
    assert "no package" in regrain("rehearse", code=5).stderr
    regrain("init")
    assert "no package" in regrain("rehearse", code=5).stderr


@pytest.mark.parametrize("sample", ["0", "0%", "101%", "five", "1.5", "-3", "", "5%%"])
def test_no_sample(regrain: Regrain, plain_store: dict[str, LegacyPackage], sample: str) -> None:
    assert f"'{sample}' is no sample" in regrain("rehearse", f"--sample={sample}", code=2).stderr


# ended early


@contextmanager
def at_step(regrain: Regrain, number: int) -> Iterator[subprocess.Popen[bytes]]:
    """A rehearsal that has just ended a step."""
    read, write = os.pipe()
    with (
        os.fdopen(read) as lines,
        os.fdopen(write, "wb") as out,
        regrain.running(*EVERYTHING, "--json", stdout=out) as process,
    ):
        out.close()
        for line in lines:
            if json.loads(line).get("step") == number:
                break
        else:
            pytest.fail("it ended before that step")
        yield process
        process.wait(60)


@pytest.mark.parametrize(
    ("is_store", "number", "sent"),
    [
        (False, 1, signal.SIGTERM),
        (False, 3, signal.SIGINT),
        (True, 3, signal.SIGTERM),
        pytest.param(True, 1, signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(True, 8, signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(False, 8, signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_interrupted(
    regrain: Regrain,
    plain_store: dict[str, LegacyPackage],
    is_store: bool,
    number: int,
    sent: signal.Signals,
) -> None:
    if is_store:
        regrain("init")
    before, neighbours = state(regrain.store), beside(regrain.store)
    with at_step(regrain, number) as process:
        process.send_signal(sent)
        assert process.wait(60) == 128 + sent
    assert (state(regrain.store), beside(regrain.store)) == (before, neighbours)


@pytest.mark.slow
def test_killed_before_init(regrain: Regrain, plain_store: dict[str, LegacyPackage]) -> None:
    before, neighbours = state(regrain.store), beside(regrain.store)
    with at_step(regrain, 4) as process:
        os.killpg(process.pid, signal.SIGKILL)
    (left,) = set(beside(regrain.store)) - set(neighbours)
    assert left.startswith(".regrain-rehearsal-")
    assert state(regrain.store) == before
    found = summary(regrain(*EVERYTHING, "--json"))
    assert (found["go"], found["swept"]) == (True, [left])
    assert beside(regrain.store) == neighbours
    # and where the store was made meanwhile, doctor names it
    with at_step(regrain, 4) as process:
        os.killpg(process.pid, signal.SIGKILL)
    regrain("init")
    assert ".regrain-rehearsal-" in regrain("doctor", code=None).text


def test_killed_in_a_store(regrain: Regrain, plain_store: dict[str, LegacyPackage]) -> None:
    """What is left lies in ``temp/``, where whoever writes next sweeps it."""
    regrain("init")
    before = state(regrain.store)
    with at_step(regrain, 8) as process:
        os.killpg(process.pid, signal.SIGKILL)
    (left,) = os.listdir(regrain.store / "temp")
    after = {path: facts for path, facts in state(regrain.store).items() if b"temp/" not in path}
    assert after == before
    assert left in regrain("doctor", "--json", code=None).text
    regrain("migrate")
    assert os.listdir(regrain.store / "temp") == []
    regrain("verify", "--level", "deep")
