"""Sixty real packages around the full circle, and what they take on the way, as ``du`` says."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bench.corpus import chosen, wheels
from regrain.model.phase import Phase
from regrain.store.root import StoreRoot
from tests.command import Regrain
from tests.compare import compare
from tests.packed import compressed_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

SECONDS_MAX = 1200
COPIES = 2.2
"""So many times what the packages take has to be free: two layouts, and what is made anew."""

SAVED = {"plain": 0.48, "zstd": 0.77}
"""What has to be saved at least, of all that the whole store takes."""

LEFT_MAX = 0.01
"""What may be left of regrain's own after a purge: ledger, logs, empty directories."""


@pytest.fixture(scope="module")
def pristine() -> list[Path]:
    """The packages, in the user's cache; nobody may change them there."""
    try:
        return chosen.sources("full", lambda _: None)
    except (wheels.WheelError, OSError) as error:
        pytest.skip(f"the wheels are not there and cannot be had: {error}")


@pytest.fixture
def store(pristine: list[Path], workplace: Path) -> Path:
    """A copy of them."""
    free = shutil.disk_usage(workplace).free
    if free < COPIES * du(*pristine):
        pytest.skip(f"too little space for the wheels and what is made of them: {free} bytes")
    place = workplace / "store"
    place.mkdir()
    chosen.copy(pristine, place)
    return place


def du(*paths: Path) -> int:
    """What trees take on disk."""
    os.sync()
    done = subprocess.run(
        ["du", "-s", "-c", "--block-size=1", *paths], capture_output=True, text=True, check=True
    )
    return int(done.stdout.splitlines()[-1].split()[0])


def say(line: str) -> None:
    """Print a figure, for whoever runs this with ``-s``, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


class Timed:
    """The command, which says what it was called for and how long it took."""

    def __init__(self, regrain: Regrain) -> None:
        self._regrain = regrain

    def __call__(self, *words: str, tries: int = 1) -> dict[str, Any]:
        """Run it to its end; return the last thing it said."""
        began = time.monotonic()
        for left in reversed(range(tries)):
            done = self._regrain(*words, "--json", timeout=SECONDS_MAX, code=None if left else 0)
            if done.code == 0:
                break
        say(f"{' '.join(words)}: {time.monotonic() - began:.1f} s")
        return done.documents[-1]


def check_saved(store: Path, before: int, least: float) -> None:
    """So much is saved of what the legacy store took, at least."""
    saved = 1 - du(store) / before
    say(f"saved {saved:.2%}")
    assert saved >= least


@pytest.mark.parametrize("way", ["plain", "zstd", "repacked"])
def test_the_full_circle_saves_what_it_should_and_returns_what_was_there(
    store: Path, pristine: list[Path], way: str
) -> None:
    before = du(store)
    compression = "zstd" if way == "zstd" else "none"
    regrain = Timed(Regrain(store, {"REGRAIN_STORE__COMPRESSION": compression}))
    regrain("plan")
    regrain("init")
    regrain("migrate")
    foretold = regrain("status")["prediction"]
    say(f"foretold: {foretold}")
    assert foretold["within_margin"], foretold
    regrain("verify", "--level", "deep")
    regrain("cutover", "--no-backup", tries=3)  # a busy machine may have been slow for a moment
    regrain("cleanup", "--execute")
    assert StoreRoot(str(store)).phase() is Phase.CLEAN
    assert [path for path in pristine if (store / path.name).exists()] == []
    check_saved(store, before, SAVED["zstd" if way == "zstd" else "plain"])
    if way == "repacked":
        regrain("repack", "--compress", "all", "--execute")
        check_saved(store, before, SAVED["zstd"])
        regrain("repack", "--compress", "none", "--execute")
        check_saved(store, before, SAVED["plain"])
    assert bool(compressed_of(store)) is (way == "zstd")
    space = regrain("status", "--space")["space"]
    assert space["now_bytes"] == pytest.approx(du(store), rel=1e-3)
    regrain("rollback")
    assert StoreRoot(str(store)).phase() is Phase.ROLLED_BACK
    regrain("rollback", "--purge", "--execute")
    check_returned(store, pristine)
    assert list((store / "packages").iterdir()) == list((store / "objects").glob("*/*")) == []
    assert du(store) < before * (1 + LEFT_MAX)


def check_returned(store: Path, pristine: list[Path]) -> None:
    """Every package is what it was, in bytes and metadata, link groups and holes included."""
    for path in pristine:
        assert compare(path, store / path.name, holes=True) == []
