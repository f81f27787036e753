"""How many workers are started for how much work."""

from __future__ import annotations

import pytest

from regrain.store.workers import worth_starting

MIB = 1 << 20


@pytest.mark.parametrize(
    ("jobs_max", "files", "size", "wanted"),
    [
        (4, 0, 0, 1),
        (4, 1_999, 127 * MIB, 1),
        (4, 2_000, 0, 2),
        (4, 0, 128 * MIB, 2),
        (4, 3, 400 * MIB, 4),
        (4, 180_000, 2_000 * MIB, 4),
        (1, 180_000, 2_000 * MIB, 1),
    ],
)
def test_a_worker_is_started_for_work_that_is_worth_it(
    jobs_max: int, files: int, size: int, wanted: int
) -> None:
    assert worth_starting(jobs_max, files, size) == wanted
