"""Carriers: which mode, which name, and what is no carrier's name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrain.model import layout
from regrain.model.layout import carrier_mode, further_carrier, parse_carrier
from tests.unit.strategies import digests

DIGEST = "ab" * 32
modes = st.integers(0, 0o7777)


@given(modes)
def test_a_carrier_is_never_more_permissive_than_its_source(mode: int) -> None:
    found = carrier_mode(mode)
    assert found & ~mode == 0
    assert found & 0o7022 == 0
    assert found == mode & 0o755
    assert carrier_mode(found) == found


@pytest.mark.parametrize(
    ("mode", "carrier"),
    [
        (0o664, 0o644),
        (0o4755, 0o755),
        (0o2711, 0o711),
        (0o1777, 0o755),
        (0o600, 0o600),
        (0, 0),
        (0o100644, 0o644),  # with its file type, as st_mode has it
    ],
)
def test_examples_of_the_contract(mode: int, carrier: int) -> None:
    assert carrier_mode(mode) == carrier


@given(digests, modes.map(carrier_mode))
def test_a_further_carriers_name_says_what_it_is(digest: str, mode: int) -> None:
    name = further_carrier(digest, mode)
    assert name == f"{digest}.m{mode:04o}"
    assert parse_carrier(name) == (digest, mode, False)


@given(digests)
def test_the_other_names_a_carrier_may_have(digest: str) -> None:
    assert parse_carrier(digest) == (digest, None, False)
    assert parse_carrier(f"{digest}.zst") == (digest, None, True)


@pytest.mark.parametrize(
    "name",
    [
        "",
        DIGEST[:-1],
        DIGEST + "0",
        DIGEST.upper(),
        DIGEST + "\n",
        DIGEST + ".m0755\n",
        DIGEST + ".m755",
        DIGEST + ".m00755",
        DIGEST + ".m0788",
        DIGEST + ".M0755",
        DIGEST + ".m0755.zst",
        DIGEST + ".zst.m0755",
        DIGEST + ".tmp",
        "." + DIGEST,
        "../" + DIGEST,
        "ab/" + DIGEST,
    ],
    ids=repr,
)
def test_what_is_no_carriers_name(name: str) -> None:
    assert parse_carrier(name) is None


@given(st.text(alphabet="0123456789abcdefm.zst\n/", max_size=75))
def test_any_text_is_a_carriers_name_or_not(name: str) -> None:
    found = parse_carrier(name)
    if found is not None:
        digest, mode, compressed = found
        again = f"{digest}.zst" if compressed else digest
        assert name == (again if mode is None else further_carrier(digest, mode))


def test_the_stores_own_names_are_those_of_the_contract() -> None:
    own = {"store.toml", "objects", "packages", "temp", "trash", "quarantine", "migration"}
    ledger = {"state.sqlite", "state.sqlite-wal", "state.sqlite-shm", "state.sqlite-journal"}
    assert own | ledger == layout.OWN_NAMES
    assert len(set(layout.SHARDS)) == 256
    assert {"temp"} <= layout.PRIVATE_DIRECTORIES
