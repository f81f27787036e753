"""A malicious ledger row: it names a place outside, or is of a kind that nobody wrote."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.attacks import naive
from tests.attacks.rows import LEADING_OUT, ROWS, SENSELESS, write
from tests.compare import Snapshot, differences, snapshot
from tests.conftest import remove
from tests.system.calling import Said, call
from tests.verbs import PACKAGE, Model, make_model

AT_ONCE = {"REGRAIN_MIGRATION__SETTLE": "0"}
WORDS: list[list[str]] = [
    ["status"],
    ["doctor"],
    ["why", PACKAGE],
    ["verify", "--level", "deep"],
    ["gc", "--execute", "--grace", "0"],
    ["add", "{new}"],
    ["exclude", PACKAGE],
    ["migrate", "--jobs", "1"],
    ["verify", "--repair"],
    ["remove", PACKAGE, "--execute"],
    ["repack", "--compress", "all", "--execute"],
    ["cutover", "--no-backup"],
    ["cleanup", "--execute"],
    ["rollback"],
]
QUICK = [WORDS[number] for number in (0, 1, 4, 7)]
SAMPLE = 2
"""Rows that lead out, tried in the everyday suite; each run of another seed tries others."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    place = tmp_path_factory.mktemp("rows")
    yield make_model(place)
    remove(place)


@pytest.fixture
def victim(workplace: Path) -> Path:
    """Something beside the store that has nothing to do with it."""
    path = workplace / "victim"
    (path / "sub").mkdir(parents=True)
    (path / "sub" / "kept").write_text("as it was\n")
    (path / "files.json").write_text("{}")
    (path / "manifest.toml").write_text("[package]\n")
    return path


def tried(model: Model, words: list[str]) -> Said:
    said = call(model.path, [word.format(new=model.new) for word in words], env=AT_ONCE)
    assert "Traceback" not in said.stderr, said
    assert "unforeseen" not in said.stderr + said.stdout.decode(), said
    assert said.code in {0, 1, 3, 4, 5, 6, 7}, said
    return said


def all_refuse(model: Model, victim: Path, statement: str, calls: list[list[str]]) -> None:
    """Every verb does its work or says what is wrong; the disk gives a sound ledger again."""
    before: Snapshot = snapshot(victim)
    write(model.path, statement, victim)
    for words in calls:
        tried(model, words)
        assert differences(before, snapshot(victim), identity=True) == [], words
        assert sorted(path.name for path in victim.parent.iterdir()) == ["store", "victim"], words
    assert tried(model, ["doctor", "--rebuild-ledger"]).code in {0, 3, 4}
    assert tried(model, ["status"]).code in {0, 6, 7}
    assert b"nobody wrote" not in tried(model, ["doctor"]).stdout
    assert differences(before, snapshot(victim), identity=True) == []


@pytest.mark.parametrize("name", ["../victim", "../../victim", "{victim}"])
def test_a_program_that_believes_its_database_removes_anything(
    model: Model, store_path: Path, victim: Path, name: str
) -> None:
    copied = model.copied(store_path)
    write(copied.path, LEADING_OUT[f"remove {name}"], victim)
    naive.finish_removals(copied.path)
    assert victim.exists() == (name == "../victim")  # of packages/ this is the store's own


def test_rows_that_lead_out(model: Model, workplace: Path, victim: Path, seed: int) -> None:
    names = Random(seed).sample(sorted(LEADING_OUT), SAMPLE)
    for name in ["remove ../../victim", "unlink ../victim", *names]:
        all_refuse(model.copied(workplace / "store"), victim, LEADING_OUT[name], QUICK)
        remove(workplace / "store")


def test_rows_that_make_no_sense(model: Model, workplace: Path, victim: Path, seed: int) -> None:
    for name in Random(seed).sample(sorted(SENSELESS), 2 * SAMPLE):
        all_refuse(model.copied(workplace / "store"), victim, SENSELESS[name], QUICK)
        remove(workplace / "store")


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_each_row(model: Model, store_path: Path, victim: Path, name: str) -> None:
    all_refuse(model.copied(store_path), victim, ROWS[name], WORDS)
