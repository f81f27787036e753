"""``gc`` and ``owners``: references decide, after their grace, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from regrain.app import keeping
from regrain.app.store import PackageStore
from regrain.errors import RefusedError
from regrain.ledger import open_ledger
from regrain.maintain import collect as collecting
from regrain.model import clock
from tests.command import Regrain
from tests.compare import differences, snapshot
from tests.faults.crash_driver import Moment
from tests.faults.crashes import on_disk
from tests.faults.inline import Way, initialise, migrate
from tests.faults.judge import ledger_problems
from tests.faults.keeping_scenes import killed
from tests.faults.small import Scene
from tests.reader import check_store
from tests.stores import read_ledger
from tests.trees import LegacyPackage

pytestmark = pytest.mark.both_databases

Packages = dict[str, LegacyPackage]
HOUR = 3600


class Clock:
    """A clock that stands still until it is turned."""

    def __init__(self, at: int) -> None:
        self.at = at

    def turn(self, seconds: int) -> None:
        self.at += seconds

    def __call__(self) -> int:
        return self.at


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock(1_800_000_000)
    monkeypatch.setattr(clock, "now", made)
    return made


@pytest.fixture
def store(store_path: Path, plain_store: Packages, time: Clock) -> PackageStore:
    initialise(store_path)
    migrate(store_path, Way(ingest="copy"))
    return PackageStore.open(store_path)


@pytest.fixture
def jq(plain_store: Packages) -> LegacyPackage:
    return next(p for p in plain_store.values() if (p.name, p.version) == ("jq", "1.7"))


def objects(store: PackageStore) -> set[str]:
    return on_disk(Scene(Path(store.path), {}, {}))


def ask(store: PackageStore, *statements: str) -> None:
    """Change the ledger behind everybody's back."""
    ledger = open_ledger(store.path)
    with ledger._transaction() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    ledger.close()


def test_nothing_goes_before_its_time(store: PackageStore, jq: LegacyPackage, time: Clock) -> None:
    before = objects(store)
    removed = keeping.remove_package(store.root, jq.hash)
    time.turn(24 * HOUR - 1)
    early = keeping.collect(store.root)
    assert (early.objects, early.waiting) == (0, removed.objects)
    assert early.waiting_bytes == removed.object_bytes
    assert objects(store) == before
    time.turn(1)
    plan = keeping.plan_collection(store.root)
    assert (plan.objects, objects(store)) == (removed.objects, before)
    done = keeping.collect(store.root)
    assert (done.objects, done.allocated, done.waiting) == (plan.objects, plan.allocated, 0)
    assert objects(store) == before - {digest.hex() for digest in done.digests}
    assert objects(store) == check_store(Path(store.path), orphans=True).digests()
    assert ledger_problems(Path(store.path)) == []
    last = read_ledger(Path(store.path), "SELECT event, detail FROM history ORDER BY id")[-1]
    assert last[0] == "collected"
    assert f"{done.objects} objects" in last[1]


def test_what_comes_back_in_time_stays(
    store: PackageStore, jq: LegacyPackage, time: Clock, workplace: Path
) -> None:
    os.rename(jq.path, workplace / "kept")
    keeping.remove_package(store.root, jq.hash)
    time.turn(23 * HOUR)
    store.add_package(workplace / "kept", jq.hash)
    time.turn(48 * HOUR)
    assert keeping.collect(store.root).objects == 0
    keeping.remove_package(store.root, jq.hash)
    assert keeping.collect(store.root).objects == 0  # the grace begins anew
    time.turn(24 * HOUR)
    assert keeping.collect(store.root).objects > 0


def test_a_row_that_is_wrong_costs_nothing(store: PackageStore, time: Clock) -> None:
    """References decide, not what a row says about them."""
    before = objects(store)
    ask(store, "UPDATE objects SET unreferenced_since = 1")
    time.turn(10**6)
    assert keeping.collect(store.root, grace=0).objects == 0
    assert keeping.plan_collection(store.root, grace=0).objects == 0
    assert objects(store) == before


def test_refused_while_a_package_is_unknown(store: PackageStore, jq: LegacyPackage) -> None:
    before = objects(store)
    ask(
        store,
        f"DELETE FROM object_owners WHERE package_id ="
        f" (SELECT id FROM packages WHERE package_hash = '{jq.hash}')",
        f"DELETE FROM packages WHERE package_hash = '{jq.hash}'",
        "UPDATE objects SET unreferenced_since = 1",
    )
    with pytest.raises(RefusedError) as refused:
        keeping.collect(store.root, grace=0)
    assert (refused.value.exit_code, refused.value.package) == (5, jq.hash)
    assert objects(store) == before


