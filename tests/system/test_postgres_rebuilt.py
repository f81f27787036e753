"""A ledger in PostgreSQL that is lost, mistaken or made anew, and hosts that come at once."""

from __future__ import annotations

import subprocess
import traceback
from pathlib import Path

import pytest

from regrain import disk
from regrain.app.database import use_database
from regrain.errors import HaltedError, RegrainError
from regrain.ledger import open_ledger
from regrain.ledger.elsewhere import Place
from regrain.ledger.postgres import connect
from regrain.ledger.postgres_locks import PostgresLocks
from regrain.model import layout
from regrain.settings import Settings
from regrain.settings import Store as StoreSettings
from regrain.store import root as store_root
from regrain.store.locks import RunDirectory
from regrain.store.root import StoreRoot
from tests import servers
from tests.command import Regrain
from tests.stores import read_ledger, statuses
from tests.trees import LegacyPackage
from tests.waiting import until

Packages = dict[str, LegacyPackage]
REBUILD = ("doctor", "--rebuild-ledger")


def locks_of(store: Path, server: servers.Server) -> PostgresLocks:
    return PostgresLocks(str(store), StoreRoot(str(store)).store_id, server.url())


def waiting(server: servers.Server, words: str) -> list[int]:
    """The sessions that wait for a lock with a statement of these words."""
    found = server.rows(
        "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        f" AND query LIKE '%{words}%' AND pid <> pg_backend_pid()"
    )
    return [pid for (pid,) in found]


# what looks lost


@pytest.mark.parametrize(
    "how", ["lost", pytest.param("of another name", marks=pytest.mark.slow), "empty"]
)
def test_a_repair_never_makes_a_servers_ledger_anew(
    how: str, served: Regrain, store_path: Path, plain_store: Packages, postgres: servers.Server
) -> None:
    """A typing error in the URL, or an old dump restored, looks like a loss and is none."""
    served("init")
    served("migrate")
    schema = servers.schema_of(store_path)
    env = {}
    if how == "lost":
        postgres.run_sql(f"DROP SCHEMA {schema} CASCADE", servers.DATABASE)
    elif how == "empty":
        postgres.run_sql(f"DELETE FROM {schema}.alembic_version", servers.DATABASE)
    else:
        env = {"REGRAIN_STORE__DATABASE": postgres.url("postgres")}
    mark = (store_path / layout.LEDGER_MARK).read_bytes()
    before = postgres.ledgers()
    for options in ((), ("-n",)):
        told = served("verify", "--level", "deep", "--repair", *options, code=4, env=env).stderr
        assert "doctor --rebuild-ledger" in told
        assert "names the right database" in told
    assert (store_path / layout.LEDGER_MARK).read_bytes() == mark
    assert postgres.ledgers() == before
    if how == "of another name":
        served("verify", "--level", "deep", "--repair")
        return
    told = served("doctor", code=4).text
    assert "is missing" in told
    assert "names the right database" in told
    told = served(*REBUILD).text
    assert "was not taken over" in told
    assert f"DROP SCHEMA {schema} CASCADE" in told
    assert set(statuses(store_path).values()) == {"completed"}
    served("verify", "--level", "deep")


def test_a_store_that_forgot_its_schema_is_not_repaired_either(
    served: Regrain, store_path: Path, plain_store: Packages
) -> None:
    served("init")
    (store_path / layout.LEDGER_MARK).unlink()
    assert "doctor --rebuild-ledger" in served("verify", "--repair", code=4).stderr
    served(*REBUILD)
    served("verify", "--repair")


def test_it_is_said_where_the_old_ledger_is(
    served: Regrain, store_path: Path, plain_store: Packages, postgres: servers.Server
) -> None:
    served("init")
    old = servers.schema_of(store_path)
    assert f"would leave the old one in the database: schema {old}" in served(*REBUILD, "-n").text
    text = served(*REBUILD).text
    assert "quarantine" not in text
    assert f"DROP SCHEMA {old} CASCADE" in text
    assert "not taken over" not in text
    new = servers.schema_of(store_path)
    assert new != old
    document = served(*REBUILD, "--json").document
    assert document["old_schema"] == new
    assert (document["moved_aside"], document["not_taken_over"]) == ([], None)
    for schema in (old, new):
        postgres.run_sql(f"DROP SCHEMA {schema} CASCADE", servers.DATABASE)
    served("verify", "--level", "deep")


