"""Fixtures of tests that run whole commands."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.stores import Migrated
from tests.weed import Weed


@pytest.fixture
def migrated(database: str, migrated: Migrated, request: pytest.FixtureRequest) -> Migrated:
    """The awkward store after ``migrate``, with its ledger in the test's database."""
    if database == "postgresql":
        found: Migrated = request.getfixturevalue("migrated_in_server")
        return found
    return migrated


@pytest.fixture(scope="module")
def weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weed]:
    """A server that speaks S3, with a bucket."""
    server = Weed(tmp_path_factory.mktemp("weed"))
    server.start()
    yield server
    server.kill()
