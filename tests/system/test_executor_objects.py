"""``repack`` and ``backup create`` with the workers of an engine, which are killed, or see less."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import awkward
from tests.command import Regrain
from tests.dask_cluster import Cluster, cluster
from tests.packed import compressed_of, lines, make_packed
from tests.reader import check_store
from tests.waiting import until

pytestmark = pytest.mark.timeout(300)

SOON = {
    "REGRAIN_MIGRATION__SETTLE": "0",
    "REGRAIN_MIGRATION__FREE_BYTES_MIN": "1000000",
    "REGRAIN_MIGRATION__FREE_INODES_MIN": "10",
}
FILES, BYTES = 3000, 12_000
COMPRESS = ("repack", "--compress", "all", "--execute")
EXPAND = ("repack", "--compress", "none", "--execute")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("dask") / "two", 2) as made:
        yield made


@pytest.fixture
def soon(store_path: Path) -> Regrain:
    return Regrain(store_path, SOON)


def carriers(store: Path) -> dict[str, tuple[int, int, int]]:
    """Name, mode, modification time and size of all."""
    found = {path.name: path.lstat() for path in (store / "objects").glob("*/*")}
    return {name: (s.st_mode, s.st_mtime_ns, s.st_size) for name, s in found.items()}


def make_many(regrain: Regrain, seed: int) -> None:
    """One package of files that shrink, migrated by copy: workers are busy for a while with it."""
    package = regrain.store / f"{seed:032x}"
    package.mkdir(parents=True)
    for number in range(FILES):
        (package / f"{number:04}.txt").write_bytes(lines(f"{seed} {number}", BYTES))
    regrain("init")
    regrain("migrate", env={"REGRAIN_STORE__INGEST": "copy"})


def problems(store: Path) -> list[str]:
    """What is wrong at the file level; legacy directories are there as well."""
    return [p for p in check_store(store).problems if not p.startswith("unexpected at the top")]


def test_a_cluster_repacks_and_backs_up_as_this_host_does(
    two: Cluster, soon: Regrain, workplace: Path, seed: int
) -> None:
    make_packed(soon.store, seed)
    soon("migrate", env={"REGRAIN_STORE__INGEST": "copy"})
    alone = workplace / "alone"
    subprocess.run(["cp", "-a", soon.store, alone], check=True)
    here = Regrain(alone, SOON)
    for verb in (COMPRESS, EXPAND, COMPRESS):
        there = soon(*verb, "--json", *two.executor).of_type("summary")[0]
        assert there == here(*verb, "--json").of_type("summary")[0]
        assert carriers(soon.store) == carriers(alone)
        assert problems(soon.store) == []
    assert compressed_of(soon.store)
    saved, same = workplace / "saved", workplace / "same"
    copied = soon("backup", "create", saved, "--json", *two.executor).of_type("summary")[0]
    assert (
        copied["objects"]
        == here("backup", "create", same, "--json").of_type("summary")[0]["objects"]
    )
    assert carriers(saved) == carriers(same)
    soon("backup", "check", saved)
    for store in (soon.store, saved):
        assert not list((store / "temp").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["repack", "backup"])
@pytest.mark.parametrize("victim", ["worker", "scheduler"])
def test_what_was_in_hand_is_done_again(
    victim: str, verb: str, soon: Regrain, workplace: Path, seed: int
) -> None:
    make_many(soon, seed)
    saved = workplace / "saved"
    words = COMPRESS if verb == "repack" else ("backup", "create", str(saved))

    def has_begun() -> bool:
        if verb == "repack":
            return bool(compressed_of(soon.store))
        return sum(1 for _ in saved.glob("temp/*/objects/*/*")) > FILES // 10

    with cluster(workplace / "dask", 2) as made:
        said = workplace / "said"
        with (
            said.open("wb") as output,
            soon.running(*words, "--json", *made.executor, stdout=output) as process,
        ):
            until(has_begun, "it began")
            assert process.poll() is None
            made.kill(made.workers[0] if victim == "worker" else made.scheduler)
            code = process.wait(120)
        assert code == (0 if victim == "worker" else 1), said.read_text()
    if victim == "scheduler":
        assert "was lost" in said.read_text()
        soon(*words)
    soon("verify", "--level", "deep")
    assert problems(soon.store) == []
    if verb == "repack":
        assert len(compressed_of(soon.store)) == FILES
    else:
        soon("backup", "check", saved)
        assert carriers(saved).keys() == carriers(soon.store).keys()
        assert problems(saved) == []


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.parametrize("hidden", ["store", "saved"])
def test_a_worker_that_sees_another_store_or_backup_copies_nothing(
    hidden: str, soon: Regrain, workplace: Path, seed: int
) -> None:
    if os.geteuid() != 0:
        pytest.skip("a mount name space of its own takes root")
    awkward.make_three(soon.store, seed)
    soon("init")
    saved, other = workplace / "saved", workplace / "other"
    soon("backup", "create", saved)
    awkward.make_three(other, seed + 1)
    Regrain(other, SOON)("init")
    awkward.make_three(soon.store, seed + 2)
    soon("migrate")
    place = soon.store if hidden == "store" else saved
    mount = f'mount --bind "{other}" "{place}" && exec "$0" "$@"'
    before = carriers(saved)
    with cluster(workplace / "dask", 1, prefix=["unshare", "-m", "sh", "-c", mount]) as made:
        refused = soon("backup", "create", saved, *made.executor, code=1)
    assert "sees another store" in refused.stderr
    assert carriers(saved) == before


def test_a_backup_at_a_url_takes_no_engine(soon: Regrain, workplace: Path, seed: int) -> None:
    awkward.make_three(soon.store, seed)
    soon("init")
    url = f"file://{workplace}/bucket"
    refused = soon("backup", "create", url, "--executor", "dask:tcp://127.0.0.1:9", code=2)
    assert "is not for a backup at a URL" in refused.stderr
