"""Which cases of an exhaustive sweep are tried.

All of them, hours on a busy machine; with ``REGRAIN_SWEEP=sample`` in the environment one in
six, by the seed, so that all sweeps together take some minutes and every run sees others.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from random import Random
from typing import TypeVar

import pytest

VARIABLE = "REGRAIN_SWEEP"
ONE_IN = 6
CASES_MIN = 3
"""Of a sweep that has so many."""

Case = TypeVar("Case")


def chosen(cases: Sequence[Case], seed: int, sweep: str, one_in: int = ONE_IN) -> list[Case]:
    """Return the cases of a sweep that are to be tried, in order; of a sample one in so many."""
    asked = os.environ.get(VARIABLE, "all")
    if asked == "all":
        return list(cases)
    if asked != "sample":
        pytest.fail(f"{VARIABLE} is {asked!r}, neither 'all' nor 'sample'")
    return sample(cases, seed, sweep, one_in)


def sample(cases: Sequence[Case], seed: int, sweep: str, one_in: int = ONE_IN) -> list[Case]:
    """Return the part of a sweep that the seed chooses, in its order."""
    count = min(len(cases), max(CASES_MIN, len(cases) // one_in))
    numbers = Random(f"{seed}:sweep:{sweep}").sample(range(len(cases)), count)
    return [cases[number] for number in sorted(numbers)]
