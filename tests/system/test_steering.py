"""A migration is paused, resumed and told otherwise from another terminal."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests import awkward
from tests.command import Regrain
from tests.stores import assert_complete, record, statuses
from tests.trees import LegacyPackage
from tests.waiting import until, until_status

Packages = dict[str, LegacyPackage]
SLOWLY = ("--jobs", "2", "--batch", "1", "--max-read", "2")
"""About a second a package."""
AT_ONCE = 5.0
"""It is a second, but flushing takes its time where others work on the same disk."""


@pytest.fixture
def packages(regrain: Regrain, seed: int) -> Packages:
    made = [awkward.add_large(regrain.store, seed + number, 1 << 18) for number in range(6)]
    regrain("init")
    return {package.hash: package for package in made}


def is_paused(found: dict[str, Any]) -> bool:
    return bool(found["throttled"]) and not found["in_progress_packages"]


def logged(store: Path, text: str) -> bool:
    """Whether a run has told this."""
    return any(text in log.read_text() for log in (store / "migration/logs").glob("*.jsonl"))


def test_a_running_migration_pauses_and_goes_on(regrain: Regrain, packages: Packages) -> None:
    before = record(packages)
    with regrain.running("migrate", *SLOWLY) as process:
        until_status(regrain, process, lambda found: found["bytes_done"], "it works")
        regrain("pause")
        until(lambda: logged(regrain.store, "paused by"), "it says that it waits", AT_ONCE)
        said = until_status(regrain, process, is_paused, "nothing is in hand")
        assert said["paused"] is True
        assert "regrain pause" in said["throttle_reason"]
        assert said["next_command"] == "regrain resume"
        assert said["estimated_time_remaining_seconds"] is None
        done = said["migrated_packages"]
        assert set(statuses(regrain.store).values()) <= {"pending", "completed"}
        regrain("gc")  # nobody is kept out
        assert "paused" in regrain("migrate").text  # though a paused one lives, and holds the store
        assert regrain("status", "--json").document["migrated_packages"] == done
        regrain("set", "max-read=0")
        assert "paused" in regrain("status").text
        regrain("resume")
        assert process.wait(60) == 0
    assert_complete(regrain.store, packages, before, orphans=True)
    said = regrain("status", "--json").document
    assert (said["paused"], said["throttled"], said["throttle_reason"]) == (False, False, None)


@pytest.mark.parametrize("json_", [False, True])
def test_a_paused_store_says_so(regrain: Regrain, packages: Packages, json_: bool) -> None:
    before = record(packages)
    regrain("pause")
    again = regrain("pause", "--json").document
    assert (again["was_paused"], again["paused"]) == (True, True)
    result = regrain("migrate", *(["--json"] if json_ else []))
    if json_:
        (said,) = result.of_type("summary")
        assert (said["paused"], said["completed"]) == (True, 0)
        assert said["next_command"] == "regrain resume"
    else:
        assert "paused" in result.text
        assert "Next: regrain resume" in result.text
    foreseen = regrain("migrate", "-n", "--json").document
    assert (foreseen["paused"], foreseen["pending_packages"]) == (True, len(packages))
    assert "once it is resumed" in regrain("migrate", "-n").text
    assert set(statuses(regrain.store).values()) == {"pending"}
    assert regrain("status", "--json").document["next_command"] == "regrain resume"
    assert regrain("resume", "--json").document["next_command"] == "regrain migrate"
    assert set(statuses(regrain.store).values()) == {"pending"}, "resume started something"
    regrain("migrate")
    assert_complete(regrain.store, packages, before)


def test_a_pause_outlasts_a_kill(regrain: Regrain, packages: Packages) -> None:
    before = record(packages)
    with regrain.running("migrate", *SLOWLY) as process:
        until_status(regrain, process, lambda found: found["bytes_done"], "it works")
        regrain("pause")
        until_status(regrain, process, is_paused, "it is paused")
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)
    assert "paused" in regrain("migrate").text
    assert set(statuses(regrain.store).values()) <= {"pending", "completed"}
    regrain("resume")
    regrain("migrate")
    assert_complete(regrain.store, packages, before, orphans=True)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_paused_migration_can_be_ended(
    regrain: Regrain, packages: Packages, number: int, code: int
) -> None:
    with regrain.running("migrate", *SLOWLY) as process:
        until_status(regrain, process, lambda found: found["running"], "it runs")
        regrain("pause")
        until_status(regrain, process, is_paused, "it is paused")
        process.send_signal(number)
        assert process.wait(20) == code
    assert not list((regrain.store / "temp").iterdir())


def test_a_rollback_stops_a_paused_migration(regrain: Regrain, packages: Packages) -> None:
    before = record(packages)
    with regrain.running("migrate", *SLOWLY) as process:
        until_status(regrain, process, lambda found: found["running"], "it runs")
        regrain("pause")
        until_status(regrain, process, is_paused, "it is paused")
        regrain("rollback", env={"REGRAIN_MIGRATION__FREE_BYTES_MIN": "0"})
        assert process.wait(20) == 143
    assert record(packages).keys() == before.keys()
    said = regrain("status", "--json").document
    assert (said["phase"], said["paused"]) == ("rolled_back", True)
    assert "paused" in regrain("migrate").text


def workers_of(pid: int) -> int:
    """How many workers a migration has; the tracker of shared memory is none."""
    found = 0
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            status = Path(f"/proc/{name}/stat").read_text()
            line = Path(f"/proc/{name}/cmdline").read_bytes()
        except OSError:
            continue
        parent = int(status.rpartition(")")[2].split()[1])
        found += parent == pid and b"spawn_main" in line
    return found


@pytest.mark.slow
def test_what_is_set_counts_at_once(regrain: Regrain, packages: Packages) -> None:
    """Jobs, rate, batch and pause; more workers, then fewer."""
    before = record(packages)
    with regrain.running("migrate", "--jobs", "1", "--batch", "1", "--max-read", "0.6") as process:
        until(lambda: workers_of(process.pid) == 1, "one works")
        regrain("set", "jobs=3", "max-read=1.2")
        heard = "from now on: 3 jobs, 1.2 MiB/s"
        until(lambda: logged(regrain.store, heard), "heard", AT_ONCE)
        until(lambda: workers_of(process.pid) == 3, "three work")
        regrain("set", "jobs=1", "batch=2", "pause-ms=50")
        until(lambda: workers_of(process.pid) == 1, "one works again")
        assert logged(regrain.store, "batches of 2 packages, 0.05 s between them")
        regrain("set", "jobs=", "max-read=0", "batch=", "pause-ms=")
        until(lambda: logged(regrain.store, "from now on: 1 jobs, no limit on"), "as it began")
        assert process.wait(60) == 0
    assert_complete(regrain.store, packages, before)


@pytest.mark.slow
def test_what_is_set_outlasts_a_run_and_an_option_wins_over_what_was_set_before(
    regrain: Regrain, packages: Packages
) -> None:
    before = record(packages)
    regrain("set", "pause-ms=700", "batch=1", "jobs=1")
    with regrain.running("migrate", "--limit", "3", "--batch", "3") as process:
        took = until(lambda: process.poll() is not None, "it ends")
    assert took < 5  # one batch, so no pause counts between
    with regrain.running("migrate", "--limit", "2") as process:
        until_status(
            regrain,
            process,
            lambda _: list(statuses(regrain.store).values()).count("completed") == 4,
            "the first is done, the second waits for the pause",
        )
        assert process.wait(20) == 0
    regrain("set", "pause-ms=", "batch=", "jobs=")
    regrain("migrate")
    assert_complete(regrain.store, packages, before)


NO_SENSE = [
    *("jobs=0", "jobs=257", "jobs=x", "jobs=1.5", "batch=0", "batch=1e9", "max-read=-1"),
    *("max-read=nan", "max-read=inf", "pause-ms=-1", "pause-ms=x", "nothing=1", "=1", "jobs", ""),
]


@pytest.mark.parametrize("json_", [False, True])
def test_what_makes_no_sense_is_refused(
    regrain: Regrain, plain_store: Packages, json_: bool
) -> None:
    regrain("init")
    for word in NO_SENSE:
        result = regrain("set", "batch=3", word, *(["--json"] if json_ else []), code=2)
        assert word.partition("=")[0] in result.stderr
        assert not (regrain.store / "migration/control.json").exists(), "a part of it was set"


def test_a_dry_run_says_it_and_changes_nothing(regrain: Regrain, plain_store: Packages) -> None:
    regrain("init")
    for words in (["pause"], ["set", "jobs=2"], ["resume"]):
        assert regrain(*words, "-n", "--json").document["dry_run"] is True
        assert "nothing was changed" in regrain(*words, "-n").text
    assert not (regrain.store / "migration/control.json").exists()


GARBLED = [
    *(b"", b"{", b"[]", b"\xff\xfe", b"[" * 60_000, b" " * 70_000),
    *(b'{"schema":2}', b'{"schema":1,"values":{"jobs":0}}', b'{"schema":1,"more":1}'),
]


def test_a_file_that_cannot_be_understood(regrain: Regrain, plain_store: Packages) -> None:
    regrain("init")
    file = regrain.store / "migration/control.json"
    for content in GARBLED:
        file.write_bytes(content)
        for words in (["migrate"], ["pause"], ["set", "jobs=1"], ["resume", "--json"]):
            result = regrain(*words, code=None)
            assert result.code in {1, 2}, result
            assert "migration/control.json" in result.stderr
        assert file.read_bytes() == content
        said = regrain("status", "--json").document
        assert any("control.json" in issue for issue in said["health"]["issues"]), said
    file.unlink()
    regrain("migrate")


def test_a_file_that_is_garbled_under_a_running_migration(
    regrain: Regrain, packages: Packages
) -> None:
    """What it said before counts; the run says so and goes on."""
    file = regrain.store / "migration/control.json"
    with regrain.running("migrate", *SLOWLY) as process:
        until_status(regrain, process, lambda found: found["running"], "it runs")
        regrain("set", "max-read=100")
        until(lambda: logged(regrain.store, "100 MiB/s"), "heard")
        file.write_bytes(b"{")
        assert process.wait(60) == 0
    assert set(statuses(regrain.store).values()) == {"completed"}


def test_a_link_in_its_place_is_not_followed(
    regrain: Regrain, plain_store: Packages, workplace: Path
) -> None:
    regrain("init")
    elsewhere = workplace / "elsewhere"
    elsewhere.write_text(json.dumps({"schema": 1, "paused_at": 1}))
    file = regrain.store / "migration/control.json"
    file.symlink_to(elsewhere)
    assert regrain("migrate", code=None).code in {1, 2}
    assert regrain("pause", code=None).code in {1, 2}
    assert json.loads(elsewhere.read_text()) == {"schema": 1, "paused_at": 1}
    assert file.is_symlink()
