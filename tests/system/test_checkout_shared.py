"""``checkout --mode shared``: hard links of carriers where nothing is special, else copies."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from random import Random

import pytest

from regrain import PackageStore
from regrain.errors import UsageError
from tests.checkouts import (
    NAME,
    TEXT,
    TOOL,
    carrier,
    linked,
    make_legacy,
    make_store,
    shared_differences,
)
from tests.compare import compare, differences, snapshot
from tests.faults.inline import Way, initialise, migrate
from tests.stores import Migrated, legacy_changes, object_inodes
from tests.trees import Tree

LINKS_MAX = 65_000
"""Of ext4."""


def shared(store: Path, place: Path, name: str = NAME) -> int:
    return PackageStore.open(store).get_package(name).checkout(place, mode="shared")


def test_every_awkward_package(migrated: Migrated, workplace: Path) -> None:
    said, links = {}, 0
    for name, package in migrated.packages.items():
        count = shared(migrated.path, workplace / name, name)
        before = migrated.before[name]
        assert count == len(before)
        found = shared_differences(before, workplace / name, migrated.path)
        if found:
            said[package.what] = found
        links += len(linked(workplace / name, migrated.path))
    assert said == {}
    assert links > 500
    assert legacy_changes(migrated.before, migrated.packages) == []


def test_which_files_are_links_and_which_are_not(workplace: Path) -> None:
    store, out = workplace / "store", workplace / "out"
    before = make_store(store)
    text = carrier(store, before[TEXT])
    shared(store, out)
    assert shared_differences(before, out, store) == []
    private = {b"share/wide", b"share/set-id", b"share/empty", b"group/wide"}
    private |= {b"other/wide-too", b"other/wide-three"}
    files = {path for path, entry in before.items() if entry.kind == "file"}
    assert linked(out, store) == files - private
    status = (out / "share/text").stat()
    assert status.st_ino == text.stat().st_ino == (out / "share/text-too").stat().st_ino
    assert status.st_nlink == 3
    shutil.rmtree(out)
    assert text.stat().st_nlink == 1


def test_a_file_with_attributes_or_another_owner_is_private(workplace: Path) -> None:
    store, out = workplace / "store", workplace / "out"
    with Tree(store / NAME, Random(1)) as tree:
        tree.file(b"marked", b"the same bytes\n", xattrs={"user.mark": b"1"})
        tree.file(b"plain", b"the same bytes\n")
        tree.file(b"theirs", b"the same bytes\n", owner=(1234, 4321))
    before = snapshot(store / NAME)
    initialise(store)
    migrate(store, Way(ingest="copy"))
    shared(store, out)
    assert linked(out, store) == {b"plain"}
    assert shared_differences(before, out, store) == []


def test_a_carrier_that_is_not_as_it_should_be_is_not_handed_on(workplace: Path) -> None:
    """Its bytes are good, but its mode, owner or attributes are not a carrier's any more."""
    store = workplace / "store"
    before = make_store(store)
    (carrier(store, before[TOOL])).chmod(0o777)
    os.chown(carrier(store, before[TEXT]), 1234, 4321)
    os.setxattr(carrier(store, before[b"share/big"]), "user.mark", b"1")
    shared(store, workplace / "out")
    found = linked(workplace / "out", store)
    assert not found & {TOOL, TEXT, b"share/text-too", b"share/big"}
    assert b"group/first" in found
    assert (
        differences(
            {path: before[path] for path in before.keys() - found},
            {path: e for path, e in snapshot(workplace / "out").items() if path not in found},
        )
        == []
    )


def test_an_empty_file_is_private_even_if_somebody_made_an_object_of_it(workplace: Path) -> None:
    store = workplace / "store"
    before = make_store(store)
    digest = before[b"share/empty"].digest
    (store / "objects" / digest[:2] / digest).touch(0o644)
    shared(store, workplace / "out")
    assert b"share/empty" not in linked(workplace / "out", store)


def test_a_package_in_the_legacy_layout_is_copied(workplace: Path) -> None:
    """Legacy inodes are never linked out."""
    store, out = workplace / "store", workplace / "out"
    before = make_legacy(store)
    initialise(store)
    shared(store, out)
    assert compare(store / NAME, out, holes=True) == []
    theirs = {entry.identity for entry in before.values()}
    assert not theirs & {entry.identity for entry in snapshot(out).values()}


