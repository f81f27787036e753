"""A small migrated store to check out from, its carriers, and what a checkout should be."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from random import Random

from tests.compare import Entry, Snapshot, differences, snapshot
from tests.faults.inline import Way, initialise, migrate
from tests.trees import Tree, describe, package_hash

NAME = package_hash(1, "checkout")
TOOL, TEXT, BIG = b"bin/tool", b"share/text", b"share/big"
Carriers = Mapping[tuple[str, int], tuple[int, int]]


def make_legacy(store: Path) -> Snapshot:
    """Make a legacy store of one package that has a bit of everything."""
    with Tree(store / NAME, Random(1)) as tree:
        describe(tree, "checkout", "1.0")
        tree.file(TOOL, tree.rng.randbytes(3000), 0o755)
        tree.file(TEXT, b"some text\n")
        tree.file(b"share/text-too", b"some text\n")
        tree.file(BIG, tree.rng.randbytes((1 << 20) + 5000))
        tree.sparse(b"share/holes", [(1 << 20, b"data")], 3 << 20)
        tree.file(b"share/wide", b"wide\n", 0o664)
        tree.file(b"share/set-id", b"set-id\n", 0o4755)
        tree.file(b"share/empty")
        tree.file(b"group/first", b"a group\n")
        tree.link(b"group/second", b"group/first")
        tree.link(b"other/third", b"group/first")
        tree.link(b"other/fourth", b"group/first")
        tree.file(b"group/wide", b"a group of private files\n", 0o664)
        tree.link(b"other/wide-too", b"group/wide")
        tree.link(b"other/wide-three", b"group/wide")
        tree.symlink(b"link", b"bin")
        tree.symlink(b"bin/out", b"/etc/passwd")
        tree.directory(b"share", 0o750)
        tree.directory(b"", 0o711)
    return snapshot(store / NAME)


def make_store(store: Path, ingest: str = "copy") -> Snapshot:
    """Make such a store and migrate it; its carriers are inodes of their own."""
    before = make_legacy(store)
    initialise(store)
    assert migrate(store, Way(ingest=ingest)).completed == 1
    return before


def carrier(store: Path, entry: Entry) -> Path:
    """The carrier that a file of this digest and mode is read from."""
    places = [place for place, mode in _carriers(store) if _key(place, mode) == _wanted(entry)]
    (only,) = places
    return only


def carriers(store: Path) -> Carriers:
    """The inode of every carrier, by digest and mode."""
    found = {}
    for place, mode in _carriers(store):
        status = place.lstat()
        found[_key(place, mode)] = (status.st_dev, status.st_ino)
    return found


def _carriers(store: Path) -> list[tuple[Path, int]]:
    places = (store / "objects").glob("*/*")
    return [(place, stat.S_IMODE(place.lstat().st_mode)) for place in places]


def _key(place: Path, mode: int) -> tuple[str, int]:
    return place.name[:64], mode


def _wanted(entry: Entry) -> tuple[str, int]:
    return entry.digest, entry.mode & 0o755


def is_plain(entry: Entry, owner: tuple[int, int]) -> bool:
    """Whether a file has nothing that a carrier cannot have."""
    special = entry.mode & 0o7022 or entry.xattrs or (entry.uid, entry.gid) != owner
    return entry.kind == "file" and entry.size > 0 and not special


def linked(place: Path, store: Path) -> set[bytes]:
    """The paths of a tree whose inodes are carriers."""
    known = set(carriers(store).values())
    return {path for path, entry in snapshot(place).items() if entry.identity in known}


def shared_differences(before: Snapshot, place: Path, store: Path) -> list[str]:
    """How a shared checkout differs from what it should be.

    Of plain files the inode is the carrier's, whose times and holes it has; files of one
    carrier are one group. All else is as in an exact checkout.
    """
    status = store.stat()
    plain = {p for p, e in before.items() if is_plain(e, (status.st_uid, status.st_gid))}
    found, known = snapshot(place), carriers(store)
    said = [
        f"{path!r}: not the carrier's inode"
        for path in sorted(plain & found.keys())
        if found[path].identity != known[_wanted(before[path])]
    ]
    inodes = set(known.values())
    said += [
        f"{path!r}: an inode of the store"
        for path, entry in found.items()
        if entry.identity in inodes and path not in plain
    ]

    def eased(tree: Snapshot) -> Snapshot:
        ease = {path: replace(tree[path], mtime_ns=0, group=None, data=()) for path in plain}
        return {**tree, **ease}

    if not plain <= found.keys():
        return [*said, *differences(before, found)]
    return said + differences(eased(before), eased(found), holes=True)


def overwrite(path: Path, mtime_ns: int | None = None) -> None:
    """Change a byte in place; the size stays, and the time is the present one or as given."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        byte = os.pread(descriptor, 1, 0)
        os.pwrite(descriptor, bytes([byte[0] ^ 1]), 0)
        if mtime_ns is not None:
            os.utime(descriptor, ns=(mtime_ns, mtime_ns))
    finally:
        os.close(descriptor)