def test_a_server_that_goes_away_meanwhile_is_no_lost_history(
    served: Regrain, store_path: Path, plain_store: Packages, postgres: servers.Server
) -> None:
    name = min(plain_store)
    served("init")
    served("exclude", name)
    mark, there = (store_path / layout.LEDGER_MARK).read_bytes(), postgres.ledgers()
    history = read_ledger(store_path, "SELECT event FROM history")
    with postgres.connected() as other, other.transaction():
        schema = servers.schema_of(store_path)
        other.execute(f"LOCK TABLE {schema}.intents IN ACCESS EXCLUSIVE MODE".encode())
        with served.running(*REBUILD, stdout=subprocess.DEVNULL) as process:
            until(lambda: bool(waiting(postgres, "FROM intents")), "it reads the old ledger")
            (pid,) = waiting(postgres, "FROM intents")
            postgres.run_sql(f"SELECT pg_terminate_backend({pid})")
            assert process.wait(60) == 1
    assert (store_path / layout.LEDGER_MARK).read_bytes() == mark
    assert postgres.ledgers() == there
    served(*REBUILD)
    assert read_ledger(store_path, "SELECT event FROM history")[: len(history)] == history
    query = "SELECT package_hash FROM store_migration WHERE excluded <> 0"
    assert read_ledger(store_path, query) == [(name,)]


def test_a_rebuilding_that_fails_leaves_no_schema(
    served: Regrain, store_path: Path, plain_store: Packages, postgres: servers.Server
) -> None:
    """Its lock on the store is lost: whoever has it now may be changing what was looked at."""
    served("init")
    there = postgres.ledgers()
    with postgres.connected() as other, other.transaction():
        schema = servers.schema_of(store_path)
        other.execute(f"LOCK TABLE {schema}.history IN ACCESS EXCLUSIVE MODE".encode())
        with served.running(*REBUILD, stdout=subprocess.DEVNULL) as process:
            until(lambda: bool(waiting(postgres, "FROM history")), "it reads the old ledger")
            postgres.run_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name LIKE 'regrain: regrain doctor%'"
            )
            other.execute(b"ROLLBACK")
            assert process.wait(60) == 1
    assert postgres.ledgers() == there
    assert servers.schema_of(store_path) == schema


# several hosts


def test_a_ledger_made_anew_leaves_the_locks_what_they_are(
    served: Regrain, store_path: Path, plain_store: Packages, postgres: servers.Server
) -> None:
    served("init")
    locks = locks_of(store_path, postgres)
    theirs = locks.hold(layout.PUBLISH_LOCK, exclusive=True, patience=1)
    assert theirs is not None
    try:
        served(*REBUILD)
        assert locks.hold(layout.PUBLISH_LOCK, exclusive=True, patience=0.05) is None
    finally:
        theirs.let_go()


def test_a_ledger_that_was_replaced_takes_nothing_more(
    served: Regrain, store_path: Path, plain_store: Packages
) -> None:
    """Another host opened it before, and had to wait."""
    served("init")
    theirs = open_ledger(str(store_path))
    try:
        theirs.remember("before")
        served(*REBUILD)
        with pytest.raises(HaltedError, match="made anew meanwhile"):
            theirs.remember("after")
    finally:
        theirs.close()
    assert ("before",) in read_ledger(store_path, "SELECT event FROM history")


def test_hosts_that_initialise_at_once_make_one_store(
    served: Regrain, store_path: Path, plain_store: Packages, postgres: servers.Server
) -> None:
    there = postgres.ledgers()
    with (
        postgres.connected() as other,
        served.running("init") as one,
        served.running("init") as two,
    ):
        with other.transaction():
            other.execute(b"LOCK TABLE pg_namespace IN SHARE MODE")  # no schema can be made

            def both_wait() -> bool:
                assert one.poll() is two.poll() is None
                return len(waiting(postgres, "")) == 2

            until(both_wait, "both are about to make the ledger")
        codes = sorted([one.wait(60), two.wait(60)])
    assert codes in ([0, 0], [0, 11])
    assert postgres.ledgers() - there == {servers.schema_of(store_path)}
    served("migrate")
    served("verify", "--level", "deep")


