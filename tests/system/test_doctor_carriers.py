"""``doctor`` compares size and time of every carrier with what was recorded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command import Regrain
from tests.system.test_doctor import assert_found, carriers, model, store

__all__ = ["model", "store"]  # fixtures


@pytest.fixture
def carrier(store: Path) -> Iterator[Path]:
    place = carriers(store)[0]
    yield place
    assert place.exists()


def test_one_that_was_written_to_in_place(regrain: Regrain, carrier: Path) -> None:
    good, status = carrier.read_bytes(), carrier.stat()
    carrier.write_bytes(bytes(len(good)))
    os.utime(carrier, ns=(status.st_mtime_ns, status.st_mtime_ns - 1))
    found = assert_found(regrain, "ledger", "another time", "advice", "regrain verify", 0)
    assert found["names"] == [carrier.name]


def test_one_that_was_cut_short(regrain: Regrain, carrier: Path) -> None:
    status = carrier.stat()
    os.truncate(carrier, status.st_size - 1)
    os.utime(carrier, ns=(status.st_mtime_ns, status.st_mtime_ns))
    found = assert_found(regrain, "ledger", "another size", "error", "regrain verify", 4)
    assert found["names"] == [carrier.name]


def test_one_that_was_touched_beside_one_without_a_row(regrain: Regrain, carrier: Path) -> None:
    """The second look, at what disagrees only, does not lose what the first look found."""
    stranger = carrier.with_name(carrier.name[:2] + "0" * 62)
    stranger.write_bytes(b"")
    os.utime(carrier, ns=(0, 0))
    found = assert_found(regrain, "ledger", "another time", "advice", "regrain verify", 1)
    assert found["names"] == [carrier.name]
    found = assert_found(regrain, "ledger", "1 object has no row", "warning", "regrain migrate", 1)
    assert found["names"] == [stranger.name]
