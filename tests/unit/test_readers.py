"""How many workers a run has that was not told: few while they compute, more while they wait."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from regrain.app.store import PackageStore
from regrain.migrate import readers
from regrain.migrate.pace import Course, Pace, Tempo
from regrain.migrate.readers import WINDOW_SECONDS, Readers
from regrain.model.events import Progress, Remark
from regrain.settings import Migration, Settings, Store
from tests.awkward import add_ordinary
from tests.faults.inline import initialise
from tests.stores import assert_complete, record

MANY = 4
EIGHTH = WINDOW_SECONDS / 8


def begun(few: int = 2) -> Readers:
    found = Readers()
    found.few = few
    return found


def work(found: Readers, share: float, windows: float, jobs: int = 2) -> int:
    for _ in range(round(8 * windows * jobs)):
        found.worked(share * EIGHTH, EIGHTH, jobs)
    return found.of(MANY)


def test_no_more_than_there_are_processors() -> None:
    assert Readers().of(10_000) == Readers().few >= 1
    assert begun().of(MANY) == 2
    assert begun().of(1) == 1, "no more than were asked for"


def test_who_computes_stays_alone() -> None:
    assert work(begun(), 0.9, windows=5) == 2


def test_who_waits_is_joined_by_others() -> None:
    found = begun()
    assert work(found, 0.5, windows=0.5) == 2, "half a window proves nothing"
    assert work(found, 0.5, windows=0.5) == MANY
    assert work(found, 1.0, windows=5) == MANY, "it never changes back"


def test_each_window_counts_by_itself() -> None:
    found = begun()
    assert work(found, 1.0, windows=20) == 2
    assert work(found, 0.5, windows=1) == MANY


@pytest.mark.parametrize("cap", [{"max_read": 1.0}, {"max_files": 1.0}])
def test_waiting_for_a_rate_is_not_waiting_for_a_disk(cap: dict[str, Any]) -> None:
    def waiting(tempo: Tempo) -> int:
        found = begun()
        course = Course(Pace(lambda: tempo, readers=found), print)
        for _ in range(16):
            course.worked(0.0, EIGHTH)
        return found.of(MANY)

    assert waiting(Tempo(2, 1, **cap)) == 2
    assert waiting(Tempo(2, 1)) == MANY


def test_a_run_gets_more_workers_while_it_works(
    store_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if every task waited: the crew changes, once, and says so; nothing is lost by it."""
    made = [add_ordinary(store_path, f"p{number}", "1", seed) for number in range(12)]
    packages = {package.hash: package for package in made}
    before = record(packages)
    initialise(store_path)
    monkeypatch.setattr(readers, "processors", lambda: 1)
    monkeypatch.setattr(readers, "BUSY", 2.0)
    monkeypatch.setattr(readers, "WINDOW_SECONDS", 0.0)
    monkeypatch.setattr("regrain.app.running.worth_starting", lambda jobs, *_: jobs)
    said: list[str] = []
    done: list[int] = []

    def watch(event: Any) -> None:
        if isinstance(event, Remark):
            said.append(event.text)
        if isinstance(event, Progress):
            done.append(event.packages_done)

    settings = Settings(store=Store(migration_parallel_files=3), migration=Migration(settle=0))
    PackageStore.open(store_path, settings).migration().run(watch, batch=1)
    changes = [words for words in said if words.startswith("from now on")]
    assert len(changes) == 1
    assert changes[0].startswith("from now on: 3 jobs")
    assert done[-1] == 12
    assert_complete(store_path, packages, before)
