"""``plan`` counts exactly and writes nothing; a dry run writes nothing either."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests import awkward
from tests.command import Regrain
from tests.compare import Snapshot, allocated_bytes, snapshot
from tests.stores import Migrated, assert_unchanged, numbers, record
from tests.trees import LegacyPackage

Packages = dict[str, LegacyPackage]


def count(trees: list[Snapshot]) -> tuple[set[int], int]:
    """Regular files, by name and by inode; allocated bytes, each inode once."""
    files = [entry for tree in trees for entry in tree.values() if entry.kind == "file"]
    return {len(files), len({entry.identity for entry in files})}, allocated_bytes(*trees)


def test_plan_counts_what_is_there(migrated: Migrated) -> None:
    document = migrated.plan.document
    files, allocated = count(list(migrated.before.values()))
    assert len(migrated.packages) in numbers(document)
    assert files & set(numbers(document))
    assert allocated in numbers(document)


def test_plan_counts_the_same_after_the_migration(migrated: Migrated) -> None:
    document = migrated.regrain("plan", "--json").document
    files, allocated = count(list(migrated.before.values()))
    assert len(migrated.packages) in numbers(document)
    assert files & set(numbers(document))
    assert allocated in numbers(document)


def test_plan_before_init_writes_nothing(regrain: Regrain, legacy_store: Packages) -> None:
    before = snapshot(regrain.store)
    for arguments in (
        ["plan"],
        ["plan", "--json"],
        ["init", "--dry-run"],
        ["init", "-n", "--json"],
    ):
        assert regrain(*arguments).stdout
        assert_unchanged(regrain.store, before)


def test_the_worst_case_covers_what_the_migration_takes(
    workplace: Path, seed: int, able: object
) -> None:
    """The peak of extra bytes and inodes is not less than what a run by copying adds."""
    regrain = Regrain(workplace / "store", {"REGRAIN_STORE__INGEST": "copy"})
    packages = awkward.make_plain_store(regrain.store, seed, 6, 50)
    before = allocated_bytes(snapshot(regrain.store))
    said = numbers(regrain("plan", "--json").document)
    inodes = len({entry.identity for entry in snapshot(regrain.store).values()})
    regrain("init")
    regrain("migrate")
    tops = ["objects", "packages"]
    added = allocated_bytes(*(snapshot(regrain.store / top) for top in tops))
    added_inodes = sum(len(snapshot(regrain.store / top)) for top in tops)
    assert len(packages) == 6
    assert before > added / 4
    assert [n for n in said if added <= n <= 20 * added], (added, said)
    assert [n for n in said if added_inodes <= n <= 20 * (added_inodes + inodes)], said


def test_plan_tells_of_files_linked_from_outside(
    regrain: Regrain, workplace: Path, seed: int
) -> None:
    package = awkward.add_linked_outside(regrain.store, workplace / "elsewhere", seed)
    assert record({package.hash: package})
    document = regrain("plan", "--json").document
    assert 1 in {
        value
        for key, value in flat(document).items()
        if "outside" in key and isinstance(value, int)
    }, document


def flat(value: object, prefix: str = "") -> dict[str, object]:
    """A document's values by their dotted keys."""
    if not isinstance(value, dict):
        return {prefix: value}
    return {k: v for key, item in value.items() for k, v in flat(item, f"{prefix}.{key}").items()}


def test_a_dry_run_of_migrate_writes_nothing(regrain: Regrain, plain_store: Packages) -> None:
    regrain("init")
    before = snapshot(regrain.store)
    for flag in ("-n", "--dry-run"):
        said = regrain("migrate", flag)
        assert said.stdout
        assert_unchanged(regrain.store, before, but_the_top=True)
    regrain("migrate", "--limit", "1")
    before = snapshot(regrain.store)
    regrain("migrate", "--dry-run", "--json")
    assert_unchanged(regrain.store, before, but_the_top=True)


@pytest.mark.parametrize("command", ["plan", "status", "list", "verify"])
def test_looking_changes_no_data(regrain: Regrain, plain_store: Packages, command: str) -> None:
    regrain("init")
    regrain("migrate")
    tops = ["store.toml", "objects", "packages", *plain_store]
    before = {top: snapshot_of(regrain.store / top) for top in tops}
    regrain(command)
    assert {top: snapshot_of(regrain.store / top) for top in tops} == before


def snapshot_of(path: Path) -> object:
    status = os.stat(path)
    return snapshot(path) if path.is_dir() else (path.read_bytes(), status.st_mtime_ns)