def test_another_file_system_gets_copies(workplace: Path, ext4: Path) -> None:
    store = workplace / "store"
    before = make_store(store)
    shared(store, ext4 / "out")
    assert differences(before, snapshot(ext4 / "out"), holes=True) == []


def test_an_inode_with_all_its_links_is_copied(ext4: Path) -> None:
    """The group stays one as far as can be, and who comes later joins the copy."""
    store, out, many = ext4 / "store", ext4 / "out", ext4 / "many"
    before = make_store(store)
    many.mkdir()
    for path, room in ((TOOL, 0), (b"group/first", 2)):
        source = carrier(store, before[path])
        for number in range(LINKS_MAX - source.stat().st_nlink - room):
            os.link(source, many / f"{room}-{number}")
    shared(store, out)
    found = snapshot(out)
    assert found[TOOL].links == 1
    assert found[TOOL].mtime_ns == before[TOOL].mtime_ns
    group = [found[path].identity for path in before if before[path].group == b"group/first"]
    inside = carrier(store, before[b"group/first"]).stat().st_ino
    assert [inode == inside for _, inode in group] == [True, True, False, False]
    assert group[2] == group[3]
    assert {p: e.digest for p, e in found.items()} == {p: e.digest for p, e in before.items()}


def test_where_the_system_forbids_to_link_there_are_copies(workplace: Path) -> None:
    store, out = workplace / "store", workplace / "out"
    before = make_store(store)
    tool = carrier(store, before[TOOL])
    if subprocess.run(["chattr", "+i", tool], capture_output=True, check=False).returncode:
        pytest.skip("needs chattr +i")
    try:
        shared(store, out)
    finally:
        subprocess.run(["chattr", "-i", tool], check=True)
    assert TOOL not in linked(out, store)
    assert TEXT in linked(out, store)
    assert differences({TOOL: before[TOOL]}, {TOOL: snapshot(out)[TOOL]}) == []


def test_reflinks_where_there_are_any(xfs: Path) -> None:
    """Private copies share blocks, links are links, and an exact checkout is neither."""
    store = xfs / "store"
    before = make_store(store, "reflink")
    shared(store, xfs / "shared")
    assert shared_differences(before, xfs / "shared", store) == []
    PackageStore.open(store).get_package(NAME).checkout(xfs / "exact")
    assert differences(before, snapshot(xfs / "exact"), holes=True) == []
    assert not object_inodes(store) & {e.identity for e in snapshot(xfs / "exact").values()}


def test_the_command(migrated: Migrated, workplace: Path) -> None:
    package = migrated.named("link-groups")
    arguments: list[str | bytes | Path] = [
        "checkout",
        package.hash,
        workplace / "out",
        "--mode",
        "shared",
    ]
    dry = migrated.regrain(*arguments, "--dry-run", "--json").document
    assert not (workplace / "out").exists()
    said = migrated.regrain(*arguments, "--json").document
    before = migrated.before[package.hash]
    assert said == {
        "schema": 1,
        "message_type": "summary",
        "package_hash": package.hash,
        "destination": str(workplace / "out"),
        "mode": "shared",
        "subtree": None,
        "layout": "file_level",
        "entries": len(before),
        "dry_run": False,
    }
    assert dry == {**said, "dry_run": True}
    assert shared_differences(before, workplace / "out", migrated.path) == []
    text = migrated.regrain("checkout", package.hash, workplace / "more", "--mode", "shared").text
    assert text == f"checked out {len(before)} entries of {package.hash} to {workplace}/more\n"
    migrated.regrain("checkout", package.hash, workplace / "x", "--mode", "linked", code=2)


def test_a_mode_that_does_not_exist(migrated: Migrated, workplace: Path) -> None:
    package = PackageStore.open(migrated.path).get_package(migrated.named("order").hash)
    with pytest.raises(UsageError, match="unknown checkout mode 'linked'"):
        package.checkout(workplace / "out", mode="linked")
    assert not (workplace / "out").exists()
