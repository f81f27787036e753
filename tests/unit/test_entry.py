"""Paths of entries can only mean a place inside their package."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrain.errors import CorruptionError
from regrain.model.entry import NAME_BYTES_MAX, check_path, normalise_path
from tests.unit.strategies import paths

BAD = (
    b"",
    b"/",
    b".",
    b"..",
    b"/a",
    b"a/",
    b"a//b",
    b"./a",
    b"a/.",
    b"a/./b",
    b"../a",
    b"a/..",
    b"a/../b",
    b"a/b/../../..",
    b"a\0b",
    b"\0",
    b"\xff/../\xff",
    b"x" * (NAME_BYTES_MAX + 1),
    b"a/" + b"x" * (NAME_BYTES_MAX + 1) + b"/b",
)


@given(paths)
def test_ordinary_names_of_any_bytes_are_taken_as_they_are(path: bytes) -> None:
    assert check_path(path) == path


@pytest.mark.parametrize("path", BAD, ids=repr)
def test_paths_that_could_mean_another_place(path: bytes) -> None:
    with pytest.raises(CorruptionError):
        check_path(path)


@given(st.lists(st.sampled_from([b"a", b"..", b".", b"", b"\xff", b"...", b"a..", b"..a"])))
def test_every_component_must_be_a_name(parts: list[bytes]) -> None:
    path = b"/".join(parts)
    if parts and not {b"", b".", b".."} & set(parts):
        assert check_path(path) == path
    else:
        with pytest.raises(CorruptionError):
            check_path(path)


@pytest.mark.parametrize(
    ("given_", "raw"),
    [
        ("bin/jq", b"bin/jq"),
        ("/bin/jq/", b"bin/jq"),
        (b"\xff/x", b"\xff/x"),
        ("caf\udce9", b"caf\xe9"),  # as os.fsdecode hands it out
        ("café", "café".encode()),
        ("", b""),
        ("/", b""),
    ],
)
def test_a_callers_path_becomes_raw(given_: str | bytes, raw: bytes) -> None:
    assert normalise_path(given_) == raw
