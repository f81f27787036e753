"""Of stores that are larger than a sample ``plan`` reads a part, and still holds the outcome."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.corpus.synthetic import Shape, build
from regrain.migrate.strata import BYTES_MAX, FILES_MAX
from tests.command import Regrain
from tests.system.test_prediction import choice

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

FILES = 24_000
MARGIN_MAX = 0.12
"""A margin that everything lies in says nothing: of what the legacy store takes."""

SHAPES = {
    "few large packages that share much": (8, 0.6, "small"),
    "files of a few bytes, nearly all of them copies": (60, 0.9, "tiny"),
    "nothing is a copy": (24, 0.0, "small"),
}


@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_outcome_lies_within_the_margin_of_a_sample(
    store_path: Path, seed: int, shape: str, compression: str
) -> None:
    packages, duplicates, sizes = SHAPES[shape]
    build(
        Shape(packages, FILES // packages, duplicates, sizes, seed=seed),
        store_path,
        lambda _: None,
    )
    regrain = Regrain(store_path, {"REGRAIN_STORE__COMPRESSION": compression})
    planned = regrain("plan", "--json").document
    (said,) = [one for one in planned["choices"] if one["chosen"]]
    assert choice(planned, said["ingest"], compression) == said
    assert planned["sample"]["files"] < min(FILES_MAX + 500, 0.75 * planned["files"])
    assert planned["sample"]["bytes_read"] < BYTES_MAX
    regrain("init")
    regrain("migrate")
    status = regrain("status", "--json").document
    kept = status["prediction"]
    assert kept["saved_bytes"] == said["saved_bytes"]
    off = abs(said["saved_bytes"] - kept["outcome_saved_bytes"])
    assert 0 < off <= said["saved_bytes_margin"], (said, kept)
    assert kept["within_margin"] is True
    assert said["saved_bytes_margin"] < MARGIN_MAX * status["legacy_allocated_bytes"]
