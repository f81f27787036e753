"""The independent reader accepts a store as the contract draws it, and nothing else."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from blake3 import blake3

from tests.compare import differences, snapshot
from tests.reader import check_store, package_tree, tree_hash
from tests.trees import LIVE, Abilities, Tree, describe

NAME = "5" * 32
Change = Callable[["Hand"], object]


class Hand:
    """A store of one package written by hand, as product.md section 3 says."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.list = path / "packages" / NAME / "files.json"
        for folder in ("objects", f"packages/{NAME}", "temp", "trash", "quarantine", "migration"):
            (path / folder).mkdir(parents=True)
        (path / "state.sqlite").touch()
        (path / "store.toml").write_text(
            'format = 1\nhash = "blake3"\nid = "0123"\nphase = "dual"\n'
        )
        self.value: dict[str, Any] = {"format": 1, "package_hash": NAME}
        self.value["entries"] = [self.entry(e) for e in sorted(self.snapshot().items())]
        for copy in ("manifest.toml", "sbom.spdx.json"):
            (self.list.parent / copy).write_bytes((path / NAME / copy).read_bytes())
        self.write()

    def snapshot(self) -> Any:
        return snapshot(self.path / NAME)

    def entry(self, item: tuple[bytes, Any]) -> dict[str, Any]:
        path, found = item
        out: dict[str, Any] = {**raw("path", path), "type": found.kind, "mode": f"{found.mode:04o}"}
        out |= {"uid": found.uid, "gid": found.gid, "mtime_ns": found.mtime_ns}
        if found.xattrs:
            out["xattrs"] = {k: base64.b64encode(v).decode() for k, v in found.xattrs}
        if found.kind == "symlink":
            out |= raw("target", found.target)
        if found.kind == "file":
            out |= {"hash": found.digest, "size": found.size}
            if found.group not in {None, path}:
                out |= raw("hardlink", found.group)
            self.carrier(path, found)
        return out

    def carrier(self, path: bytes, found: Any) -> None:
        mode = found.mode & 0o755
        bare = self.path / "objects" / found.digest[:2] / found.digest
        target = bare
        if bare.exists() and bare.stat().st_mode & 0o7777 != mode:
            target = bare.with_name(f"{bare.name}.m{mode:04o}")
        if found.size and not target.exists():
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(Path(os.fsdecode(self.path / NAME / os.fsdecode(path))).read_bytes())
            target.chmod(mode)

    def write(self, *, separator: str = ",\n", keep_tree_hash: bool = False) -> None:
        if not keep_tree_hash:
            self.value["tree_hash"] = tree_hash(self.value["entries"])
        head = {k: v for k, v in self.value.items() if k != "entries"}
        lines = separator.join(json.dumps(entry) for entry in self.value["entries"])
        text = json.dumps(head)[:-1] + ',"entries":[\n' + lines + "\n]}\n"
        self.list.write_text(text)

    def object(self, suffix: str = "") -> Path:
        """The carrier of the file ``bin/tool``."""
        digest = blake3(b"#!/bin/sh\n").hexdigest()
        return self.path / "objects" / digest[:2] / (digest + suffix)

    def alter(self, path: str, **fields: Any) -> None:
        for entry in self.value["entries"]:
            if entry.get("path") == path:
                entry.update(fields)
        self.write()


def raw(key: str, value: bytes) -> dict[str, Any]:
    try:
        return {key: value.decode()}
    except UnicodeDecodeError:
        return {f"{key}_b64": base64.b64encode(value).decode()}


@pytest.fixture
def hand(store_path: Path, able: Abilities) -> Hand:
    with Tree(store_path / NAME, Random(3)) as tree:
        describe(tree, "hand", "1")
        tree.file(LIVE + b"/bin/tool", b"#!/bin/sh\n", 0o755)
        tree.file(LIVE + b"/share/tool", b"#!/bin/sh\n", 0o664)
        tree.file(LIVE + b"/share/empty")
        tree.file(LIVE + b"/g/\xffone", b"two names\n")
        tree.link(LIVE + b"/g/\xfftwo", LIVE + b"/g/\xffone")
        tree.symlink(LIVE + b"/link", b"\xff")
        marks = {"user.a": b"1"} if able.user_xattrs else {}
        tree.directory(LIVE + b"/marked", 0o2755, xattrs=marks)
    return Hand(store_path)


def test_accepts_the_store_of_the_contract(hand: Hand) -> None:
    store = check_store(hand.path, legacy=[NAME])
    assert store.problems == []
    assert differences(hand.snapshot(), package_tree(store, NAME)) == []
    assert store.phase == "dual"
    assert len(store.digests()) == 4


def swap_entries(hand: Hand) -> None:
    entries = hand.value["entries"]
    entries[2], entries[3] = entries[3], entries[2]
    hand.write()


def stale_tree_hash(hand: Hand) -> None:
    hand.alter("opt/pm/live/bin/tool", mode="0555")
    hand.value["tree_hash"] = "0" * 64
    hand.write(keep_tree_hash=True)


def drop_root(hand: Hand) -> None:
    del hand.value["entries"][0]
    hand.write()


