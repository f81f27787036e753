"""What ends a run although it could go on, and what is made of it: by real failures and damage."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from regrain import PackageStore
from regrain.app import triggers
from regrain.app.triggers import TriggeredError
from regrain.ledger import open_ledger
from regrain.migrate import probe
from regrain.migrate.orders import Summary
from regrain.model.events import Event, ObjectDamaged, PackageCompleted, Progress, Triggered
from regrain.model.phase import Phase
from regrain.settings import Migration as MigrationSettings
from regrain.settings import Settings
from regrain.settings import Store as StoreSettings
from tests import awkward
from tests.command import Regrain
from tests.faults.inline import Told, initialise, inline_workers
from tests.reader import check_store
from tests.stores import (
    assert_sound,
    legacy_changes,
    new_layout_differences,
    read_ledger,
    record,
    statuses,
)
from tests.trees import LIVE, LegacyPackage

GOOD, BAD = 30, 4
Packages = dict[str, LegacyPackage]


def settings(**limits: Any) -> Settings:
    return Settings(
        StoreSettings(ingest="copy", migration_batch_size=5),
        MigrationSettings(**{"settle": 0.0, "free_bytes_min": 0, **limits}),
    )


def run(store: Path, told: Told | None = None, **limits: Any) -> Summary:
    """Migrate in this process."""
    told = told or Told()
    with inline_workers():
        migration = PackageStore.open(store, settings(**limits)).migration()
        return migration.run(told.events.append, jobs=1)


def health(store: Path, **limits: Any) -> list[str]:
    found = PackageStore.open(store, settings(**limits)).migration().health()
    return [found.status, *(issue.rule for issue in found.details)]


def history(store: Path, event: str) -> list[str]:
    return [
        row[0] for row in read_ledger(store, "SELECT detail FROM history WHERE event = ?", event)
    ]


def waiting(store: Path) -> int:
    return list(statuses(store).values()).count("pending")


@pytest.fixture
def failing(store_path: Path, seed: int) -> Packages:
    """Packages of which the four smallest, which are taken first, cannot be migrated."""
    packages = awkward.make_plain_store(store_path, seed, GOOD, 12)
    kinds = (stat.S_IFIFO, stat.S_IFSOCK)
    for number in range(BAD):
        bad = awkward.add_special(store_path, seed + number, kinds[number % 2])
        packages[bad.hash] = bad
    initialise(store_path)
    return packages


def test_too_many_failures_end_the_run(store_path: Path, failing: Packages) -> None:
    before, told = record(failing), Told()
    with pytest.raises(
        TriggeredError, match=r"4 of 20 packages failed \(20%, 5% is tolerated\)"
    ) as ended:
        run(store_path, told)
    assert ended.value.exit_code == 5
    assert [event.trigger for event in told.of(Triggered)] == ["error_rate"]
    left = waiting(store_path)
    assert 0 < left <= GOOD + BAD - 20
    assert "in_progress" not in statuses(store_path).values()
    assert_sound(store_path, failing, before)
    assert history(store_path, "trigger")[0].startswith("error_rate: 4 of 20")
    assert "4 of 20" in Regrain(store_path)("status").text
    assert Regrain(store_path)("status", "--json").document["last_trigger"]
    # The next run does not meet the same wall, and says why there was one.
    told = Told()
    assert run(store_path, told).completed == left
    assert [event.before for event in told.of(Triggered)] == [True]
    assert Regrain(store_path)("status", "--json").document["last_trigger"] is None
    told = Told()
    assert run(store_path, told).completed == 0
    assert told.of(Triggered) == []


def test_fewer_than_twenty_packages_tell_nothing(store_path: Path, seed: int) -> None:
    awkward.make_plain_store(store_path, seed, 15, 4)
    for number in range(BAD):
        awkward.add_special(store_path, seed + number, stat.S_IFIFO)
    initialise(store_path)
    assert run(store_path) == Summary(15, BAD, stopped=False)
    assert health(store_path) == ["healthy"]


def test_what_is_tolerated_is_a_setting(store_path: Path, failing: Packages) -> None:
    assert run(store_path, error_rate_max=0.2) == Summary(GOOD, BAD, stopped=False)
    assert health(store_path, error_rate_max=0.2) == ["healthy"]
    assert health(store_path) == ["warning", "error_rate"]
    Regrain(store_path)("status", "--check", code=6)


def test_to_go_on_is_only_told(store_path: Path, failing: Packages) -> None:
    told = Told()
    assert run(store_path, told, on_trigger="continue") == Summary(GOOD, BAD, stopped=False)
    assert [(e.trigger, e.action) for e in told.of(Triggered)] == [("error_rate", "continue")]
    assert len(history(store_path, "trigger_ignored")) == 1
    assert Regrain(store_path)("status", "--json").document["last_trigger"] is None


def test_a_rollback_follows_in_the_same_process(store_path: Path, failing: Packages) -> None:
    before = record(failing)
    with pytest.raises(TriggeredError, match="the store was rolled back"):
        run(store_path, on_trigger="rollback")
    assert PackageStore.open(store_path).phase is Phase.ROLLED_BACK
    assert legacy_changes(before, failing) == []
    assert set(statuses(store_path).values()) == {"failed", "pending", "rolled_back"}


def test_the_command_says_which_trigger_and_ends_with_5(
    store_path: Path, failing: Packages
) -> None:
    said = Regrain(store_path)("migrate", "--json", "--batch", "5", "--jobs", "1", code=5)
    assert "trigger error_rate: " in said.stderr
    (document,) = said.of_type("exit_error")
    assert (document["exit_code"], "error_rate: " in document["reason"]) == (5, True)
    again = Regrain(store_path)("migrate", code=3)
    assert "the last run was ended by a trigger, this one goes on" in again.stderr


@pytest.mark.root
def test_a_rollback_that_does_not_fit_is_a_pause(ext4: Path, seed: int) -> None:
    """A package that has no legacy directory needs more room than may be used."""
    store, size = ext4 / "store", 24 << 20
    packages = awkward.make_plain_store(store, seed, GOOD, 4)
    for number in range(BAD):
        awkward.add_special(store, seed + number, stat.S_IFIFO)
    initialise(store)
    added = awkward.add_large(ext4, seed, size)
    PackageStore.open(store, settings()).add_package(added.path, added.hash)
    space = os.statvfs(store)
    floor = space.f_bavail * space.f_frsize - size // 2
    limits = {"FREE_BYTES_MIN": str(floor), "FREE_INODES_MIN": "0", "ON_TRIGGER": "rollback"}
    environment = {f"REGRAIN_MIGRATION__{key}": value for key, value in limits.items()}
    regrain = Regrain(store, {**environment, "REGRAIN_STORE__INGEST": "copy"})
    said = regrain("migrate", "--jobs", "1", "--batch", "5", code=5).stderr
    assert "does not fit: error_rate: " in said
    assert "packages need" in said
    assert PackageStore.open(store).phase is Phase.DUAL
    assert packages.keys() & statuses(store).keys() == packages.keys()


# integrity


@pytest.fixture
def damaged(store_path: Path, seed: int) -> tuple[LegacyPackage, LegacyPackage]:
    """A migrated package one of whose objects is cut short, and a new one that needs it, too."""
    old = awkward.add_ordinary(store_path, "jq", "1.6", seed)
    initialise(store_path)
    run(store_path)
    digest = next(
        entry.digest
        for entry in PackageStore.open(store_path).get_package(old.hash).files()
        if entry.path == LIVE + b"/lib/libjq.so.1.2"
    )
    carrier = store_path / "objects" / digest[:2] / digest
    os.truncate(carrier, carrier.stat().st_size - 1)
    return old, awkward.add_ordinary(store_path, "jq", "1.7", seed)


def test_a_damaged_object_ends_the_run(
    store_path: Path, damaged: tuple[LegacyPackage, LegacyPackage]
) -> None:
    old, new = damaged
    before, told = record({p.hash: p for p in damaged}), Told()
    with pytest.raises(TriggeredError, match=f"integrity: .*{old.hash}: object .* has 69999 bytes"):
        run(store_path, told)
    assert len(told.of(ObjectDamaged)) == 1
    assert health(store_path) == ["critical", "integrity"]
    regrain = Regrain(store_path)
    regrain("status", "--check", code=7)
    assert regrain("status", "--json").document["integrity"][0]["package_hash"] == old.hash
    assert statuses(store_path) == {old.hash: "completed", new.hash: "completed"}
    # What was brought in anew is whole: a clean look takes the finding back.
    regrain("verify", "--level", "deep")
    assert health(store_path) == ["healthy"]
    store = check_store(store_path)
    assert legacy_changes(before, {p.hash: p for p in damaged}) == []
    assert new_layout_differences(store, before, before) == []


def test_integrity_can_roll_back(
    store_path: Path, damaged: tuple[LegacyPackage, LegacyPackage]
) -> None:
    before = record({p.hash: p for p in damaged})
    with pytest.raises(TriggeredError, match="the store was rolled back: integrity: "):
        run(store_path, on_trigger="rollback")
    assert PackageStore.open(store_path).phase is Phase.ROLLED_BACK
    assert legacy_changes(before, {p.hash: p for p in damaged}) == []


def test_only_a_clean_verify_takes_it_back(
    store_path: Path, damaged: tuple[LegacyPackage, LegacyPackage]
) -> None:
    """Told to go on, the run heals the object; that it found damage stands all the same."""
    old, new = damaged
    told = Told()
    assert run(store_path, told, on_trigger="continue").completed == 1
    fired = [(event.trigger, event.action) for event in told.of(Triggered)]
    assert fired == [("integrity", "continue")]
    assert history(store_path, "trigger_ignored")[0].startswith("integrity: ")
    critical = ["critical", "integrity"]
    assert health(store_path) == critical
    assert run(store_path).completed == 0  # neither a further run
    regrain = Regrain(store_path)
    regrain("verify", "--level", "quick")  # nor a look that reads no byte
    regrain("verify", new.hash)  # nor one at something else
    assert health(store_path) == critical
    regrain("verify", old.hash)
    assert health(store_path) == ["healthy"]


def test_what_is_known_ends_no_run(store_path: Path, plain_store: Packages, seed: int) -> None:
    regrain = Regrain(store_path, {"REGRAIN_MIGRATION__SETTLE": "0"})
    regrain("init")
    regrain("migrate")
    (plain_store[min(plain_store)].path / "manifest.toml").chmod(0o600)
    new = awkward.add_ordinary(store_path, "late", "1", seed)
    said = regrain("migrate", "--rescan", code=5)
    assert "its mode changed" in said.stderr
    assert statuses(store_path)[new.hash] == "pending"
    regrain("migrate", "--rescan")
    assert statuses(store_path)[new.hash] == "completed"


def test_what_another_command_finds_ends_the_run(
    store_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triggers, "LOOK_SECONDS", 0.0)
    awkward.make_plain_store(store_path, seed, 8, 4)
    initialise(store_path)

    def find(event: Event) -> None:
        """As a verify that runs beside the migration."""
        if isinstance(event, PackageCompleted):
            ledger = open_ledger(str(store_path))
            ledger.concern(event.package_hash, "damaged")
            ledger.close()

    with inline_workers(), pytest.raises(TriggeredError, match=r"integrity: .*damaged"):
        PackageStore.open(store_path, settings()).migration().run(find, jobs=1, batch=1)
    assert waiting(store_path) > 0


# slow readers


class SlowReads:
    """Reads that take much longer from the first package that is done on.

    Args:
        seconds: So much at the least; on a loaded machine more, by what they took before.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._is_slow = False

    def __call__(self, event: Event) -> None:
        self._is_slow = self._is_slow or isinstance(event, PackageCompleted)
        if isinstance(event, Progress) and event.foreground is not None:
            self._seconds = max(self._seconds, 3 * event.foreground.baseline_seconds)

    def instead_of(self, read: Callable[..., Any]) -> Callable[..., Any]:
        def slow_read(*arguments: Any) -> Any:
            if self._is_slow:
                time.sleep(self._seconds)
            return read(*arguments)

        return slow_read


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> SlowReads:
    found = SlowReads(0.004)
    monkeypatch.setattr(probe, "PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(probe, "SHARE_MAX", 1.0)
    monkeypatch.setattr(probe, "look_into", found.instead_of(probe.look_into))
    return found


@pytest.mark.parametrize("action", ["pause", "continue", "rollback"])
def test_slow_readers_hold_the_run_then_end_it(
    store_path: Path, seed: int, slow: SlowReads, action: str
) -> None:
    packages = awkward.make_plain_store(store_path, seed, 12, 4)
    before = record(packages)
    initialise(store_path)
    told = Told()

    def tell(event: Event) -> None:
        told.events.append(event)
        slow(event)

    # Left alone, the run takes longer than the windows it takes to find readers slow.
    pause_ms = 100 if action == "continue" else 500
    limits = settings(latency_slowdown_max=2.0, on_trigger=action, pause_ms=pause_ms)
    migration = PackageStore.open(store_path, limits).migration()
    if action == "continue":
        assert migration.run(tell, jobs=2, batch=1).completed == 12
    else:
        with pytest.raises(TriggeredError, match=r"slowdown: a small read takes \d+\.\d ms"):
            migration.run(tell, jobs=2, batch=1)
        assert waiting(store_path) > 0
    is_back = PackageStore.open(store_path).phase is Phase.ROLLED_BACK
    assert is_back == (action == "rollback")
    assert legacy_changes(before, packages) == []
    assert [event.trigger for event in told.of(Triggered)] == ["slowdown"]
    reasons = {event.throttle_reason for event in told.events if hasattr(event, "throttle_reason")}
    assert any("latency_slowdown_max" in reason for reason in reasons)
