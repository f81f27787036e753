"""``doctor --empty-quarantine``: what lies there is listed, and goes when that is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from blake3 import blake3

from tests.command import Regrain
from tests.conftest import remove
from tests.repairs import lose, turn_over
from tests.stores import migrate_all, read_ledger
from tests.trees import LegacyPackage

COPIES = {
    "REGRAIN_STORE__INGEST": "copy",
    "REGRAIN_MIGRATION__SETTLE": "0",
    "REGRAIN_STORE__MIGRATION_PARALLEL_FILES": "1",
}
EMPTY = ("doctor", "--empty-quarantine")


@pytest.fixture
def ready(store_path: Path, plain_store: dict[str, LegacyPackage]) -> Regrain:
    """A store with an object, a file list, a legacy directory and a ledger in quarantine."""
    regrain = Regrain(store_path, COPIES)
    migrate_all(regrain, plain_store)
    first, second, third = sorted(plain_store)
    # Not the object of the manifest that rots too: what lies in neither layout is lost.
    manifest = blake3((store_path / second / "manifest.toml").read_bytes()).hexdigest()
    carriers = sorted((store_path / "objects").glob("*/*"))
    turn_over(next(carrier for carrier in carriers if not carrier.name.startswith(manifest)))
    turn_over(store_path / "packages" / first / "files.json")
    turn_over(store_path / second / "manifest.toml")
    (store_path / "state.sqlite").write_bytes(b"nothing of the kind")
    regrain("verify", "--level", "deep", "--repair", code=None)
    regrain("migrate", "--rescan")
    regrain("verify", "--level", "deep", "--repair")
    (store_path / "quarantine" / "by hand").mkdir()
    (store_path / "quarantine" / "by hand" / "notes").write_bytes(b"mine")
    assert third
    return regrain


def test_it_is_listed_and_goes_when_asked(ready: Regrain) -> None:
    there = {path.name for path in (ready.store / "quarantine").iterdir()}
    document = ready(*EMPTY, "--json").document
    assert {thing["name"] for thing in document["things"]} == there
    kinds = {thing["what"] for thing in document["things"]}
    assert {"object", "legacy", "ledger", "other"} <= kinds
    assert document["freed_bytes"] == sum(thing["size"] for thing in document["things"]) > 0
    text = ready(*EMPTY).text
    assert "by hand: something else" in text
    assert "Next: regrain doctor --empty-quarantine --execute" in text
    assert {path.name for path in (ready.store / "quarantine").iterdir()} == there
    assert f"removed {len(there)} things" in ready(*EMPTY, "--execute").text
    assert not list((ready.store / "quarantine").iterdir())
    assert read_ledger(ready.store, "SELECT 1 FROM history WHERE event = 'quarantine_emptied'")
    assert ready(*EMPTY, "--json").document["things"] == []
    ready("verify", "--level", "deep")


def test_what_may_be_the_last_of_a_package_stays(
    ready: Regrain, plain_store: dict[str, LegacyPackage]
) -> None:
    there = len(list((ready.store / "quarantine").iterdir()))
    for name in plain_store:
        remove(ready.store / name)
    for carrier in (ready.store / "objects").glob("*/*"):
        lose(carrier)
    result = ready("verify", "--repair", code=4)
    assert "lost" in result.text
    assert ready("status", "--json").document["next_command"]
    assert "may still be needed" in ready(*EMPTY, "--execute", code=5).stderr
    assert len(list((ready.store / "quarantine").iterdir())) == there


def test_options_that_contradict_each_other(store_path: Path) -> None:
    regrain = Regrain(store_path)
    regrain(*EMPTY, "--rebuild-ledger", code=2)
    regrain("doctor", "--execute", code=2)
    regrain(*EMPTY, "--execute", "--dry-run", code=2)