def drop_directory(hand: Hand) -> None:
    hand.value["entries"] = [e for e in hand.value["entries"] if e.get("path") != "opt/pm/live/bin"]
    hand.write()


def retouch_linked(hand: Hand) -> None:
    for entry in hand.value["entries"]:
        if "hardlink_b64" in entry:
            entry["mtime_ns"] += 1
    hand.write()


def empty_object(hand: Hand) -> None:
    digest = blake3(b"").hexdigest()
    (hand.path / "objects" / digest[:2]).mkdir(exist_ok=True)
    (hand.path / "objects" / digest[:2] / digest).touch(0o644)


def misnamed_carrier(hand: Hand) -> None:
    hand.object(".m0644").rename(hand.object(".m0711"))


def second_of_one_mode(hand: Hand) -> None:
    hand.object(".m0644").chmod(0o755)


def orphan(hand: Hand) -> None:
    digest = blake3(b"orphan").hexdigest()
    (hand.path / "objects" / digest[:2]).mkdir(exist_ok=True)
    (hand.path / "objects" / digest[:2] / digest).write_bytes(b"orphan")


def encoded_for_nothing(hand: Hand) -> None:
    for entry in hand.value["entries"]:
        if entry.get("path") == "manifest.toml":
            entry["path_b64"] = base64.b64encode(entry.pop("path").encode()).decode()
    hand.write()


def toml(hand: Hand, old: str, new: str) -> None:
    path = hand.path / "store.toml"
    path.write_text(path.read_text().replace(old, new))


CHANGES: dict[str, tuple[Change, str]] = {
    "unsorted": (swap_entries, "not sorted"),
    "tree hash": (stale_tree_hash, "tree_hash is"),
    "no root": (drop_root, "not the root"),
    "no directory": (drop_directory, "no directory above"),
    "one line": (lambda h: h.write(separator=","), "one entry a line"),
    "unknown key": (lambda h: h.alter("opt", ctime=1), "keys too many"),
    "mode as number": (lambda h: h.alter("opt", mode="755"), "mode '755'"),
    "time as text": (lambda h: h.alter("opt", mtime_ns="1"), "not a whole number"),
    "plain base64": (encoded_for_nothing, "although it is UTF-8"),
    "link": (retouch_linked, "is no link of"),
    "top": (lambda h: (h.path / "store.lock").touch(), "unexpected at the top: 'store.lock'"),
    "legacy gone": (lambda h: (h.path / NAME).rename(h.path / "temp/x"), "missing at the top"),
    "temp": (lambda h: (h.path / "temp/x").mkdir(), "temp/ is not empty"),
    "shard": (lambda h: (h.path / "objects/xyz").mkdir(), "not a shard"),
    "name": (lambda h: h.object().with_name("x").touch(), "not an object's name"),
    "missing object": (lambda h: h.object().unlink(), "has no carrier of mode 0755"),
    "missing carrier": (lambda h: h.object(".m0644").unlink(), "has no carrier of mode 0644"),
    "carrier's name": (misnamed_carrier, "is not the one of its name"),
    "twice": (second_of_one_mode, "two carriers of one mode"),
    "bytes": (lambda h: h.object().write_bytes(b"#!/bin/sX\n"), "its bytes hash to"),
    "writable": (lambda h: h.object().chmod(0o775), "mode 0775"),
    "set-id": (lambda h: h.object().chmod(0o4755), "mode 4755"),
    "empty object": (empty_object, "the empty file has an object"),
    "orphan": (orphan, "is named by no package"),
    "no copy": (lambda h: (h.list.parent / "sbom.spdx.json").unlink(), "beside files.json"),
    "bad copy": (lambda h: (h.list.parent / "manifest.toml").write_text("x"), "copy of manifest"),
    "no list": (lambda h: h.list.unlink(), "cannot be read"),
    "format": (lambda h: toml(h, "format = 1", "format = 2"), "store.toml: format is 2"),
    "phase": (lambda h: toml(h, "dual", "duel"), "store.toml: phase is 'duel'"),
    "no id": (lambda h: toml(h, "id =", "idea ="), "no store id"),
    "hash": (lambda h: toml(h, "blake3", "sha1"), "store.toml: hash is 'sha1'"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_names_what_is_wrong(hand: Hand, change: str) -> None:
    act, words = CHANGES[change]
    act(hand)
    problems = check_store(hand.path, legacy=[NAME]).problems
    assert any(words in problem for problem in problems), problems


def test_finds_attributes_of_a_carrier(hand: Hand, able: Abilities) -> None:
    if not able.user_xattrs:
        pytest.skip("no user attributes on this file system")
    os.setxattr(hand.object(), "user.a", b"1")
    assert any("xattrs ['user.a']" in p for p in check_store(hand.path, legacy=[NAME]).problems)


@pytest.mark.root
def test_finds_an_owner_of_a_carrier(hand: Hand) -> None:
    os.chown(hand.object(), 5, 5)
    assert any("belongs to 5" in p for p in check_store(hand.path, legacy=[NAME]).problems)
