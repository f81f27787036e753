"""The page of ``serve`` in a real browser, through the life of a real store."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.browser.watching import Watched
from tests.command import Regrain
from tests.conftest import remove
from tests.system.serving import Server, serving
from tests.trees import LIVE, Tree, describe
from tests.verbs import make_package
from tests.waiting import until

HOSTILE = "<img src=x onerror=alert(1)>\"'</td><script>alert(2)</script>\u202eevil\x07"
SEEN = "<img src=x onerror=alert(1)>\"'</td><script>alert(2)</script>\\u202eevil\\x07"
FAILING = "05" * 32
SLOWLY = {"REGRAIN_MIGRATION__PAUSE_MS": "400", "REGRAIN_MIGRATION__LATENCY_SLOWDOWN_MAX": "1000"}


def make_store(path: Path, packages: int = 5) -> Regrain:
    """Some packages, none migrated; one of them will fail and has a name to beware of."""
    for number in range(packages):
        make_package(path / f"{number:02d}".ljust(64, "a"), f"tool{number}")
    with Tree(path / FAILING, Random(1)) as tree:
        describe(tree, "placeholder", "1.0")
        tree.file(LIVE + b"/x", b"x")
    quoted = "".join(f"\\U{ord(char):08x}" for char in HOSTILE)
    manifest = f'[package]\nname = "{quoted}"\nversion = "1"\n'
    (path / FAILING / "manifest.toml").write_text(manifest)
    os.mkfifo(os.fsencode(path / FAILING) + b"/<b onclick=alert(3)>\n\xe2\x80\xae\xff")
    regrain = Regrain(path, {"REGRAIN_MIGRATION__SETTLE": "0"})
    regrain("init")
    return regrain


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Regrain]:
    """A store in which one package of six failed."""
    place = tmp_path_factory.mktemp("page")
    regrain = make_store(place / "store")
    regrain("migrate", "--jobs", "1", code=3)
    yield regrain
    remove(place)


@pytest.fixture(scope="module")
def server(failing: Regrain) -> Iterator[Server]:
    with serving(failing) as found:
        yield found


def test_a_whole_migration_is_followed(watched: Watched, workplace: Path) -> None:
    """Migration, failure, mending, cutover, cleanup: one page, never loaded again."""
    regrain = make_store(workplace / "store", packages=8)
    with serving(regrain) as server:
        watched.open(server)
        watched.page.evaluate("window.isTheSame = true")
        watched.shows('[data-live="progress"]', "0 of 9 packages migrated")
        assert "9 packages to be migrated" in watched.part("gate")
        with regrain.running("migrate", "--jobs", "1", "--batch", "1", env=SLOWLY) as run:
            watched.shows('[data-live="progress"]', "migrate, process")
            watched.shows('[data-live="progress"]', re.compile("[2-7] of 9 packages migrated"))
            watched.page.locator("#plot-rate canvas").wait_for()
            assert run.wait(60) == 3
        watched.shows('[data-live="progress"]', "8 of 9 packages migrated")
        watched.shows('[data-live="progress"] .value', "nothing")
        watched.shows("#listed tbody tr:first-child", "failed")
        assert "regrain migrate --retry-failed" in watched.part("progress")
        assert "1 failed" in watched.part("gate")
        for name in (regrain.store / FAILING).iterdir():
            if name.is_fifo():
                name.unlink()
        regrain("migrate", "--retry-failed")
        watched.shows('[data-live="gate"]', "all 9 are migrated")
        watched.shows("#listed caption", "Packages 1 to 9 of 9")
        regrain("cutover", "--no-backup")
        watched.shows('[data-live="phase"] [aria-current="step"]', "file level")
        regrain("cleanup", "--execute")
        watched.shows('[data-live="phase"] [aria-current="step"]', "legacy removed")
        watched.shows('[data-live="space"]', "Removing legacy directories freed")
        assert re.match(r"100\.?0? %", watched.page.title())
        assert watched.page.evaluate("window.isTheSame"), "it was loaded again"


def test_hostile_names_are_words(watched: Watched, server: Server) -> None:
    watched.open(server)
    row = watched.page.locator("#listed tbody tr").first
    assert SEEN in row.inner_text()
    assert "<b onclick=alert(3)>\\x0a\\u202e\\xff" in row.inner_text()
    for place in ("#listed", '[data-live="log"]'):
        assert "onclick=alert(3)" in watched.text(place)
        assert watched.page.locator(f"{place} :is(img, script, [onclick])").count() == 0
    row.locator("a").click()
    watched.page.wait_for_url("**/package/*")
    assert SEEN in watched.text("h1")
    assert "regrain migrate --retry-failed" in watched.text("main")
    assert watched.page.locator("main :is(img, script, [onclick])").count() == 0


def test_packages_are_found(watched: Watched, server: Server) -> None:
    watched.open(server)
    rows = watched.page.locator("#listed tbody tr")
    assert rows.count() == 6
    watched.page.get_by_label("Search").fill("TOOL3")
    watched.page.get_by_label("Search").press("Enter")
    watched.shows("#listed caption", "1 to 1 of 1")
    assert "tool3" in rows.first.inner_text()
    assert "?q=TOOL3" in watched.page.url
    watched.page.get_by_label("Search").fill("100%_")
    watched.page.get_by_role("button", name="Find").click()
    watched.shows("#listed", "No such package.")
    watched.page.get_by_label("Search").fill("")
    watched.page.get_by_label("Show").select_option("failed")
    watched.shows("#listed caption", "1 to 1 of 1")
    assert "failed" in rows.first.inner_text()
    watched.open(server, f"/?q={'03'.ljust(16, 'a')}")
    assert "tool3" in rows.first.inner_text(), "the address is enough"


def test_keys_are_enough(watched: Watched, server: Server) -> None:
    """Every control is reached by Tab, in the order of the page, and shows that it is."""
    watched.open(server)
    keyboard, seen = watched.page.keyboard, []
    focused = "document.activeElement"
    for _ in range(60):
        keyboard.press("Tab")
        found = watched.page.evaluate(
            f"[{focused}.innerText || {focused}.id, {focused}.tagName,"
            f" getComputedStyle({focused}).outlineStyle]"
        )
        if found[1] == "BODY":
            break
        assert found[2] != "none", f"one does not see where one is: {found}"
        seen.append(found[0].partition("\n")[0])
    assert seen[0] == "To the content"
    wanted = [
        "Progress",
        "Packages",
        "Both as a table",
        "q",
        "all, failed first",
        "Find",
        "tool4 1.0",
    ]
    places = [seen.index(name) for name in wanted]
    assert places == sorted(places), seen
    watched.page.locator("summary").focus()
    keyboard.press("Enter")
    assert watched.page.locator('[data-live="course-table"]').is_visible()
    watched.page.get_by_label("Search").focus()
    keyboard.type("tool1")
    keyboard.press("Enter")
    watched.shows("#listed caption", "1 to 1 of 1")
    for _ in range(4):
        keyboard.press("Tab")
    keyboard.press("Enter")
    watched.page.wait_for_url("**/package/*")
    assert watched.text("h1") == "tool1 1.0"


def test_without_scripts_it_tells_the_same(chromium: object, server: Server) -> None:
    context = chromium.new_context(java_script_enabled=False)  # type: ignore[attr-defined]
    watched = Watched(context.new_page())
    watched.open(server, is_live=False)
    assert "5 of 6 packages migrated" in watched.part("progress")
    assert "1 failed" in watched.part("gate")
    watched.page.get_by_label("Show").select_option("failed")
    watched.page.get_by_role("button", name="Find").click()
    watched.page.wait_for_url("**/?*kind=failed*")
    assert watched.page.locator("#listed tbody tr").count() == 1
    context.close()
    watched.judge()


def test_it_outlasts_the_server(watched: Watched, workplace: Path) -> None:
    regrain = make_store(workplace / "store")
    with serving(regrain) as first:
        watched.open(first)
        watched.page.evaluate("window.isTheSame = true")
    watched.shows("#link", "reconnecting")
    regrain("migrate", "--jobs", "1", code=3)
    with serving(regrain, "--listen", f"127.0.0.1:{first.port}"):
        watched.shows("#link", "live")
        watched.shows('[data-live="progress"]', "5 of 6 packages migrated")
        assert watched.page.evaluate("window.isTheSame")


def test_what_one_reads_stays(watched: Watched, workplace: Path) -> None:
    """Words that are selected are not replaced under the hand; afterwards they are current."""
    regrain = make_store(workplace / "store")
    with serving(regrain) as server:
        watched.open(server)
        watched.page.evaluate(
            "getSelection().selectAllChildren(document.querySelector('[data-live=progress]'))"
        )
        regrain("migrate", "--jobs", "1", code=3)
        watched.shows('[data-live="gate"]', "1 failed")
        assert "0 of 6 packages" in watched.part("progress")
        watched.page.evaluate("getSelection().removeAllRanges()")
        watched.shows('[data-live="progress"]', "5 of 6 packages migrated")


def test_what_is_heard_is_calm(watched: Watched, workplace: Path) -> None:
    """What changes is no live region but one, and that speaks of steps, not of every figure."""
    regrain = make_store(workplace / "store", packages=10)
    with serving(regrain) as server:
        watched.open(server)
        watched.shows("#announced", "Phase dual.")
        live = watched.page.locator("[aria-live], [role=status], [role=alert], [role=log]")
        assert live.count() == 2, "the sentence, and trouble"
        assert watched.page.locator("#announced").get_attribute("role") == "status"
        watched.page.evaluate(
            "window.heard = 0; new MutationObserver(() => heard++)"
            ".observe(announced, {childList: true})"
        )
        with regrain.running("migrate", "--jobs", "1", "--batch", "1", env=SLOWLY) as run:
            assert run.wait(60) == 3
        watched.shows('[data-live="gate"]', "1 failed")
        assert watched.page.evaluate("heard") <= 2


def test_streams_end_with_the_server_and_with_who_watches(server: Server, failing: Regrain) -> None:
    with serving(failing) as own:
        open_ones = [own.connect() for _ in range(33)]
        for one in open_ones:
            one.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        said = [one.recv(12) for one in open_ones]
        assert sorted(said) == [b"HTTP/1.1 200"] * 32 + [b"HTTP/1.1 503"]
        for one in open_ones:
            one.close()

        def is_free() -> bool:
            with own.connect() as one:
                one.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
                return one.recv(12) == b"HTTP/1.1 200"

        until(is_free, "those who left make room")
        with own.connect() as one:
            one.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert one.recv(12) == b"HTTP/1.1 200"
            own.process.terminate()
            assert own.process.wait(10) == 143
