"""An object that another worker published compressed gets no plain carrier beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from regrain.migrate import staging
from tests.conftest import remove
from tests.faults.inline import Way, initialise, migrate
from tests.faults.small import quick_place
from tests.packed import TEXT, compressed_of, plain_of
from tests.trees import LIVE, Tree, describe, package_hash


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    with quick_place(tmp_path) as found:
        yield found / "store"
        remove(found / "store")


@pytest.mark.parametrize("mode", [0o644, 0o755, 0o664])
def test_what_others_published_compressed_is_not_linked_beside_it(
    place: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    for number in range(4):
        with Tree(place / package_hash(3, f"{number}"), Random(number)) as tree:
            describe(tree, f"package-{number}", "1", sbom=())
            tree.file(LIVE + b"/text", TEXT, mode)
    initialise(place)

    def nothing_heard(_: staging.Stager, __: str) -> None:
        """Publishing is the work of other workers, which tell this one nothing."""

    monkeypatch.setattr(staging.Stager, "now_published", nothing_heard)
    migrate(place, Way(batch=1, compression="zstd"))
    assert len(compressed_of(place)) == 1
    assert not compressed_of(place) & plain_of(place)
