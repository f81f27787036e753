"""A file list that is not right in every point is refused, by an error that says so."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrain.errors import CorruptionError, RegrainError, UnknownFormatError
from regrain.model import file_list
from regrain.model.entry import Entry
from tests import reader
from tests.unit.lists import (
    DIGEST,
    PACKAGE,
    ROOT,
    directory_json,
    file_json,
    opened,
    parsed,
    render,
    render_json,
    symlink_json,
)
from tests.unit.strategies import paths, trees

REFUSED = (CorruptionError, UnknownFormatError)
FILE = file_json("a")


def without(entry: dict[str, Any], *fields: str) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key not in fields}


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


BAD_LINES: dict[str, Any] = {
    "an unknown field": {**FILE, "extra": 1},
    "no path": without(FILE, "path"),
    "both forms of a path": {**FILE, "path_b64": b64(b"\xff")},
    "a path that is a number": {**FILE, "path": 1},
    "a path that is null": {**FILE, "path": None},
    "a path in base64 that is none": {**without(FILE, "path"), "path_b64": "%%%"},
    "base64 with a newline": {**without(FILE, "path"), "path_b64": b64(b"\xff\xfe\xfd") + "\n"},
    "base64 where text would do": {**without(FILE, "path"), "path_b64": b64(b"a")},
    "an empty path in base64": {**without(directory_json(""), "path"), "path_b64": ""},
    "no type": without(FILE, "type"),
    "a type of its own": {**FILE, "type": "fifo"},
    "no mode": without(FILE, "mode"),
    "a mode that is a number": {**FILE, "mode": 644},
    "a mode of three digits": {**FILE, "mode": "755"},
    "a mode of five digits": {**FILE, "mode": "00755"},
    "a mode that is not octal": {**FILE, "mode": "0788"},
    "a mode with a newline": {**FILE, "mode": "0755\n"},
    "no uid": without(FILE, "uid"),
    "no gid": without(FILE, "gid"),
    "a negative uid": {**FILE, "uid": -1},
    "a uid beyond 32 bits": {**FILE, "uid": 2**32},
    "the owner that chown ignores": {**FILE, "gid": 2**32 - 1},
    "a time beyond all times": {**FILE, "mtime_ns": 2**63 * 10**9},
    "a time before all times": {**FILE, "mtime_ns": -(2**63) * 10**9 - 1},
    "a uid in quotes": {**FILE, "uid": "0"},
    "a gid that is a fraction": {**FILE, "gid": 0.5},
    "a uid that is true": {**FILE, "uid": True},
    "no mtime_ns": without(FILE, "mtime_ns"),
    "an mtime_ns in quotes": {**FILE, "mtime_ns": "0"},
    "an mtime_ns that is a fraction": {**FILE, "mtime_ns": 0.5},
    "a file without a hash": without(FILE, "hash"),
    "a file without a size": without(FILE, "size"),
    "a hash in capitals": {**FILE, "hash": DIGEST.upper()},
    "a short hash": {**FILE, "hash": DIGEST[:63]},
    "a hash with a newline": {**FILE, "hash": DIGEST + "\n"},
    "a hash that is a path": {**FILE, "hash": "../" + DIGEST[3:]},
    "a negative size": {**FILE, "size": -1},
    "a size beyond 63 bits": {**FILE, "size": 2**63},
    "a size in quotes": {**FILE, "size": "5"},
    "a file with a target": {**FILE, "target": "b"},
    "a directory with a hash": {**directory_json("a"), "hash": DIGEST},
    "a directory with a size": {**directory_json("a"), "size": 0},
    "a directory with a target": {**directory_json("a"), "target": "b"},
    "a directory in a link group": {**directory_json("b"), "hardlink": "a"},
    "a symlink without a target": without(symlink_json("a"), "target"),
    "a symlink with both forms of a target": {**symlink_json("a"), "target_b64": b64(b"\xff")},
    "a symlink with a hash": {**symlink_json("a"), "hash": DIGEST},
    "a symlink with a size": {**symlink_json("a"), "size": 1},
    "xattrs that are a list": {**FILE, "xattrs": ["user.a"]},
    "an xattr that is a number": {**FILE, "xattrs": {"user.a": 1}},
    "an xattr that is not base64": {**FILE, "xattrs": {"user.a": "%"}},
    "an xattr without a name": {**FILE, "xattrs": {"": ""}},
    "an xattr with NUL in its name": {**FILE, "xattrs": {"user.\0": ""}},
    "a raw xattr name that is not base64": {**FILE, "xattrs_b64": {"%": ""}},
    "both forms of a hard link": {
        **FILE,
        "path": "b",
        "hardlink": "a",
        "hardlink_b64": b64(b"\xff"),
    },
    "a hard link out": {**FILE, "hardlink": "../a"},
    "an absolute hard link": {**FILE, "hardlink": "/etc/passwd"},
    "no object": [1, 2],
    "a number": 7,
    "null": None,
}


@pytest.mark.parametrize("line", [*BAD_LINES.values()], ids=[*BAD_LINES])
def test_a_bad_line(line: Any) -> None:
    with pytest.raises(CorruptionError):
        file_list.parse_line(json.dumps(line).encode())


def test_the_lines_above_are_bad_in_one_point_only() -> None:
    for entry in (
        FILE,
        directory_json("a"),
        symlink_json("a"),
        {**FILE, "path": "b", "hardlink": "a"},
    ):
        assert file_list.parse_line(json.dumps(entry).encode()).path


BAD_PATHS = (
    b"..",
    b".",
    b"/",
    b"/a",
    b"a/",
    b"a//b",
    b"./a",
    b"a/./b",
    b"a/../b",
    b"a/..",
    b"../../etc/passwd",
    b"a\0b",
    b"x" * 256,
    b"\xff/../b",
    b"\xff\0",
    b"\xff/",
)


@pytest.mark.parametrize("field", ["path", "hardlink"])
@pytest.mark.parametrize("path", BAD_PATHS, ids=repr)
def test_a_path_that_does_not_stay_inside(path: bytes, field: str) -> None:
    try:
        line = {**file_json("zz"), field: path.decode()}
    except UnicodeDecodeError:
        line = {**without(file_json("zz"), field), f"{field}_b64": b64(path)}
    with pytest.raises(CorruptionError):
        file_list.parse_line(json.dumps(line).encode())


@pytest.mark.parametrize("target", ["", "a\0b"], ids=["empty", "NUL"])
def test_a_target_that_no_link_can_have(target: str) -> None:
    with pytest.raises(CorruptionError):
        file_list.parse_line(json.dumps(symlink_json("a", target)).encode())


BAD_TEXT = {
    "not UTF-8": b'{"path":"\xff","type":"directory","mode":"0755","uid":0,"gid":0,"mtime_ns":0}',
    "a lone surrogate": b'{"path":"\\ud800","type":"directory","mode":"0755","uid":0,"gid":0,'
    b'"mtime_ns":0}',
    "an open string": b'{"path":"a',
    "nothing": b"",
    "a blank": b" ",
    "two objects": json.dumps(FILE).encode() * 2,
    "very deep": b'{"xattrs":' * 100_000,
    "a very long number": b'{"mtime_ns":' + b"9" * 100_000 + b"}",
}


@pytest.mark.parametrize("raw", [*BAD_TEXT.values()], ids=[*BAD_TEXT])
def test_text_that_is_no_line(raw: bytes) -> None:
    with pytest.raises(CorruptionError):
        file_list.parse_line(raw)


DIR, LINK = directory_json("d"), symlink_json("l")
BAD_TREES: dict[str, list[dict[str, Any]]] = {
    "nothing": [],
    "no root": [FILE],
    "a root that is a file": [{**FILE, "path": ""}],
    "a root that is a link": [symlink_json("")],
    "two roots": [ROOT, ROOT],
    "a root that comes late": [FILE, ROOT],
    "the wrong order": [ROOT, file_json("b"), file_json("a")],
    "one path twice": [ROOT, FILE, FILE],
    "order by component, not by bytes": [ROOT, DIR, file_json("d/x"), file_json("d-x")],
    "a missing directory": [ROOT, file_json("d/a")],
    "a missing directory in between": [ROOT, DIR, file_json("d/e/a")],
    "a file inside a file": [ROOT, FILE, file_json("a/b")],
    "a file inside a link": [ROOT, LINK, file_json("l/b")],
    "a hard link to itself": [ROOT, file_json("a", hardlink="a")],
    "more bytes than can be": [
        ROOT,
        {**FILE, "path": "a", "size": 2**63 - 1},
        {**FILE, "path": "b"},
    ],
    "a hard link to a later path": [ROOT, file_json("a", hardlink="b"), file_json("b")],
}


@pytest.mark.parametrize("tree", [*BAD_TREES.values()], ids=[*BAD_TREES])
def test_entries_that_make_no_tree(tree: list[dict[str, Any]]) -> None:
    with pytest.raises(CorruptionError):
        parsed(render_json(tree))


BAD_GROUPS: dict[str, list[dict[str, Any]]] = {
    "nothing there": [ROOT, file_json("b", hardlink="a")],
    "a directory": [ROOT, DIR, file_json("e", hardlink="d")],
    "a symbolic link": [ROOT, LINK, file_json("m", hardlink="l")],
    "other bytes": [ROOT, FILE, file_json("b", hardlink="a", hash="cd" * 32)],
    "another size": [ROOT, FILE, file_json("b", hardlink="a", size=6)],
    "another mode": [ROOT, FILE, file_json("b", hardlink="a", mode="0600")],
    "another owner": [ROOT, FILE, file_json("b", hardlink="a", uid=1)],
    "another time": [ROOT, FILE, file_json("b", hardlink="a", mtime_ns=1)],
    "no first": [ROOT, FILE, file_json("b", hardlink="a"), file_json("c", hardlink="b")],
}


@pytest.mark.parametrize("tree", [*BAD_GROUPS.values()], ids=[*BAD_GROUPS])
def test_a_hard_link_whose_first_path_is_not_the_same_file(tree: list[dict[str, Any]]) -> None:
    with pytest.raises(CorruptionError):
        parsed(render_json(tree))


GOOD = [ROOT, FILE, DIR, file_json("d/a", hardlink="a"), LINK]


def bad_lists() -> Iterator[tuple[str, bytes, type[RegrainError]]]:
    good = render_json(GOOD)
    head, _, rest = good.partition(b"\n")
    yield "another package", render_json(GOOD, "f" * 64), CorruptionError
    yield "a package of half the digits", render_json(GOOD, PACKAGE[:32]), CorruptionError
    yield "a package that is a path", render_json(GOOD, "../" + PACKAGE[3:]), CorruptionError
    yield "format 2", good.replace(b'"format":1', b'"format":2', 1), UnknownFormatError
    yield "format 0", good.replace(b'"format":1', b'"format":0', 1), UnknownFormatError
    yield "format in quotes", good.replace(b'"format":1', b'"format":"1"', 1), CorruptionError
    other = reader.tree_hash([ROOT, FILE]).encode()
    right = reader.tree_hash(GOOD).encode()
    yield "another tree_hash", good.replace(right, other), CorruptionError
    yield "no header", rest, CorruptionError
    yield "an unknown word in the header", good.replace(b"{", b'{"x":1,', 1), CorruptionError
    yield "a mode that changed", good.replace(b'"0755"', b'"0711"', 2), CorruptionError
    yield "text behind the end", good + b"x", CorruptionError
    yield "a blank line behind the end", good + b"\n", CorruptionError
    yield "the end twice", good + file_list.FOOTER, CorruptionError
    yield "an entry behind the end", good + json.dumps(FILE).encode() + b"\n", CorruptionError
    yield "an empty line", good.replace(b",\n", b",\n\n", 1), CorruptionError
    yield "two entries on a line", good.replace(b",\n", b",", 1), CorruptionError
    yield "an entry on the header's line", head + rest, CorruptionError
    yield "a comma too few", good.replace(b",\n", b"\n", 1), CorruptionError
    yield "a comma too many", good.replace(b"\n]}", b",\n]}", 1), CorruptionError
    yield "empty", b"", CorruptionError


LISTS = list(bad_lists())


@pytest.mark.parametrize(
    ("raw", "error"), [row[1:] for row in LISTS], ids=[row[0] for row in LISTS]
)
def test_a_list_that_is_wrong_as_a_whole(raw: bytes, error: type[RegrainError]) -> None:
    assert [entry.path for entry in parsed(render_json(GOOD))] == [b"", b"a", b"d", b"d/a", b"l"]
    with pytest.raises(error):
        parsed(raw)


def test_a_list_cut_anywhere_is_refused() -> None:
    good = render_json(GOOD)
    for length in range(len(good) - 1):  # the last byte is but a newline
        with pytest.raises(REFUSED):
            parsed(good[:length])


def test_an_error_names_the_path() -> None:
    with pytest.raises(CorruptionError, match="d/e/a"):
        parsed(render_json([ROOT, DIR, file_json("d/e/a")]))


@st.composite
def mutations(draw: st.DrawFn) -> tuple[list[Entry], bytes]:
    """A tree, and its list with something done to some bytes."""
    tree = draw(trees(entries_max=8))
    raw = bytearray(render(tree))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(raw) - 1)))
        length = draw(st.integers(0, 40))
        what = draw(st.sampled_from(["flip", "set", "insert", "delete", "repeat", "cut"]))
        if what == "flip" and raw:
            raw[at] ^= 1 << draw(st.integers(0, 7))
        elif what == "set":
            raw[at : at + 1] = draw(
                st.sampled_from([b"\0", b"\n", b'"', b"}", b",", b"\xff", b"1"])
            )
        elif what == "insert":
            raw[at:at] = draw(st.binary(max_size=8))
        elif what == "delete":
            del raw[at : at + length]
        elif what == "repeat":
            raw[at:at] = raw[at : at + length]
        else:
            del raw[at:]
    return tree, bytes(raw)


def hashed(tree: list[Entry]) -> list[tuple[object, ...]]:
    """What ``tree_hash`` vouches for."""
    return [
        (e.path, e.kind, e.mode if e.kind.value != "symlink" and e.path else 0, e.digest, e.target)
        for e in tree
    ]


@settings(max_examples=150)
@given(mutations())
def test_damage_is_seen_or_does_not_matter(found: tuple[list[Entry], bytes]) -> None:
    """Owners, times and attributes are not hashed by contract; all else is vouched for."""
    tree, raw = found
    try:
        result = parsed(raw)
    except REFUSED:
        return
    assert hashed(result) == hashed(tree)


@settings(max_examples=80)
@given(found=mutations(), path=paths)
def test_damage_never_surprises_a_lookup(
    tmp_path_factory: pytest.TempPathFactory, found: tuple[list[Entry], bytes], path: bytes
) -> None:
    tree, raw = found
    for wanted in [entry.path for entry in tree[:4]] + [path]:
        try:
            with opened(place(tmp_path_factory), raw) as package:
                entry = package.lookup(wanted)
                assert entry is None or entry.path == wanted
                package.manifest()
        except REFUSED:
            continue


def place(factory: pytest.TempPathFactory) -> Path:
    """One directory for all examples: it is written over."""
    return factory.getbasetemp() / "lookups"


def test_a_published_list_that_was_cut_is_not_taken_for_a_shorter_one(tmp_path: Path) -> None:
    """A package whose list lost its end is damaged, not a package without those paths."""
    good = render_json(GOOD)
    for length in range(len(good) - len(file_list.FOOTER)):
        with pytest.raises(REFUSED), opened(tmp_path, good[:length]) as package:
            assert package.lookup(b"l") is not None
