"""A store whose ledger is in PostgreSQL: its whole life, its locks, a server that goes away."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from regrain.app import initialising
from regrain.ledger.postgres_locks import PostgresLocks
from regrain.model import layout
from regrain.store.root import StoreRoot
from tests import awkward, servers
from tests.command import Regrain
from tests.compare import Snapshot
from tests.stores import checkout_differences, legacy_changes, read_ledger, record
from tests.trees import LegacyPackage
from tests.waiting import until

Packages = dict[str, LegacyPackage]
SLOWLY = {"REGRAIN_MIGRATION__PAUSE_MS": "300"}


def many(store: Path, seed: int, count: int = 12) -> tuple[Packages, dict[str, Snapshot]]:
    packages = awkward.make_plain_store(store, seed, count, 20)
    return packages, record(packages)


def published(regrain: Regrain) -> int:
    return len(os.listdir(regrain.store / "packages"))


def half_way(regrain: Regrain, process: subprocess.Popen[bytes]) -> None:
    def look() -> bool:
        assert process.poll() is None, "it ended too soon"
        return published(regrain) >= 3

    until(look, "packages are published")


def assert_identical(
    regrain: Regrain, packages: Packages, before: dict[str, Snapshot], place: Path
) -> None:
    regrain("verify", "--level", "deep")
    regrain("doctor", "--json", code=None)
    assert legacy_changes(before, packages) == []
    for number, name in enumerate(sorted(packages)[:3]):
        assert checkout_differences(regrain, name, before[name], place / f"out{number}") == []


def test_a_whole_life(
    served: Regrain, store_path: Path, plain_store: Packages, workplace: Path
) -> None:
    before = record(plain_store)
    served("init")
    served("migrate")
    assert not (store_path / "state.sqlite").exists()
    assert served("status", "--json").document["migrated_packages"] == len(plain_store)
    served("verify", "--level", "deep")
    served("backup", "create", workplace / "backup")
    assert (workplace / "backup" / "state.sqlite").exists()
    served("cutover")
    served("cleanup", "--execute")
    assert "legacy removed" in served("status").text
    served("gc")
    served("rollback")
    # Whole directories were made anew, so it is their contents that must be the same.
    after = record(plain_store)
    assert after.keys() == before.keys()
    served("migrate")
    rows = read_ledger(store_path, "SELECT status, count(*) FROM store_migration GROUP BY status")
    assert rows == [("completed", len(plain_store))]
    served("verify", "--level", "deep")
    doctor = served("doctor", "--json").text
    assert "PostgreSQL" in doctor
    assert "the ledger agrees with the disk" in doctor


def test_readers_need_no_server(
    served: Regrain, store_path: Path, plain_store: Packages, workplace: Path
) -> None:
    before = record(plain_store)
    served("init")
    served("migrate")
    alone = Regrain(store_path, {"REGRAIN_STORE__DATABASE": "postgresql+psycopg://u@nowhere/x"})
    assert len(alone("list", "--json").documents)
    name = min(plain_store)
    assert checkout_differences(alone, name, before[name], workplace / "out") == []


def test_a_store_says_that_its_ledger_is_elsewhere(
    served: Regrain, store_path: Path, plain_store: Packages
) -> None:
    served("init")
    forgetful = Regrain(store_path, {"REGRAIN_STORE__DATABASE": ""})
    assert "no database is set" in forgetful("status", code=2).stderr
    assert "no database is set" in forgetful("doctor", "--rebuild-ledger", code=2).stderr
    assert not (store_path / "state.sqlite").exists()


def test_a_ledger_moves_from_its_file(
    served: Regrain, store_path: Path, plain_store: Packages
) -> None:
    name = min(plain_store)
    alone = Regrain(store_path, {"REGRAIN_STORE__DATABASE": ""})
    alone("init")
    alone("migrate")
    alone("exclude", name)
    assert "is a file" in served("status", code=2).stderr
    served("doctor", "--rebuild-ledger")
    assert not (store_path / "state.sqlite").exists()
    assert read_ledger(store_path, "SELECT hash FROM store_refs ORDER BY 1") == [
        (one,) for one in sorted(plain_store)
    ]
    query = "SELECT package_hash FROM store_migration WHERE excluded <> 0"
    assert read_ledger(store_path, query) == [(name,)]
    assert ("initialised",) in read_ledger(store_path, "SELECT event FROM history")
    served("verify", "--level", "deep")


def locks_of(store: Path, server: servers.Server) -> PostgresLocks:
    return PostgresLocks(str(store), StoreRoot(str(store)).store_id, server.url())


def test_another_machine_has_the_run(
    served: Regrain, store_path: Path, plain_store: Packages, postgres: servers.Server
) -> None:
    """Its file lock is not seen here; that the server knows of it must be enough."""
    served("init")
    held = locks_of(store_path, postgres).hold(
        layout.RUN_LOCK, exclusive=True, patience=1, who="regrain migrate far away"
    )
    assert held is not None
    try:
        assert "far away" in served("migrate", code=11).stderr
        assert "far away" in served("status", "--json").document["running"]
    finally:
        held.let_go()
    served("migrate")


def test_another_machine_writes(
    served: Regrain, store_path: Path, plain_store: Packages, postgres: servers.Server
) -> None:
    served("init")
    served("migrate")
    locks = locks_of(store_path, postgres)
    theirs = locks.hold(layout.STORE_LOCK, exclusive=False, patience=1)
    assert theirs is not None
    try:
        assert locks.hold(layout.STORE_LOCK, exclusive=True, patience=0.05) is None
        shared = locks.hold(layout.STORE_LOCK, exclusive=False, patience=1)
        assert shared is not None
        assert not shared.is_wanted()
        shared.let_go()
    finally:
        theirs.let_go()


def lock_session(server: servers.Server) -> int:
    """The process of the server whose session holds a migration's run lock."""
    (pid,) = server.rows(
        "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'regrain: regrain migr%'"
    )[0]
    assert isinstance(pid, int)
    return pid


