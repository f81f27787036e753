"""Digests and package hashes cannot exist unless they are right."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrain.errors import MalformedHashError
from regrain.model.digest import EMPTY, Digest, PackageHash, is_package_hash, is_prefix
from tests.unit.strategies import digests, package_hashes

BAD = (
    "",
    "a" * 31,
    "a" * 33,
    "a" * 63,
    "a" * 65,
    "A" * 64,
    "g" * 64,
    "a" * 64 + "\n",
    "\n" + "a" * 64,
    " " + "a" * 63,
    "a" * 62 + "/a",
    "../" + "a" * 61,
    "\N{ARABIC-INDIC DIGIT ONE}" * 64,  # digits, but not ASCII ones
    "a" * 32 + "\0" + "a" * 31,
)


@given(digests)
def test_a_digest_is_its_text(text: str) -> None:
    digest = Digest(text)
    assert digest == text
    assert str(digest) == text
    assert hash(digest) == hash(text)
    assert {text: 1}[digest] == 1
    assert bytes.fromhex(digest).hex() == text
    assert pickle.loads(pickle.dumps(digest)) == digest


@given(package_hashes)
def test_a_package_hash_is_its_text(text: str) -> None:
    name = PackageHash(text)
    assert name == text
    assert is_package_hash(text)
    assert type(pickle.loads(pickle.dumps(name))) is PackageHash


@pytest.mark.parametrize("text", [*BAD, "a" * 32], ids=repr)
def test_what_is_no_digest(text: str) -> None:
    with pytest.raises(MalformedHashError):
        Digest(text)


@pytest.mark.parametrize("text", BAD, ids=repr)
def test_what_is_no_package_hash(text: str) -> None:
    with pytest.raises(MalformedHashError) as caught:
        PackageHash(text)
    assert caught.value.exit_code == 2
    assert not is_package_hash(text)


@given(st.text(alphabet="0123456789abcdefABCDEFg\n/.", max_size=70))
def test_any_text_is_judged_by_its_form_alone(text: str) -> None:
    right = len(text) in {32, 64} and set(text) <= set("0123456789abcdef")
    assert is_package_hash(text) == right
    if right:
        assert PackageHash(text) == text
    else:
        with pytest.raises(MalformedHashError):
            PackageHash(text)


@pytest.mark.parametrize(
    ("text", "right"),
    [("a" * 7, False), ("a" * 8, True), ("a" * 64, True), ("a" * 65, False), ("A" * 8, False)],
)
def test_a_prefix_has_eight_digits_or_more(text: str, right: bool) -> None:
    assert is_prefix(text) == right


def test_the_digest_of_nothing() -> None:
    from blake3 import blake3

    assert blake3(b"").hexdigest() == EMPTY
