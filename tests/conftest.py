"""Fixtures: places to work in, stores, file systems, the seed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from regrain.model import whereabouts
from tests import awkward, databases, mounts, sampling, servers, stores, trees
from tests.command import Regrain
from tests.faults import tally

# A run that was cut off leaves very deep trees behind, and pytest removes the directories of
# older runs by recursion.
sys.setrecursionlimit(20_000)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test that is marked ``root`` says why it does not run."""
    if item.get_closest_marker("root") is not None and os.geteuid() != 0:
        pytest.skip("needs root")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """How a test ended is what becomes of the faults it counted."""
    if "PYTEST_XDIST_WORKER" not in os.environ and (report.when == "call" or report.failed):
        tally.ended(report.nodeid, passed=report.passed)


def remove(folder: Path) -> None:
    """Remove trees of any depth and mode, which ``shutil`` cannot."""
    subprocess.run(["rm", "-rf", "--", folder], check=True)


@pytest.fixture(scope="session")
def seed() -> int:
    """The seed of everything random; ``REGRAIN_TEST_SEED`` sets another."""
    return sampling.seed_asked()


def pytest_report_header() -> str:
    """Say which seed a run used, so that it can be repeated."""
    return f"REGRAIN_TEST_SEED={sampling.seed_asked()}"


@pytest.fixture(scope="session")
def postgres() -> Iterator[servers.Server]:
    """A PostgreSQL server with an empty database, for all tests that do not kill it."""
    with servers.running() as server:
        yield server


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what is marked ``both_databases`` on both; on PostgreSQL where there is time for it."""
    marker = metafunc.definition.get_closest_marker("both_databases")
    if marker is not None and (marker.args != (False,)):
        marks = [] if marker.kwargs.get("everyday") else [pytest.mark.slow]
        chosen = ["sqlite", pytest.param("postgresql", marks=marks)]
        metafunc.parametrize("database", chosen, indirect=True)


@pytest.fixture(autouse=True)
def database(request: pytest.FixtureRequest) -> Iterator[str]:
    """Which database the ledgers of a test's stores are in."""
    name = getattr(request, "param", "sqlite")
    if name == "sqlite":
        yield name
        return
    server: servers.Server = request.getfixturevalue("postgres")
    before = server.ledgers()
    with databases.in_server(server.url()):
        yield name
    made = server.ledgers() - before
    server.forget(made - server.kept)
    assert made | server.kept, "it does without that database"


@pytest.fixture
def workplace(tmp_path: Path) -> Iterator[Path]:
    """A directory for one test, removed at its end."""
    place = tmp_path / "work"
    place.mkdir()
    yield place
    remove(place)


@pytest.fixture(scope="session")
def able(tmp_path_factory: pytest.TempPathFactory) -> trees.Abilities:
    """What this process may do where the tests run."""
    return trees.probe(tmp_path_factory.mktemp("probe"))


@pytest.fixture
def store_path(workplace: Path) -> Path:
    """Where a test's store goes: nothing is there yet."""
    return workplace / "store"


@pytest.fixture
def regrain(store_path: Path) -> Regrain:
    """The command on the test's store."""
    return Regrain(store_path)


@pytest.fixture
def served(store_path: Path, postgres: servers.Server) -> Iterator[Regrain]:
    """The command on the test's store, its ledger in the server; this process knows it, too."""
    whereabouts.choose(str(store_path), postgres.url())
    yield Regrain(store_path, postgres.environment())
    whereabouts.choose(str(store_path), None)


@pytest.fixture
def legacy_store(
    store_path: Path, seed: int, able: trees.Abilities
) -> dict[str, trees.LegacyPackage]:
    """A legacy store of ordinary and awkward packages."""
    return awkward.make_legacy_store(store_path, seed, able)


@pytest.fixture
def plain_store(store_path: Path, seed: int) -> dict[str, trees.LegacyPackage]:
    """A small legacy store without anything awkward."""
    return awkward.make_three(store_path, seed)


@pytest.fixture(scope="session")
def migrated(
    tmp_path_factory: pytest.TempPathFactory, seed: int, able: trees.Abilities
) -> Iterator[stores.Migrated]:
    """The awkward store after ``plan``, ``init``, ``migrate``: for tests that only look."""
    place = tmp_path_factory.mktemp("migrated") / "store"
    packages = awkward.make_legacy_store(place, seed, able)
    yield stores.migrate_all(Regrain(place), packages)
    remove(place)


@pytest.fixture(scope="session")
def migrated_in_server(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    able: trees.Abilities,
    postgres: servers.Server,
) -> Iterator[stores.Migrated]:
    """The same, with its ledger in PostgreSQL."""
    place = tmp_path_factory.mktemp("migrated") / "store"
    packages = awkward.make_legacy_store(place, seed, able)
    made = stores.migrate_all(Regrain(place, postgres.environment()), packages)
    postgres.kept.add(servers.schema_of(place))
    yield made
    remove(place)


@pytest.fixture
def no_reflink(workplace: Path) -> Iterator[Path]:
    """A directory on a file system with hard links and without reflinks."""
    if not mounts.can_reflink(workplace):
        yield workplace
    else:
        with mounts.mounted("ext4", workplace) as point:
            yield point


@pytest.fixture
def ext4(workplace: Path) -> Iterator[Path]:
    """A mounted ext4 image: hard links, no reflinks."""
    with mounts.mounted("ext4", workplace) as point:
        yield point


@pytest.fixture
def xfs(workplace: Path) -> Iterator[Path]:
    """A mounted xfs image: reflinks."""
    with mounts.mounted("xfs", workplace) as point:
        yield point


@pytest.fixture
def btrfs(workplace: Path) -> Iterator[Path]:
    """A mounted btrfs image: reflinks, a directory's own subvolume rules."""
    with mounts.mounted("btrfs", workplace) as point:
        yield point