@pytest.mark.slow
def test_a_run_that_lost_its_locks_records_nothing_until_it_has_them_again(
    served: Regrain, store_path: Path, seed: int, workplace: Path, postgres: servers.Server
) -> None:
    """Another host, which waited for the lock, has it at once."""
    packages, before = many(store_path, seed)
    served("init")
    root = StoreRoot(str(store_path))
    another = PostgresLocks(str(store_path), root.store_id, postgres.url())
    said = workplace / "said"
    with (
        said.open("wb") as output,
        served.running(
            "migrate", "--batch", "1", "--jobs", "1", env=SLOWLY, stderr=output
        ) as process,
        ThreadPoolExecutor(1) as thread,
    ):
        half_way(served, process)
        waiting = thread.submit(another.hold, layout.RUN_LOCK, exclusive=True, patience=30.0)
        until(lambda: bool(postgres.rows("SELECT 1 FROM pg_locks WHERE NOT granted")), "it waits")
        postgres.run_sql(f"SELECT pg_terminate_backend({lock_session(postgres)})")
        held = waiting.result()
        assert held is not None
        until(lambda: "goes on when it is there again" in said.read_text(), "it is told")
        there = published(served)
        time.sleep(2)  # in which it would have published half a dozen
        assert published(served) == there < len(packages)
        held.let_go()
        assert process.wait(90) == 0
    assert_identical(served, packages, before, workplace)


@pytest.mark.slow
def test_a_run_outlives_its_server(store_path: Path, seed: int, workplace: Path) -> None:
    packages, before = many(store_path, seed)
    said = workplace / "said"
    with servers.running() as server:
        served = Regrain(store_path, server.environment())
        served("init")
        words = ["migrate", "--batch", "1", "--jobs", "1", "--limit", "9", "--json"]
        with (
            said.open("wb") as output,
            served.running(*words, env=SLOWLY, stdout=output) as process,
        ):
            half_way(served, process)
            server.kill()
            server.start()
            assert process.wait(60) == 0
        (summary,) = [
            line
            for line in map(json.loads, said.read_text().splitlines())
            if line["message_type"] == "summary"
        ]
        assert (summary["completed"], summary["failed"]) == (9, 0)  # before and after
        assert published(served) == 9
        served("migrate")
        assert_identical(served, packages, before, workplace)


@pytest.mark.slow
def test_the_server_does_not_come_back(store_path: Path, seed: int, workplace: Path) -> None:
    packages, before = many(store_path, seed)
    said = workplace / "said"
    with servers.running() as server:
        served = Regrain(store_path, server.environment())
        served("init")
        with (
            said.open("wb") as output,
            served.running("migrate", "--batch", "1", env=SLOWLY, stderr=output) as process,
        ):
            half_way(served, process)
            server.kill()
            until(lambda: "when it is there again" in said.read_text(), "it is told")
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 1
        assert "cannot reach the ledger's database" in said.read_text()
        assert published(served) < len(packages)
        with served.running("migrate") as waiting:  # begun before the server is there again
            server.start()
            assert waiting.wait(60) == 0
        assert_identical(served, packages, before, workplace)


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["migrate", "cleanup"])
def test_regrain_dies_in_the_middle(
    verb: str, served: Regrain, store_path: Path, seed: int, workplace: Path
) -> None:
    packages, before = many(store_path, seed)
    served("init")
    words = ["migrate", "--batch", "1", "--jobs", "1"]
    if verb == "cleanup":
        served("migrate")
        served("cutover", "--no-backup")
        words = ["cleanup", "--execute"]
    with served.running(*words, env=SLOWLY) as process:
        if verb == "migrate":
            half_way(served, process)
        else:
            there = [store_path / name for name in packages]
            until(lambda: not all(place.exists() for place in there), "a directory goes")
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)
    if verb == "migrate":
        served("migrate")
        assert_identical(served, packages, before, workplace)
        return
    served("cleanup", "--execute")
    served("verify", "--level", "deep")
    for number, name in enumerate(sorted(packages)[:3]):
        assert checkout_differences(served, name, before[name], workplace / f"o{number}") == []


def test_init_leaves_no_connection_open(
    served: Regrain, store_path: Path, seed: int, postgres: servers.Server
) -> None:
    """In a process that lives on; a store that is there already is looked at first."""
    many(store_path, seed, 2)
    ours = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'regrain%'"
    for _ in range(2):
        initialising.initialise(str(store_path))
        until(lambda: postgres.rows(ours) == [], "the server noticed that they ended")
    served("status")
