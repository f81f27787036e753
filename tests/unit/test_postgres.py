"""What is PostgreSQL's own in the ledger: statements translated, schema, ranges, order."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from regrain.ledger import Ledger, Scanned, open_ledger
from regrain.ledger.elsewhere import Place, place_of
from regrain.ledger.placeholders import translate
from regrain.ledger.postgres import _upgrade, engine_for
from regrain.model import whereabouts
from tests import servers

COLUMNS = (
    "SELECT table_name, column_name, data_type, is_nullable, column_default IS NULL"
    " FROM information_schema.columns WHERE table_schema = '{}' AND table_name <> 'alembic_version'"
    " ORDER BY table_name, column_name"
)
RULES = (
    "SELECT conrelid::regclass::text, contype::text, pg_get_constraintdef(oid)"
    " FROM pg_constraint WHERE connamespace = '{}'::regnamespace"
    " AND conrelid <> '{}.alembic_version'::regclass ORDER BY 1, 2, 3"
)


@pytest.fixture
def ledger(tmp_path: Path, postgres: servers.Server) -> Iterator[Ledger]:
    with postgres.ledger_of(tmp_path):
        found = open_ledger(str(tmp_path))
        yield found
        found.close()


@pytest.mark.parametrize(
    ("statement", "values", "expected"),
    [
        ("SELECT 1", (), ("SELECT 1", ())),
        ("SELECT ?, '%'", (1,), ("SELECT %s, '%%'", (1,))),
        ("A ?2 B ?1 C ?2", (1, "x"), ("A %(p2)s B %(p1)s C %(p2)s", {"p1": 1, "p2": "x"})),
        ("A ?", [("a\0b",), ("c",)], ("A %s", [("a\N{REPLACEMENT CHARACTER}b",), ("c",)])),
        ("A %(n)s", {"n": "\0"}, ("A %(n)s", {"n": "\N{REPLACEMENT CHARACTER}"})),
    ],
)
def test_statements_are_translated(statement: str, values: object, expected: object) -> None:
    assert translate(statement, values) == expected


def test_what_a_file_can_hold_a_server_can(ledger: Ledger) -> None:
    size = 1 << 40
    ledger.queue([Scanned("a" * 64, "na\0me", "Ü", 1, 1, size, size)])
    ledger.queue([Scanned("b" * 64, "", "1", 1, 1, size, size)])
    assert ledger.totals().bytes_total == 2 * size
    row = ledger.package_row("a" * 64)
    assert row is not None
    assert (row.name, row.version) == ("na\N{REPLACEMENT CHARACTER}me", "Ü")


def test_all_upgrades_together_make_what_is_made_at_once(
    ledger: Ledger, tmp_path: Path, postgres: servers.Server
) -> None:
    new, upgraded = servers.schema_of(tmp_path), f"regrain_{'0' * 32}"
    engine = engine_for(Place(str(tmp_path), postgres.url(), upgraded))
    postgres.run_sql(f"CREATE SCHEMA {upgraded}", servers.DATABASE)
    try:
        with engine.connect() as connection:
            _upgrade(connection)
        found = [postgres.rows(COLUMNS.format(name)) for name in (new, upgraded)]
        assert found[0] == found[1] != []
        rules = [str(postgres.rows(RULES.format(name, name))) for name in (new, upgraded)]
        assert rules[0].replace(new, "") == rules[1].replace(upgraded, "")
    finally:
        engine.dispose()
        postgres.run_sql(f"DROP SCHEMA {upgraded} CASCADE", servers.DATABASE)


def test_hosts_that_choose_a_schema_at_once_choose_one(tmp_path: Path) -> None:
    whereabouts.choose(str(tmp_path), "postgresql+psycopg://me@there/x")  # nobody asks it
    hosts = 8
    together = Barrier(hosts)

    def choose(_: int) -> Place | None:
        together.wait()
        return place_of(str(tmp_path), create=True)

    (tmp_path / "migration").mkdir()
    try:
        with ThreadPoolExecutor(hosts) as threads:
            chosen = set(threads.map(choose, range(hosts)))
        assert chosen == {place_of(str(tmp_path))}
        assert [path.name for path in (tmp_path / "migration").iterdir()] == ["ledger.toml"]
    finally:
        whereabouts.choose(str(tmp_path), None)
