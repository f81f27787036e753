"""Fixtures of tests that run whole commands."""

from __future__ import annotations

import pytest

from tests.stores import Migrated


@pytest.fixture
def migrated(database: str, migrated: Migrated, request: pytest.FixtureRequest) -> Migrated:
    """The awkward store after ``migrate``, with its ledger in the test's database."""
    if database == "postgresql":
        found: Migrated = request.getfixturevalue("migrated_in_server")
        return found
    return migrated
