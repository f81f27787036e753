"""What a run may take of a disk that is nearly full: packages are claimed as they fit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

import pytest

from regrain.errors import NoSpaceError
from regrain.ledger import Ledger, open_ledger
from regrain.migrate.jobs import Ingest, Options
from regrain.migrate.ration import Ration
from regrain.migrate.room import Floors
from regrain.store.frames import Compression
from regrain.store.root import StoreRoot
from tests.command import Regrain
from tests.trees import Tree, describe, package_hash

pytestmark = pytest.mark.root

SIZES = {"small": 100_000, "middle": 300_000, "large": 900_000}
OPTIONS = Options(
    Ingest.COPY,
    can_reflink=False,
    can_link=True,
    link_outside=False,
    fsync_each=False,
    verify=True,
)


@dataclass
class Clock:
    """A clock that is set by hand."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Shelf:
    """A store of three packages, and a ration of so many bytes of its disk."""

    path: Path
    ledger: Ledger
    clock: Clock = field(default_factory=Clock)

    def free(self) -> os.statvfs_result:
        return os.statvfs(self.path)

    def ration(
        self,
        bytes_left: int,
        ingest: Ingest = Ingest.COPY,
        compression: Compression | None = None,
    ) -> Ration:
        floors = Floors(self.free().f_bavail * self.free().f_frsize - bytes_left, 0)
        options = replace(OPTIONS, ingest=ingest, compression=compression)
        return Ration(StoreRoot(str(self.path)), options, floors, 60.0, self.clock)

    def claim(self, ration: Ration, in_hand: list[str] | None = None) -> list[str]:
        claims = ration.claim(self.ledger, 10, only=None, files_max=100, in_hand=in_hand or [])
        return [claim.name for claim in claims]


@pytest.fixture
def shelf(ext4: Path) -> Iterator[Shelf]:
    store = ext4 / "store"  # nobody else takes or frees anything there
    for name, size in SIZES.items():
        label = package_hash(1, name)
        with Tree(store / label, Random(name)) as tree:
            describe(tree, name, "1", sbom=())
            tree.file(b"data", Random(name).randbytes(size))
    Regrain(store)("init")
    ledger = open_ledger(str(store))
    yield Shelf(store, ledger)
    ledger.close()


def test_with_room_enough_all_are_taken_the_smallest_first(shelf: Shelf) -> None:
    assert shelf.claim(shelf.ration(100_000_000)) == ["small", "middle", "large"]


def test_a_batch_is_closed_where_the_next_package_would_not_fit(shelf: Shelf) -> None:
    ration = shelf.ration(600_000)
    taken = shelf.claim(ration)
    assert taken == ["small", "middle"]
    in_hand = [package_hash(1, name) for name in taken]
    assert shelf.claim(ration, in_hand) == []
    assert not ration.is_short, "those in hand make room when they end"


def test_what_is_in_hand_counts_until_it_ends(shelf: Shelf) -> None:
    ration = shelf.ration(1_000_000)
    assert shelf.claim(ration) == ["small", "middle"]
    shelf.ledger.give_up([package_hash(1, "small")])
    assert shelf.claim(ration, [package_hash(1, "middle")]) == ["small"]
    assert shelf.claim(ration, [package_hash(1, "small"), package_hash(1, "middle")]) == []


def test_one_that_can_be_linked_fits_though_it_is_large(shelf: Shelf) -> None:
    assert shelf.claim(shelf.ration(60_000, Ingest.AUTO)) == ["small"]
    assert shelf.claim(shelf.ration(60_000, Ingest.AUTO)) == ["middle"]


@pytest.mark.parametrize("ingest", [Ingest.AUTO, Ingest.HARDLINK, Ingest.REFLINK])
def test_what_is_compressed_takes_room_though_it_could_be_shared(
    shelf: Shelf, ingest: Ingest
) -> None:
    ration = shelf.ration(150_000, ingest, Compression(3, 0.1))
    assert shelf.claim(ration) == ["small"]
    assert shelf.claim(ration, [package_hash(1, "small")]) == []
    ration = shelf.ration(60_000, ingest, Compression(3, 0.1))
    assert shelf.claim(ration) == []
    assert ration.is_short


def test_one_whose_bytes_are_there_fits(shelf: Shelf) -> None:
    copying = {"REGRAIN_STORE__INGEST": "copy"}
    twin = package_hash(1, "twin")
    store = shelf.path
    with Tree(store / twin, Random("twin")) as tree:
        describe(tree, "twin", "1", sbom=())
        tree.file(b"data", Random("large").randbytes(SIZES["large"]))
    floors = {"REGRAIN_MIGRATION__FREE_BYTES_MIN": "0", "REGRAIN_MIGRATION__SETTLE": "0"}
    Regrain(store, {**copying, **floors})("migrate", "--only", "large")
    Regrain(store)("init")
    for name in ("small", "middle"):
        Regrain(store)("remove", package_hash(1, name), "--execute")
    assert shelf.claim(shelf.ration(60_000)) == ["twin"]


def test_where_nothing_fits_it_waits_and_then_says_what_is_missing(shelf: Shelf) -> None:
    ration = shelf.ration(50_000)
    assert shelf.claim(ration) == []
    assert ration.is_short
    demand = ration.demand()
    assert demand is not None
    assert demand.jobs_max == 0
    assert f"package {package_hash(1, 'small')} takes up to" in demand.reason
    assert "3 packages wait" in demand.reason
    shelf.clock.now = 61.0
    with pytest.raises(NoSpaceError, match="too little space to migrate in place"):
        ration.demand()


def test_it_goes_on_when_there_is_room(shelf: Shelf) -> None:
    filler = shelf.path.parent / "filler"
    filler.write_bytes(bytes(4_000_000))
    os.sync()
    ration = shelf.ration(50_000)
    assert shelf.claim(ration) == []
    filler.unlink()
    os.sync()
    assert ration.demand() is None
    assert shelf.claim(ration) == ["small", "middle", "large"]


def test_inodes_count_too(shelf: Shelf) -> None:
    floors = Floors(0, shelf.free().f_favail - 9)
    assert shelf.claim(Ration(StoreRoot(str(shelf.path)), OPTIONS, floors, 60.0)) == ["small"]
