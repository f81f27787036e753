"""Opening a ledger: read-only without a trace, and what is no ledger."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import sqlalchemy as sa

from regrain.errors import CorruptionError, HaltedError
from regrain.ledger import Ledger, NewCarrier, open_ledger
from regrain.ledger.connection import SAFE_VERSION, driver


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    folder.mkdir()
    open_ledger(str(folder), create=True).close()
    return folder


def test_closing_leaves_one_file(place: Path) -> None:
    assert os.listdir(place) == ["state.sqlite"]


def test_reading_changes_nothing(place: Path) -> None:
    """Who may write takes part in the locking of writers, for the time the ledger is open."""
    before = (place / "state.sqlite").read_bytes()
    ledger = open_ledger(str(place), read_only=True)
    assert ledger.totals().packages == 0
    ledger.close()
    assert os.listdir(place) == ["state.sqlite"]
    assert (place / "state.sqlite").read_bytes() == before


@pytest.mark.root
def test_reading_where_nothing_may_be_written() -> None:
    """As a monitoring user does, or from a snapshot that is mounted read-only."""
    code = (
        "import os, sys\n"
        "from regrain.ledger import open_ledger\n"
        "def read():\n"
        "    ledger = open_ledger(sys.argv[1], read_only=True)\n"
        "    packages = ledger.totals().packages\n"
        "    assert os.listdir(sys.argv[1]) == ['state.sqlite'] or not os.getuid()\n"
        "    ledger.close()\n"
        "    return packages\n"
        "read()  # all modules are loaded while they may be\n"
        "os.setuid(65534)\n"
        "print(read())"
    )
    with TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        open_ledger(folder, create=True).close()
        os.chmod(f"{folder}/state.sqlite", 0o444)
        done = subprocess.run(
            [sys.executable, "-c", code, folder], capture_output=True, text=True, check=False
        )
        assert (done.stdout, done.returncode) == ("0\n", 0), done.stderr
        assert os.listdir(folder) == ["state.sqlite"]


def test_a_reader_cannot_write(place: Path) -> None:
    ledger = open_ledger(str(place), read_only=True)
    with pytest.raises(HaltedError, match="readonly"):
        ledger.remember("never")
    ledger.close()


def test_a_reader_sees_what_a_running_writer_committed(place: Path) -> None:
    writer = open_ledger(str(place))
    writer.remember("first")
    reader = open_ledger(str(place), read_only=True)
    with reader._transaction() as connection:
        query = "SELECT event FROM history"
        assert [tuple(row) for row in connection.exec_driver_sql(query)] == [("first",)]
    reader.close()
    writer.remember("second")
    writer.close()
    assert os.listdir(place) == ["state.sqlite"]


def test_an_absent_ledger_is_not_made_by_the_way(tmp_path: Path) -> None:
    for read_only in (False, True):
        with pytest.raises(CorruptionError, match="missing") as caught:
            open_ledger(str(tmp_path), read_only=read_only)
        assert caught.value.exit_code == 4
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("damage", ["no database", "cut", "overwritten"])
def test_what_is_no_ledger_is_refused(place: Path, damage: str, read_only: bool) -> None:
    path = place / "state.sqlite"
    raw = bytearray(path.read_bytes())
    if damage == "no database":
        raw = bytearray(b"not a database, but long enough to be looked at\n" * 100)
    elif damage == "cut":
        del raw[5000:]
    else:
        raw[100:5000] = bytes(4900)
    path.write_bytes(raw)
    with pytest.raises(CorruptionError):
        open_ledger(str(place), read_only=read_only).totals()


def test_an_empty_file_is_no_ledger_to_read(place: Path) -> None:
    (place / "state.sqlite").write_bytes(b"")
    with pytest.raises(CorruptionError):
        open_ledger(str(place), read_only=True)


def test_another_schema_is_not_read(place: Path) -> None:
    ledger = open_ledger(str(place))
    with ledger._transaction() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    ledger.close()
    with pytest.raises(CorruptionError, match="schema"):
        open_ledger(str(place), read_only=True)


def test_names_that_a_uri_could_misread(tmp_path: Path) -> None:
    place = tmp_path / "a?b#c%41 d&mode=memory"
    place.mkdir()
    ledger = open_ledger(str(place), create=True)
    ledger.remember("here")
    ledger.close()
    assert os.listdir(place) == ["state.sqlite"]
    open_ledger(str(place), read_only=True).close()


def test_the_sqlite_in_use_has_no_known_corruption() -> None:
    """A wheel brings it where there is one; elsewhere the journal mode is another."""
    try:
        import pysqlite3
    except ImportError:
        pytest.skip("no pysqlite3 for this platform")
    assert driver() is pysqlite3.dbapi2
    assert driver().sqlite_version_info >= SAFE_VERSION


def _first_ledger(place: Path) -> None:
    """Make a ledger of the first schema, with an object of two modes."""
    from alembic import command
    from alembic.config import Config

    from regrain import ledger

    engine = sa.create_engine(
        "sqlite+pysqlite://",
        creator=lambda: driver().connect(place / "state.sqlite", isolation_level=None),
        module=driver(),
    )
    config = Config()
    config.set_main_option("script_location", os.path.dirname(ledger.__file__))
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.exec_driver_sql("INSERT INTO objects VALUES (7, ?, 10, 1, NULL)", (b"\0" * 32,))
        connection.exec_driver_sql("INSERT INTO carriers VALUES (7, 420, 1, 5, 6, 4096)")
        connection.exec_driver_sql("INSERT INTO carriers VALUES (7, 493, 0, 7, 8, 8192)")
        connection.commit()
    engine.dispose()


def _carriers(ledger: Ledger) -> set[tuple[int, bool, int]]:
    found = ledger.carriers_in("00").items()
    return {(mode, is_compressed, mtime) for (_, mode, is_compressed), (_, mtime) in found}


def test_an_older_ledger_is_upgraded_and_kept(tmp_path: Path) -> None:
    (tmp_path / "migration").mkdir()
    _first_ledger(tmp_path)
    with pytest.raises(CorruptionError, match="older schema"):
        open_ledger(str(tmp_path), read_only=True)
    (tmp_path / "migration" / "ledger-0001.sqlite.new").write_bytes(b"cut off")
    ledger = open_ledger(str(tmp_path))
    assert _carriers(ledger) == {(0o644, False, 5 * 10**9 + 6), (0o755, False, 7 * 10**9 + 8)}
    ledger.record_objects([NewCarrier(b"\0" * 32, 0o644, False, 9, 10, 512, is_compressed=True)])
    assert (0o644, True, 9) in _carriers(ledger)
    ledger.close()
    assert os.listdir(tmp_path / "migration") == ["ledger-0001.sqlite"]
    kept = driver().connect(tmp_path / "migration" / "ledger-0001.sqlite")
    assert kept.execute("SELECT version_num FROM alembic_version").fetchall() == [("0001",)]
    assert kept.execute("SELECT COUNT(*) FROM carriers").fetchall() == [(2,)]
    kept.close()


def test_an_upgraded_ledger_is_as_a_new_one(tmp_path: Path) -> None:
    def schema(place: Path) -> list[tuple[str, str]]:
        database = driver().connect(place / "state.sqlite")
        query = "SELECT name, sql FROM sqlite_master WHERE name <> 'alembic_version' ORDER BY name"
        found = [
            (name, " ".join((sql or "").replace('"', "").split()))
            for name, sql in database.execute(query)
            if not name.startswith("sqlite_autoindex")
        ]
        database.close()
        return found

    for name in ("old", "new"):
        (tmp_path / name / "migration").mkdir(parents=True)
    _first_ledger(tmp_path / "old")
    for name in ("old", "new"):
        open_ledger(str(tmp_path / name), create=True).close()
    assert schema(tmp_path / "old") == schema(tmp_path / "new")


def test_an_upgrade_that_is_cut_off_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "migration").mkdir()
    _first_ledger(tmp_path)

    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("alembic.op.drop_table", fail)
    with pytest.raises(KeyboardInterrupt):
        open_ledger(str(tmp_path))
    monkeypatch.undo()
    with pytest.raises(CorruptionError, match="older schema"):
        open_ledger(str(tmp_path), read_only=True)
    ledger = open_ledger(str(tmp_path))
    assert len(_carriers(ledger)) == 2
    ledger.close()
