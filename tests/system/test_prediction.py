"""``plan`` predicts what is saved: the outcome lies within the margin, on three corpora."""

from __future__ import annotations

import json
import os
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from tests import mounts
from tests.command import Regrain
from tests.compare import snapshot
from tests.corpora import CORPORA
from tests.stores import assert_unchanged

Choice = dict[str, Any]


def fill(point: Path, leave: int) -> int:
    """Fill a file system up to so many bytes; return what is left."""
    space = os.statvfs(point)
    with (point / "filler").open("wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, space.f_bavail * space.f_frsize - leave)
    space = os.statvfs(point)
    return space.f_bavail * space.f_frsize


def choice(document: dict[str, Any], ingest: str, compression: str) -> Choice:
    """What is predicted for one way of migrating."""
    (found,) = [
        one
        for one in document["choices"]
        if (one["ingest"], one["compression"]) == (ingest, compression)
    ]
    return dict(found)


@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.parametrize("corpus", CORPORA)
def test_the_outcome_lies_within_the_margin(
    store_path: Path, seed: int, corpus: str, compression: str
) -> None:
    CORPORA[corpus](store_path, seed)
    environment = {"REGRAIN_STORE__COMPRESSION": compression, "REGRAIN_STORE__INGEST": "copy"}
    regrain = Regrain(store_path, environment)
    before = snapshot(store_path)
    said = choice(regrain("plan", "--json").document, "copy", compression)
    assert_unchanged(store_path, before)
    regrain("init")
    early = regrain("status", "--json").document["prediction"]
    assert early["outcome_saved_bytes"] is early["outcome_seconds"] is None
    began = monotonic()
    regrain("migrate")
    took = monotonic() - began
    status = regrain("status", "--json").document
    kept = status["prediction"]
    outcome = status["space_saved_bytes"]
    assert said["chosen"]
    assert kept["saved_bytes"] == said["saved_bytes"]
    assert kept["outcome_saved_bytes"] == outcome
    assert abs(said["saved_bytes"] - outcome) <= said["saved_bytes_margin"], (said, outcome)
    assert kept["within_margin"] is True
    assert 0 < kept["outcome_seconds"] < took
    # A margin that everything lies in says nothing.
    assert said["saved_bytes_margin"] < 0.15 * status["legacy_allocated_bytes"]
    text = regrain("status").text
    assert "within the margin" in text
    assert " of work; it took " in text


def test_what_cannot_fit_is_refused_and_what_would_is_said(workplace: Path, seed: int) -> None:
    with mounts.mounted("ext4", workplace) as point:
        store = point / "store"
        CORPORA["families"](store, seed)
        free = fill(point, leave=6 << 20)  # linking takes less, copying and compressing more
        floors = {
            "REGRAIN_MIGRATION__FREE_BYTES_MIN": "100000",
            "REGRAIN_MIGRATION__FREE_INODES_MIN": "10",
        }
        copying = Regrain(store, {**floors, "REGRAIN_STORE__INGEST": "copy"})
        refused = copying("plan", "--json", code=5).document
        said = choice(refused, "copy", "none")
        assert not said["fits"]
        assert said["peak_bytes"] > free
        assert any("keep_old_packages" in line for line in refused["blockers"])
        assert not (store / "store.toml").exists()
        fitting = [one for one in refused["choices"] if one["fits"] and one["possible"]]
        assert fitting
        for one in fitting:
            ingest, compression = one["ingest"], one["compression"]
            words = f'ingest = "{ingest}" with compression = "{compression}"'
            assert any(words in line for line in refused["blockers"]), words
            way = {"REGRAIN_STORE__INGEST": ingest, "REGRAIN_STORE__COMPRESSION": compression}
            would = Regrain(store, {**floors, **way})
            assert would("plan", "--json").document["blockers"] == []
        would("init", "--no-predict")
        would("migrate")


def test_time_counts_over_several_runs_and_only_what_the_prediction_is_of(
    store_path: Path, seed: int
) -> None:
    CORPORA["tiny"](store_path, seed)
    regrain = Regrain(store_path)
    regrain("init")
    worked = store_path / "migration" / "worked.json"
    so_far: list[float] = []
    for _ in range(2):
        regrain("migrate", "--limit", "2")
        so_far.append(json.loads(worked.read_bytes())["seconds"])
        assert regrain("status", "--json").document["prediction"]["outcome_seconds"] is None
    regrain("migrate")
    regrain("migrate")  # nothing is left to do
    took = regrain("status", "--json").document["prediction"]["outcome_seconds"]
    assert 0 < so_far[0] < so_far[1] < took
    worked.write_text(worked.read_text().replace('"prediction_at":', '"prediction_at":1'))
    found = regrain("status", "--json").document["prediction"]
    assert found["outcome_seconds"] is None
    assert found["within_margin"] is True
