"""A package's manifest gives its name and version; a broken one never stops anything."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrain.model.manifest import Manifest, parse_manifest
from tests.faults.inline import initialise
from tests.stores import statuses
from tests.trees import Tree, package_hash

GOOD = b'[package]\nname = "jq"\nversion = "1.7"\n[dependencies]\nlibc = "2.38"\n'
BROKEN = {
    "nothing": b"",
    "no TOML": b"<html>",
    "not UTF-8": b'[package]\nname = "\xff"\n',
    "a byte order mark": b"\xef\xbb\xbf" + GOOD,
    "NUL": b"\0" * 100,
    "very deep": b"a = " + b"[" * 50_000,
    "a number of 5,000 digits": b"a = " + b"1" * 5000,
    "a date that is none": b"a = 2024-02-30",
    "a key twice": b"a = 1\na = 2",
    "a package that is no table": b'package = "jq"',
    "a list of packages": b'[[package]]\nname = "jq"',
}


def test_name_and_version() -> None:
    found = parse_manifest(GOOD)
    assert (found.name, found.version) == ("jq", "1.7")
    assert found.table["dependencies"] == {"libc": "2.38"}


@pytest.mark.parametrize("raw", [*BROKEN.values()], ids=[*BROKEN])
def test_a_broken_manifest_gives_a_nameless_package(raw: bytes) -> None:
    found = parse_manifest(raw)
    assert (found.name, found.version) == ("", "")


@pytest.mark.parametrize("value", ["7", "true", '["jq"]', "{a = 1}", "1.7"])
def test_a_name_that_is_no_text_is_none(value: str) -> None:
    found = parse_manifest(f"[package]\nname = {value}\nversion = {value}\n".encode())
    assert (found.name, found.version) == ("", "")


@given(st.binary(max_size=200))
def test_any_bytes_give_a_manifest(raw: bytes) -> None:
    assert isinstance(parse_manifest(raw), Manifest)


@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=3))
def test_a_damaged_manifest_gives_a_manifest(at: int, put: bytes) -> None:
    assert isinstance(parse_manifest(GOOD[:at] + put + GOOD[at:]), Manifest)


@pytest.mark.parametrize("raw", [*BROKEN.values()], ids=[*BROKEN])
def test_a_broken_manifest_does_not_stop_a_store(tmp_path: Path, raw: bytes) -> None:
    name = package_hash(1, "broken")
    with Tree(tmp_path / "store" / name, Random(1)) as tree:
        tree.file(b"manifest.toml", raw)
    assert initialise(tmp_path / "store").queued == 1
    assert statuses(tmp_path / "store") == {name: "pending"}
