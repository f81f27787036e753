"""``--executor``: units of work done by the workers of an engine, real ones, which are killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import awkward, trees
from tests.command import Regrain
from tests.dask_cluster import SOURCE, Cluster, cluster
from tests.stores import assert_complete, record
from tests.waiting import until_status

pytestmark = pytest.mark.timeout(300)

SOON = {"REGRAIN_MIGRATION__SETTLE": "0"}
PACKAGES, FILES = 24, 120
SLOW = {**SOON, "REGRAIN_MIGRATION__MAX_FILES": "400"}


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three workers of one thread, and one of two."""
    with cluster(tmp_path_factory.mktemp("dask") / "four", 3) as made:
        made.add(threads=2)
        made.until_there(4)
        yield made


def test_a_cluster_makes_the_same_store(
    four: Cluster, regrain: Regrain, seed: int, able: trees.Abilities
) -> None:
    packages = awkward.make_legacy_store(regrain.store, seed, able)
    before = record(packages)
    regrain("init")
    done = regrain("migrate", "--json", *four.executor, env=SOON)
    assert 'sync = "fsync" is enforced' in done.stdout.decode() + done.stderr
    assert done.of_type("summary")[0]["completed"] == len(packages)
    assert_complete(regrain.store, packages, before)
    found = regrain("verify", "--level", "deep", "--json", *four.executor).of_type("summary")[0]
    alone = regrain("verify", "--level", "deep", "--json").of_type("summary")[0]
    assert found == alone
    assert found["carriers"] > 100
    assert not list((regrain.store / "temp").iterdir())


def test_status_names_who_has_the_workers(four: Cluster, regrain: Regrain, seed: int) -> None:
    awkward.make_plain_store(regrain.store, seed, PACKAGES, FILES)
    regrain("init")
    assert regrain("status", "--json").document["executor"] is None
    with regrain.running("migrate", *four.executor, env=SLOW) as process:
        until_status(regrain, process, lambda s: s["migrated_packages"] > 0, "it began")
        assert regrain("status", "--json").document["executor"] == four.executor[1]
        assert four.address in regrain("status").text
        process.send_signal(signal.SIGINT)
        process.wait(60)
    assert regrain("status", "--json").document["executor"] is None


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced_by_the_others(
    workplace: Path, regrain: Regrain, seed: int
) -> None:
    packages = awkward.make_plain_store(regrain.store, seed, PACKAGES, FILES)
    before = record(packages)
    regrain("init")
    with (
        cluster(workplace / "dask", 2) as made,
        regrain.running("migrate", *made.executor, env=SLOW) as process,
    ):
        until_status(regrain, process, lambda s: s["migrated_packages"] > 0, "it began")
        made.kill(made.workers[0])
        assert process.wait(240) == 0
    assert_complete(regrain.store, packages, before)
    assert regrain("verify", "--level", "deep", "--json").of_type("summary")[0]["orphans"] == []


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["scheduler", "coordinator"])
def test_what_was_in_hand_is_resumed(
    victim: str, workplace: Path, regrain: Regrain, seed: int
) -> None:
    packages = awkward.make_plain_store(regrain.store, seed, PACKAGES, FILES)
    before = record(packages)
    regrain("init")
    with cluster(workplace / "dask", 2) as made:
        said = workplace / "said"
        with (
            said.open("wb") as output,
            regrain.running(
                "migrate", "--json", *made.executor, env=SLOW, stdout=output
            ) as process,
        ):
            until_status(regrain, process, lambda s: s["migrated_packages"] > 0, "it began")
            if victim == "scheduler":
                made.kill(made.scheduler)
                assert process.wait(100) == 1
                assert "was lost" in said.read_text()
            else:
                process.send_signal(signal.SIGKILL)
                process.wait(20)
    assert regrain("status", "--json").document["migrated_packages"] < PACKAGES
    regrain("migrate", env=SOON)
    assert_complete(regrain.store, packages, before)
    found = regrain("verify", "--level", "deep", "--json").of_type("summary")[0]
    assert (found["orphans"], found["leftovers"]) == ([], [])


def test_a_worker_of_another_version_is_refused(
    workplace: Path, regrain: Regrain, seed: int
) -> None:
    awkward.make_three(regrain.store, seed)
    regrain("init")
    copy = workplace / "other"
    shutil.copytree(SOURCE / "regrain", copy / "regrain", ignore=shutil.ignore_patterns("*.pyc"))
    init = copy / "regrain" / "__init__.py"
    init.write_text(init.read_text().replace('__version__ = "', '__version__ = "99.'))
    with cluster(workplace / "dask", 1, env={"PYTHONPATH": str(copy)}) as made:
        refused = regrain("migrate", *made.executor, code=1, env=SOON)
        assert "has another version of regrain: it is 99." in refused.stderr
        assert os.uname().nodename in refused.stderr
        assert regrain("status", "--json").document["migrated_packages"] == 0
        refused = regrain("verify", "--level", "full", *made.executor, code=1)
        assert "has another version" in refused.stderr


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.parametrize("view", ["another", "copy"])
def test_a_worker_that_sees_another_directory_is_refused(
    view: str, workplace: Path, regrain: Regrain, seed: int
) -> None:
    """Its mount name space has another store, or a copy of this one, at the same path."""
    if os.geteuid() != 0:
        pytest.skip("a mount name space of its own takes root")
    awkward.make_three(regrain.store, seed)
    regrain("init")
    other = workplace / "other"
    if view == "copy":
        subprocess.run(["cp", "-a", regrain.store, other], check=True)
    else:
        awkward.make_three(other, seed)
        Regrain(other)("init")
    mount = f'mount --bind "{other}" "{regrain.store}" && exec "$0" "$@"'
    prefix = ["unshare", "-m", "sh", "-c", mount]
    with cluster(workplace / "dask", 1, prefix=prefix) as made:
        refused = regrain("migrate", *made.executor, code=1, env=SOON)
    words = "sees another store" if view == "another" else "does not see the run's directory"
    assert words in refused.stderr
    assert regrain("status", "--json").document["migrated_packages"] == 0


@pytest.mark.parametrize(
    ("word", "code", "words"),
    [
        ("slurm", 2, "is no executor"),
        ("dask:", 2, "is no executor"),
        ("dask:tcp://127.0.0.1:9", 1, "no Dask scheduler answers"),
    ],
)
def test_an_engine_that_is_none_is_told_before_anything_is_written(
    word: str, code: int, words: str, regrain: Regrain, seed: int
) -> None:
    awkward.make_three(regrain.store, seed)
    regrain("init")
    for verb in ("migrate", "verify"):
        assert words in regrain(verb, "--executor", word, code=code).stderr
    asked = 2 if code == 2 else 0  # nobody is asked where nothing is done
    regrain("migrate", "-n", "--executor", word, code=asked)
    assert not list((regrain.store / "temp").iterdir())


@pytest.mark.slow
def test_ranks_of_mpi_make_the_same_store(regrain: Regrain, seed: int) -> None:
    if shutil.which("mpirun") is None:
        pytest.skip("no mpirun: MPI is not installed")
    packages = awkward.make_plain_store(regrain.store, seed, PACKAGES, FILES)
    before = record(packages)
    regrain("init")
    ranks = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "3"]
    started = [*ranks, sys.executable, "-m", "mpi4py.futures", "-m", "regrain"]
    for verb in (["migrate"], ["verify"]):
        done = subprocess.run(
            [*started, "--store", str(regrain.store), *verb, "--executor", "mpi"],
            env={**regrain.clean_environment(SOON), "PYTHONPATH": str(SOURCE)},
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert_complete(regrain.store, packages, before)
