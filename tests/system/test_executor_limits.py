"""``--executor`` beside what else a store may have: limits of rates, a ledger in PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import awkward, servers
from tests.command import Regrain
from tests.dask_cluster import Cluster, cluster
from tests.packed import compressed_of, lines
from tests.stores import assert_complete, legacy_changes, read_ledger, record
from tests.waiting import until_status

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SOON = {"REGRAIN_MIGRATION__SETTLE": "0"}
PACKAGES, FILES = 12, 120
RATE = 100
"""Files a second, of all workers together."""


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("dask") / "three", 3) as made:
        yield made


def test_workers_share_a_rate(three: Cluster, regrain: Regrain, seed: int) -> None:
    """Three that each took all of it would be done in a third of the time."""
    packages = awkward.make_plain_store(regrain.store, seed, PACKAGES, FILES)
    before = record(packages)
    files = sum(entry.kind == "file" for tree in before.values() for entry in tree.values())
    regrain("init")
    slowly = {**SOON, "REGRAIN_MIGRATION__MAX_FILES": str(RATE)}
    began = time.monotonic()
    with regrain.running(
        "migrate", "--jobs", "3", "--batch", "3", *three.executor, env=slowly
    ) as process:
        why = f"no more than {RATE} files/s are read (max_files)"
        until_status(regrain, process, lambda s: s["throttle_reason"] == why, "it is held")
        assert process.wait(120) == 0
    assert time.monotonic() - began > 0.9 * files / RATE
    assert_complete(regrain.store, packages, before)


def test_a_ledger_in_a_server(three: Cluster, served: Regrain, seed: int) -> None:
    packages = awkward.make_plain_store(served.store, seed, PACKAGES - 1, FILES)
    shrinking = served.store / f"{seed:032x}"
    shrinking.mkdir()
    for number in range(FILES):
        (shrinking / f"{number}").write_bytes(lines(f"{seed} {number}", 12_000))
    before = record(packages)
    served("init")
    done = served("migrate", "--json", *three.executor, env=SOON).of_type("summary")[0]
    assert (done["completed"], done["failed"]) == (PACKAGES, 0)
    assert legacy_changes(before, packages) == []
    words = ("repack", "--compress", "all", "--execute", "--json")
    repacked = served(*words, *three.executor, env=SOON).of_type("summary")[0]
    found = served("verify", "--level", "deep", "--json", *three.executor).of_type("summary")[0]
    assert (found["orphans"], found["leftovers"]) == ([], [])
    told = read_ledger(served.store, "SELECT count(*) FROM carriers WHERE is_compressed")
    assert told == [(repacked["objects"],)]
    assert repacked["objects"] == len(compressed_of(served.store)) == FILES


def test_a_server_that_dies_under_workers(store_path: Path, workplace: Path, seed: int) -> None:
    packages = awkward.make_plain_store(store_path, seed, PACKAGES, FILES)
    before = record(packages)
    with servers.running() as server, cluster(workplace / "dask", 2) as made:
        served = Regrain(store_path, server.environment())
        served("init")
        slowly = {**SOON, "REGRAIN_MIGRATION__MAX_FILES": str(RATE)}
        words = ["migrate", "--batch", "1", *made.executor]
        with served.running(*words, env=slowly) as process:
            until_status(served, process, lambda s: s["migrated_packages"] > 0, "it began")
            server.kill()
            server.start()
            assert process.wait(200) == 0
        assert_complete(served.store, packages, before)
        found = served("verify", "--level", "deep", "--json").of_type("summary")[0]
    assert (found["orphans"], found["leftovers"]) == ([], [])
