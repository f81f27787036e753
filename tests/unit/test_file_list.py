"""File lists: what is written is what is read, by an independent reader, too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from regrain.model import file_list
from regrain.model.entry import Entry, Kind
from tests import compare, reader
from tests.unit.lists import PACKAGE, parsed, render
from tests.unit.strategies import any_entries, package_hashes, trees

FILE = Entry(b"a", Kind.FILE, 0o644, 0, 0, 0, digest="ab" * 32, size=3)


@given(any_entries())
@example(replace(FILE, mtime_ns=2**62 * 10**9))
@example(replace(FILE, mtime_ns=-(2**70)))
@example(replace(FILE, path=b"\xff\n\"'\\\x00".replace(b"\0", b""), mode=0o7777))
@example(replace(FILE, xattrs={b"user.\xff": b"\0", b"user.a": b""}))
@example(replace(FILE, hardlink=b"\xfe"))
def test_an_entry_survives_its_line(entry: Entry) -> None:
    line = file_list.entry_line(entry)
    assert b"\n" not in line
    assert file_list.parse_line(line) == entry


@given(any_entries(linked=(Kind.FILE,)))
def test_a_line_is_json_with_the_fields_of_the_contract(entry: Entry) -> None:
    line = json.loads(file_list.entry_line(entry))
    assert list(reader._entry_problems(line)) == []
    assert reader.path_of(line) == entry.path
    assert line["type"] == entry.kind.value
    assert line["mode"] == f"{entry.mode:04o}"
    assert (line["uid"], line["gid"], line["mtime_ns"]) == (entry.uid, entry.gid, entry.mtime_ns)
    assert line.get("hash", "") == entry.digest
    assert line.get("size", 0) == entry.size
    assert (reader.text_or_raw(line, "target") or b"") == entry.target
    assert reader.text_or_raw(line, "hardlink") == entry.hardlink


@pytest.mark.parametrize(
    ("path", "field", "text"),
    [
        (b"caf\xc3\xa9", "path", "café"),
        (b"caf\xe9", "path_b64", "Y2Fm6Q=="),
        (b"\xed\xa0\x80", "path_b64", "7aCA"),  # a lone surrogate is not UTF-8
        (b"new\nline", "path", "new\nline"),
        (b'"', "path", '"'),
        (b"\xef\xbb\xbfbom", "path", "\ufeffbom"),
    ],
)
def test_a_path_is_text_where_it_is_utf8(path: bytes, field: str, text: str) -> None:
    line = json.loads(file_list.entry_line(replace(FILE, path=path)))
    assert line[field] == text
    assert len({"path", "path_b64"} & line.keys()) == 1


def test_no_extended_attributes_and_an_empty_set_are_the_same() -> None:
    assert file_list.entry_line(replace(FILE, xattrs={})) == file_list.entry_line(FILE)
    assert "xattrs" not in json.loads(file_list.entry_line(FILE))


@given(trees(), package_hashes)
def test_a_list_survives_writing_and_reading(tree: list[Entry], package_hash: str) -> None:
    raw = render(tree, package_hash)
    assert parsed(raw, package_hash) == tree


@given(trees())
def test_lines_may_come_with_or_without_their_newlines(tree: list[Entry]) -> None:
    raw = render(tree)
    assert list(file_list.parse(raw.rstrip(b"\n").split(b"\n"), PACKAGE)) == tree


@given(trees())
def test_an_independent_reader_agrees(tree: list[Entry]) -> None:
    value = json.loads(render(tree))
    assert value.keys() == {"format", "package_hash", "tree_hash", "entries"}
    assert (value["format"], value["package_hash"]) == (1, PACKAGE)
    assert value["tree_hash"] == reader.tree_hash(value["entries"])
    assert file_list.tree_hash(tree) == reader.tree_hash(value["entries"])
    assert [p for entry in value["entries"] for p in reader._entry_problems(entry)] == []
    assert list(reader._order_problems(value["entries"])) == []
    found = reader.package_tree(reader.Store(Path(), packages={PACKAGE: value["entries"]}), PACKAGE)
    assert {path: facts(entry) for path, entry in found.items()} == {
        entry.path: stored(entry) for entry in tree
    }


def facts(entry: compare.Entry) -> tuple[object, ...]:
    """What a file list keeps of an entry, the link group left out."""
    return (
        entry.kind,
        entry.mode,
        entry.uid,
        entry.gid,
        entry.mtime_ns,
        entry.size,
        entry.digest,
        entry.target,
        {name.encode("utf-8", "surrogateescape"): value for name, value in entry.xattrs},
    )


def stored(entry: Entry) -> tuple[object, ...]:
    """The same of an entry of the model."""
    return (
        entry.kind.value,
        entry.mode,
        entry.uid,
        entry.gid,
        entry.mtime_ns,
        entry.size,
        entry.digest,
        entry.target,
        entry.xattrs or {},
    )


def test_the_tree_hash_of_the_contract() -> None:
    """Worked out by hand: path, NUL, letter, mode, payload, NUL; the root is left out."""
    tree = [
        Entry(b"", Kind.DIRECTORY, 0o750, 1, 2, 3),
        Entry(b"\xff", Kind.SYMLINK, 0o700, 1, 2, 3, target=b"\xfe/x"),
        Entry(b"bin", Kind.DIRECTORY, 0o1755, 1, 2, 3),
        Entry(b"bin/tool", Kind.FILE, 0o4755, 1, 2, 3, digest="0f" * 32, size=9),
    ]
    tree.sort(key=lambda entry: entry.path)
    by_hand = b"bin\0d1755\0" + b"bin/tool\0f4755" + b"0f" * 32 + b"\0" + b"\xff\0l0777\xfe/x\0"
    assert file_list.tree_hash(tree) == blake3(by_hand).hexdigest()


CHANGES = {
    "mode": 0o100,
    "digest": "cd" * 32,
    "path": b"b",
}
KEPT = {"uid": 7, "gid": 7, "mtime_ns": 7, "xattrs": {b"user.a": b"1"}}


@pytest.mark.parametrize("field", [*CHANGES, *KEPT])
def test_what_the_tree_hash_depends_on(field: str) -> None:
    root = Entry(b"", Kind.DIRECTORY, 0o755, 0, 0, 0)
    other = replace(FILE, **{field: {**CHANGES, **KEPT}[field]})
    same = file_list.tree_hash([root, FILE]) == file_list.tree_hash([root, other])
    assert same == (field in KEPT)


@given(st.integers(0, 0o7777), st.integers(0, 0o7777))
def test_the_root_and_the_mode_of_a_link_are_not_hashed(one: int, other: int) -> None:
    def tree(mode: int) -> list[Entry]:
        return [
            Entry(b"", Kind.DIRECTORY, mode, 0, 0, 0),
            Entry(b"l", Kind.SYMLINK, mode, 0, 0, 0, target=b"t"),
        ]

    assert file_list.tree_hash(tree(one)) == file_list.tree_hash(tree(other))
