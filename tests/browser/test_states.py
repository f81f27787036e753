"""The page in every state of a store: sensible, and open to everybody (axe), light and dark."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.test_page import make_store
from tests.browser.watching import Watched
from tests.command import Regrain
from tests.conftest import remove
from tests.system.serving import serving
from tests.verbs import make_package


def violations(watched: Watched) -> list[str]:
    """What axe finds in both themes, at both sizes."""
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="needs axe-playwright-python, of dev"
    )
    found = []
    for theme, width in (("light", 1280), ("dark", 390)):
        watched.page.emulate_media(color_scheme=theme)
        watched.page.set_viewport_size({"width": width, "height": 900})
        wide = watched.page.evaluate("document.documentElement.scrollWidth")
        found += [f"{theme}: {wide} px wide, of {width}"] * (wide > width)
        for one in axe.Axe().run(watched.page).response["violations"]:
            places = [node["target"] for node in one["nodes"]][:3]
            found.append(f"{theme}, {width} px: {one['id']}: {one['help']}: {places}")
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    found = tmp_path_factory.mktemp("states")
    yield found
    remove(found)


def test_an_empty_store(watched: Watched, store_path: Path, regrain: Regrain) -> None:
    store_path.mkdir()
    regrain("init")
    with serving(regrain) as server:
        watched.open(server)
        assert "The store has no packages." in watched.text("#listed")
        assert "0 of 0 packages" in watched.part("progress")
        assert "There are no logs yet." in watched.part("log")
        assert violations(watched) == []


def test_a_failing_store(watched: Watched, store_path: Path) -> None:
    regrain = make_store(store_path)
    regrain("migrate", "--jobs", "1", code=3)
    regrain("pause")
    with serving(regrain) as server:
        watched.open(server)
        assert "paused by 'regrain pause'" in watched.part("progress")
        watched.page.locator("summary").click()
        assert violations(watched) == []
        watched.page.locator("#listed tbody a").first.click()
        watched.page.wait_for_url("**/package/*")
        assert violations(watched) == []


def test_a_finished_store(watched: Watched, store_path: Path, regrain: Regrain) -> None:
    for number in range(30):
        make_package(store_path / f"{number:064x}", f"tool {number}")
    for words in ("init", "migrate", "cutover --no-backup", "cleanup --execute"):
        regrain(*words.split(), env={"REGRAIN_MIGRATION__SETTLE": "0"})
    with serving(regrain) as server:
        watched.open(server)
        assert "legacy removed" in watched.text('[aria-current="step"]')
        assert "The gate was passed" in watched.part("gate")
        assert "Cleaned" in watched.part("log"), "the logs were put away, and still tell"
        watched.page.get_by_role("link", name="Next").click()
        watched.shows("#listed caption", "26 to 30 of 30")
        assert watched.page.evaluate("document.activeElement.rel") != "", "the focus is kept"
        assert violations(watched) == []


def test_what_was_rolled_back_saves_nothing(
    watched: Watched, store_path: Path, regrain: Regrain
) -> None:
    package = "05" * 32
    for name in (package, "06" * 32):
        make_package(store_path / name, "tool")
    for words in ("init", "migrate", f"rollback {package}"):
        regrain(*words.split(), env={"REGRAIN_MIGRATION__SETTLE": "0"})
    with serving(regrain) as server:
        watched.open(server, "/?q=0505")
        assert "rolled back" in watched.text("#listed tbody tr")
        saved = watched.page.locator("#listed tbody td.wide").last
        assert saved.inner_text() == "-"
        watched.page.goto(f"http://127.0.0.1:{server.port}/package/{package}")
        assert "on balance" not in watched.text("main")


def test_readers_are_drawn_where_somebody_timed_them(
    watched: Watched, store_path: Path, regrain: Regrain
) -> None:
    """A run that was over before there was a window of reads knows only what came before it."""
    store_path.mkdir()
    regrain("init")
    logs = store_path / "migration" / "logs"
    logs.mkdir(exist_ok=True)
    known = {"event": "Progress", "pid": 1, "bytes_done": 1, "rate_bytes_per_second": 1e6}
    lines = [{**known, "at": 1000 + at, "read_baseline_seconds": 1e-3} for at in range(3)]
    log = logs / "2026-01-01.jsonl"
    log.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    with serving(regrain) as server:
        watched.open(server)
        watched.page.locator("#plot-rate canvas").wait_for()
        assert watched.page.locator("#plot-reads canvas").count() == 0
        assert "Nobody timed readers" in watched.part("reads-words")
        with log.open("a") as more:
            more.write(f"{json.dumps({**lines[0], 'at': 1010, 'read_seconds': 2e-3})}\n")
        watched.shows('[data-live="reads-words"]', "Last 2.00 ms")
        watched.page.locator("#plot-reads canvas").wait_for()
        # A plot that is not drawn anew yet for a small screen does not widen the page.
        assert violations(watched) == []


def test_a_store_that_is_damaged_and_then_lost(watched: Watched, store_path: Path) -> None:
    watched.allowed = ("503",)
    regrain = make_store(store_path)
    regrain("migrate", "--jobs", "1", code=3)
    (victim,) = [path for path in (store_path / "objects").glob("*/*") if path.stat().st_size > 8][
        :1
    ]
    content = victim.read_bytes()
    os.chmod(victim, 0o644)
    victim.write_bytes(bytes(len(content)))
    regrain("verify", "--level", "deep", code=None)
    with serving(regrain) as server:
        watched.open(server)
        watched.shows('[data-live="health"]', "critical")
        assert "damaged" in watched.page.locator("#listed tbody tr").first.inner_text()
        assert "not as published" in watched.part("gate")
        (store_path / "state.sqlite").rename(store_path / "aside")
        watched.shows("#link", "store not seen")
        watched.shows('[data-live="trouble"]', "The store cannot be looked at")
        assert "critical" in watched.part("health"), "what was last seen stays"
        assert violations(watched) == []
        watched.page.goto(f"http://127.0.0.1:{server.port}/")
        watched.shows('[data-live="trouble"]', "The store cannot be looked at")
        (store_path / "aside").rename(store_path / "state.sqlite")
        watched.shows("#link", "live")
        assert watched.part("trouble") == ""


def test_a_store_that_somebody_holds(watched: Watched, store_path: Path) -> None:
    regrain = make_store(store_path)
    connection = sqlite3.connect(store_path / "state.sqlite", isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    try:
        with serving(regrain) as server:
            watched.open(server)
            assert "0 of 6 packages" in watched.part("progress")
            assert watched.page.locator("#listed tbody tr").count() == 6
    finally:
        connection.close()
