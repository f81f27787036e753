"""`status --json` in each phase: every figure that the contract names, and right."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from regrain import PackageStore
from regrain.model.events import Event, Progress
from tests.awkward import add_ordinary
from tests.command import Regrain
from tests.faults.inline import inline_workers

NAMED = {
    "phase": str,
    "total_packages": int,
    "migrated_packages": int,
    "failed_packages": int,
    "total_files": int,
    "deduplicated_files": int,
    "space_saved_bytes": int,
    "space_freed_bytes": int,
    "bytes_total": int,
    "bytes_done": int,
    "rate_bytes_per_second": float | None,
    "estimated_time_remaining_seconds": float | None,
    "throttled": bool,
    "throttle_reason": str | None,
    "health": dict,
    "next_command": str,
}
PACKAGES = 4


class Store:
    """A store, and what is known of it from outside."""

    def __init__(self, path: Path, seed: int) -> None:
        self.regrain = Regrain(path, {"REGRAIN_MIGRATION__SETTLE": "0"})
        packages = [add_ordinary(path, f"p{number}", "1", seed) for number in range(PACKAGES)]
        self.sizes = {package.hash: size_of(path / package.hash) for package in packages}

    def look(self, phase: str, **figures: object) -> dict[str, Any]:
        """Ask for the standing; nothing runs, so that there is neither rate nor time left."""
        found = self.regrain("status", "--json").document
        for name, kind in NAMED.items():
            assert isinstance(found[name], kind), (name, found[name])
        assert found["health"].keys() >= {"status", "issues"}
        assert (found["phase"], found["total_packages"]) == (phase, PACKAGES)
        assert found["bytes_total"] == sum(self.sizes.values())
        assert found["rate_bytes_per_second"] is None
        assert found["estimated_time_remaining_seconds"] is None
        assert {name: found[name] for name in figures} == figures
        return found

    def of(self, *, status: str) -> set[str]:
        """The packages in a status, as their own accounts say."""
        found = {name: self.regrain("why", name, "--json").document for name in self.sizes}
        return {name for name, one in found.items() if one["status"] == status}

    def bytes_of(self, *, status: str) -> int:
        return sum(self.sizes[name] for name in self.of(status=status))


def size_of(tree: Path) -> int:
    found = {}
    for folder, _, names in os.walk(tree):
        for name in names:
            status = os.lstat(os.path.join(folder, name))
            if not os.path.islink(os.path.join(folder, name)):
                found[status.st_ino, name, folder] = status.st_size
    return sum(found.values())


@pytest.fixture
def store(store_path: Path, seed: int) -> Store:
    return Store(store_path, seed)


def test_through_all_phases(store: Store) -> None:
    regrain = store.regrain
    regrain("init")
    nothing = {"migrated_packages": 0, "failed_packages": 0, "bytes_done": 0, "throttled": False}
    store.look("dual", **nothing, space_saved_bytes=0, next_command="regrain migrate")

    regrain("migrate", "--limit", "1")
    done = store.bytes_of(status="completed")
    store.look("dual", migrated_packages=1, bytes_done=done, next_command="regrain migrate")

    regrain("pause")
    held = store.look("dual", migrated_packages=1, bytes_done=done, throttled=True, paused=True)
    assert "regrain pause" in held["throttle_reason"]
    assert held["next_command"] == "regrain resume"
    assert "Next: regrain migrate" in regrain("resume").text
    assert store.look("dual", throttled=False)["throttle_reason"] is None

    bad = min(store.of(status="pending"))
    pipe = regrain.store / bad / "opt" / "pipe"
    os.mkfifo(pipe)
    regrain("migrate", code=3)
    assert store.of(status="failed") == {bad}
    store.look(
        "dual",
        migrated_packages=PACKAGES - 1,
        failed_packages=1,
        bytes_done=sum(store.sizes.values()) - store.sizes[bad],
        next_command="regrain migrate --retry-failed",
    )

    pipe.unlink()
    regrain("migrate", "--retry-failed")
    whole = {
        "migrated_packages": PACKAGES,
        "failed_packages": 0,
        "bytes_done": sum(store.sizes.values()),
    }
    found = store.look("dual", **whole, space_freed_bytes=0)
    assert 0 <= found["deduplicated_files"] <= found["total_files"]
    assert found["migrated_files"] == found["total_files"] > 0

    regrain("cutover", "--no-backup")
    store.look("file_level", **whole, space_freed_bytes=0, next_command="regrain cleanup")
    assert "Next: regrain cleanup" in regrain("set", "jobs=1").text  # not to migrate

    regrain("cleanup", "--execute")
    clean = store.look("clean", **whole, next_command="regrain verify")
    assert clean["space_freed_bytes"] > 0
    logs = sorted(path.name for path in (regrain.store / "migration" / "logs").iterdir())
    assert [name for name in logs if name.endswith(".jsonl.zst")]
    assert [name for name in logs if name.endswith(".state.json.zst")]
    assert not (regrain.store / "migration" / "state.json").exists()
    report = regrain("report", "--json").document
    assert report["log_lines_unreadable"] == 0

    regrain("rollback")
    store.look("rolled_back", migrated_packages=0, bytes_done=0, rolled_back_packages=PACKAGES)


def test_a_run_goes_on_from_what_was_migrated_before(store: Store) -> None:
    """What a run tells of itself, and the store beside it: never less than before, never more
    than there is.
    """
    store.regrain("init")
    store.regrain("migrate", "--limit", "1")
    before = store.bytes_of(status="completed")
    migration = PackageStore.open(store.regrain.store).migration()
    told: list[Progress] = []
    seen: list[int] = []

    def tell(event: Event) -> None:
        if isinstance(event, Progress):
            told.append(event)
            seen.append(migration.progress().bytes_done)

    with inline_workers():
        migration.run(tell, jobs=1, batch=1)
    assert {event.bytes_before for event in told} == {before}
    assert seen == sorted(seen)
    assert migration.progress().bytes_done == sum(store.sizes.values())