def test_who_is_second_to_make_the_store_takes_the_first_ones(store_path: Path) -> None:
    """By its id all know their locks: it must be the same for everybody."""
    store_path.mkdir()
    with disk.Closing(store_root.open_top(str(store_path))) as fd:
        store_root.prepare(fd)
        assert store_root.first_store_file(fd)
        first = StoreRoot(str(store_path)).store_id
        assert not store_root.first_store_file(fd)
    assert StoreRoot(str(store_path)).store_id == first
    assert list((store_path / "temp").iterdir()) == []


# what is left behind, and how it is told


def test_a_run_that_could_not_begin_leaves_no_lock(
    served: Regrain,
    store_path: Path,
    plain_store: Packages,
    postgres: servers.Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    served("init")
    settings = Settings(store=StoreSettings(path=str(store_path), database=postgres.url()))
    use_database(str(store_path), settings)

    def failing(fd: int) -> None:
        raise OSError(5, "Input/output error")

    try:
        monkeypatch.setattr(disk, "fsync", failing)
        with pytest.raises(OSError, match="Input/output"):
            RunDirectory(StoreRoot(str(store_path)))
    finally:
        use_database(str(store_path), Settings())
    assert postgres.rows("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == [(0,)]
    assert list((store_path / "temp").iterdir()) == []


@pytest.mark.parametrize(
    "taken", ["SELECT ON pg_catalog.pg_locks", "EXECUTE ON FUNCTION pg_catalog.set_config"]
)
def test_what_a_server_refuses_is_told_in_our_words(
    taken: str, served: Regrain, store_path: Path, postgres: servers.Server
) -> None:
    store_path.mkdir()
    served("init")
    postgres.run_sql("CREATE DATABASE strict")
    try:
        postgres.run_sql("CREATE ROLE poor LOGIN")
        postgres.run_sql(f"REVOKE {taken} FROM PUBLIC", "strict")
        url = postgres.url("strict").replace("regrain:", "poor:")
        locks = PostgresLocks(str(store_path), "some id", url)
        with pytest.raises(RegrainError) as caught:
            locks.holder(layout.RUN_LOCK)
        assert "permission denied" in str(caught.value.why)
        assert caught.value.advice
        assert "PostgreSQL" in str(caught.value)
        assert "not-shown" not in repr(vars(caught.value)) + str(caught.value)
    finally:
        postgres.run_sql("DROP DATABASE strict WITH (FORCE)")
        postgres.run_sql("DROP ROLE poor")


SECRET = "s3cret-word"


def refused_urls(server: servers.Server) -> list[str]:
    """What is wrong with each, the server says, or the driver, or we."""
    return [
        server.url("missing").replace("not-shown", SECRET),
        server.url().replace("regrain:not-shown", f"nobody:{SECRET}"),
        f"postgresql+psycopg://me:x@{SECRET}@there/x",  # its '@' is not escaped
        f"postgresql+psycopg://me@there:{SECRET}/x",
        f"postgresql+psycopg://me:{SECRET}@[::bad/x",
        f"mysql://me:{SECRET}@there/x",
    ]


def test_a_password_is_never_told(store_path: Path, postgres: servers.Server) -> None:
    store_path.mkdir()
    for url in refused_urls(postgres):
        told = Regrain(store_path, {"REGRAIN_STORE__DATABASE": url})("init", code=None)
        assert told.code in (1, 2), told
        assert SECRET not in told.text + told.stderr
        assert told.stderr


@pytest.mark.parametrize("where", ["127.0.0.1:1/x?connect_timeout=1", "nowhere.invalid/x"])
def test_a_password_is_not_told_of_a_server_that_is_not_there(where: str, store_path: Path) -> None:
    """The command would ask it again for a while."""
    url = f"postgresql+psycopg://me:{SECRET}@{where}"
    with pytest.raises(RegrainError) as caught:
        connect(Place(str(store_path), url, ""), patience=0)
    said = [*traceback.format_exception(caught.value), repr(vars(caught.value))]
    assert "cannot reach" in said[-2]
    assert SECRET not in "".join(said)