def test_the_longest_unreferenced_go_first_until_the_rest_fits(
    store: PackageStore, plain_store: Packages, time: Clock
) -> None:
    first, second, _ = sorted(plain_store)
    one = keeping.remove_package(store.root, first)
    time.turn(HOUR)
    keeping.remove_package(store.root, second)
    time.turn(48 * HOUR)
    total = read_ledger(Path(store.path), "SELECT SUM(allocated_bytes) FROM carriers")[0][0]
    assert keeping.collect(store.root, size_max=total).objects == 0
    digests = keeping.plan_collection(store.root).digests
    done = keeping.collect(store.root, size_max=total - one.object_bytes)
    assert done.digests == digests[: done.objects]
    assert done.allocated > 0
    assert done.allocated - one.object_bytes < one.object_bytes
    left = read_ledger(Path(store.path), "SELECT SUM(allocated_bytes) FROM carriers")[0][0]
    assert left <= total - one.object_bytes
    assert done.waiting > 0
    assert keeping.collect(store.root, size_max=0).waiting == 0


@pytest.mark.parametrize("at_once", [1, 2, 1000])
def test_in_turns(
    store: PackageStore, jq: LegacyPackage, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "AT_ONCE", at_once)
    removed = keeping.remove_package(store.root, jq.hash)
    told: list[int] = []
    done = keeping.collect(store.root, grace=0, on_progress=told.append)
    assert done.objects == removed.objects == told[-1]
    assert len(told) == -(-removed.objects // at_once) or at_once == 1000
    assert ledger_problems(Path(store.path)) == []


def test_what_a_killed_run_left_waits_its_time(
    store_path: Path, plain_store: Packages, time: Clock
) -> None:
    """Objects without a row are found first, and their grace begins then."""
    initialise(store_path)
    store = PackageStore.open(store_path)
    moment = Moment("regrain.migrate.publish:Publisher.publish_packages", "before")
    assert killed(lambda path: migrate(path, Way(batch=10)), store_path, moment)
    left = objects(store)
    assert left
    found = keeping.collect(store.root)
    assert (found.objects, found.waiting) == (0, len(left))
    assert os.listdir(store_path / "temp") == []
    time.turn(24 * HOUR)
    assert keeping.collect(store.root).objects == len(left)
    assert objects(store) == set()
    assert migrate(store_path, Way()).completed == len(plain_store)
    assert ledger_problems(store_path) == []


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_between_the_unlinking_and_the_rows(
    store: PackageStore, jq: LegacyPackage, when: str
) -> None:
    removed = keeping.remove_package(store.root, jq.hash)
    moment = Moment("regrain.ledger.queries:Ledger.forget_objects", when)
    path = Path(store.path)
    assert killed(lambda _: keeping.collect(store.root, grace=0), path, moment)
    assert objects(store) == check_store(path, orphans=True).digests()
    done = keeping.collect(store.root, grace=0)
    assert (done.objects, done.waiting, removed.objects > 0) == (0, 0, True)
    assert ledger_problems(path) == []


def test_a_shared_checkout_keeps_its_bytes(
    store: PackageStore, jq: LegacyPackage, workplace: Path
) -> None:
    store.get_package(jq.hash).checkout(workplace / "out", mode="shared")
    before = snapshot(workplace / "out")
    assert max(e.links for e in before.values() if e.kind == "file") > 1
    keeping.remove_package(store.root, jq.hash)
    assert keeping.collect(store.root, grace=0).objects > 0
    assert differences(before, snapshot(workplace / "out"), identity=True) == []


def test_owners(store: PackageStore, plain_store: Packages) -> None:
    lists = check_store(Path(store.path), legacy=plain_store).packages
    held = {
        digest: sorted(n for n, es in lists.items() if digest in {e.get("hash") for e in es})
        for digest in objects(store)
    }
    assert {len(names) for names in held.values()} >= {1, 2}
    assert {d: keeping.owners(store.root, d) for d in held} == held


def test_the_command(regrain: Regrain, plain_store: Packages, jq: LegacyPackage) -> None:
    regrain("init")
    regrain("migrate")
    digest = snapshot(jq.path)[b"opt/pm/live/bin/jq"].digest
    assert jq.hash in regrain("owners", digest).text.split()
    regrain("owners", "0" * 64, code=1)
    regrain("owners", "0" * 63, code=2)
    regrain("remove", jq.hash, "--execute")
    regrain("gc", "--execute", "-n", code=2)
    regrain("gc", "--grace", "soon", code=2)
    regrain("gc", "--max-size", "much", code=2)
    plan = regrain("gc", "--grace", "0", "--json").document
    assert plan["executed"] is False
    assert regrain("gc", "--execute", "--json").document["objects"] == 0
    done = regrain("gc", "--execute", "--grace", "0s", "--json").document
    assert (done["objects"], done["freed_bytes"]) == (plan["objects"], plan["freed_bytes"])
    assert done["objects"] > 0
    regrain("verify", "--level", "deep")
