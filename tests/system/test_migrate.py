"""A store of awkward packages goes from legacy to file level, and nothing is lost."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from tests.command import Regrain
from tests.compare import differences, snapshot
from tests.reader import check_store
from tests.stores import (
    Migrated,
    assert_complete,
    assert_unchanged,
    checkout_differences,
    legacy_changes,
    migrate_all,
    new_layout_differences,
    object_inodes,
    record,
    statuses,
)
from tests.trees import LIVE, Abilities, LegacyPackage, Tree, describe, package_hash

pytestmark = pytest.mark.both_databases

Packages = dict[str, LegacyPackage]


def test_the_store_is_as_the_contract_draws_it(migrated: Migrated) -> None:
    store = check_store(migrated.path, legacy=migrated.packages)
    assert store.problems == []
    assert store.phase == "dual"
    assert store.packages.keys() == migrated.packages.keys()


def test_file_lists_equal_the_legacy_trees(migrated: Migrated) -> None:
    store = check_store(migrated.path, legacy=migrated.packages)
    assert new_layout_differences(store, migrated.before, migrated.packages) == []


def test_the_legacy_tree_is_not_touched(migrated: Migrated) -> None:
    assert legacy_changes(migrated.before, migrated.packages) == []


def test_carriers_are_no_more_than_the_modes_that_are_used(migrated: Migrated) -> None:
    wanted: dict[str, set[int]] = {}
    for tree in migrated.before.values():
        for entry in tree.values():
            if entry.kind == "file" and entry.size:
                wanted.setdefault(entry.digest, set()).add(entry.mode & 0o755)
    found = check_store(migrated.path, legacy=migrated.packages).carriers
    for digest, carriers in found.items():
        modes = {stat.S_IMODE(carrier.status.st_mode) for carrier in carriers}
        assert modes == wanted[digest], digest
    assert found.keys() == wanted.keys()


def test_the_exact_checkout_equals_the_legacy_tree(migrated: Migrated, workplace: Path) -> None:
    said = {}
    for name, package in migrated.packages.items():
        place = workplace / name
        found = checkout_differences(migrated.regrain, name, migrated.before[name], place)
        if found:
            said[package.what] = found
    assert said == {}


def test_a_checkout_shares_no_inode_with_the_store(migrated: Migrated, workplace: Path) -> None:
    package = migrated.named("link-groups")
    migrated.regrain("checkout", package.hash, workplace / "out", "--mode", "exact")
    identities = {entry.identity for entry in snapshot(workplace / "out").values()}
    assert not identities & object_inodes(migrated.path)
    assert not identities & {e.identity for e in migrated.before[package.hash].values()}


def test_a_checkout_goes_into_an_empty_directory_only(migrated: Migrated, workplace: Path) -> None:
    package = migrated.named("order")
    (workplace / "empty").mkdir(mode=0o700)
    found = checkout_differences(
        migrated.regrain, package.hash, migrated.before[package.hash], workplace / "empty"
    )
    assert found == []
    (workplace / "full").mkdir()
    (workplace / "full" / "mine").write_text("mine")
    before = snapshot(workplace / "full")
    refused = migrated.regrain(
        "checkout", package.hash, workplace / "full", "--mode", "exact", code=None
    )
    assert refused.code in {1, 2, 5}, refused
    assert "full" in refused.stderr
    assert differences(before, snapshot(workplace / "full"), identity=True) == []


@pytest.mark.parametrize("level", ["quick", "full", "deep"])
def test_verify_finds_nothing(migrated: Migrated, level: str) -> None:
    result = migrated.regrain("verify", "--level", level, "--json")
    assert result.of_type("summary")


def test_status_has_its_fields_and_the_right_numbers(migrated: Migrated) -> None:
    document = migrated.regrain("status", "--json").document
    files = migrated.files()
    inodes = {migrated.before[name][path].identity for name, path in files}
    sizes = [migrated.before[name][path].size for name, path in files]
    by_inode = {migrated.before[n][p].identity: migrated.before[n][p].size for n, p in files}
    assert document["phase"] == "dual"
    assert document["total_packages"] == len(migrated.packages)
    assert document["migrated_packages"] == len(migrated.packages)
    assert document["failed_packages"] == 0
    assert document["total_files"] in {len(files), len(inodes)}
    assert 0 < document["deduplicated_files"] < len(files)
    assert document["space_freed_bytes"] == 0
    assert document["bytes_total"] in {sum(sizes), sum(by_inode.values())}
    assert document["bytes_done"] == document["bytes_total"]
    assert document["throttled"] is False
    assert document["health"]["issues"] == []
    assert document["next_command"]
    for key in ("space_saved_bytes", "rate_bytes_per_second"):
        assert key in document
    for key in ("estimated_time_remaining_seconds", "throttle_reason"):
        assert key in document
    migrated.regrain("status", "--check")


def test_migrate_says_what_it_did(migrated: Migrated) -> None:
    done = {
        name
        for document in migrated.migrate.of_type("package")
        for name in migrated.packages
        if name in document.values()
    }
    assert done == migrated.packages.keys()
    assert len(migrated.migrate.of_type("summary")) == 1
    assert migrated.migrate.documents[-1]["message_type"] == "summary"


def test_a_second_run_does_nothing(regrain: Regrain, plain_store: Packages) -> None:
    migrate_all(regrain, plain_store)
    folders = ("objects", "packages")
    before = {folder: snapshot(regrain.store / folder) for folder in folders}
    regrain("migrate")
    regrain("init")
    for folder in folders:
        after = snapshot(regrain.store / folder)
        assert differences(before[folder], after, identity=True) == []


@pytest.mark.parametrize(
    "options",
    [
        ("--jobs", "1"),
        ("--jobs", "4"),
        ("--batch", "1"),
        ("--batch", "1000"),
        ("--max-read", "500"),
    ],
    ids="".join,
)
def test_every_way_of_working_ends_the_same(
    regrain: Regrain, legacy_store: Packages, options: tuple[str, ...]
) -> None:
    before = record(legacy_store)
    regrain("init")
    regrain("migrate", *options)
    assert_complete(regrain.store, legacy_store, before)


@pytest.mark.parametrize("umask", [0, 0o077])
def test_the_umask_decides_nothing(regrain: Regrain, plain_store: Packages, umask: int) -> None:
    before = record(plain_store)
    regrain("init", umask=umask)
    regrain("migrate", umask=umask)
    assert_complete(regrain.store, plain_store, before)
    tops = {"objects", "packages", "temp", "migration", "store.toml", "state.sqlite"}
    there = [regrain.store / top for top in tops & set(os.listdir(regrain.store))]
    assert len(there) >= len(tops) - 1  # the ledger may be in a server
    for path in (p for top in there for p in (top, *top.rglob("*"))):
        assert path.lstat().st_mode & 0o022 == 0, path


def test_a_package_of_many_files_is_split(
    regrain: Regrain, store_path: Path, seed: int, able: Abilities
) -> None:
    name = package_hash(seed, "wide")
    with Tree(store_path / name, Random(seed)) as tree:
        describe(tree, "wide", "1")
    folder = store_path / name / "opt/pm/live"
    folder.mkdir(parents=True)
    for number in range(6_000):
        (folder / f"{number:05d}").write_bytes(b"%d\n" % (number % 2500))
    packages = {name: LegacyPackage(name, store_path / name, "wide", "1", "wide")}
    before = record(packages)
    regrain("init")
    regrain("migrate")
    assert_complete(store_path, packages, before)


def test_small_packages_come_first(regrain: Regrain, store_path: Path, seed: int) -> None:
    sizes = {}
    for size in (50_000, 10, 400_000, 3_000):
        name = package_hash(seed, f"sized-{size}")
        with Tree(store_path / name, Random(size)) as tree:
            describe(tree, "sized", str(size))
            tree.file(LIVE + b"/data", os.urandom(size))
        sizes[size] = name
    regrain("init")
    for size in sorted(sizes):
        regrain("migrate", "--limit", "1")
        done = {name for name, status in statuses(store_path).items() if status == "completed"}
        assert done == {name for other, name in sizes.items() if other <= size}


def test_foreign_names_are_left_alone(regrain: Regrain, plain_store: Packages) -> None:
    store = regrain.store
    foreign = ["README.txt", "lost+found", "A" * 64, "b" * 63, "c" * 33]
    (store / "README.txt").write_text("read me\n")
    for name in foreign[1:]:
        (store / name).mkdir()
        (store / name / "manifest.toml").write_text("[package]\n")
    before = {name: snapshot(store / name) for name in foreign[1:]}
    said = regrain("plan").text
    assert all(name in said for name in foreign[1:]), said
    migrated = migrate_all(regrain, plain_store)
    assert_complete(store, plain_store, migrated.before, foreign=foreign)
    for name, tree in before.items():
        assert_unchanged(store / name, tree)


@pytest.mark.both_databases(everyday=True)
def test_an_empty_directory_becomes_a_store(regrain: Regrain, store_path: Path) -> None:
    store_path.mkdir()
    regrain("init")
    regrain("migrate")
    store = check_store(store_path)
    assert store.problems == []
    assert store.packages == {}
    assert regrain("status", "--json").document["total_packages"] == 0


def built(store: Path, build: Callable[[Tree], None]) -> Packages:
    """A store of one package that a test builds itself."""
    name = package_hash(9, "built")
    with Tree(store / name, Random(9)) as tree:
        describe(tree, "built", "1")
        build(tree)
    return {name: LegacyPackage(name, store / name, "built", "1", "built")}


def assert_round_trip(regrain: Regrain, packages: Packages, place: Path) -> None:
    migrated = migrate_all(regrain, packages)
    assert_complete(regrain.store, packages, migrated.before)
    for name, tree in migrated.before.items():
        assert checkout_differences(regrain, name, tree, place / name) == []


@pytest.mark.parametrize("ingest", ["auto", "copy"])
def test_holes_survive_a_twin_without_holes(store_path: Path, workplace: Path, ingest: str) -> None:
    """One object for both: its carrier is the file met first, and has that one's holes."""
    size = 1 << 20

    def build(tree: Tree) -> None:
        tree.sparse(b"opt/1-holes", [(size // 2, b"x")], size)
        tree.file(b"opt/2-zeroes", bytes(size // 2) + b"x" + bytes(size // 2 - 1))

    regrain = Regrain(store_path, {"REGRAIN_STORE__INGEST": ingest})
    assert_round_trip(regrain, built(store_path, build), workplace)


def test_symlinks_of_one_inode_stay_one(regrain: Regrain, workplace: Path) -> None:
    def build(tree: Tree) -> None:
        tree.symlink(b"opt/first", b"target")
        tree.link(b"opt/second", b"opt/first")

    assert_round_trip(regrain, built(regrain.store, build), workplace)


@pytest.mark.parametrize(
    "text", [b"[package", b"\xff\xfe", b"", b"name = 1\n", b"[package]\nname = 7\n"]
)
def test_a_manifest_that_says_nothing_is_a_file_like_others(
    regrain: Regrain, workplace: Path, text: bytes
) -> None:
    packages = built(regrain.store, lambda tree: tree.file(b"opt/file", b"file\n"))
    for package in packages.values():
        (package.path / "manifest.toml").write_bytes(text)
    assert_round_trip(regrain, packages, workplace)
    assert all(name in regrain("list").text for name in packages)
