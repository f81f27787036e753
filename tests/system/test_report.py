"""`report`: its facts are the store's, at any point, and nobody's name does anything in it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from random import Random

import pytest

from tests.command import Regrain
from tests.stores import read_ledger
from tests.system.report_reading import Page
from tests.trees import LIVE, Tree, describe
from tests.verbs import make_package

HOSTILE = "<script>alert(1)</script>\"' | `x` [y](z) \u202eevil\u200f\x07 &amp; https://example"
SEEN = "<script>alert(1)</script>\"' | `x` [y](z) \\u202eevil\\u200f\\x07 &amp; https://example"
HASHES = [f"{number:02d}" * 32 for number in range(6)]
SECTIONS = (
    "Summary",
    "What was done when",
    "Space",
    "Savings by package",
    "Savings by kind of file",
    "Slowest packages",
    "Failures",
    "Runs, and what held them back",
    "What readers waited",
    "Checks and their results",
    "About this report",
)


def make_store(path: Path) -> Regrain:
    """Some packages, one of which fails and has a name to beware of, migrated."""
    for name in HASHES[:-1]:
        make_package(path / name, f"p{name[:1]}")
    with Tree(path / HASHES[-1], Random(1)) as tree:
        describe(tree, "placeholder", "1.0")
        tree.file(LIVE + b"/x", b"x")
    quoted = "".join(f"\\U{ord(char):08x}" for char in HOSTILE)
    manifest = f'[package]\nname = "{quoted}"\nversion = "1"\n'
    (path / HASHES[-1] / "manifest.toml").write_text(manifest)
    os.mkfifo(os.fsencode(path / HASHES[-1]) + b"/<img src=x onerror=a>\n\xe2\x80\xae\xff|b")
    regrain = Regrain(path, {"REGRAIN_MIGRATION__SETTLE": "0"})
    regrain("init")
    return regrain


def report(regrain: Regrain, place: Path) -> Page:
    regrain("report", "-o", place)
    page = Page(place.read_bytes())
    assert tuple("".join(heading.text) for heading in page.of("h2")) == SECTIONS
    return page


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Regrain:
    regrain = make_store(tmp_path_factory.mktemp("report") / "store")
    regrain("migrate", "--jobs", "1", code=3)
    return regrain


def test_facts_are_the_stores(migrated: Regrain, workplace: Path) -> None:
    status = migrated("status", "--json").document
    found = migrated("report", "--json").document
    moving = {"foreground_seconds", "foreground_baseline_seconds", "foreground_slowdown", "space"}
    for name in status.keys() - moving - {"schema", "message_type"}:
        assert found["status"][name] == status[name], name
    rows = read_ledger(
        migrated.store,
        "SELECT package_hash, allocated_bytes, added_bytes, space_saved FROM store_migration"
        " WHERE status = 'completed' ORDER BY space_saved DESC, package_hash",
    )
    told = found["most_saving_packages"]
    keys = ("package_hash", "allocated", "added", "saved")
    assert [tuple(one[key] for key in keys) for one in told] == [tuple(row) for row in rows]
    assert sum(one["saved"] for one in found["most_saving_names"]) == status["space_saved_bytes"]
    assert sum(one["packages"] for one in found["completed_over_time"]) == len(rows) == 5
    assert found["events"]["package_failed"] == 1
    kinds = found["kinds_of_files"]["rows"]
    assert sum(row["files"] for row in kinds) == status["migrated_files"]
    assert sum(row["after"] for row in kinds) == status["objects_allocated_bytes"]
    assert sum(row["contents"] for row in kinds) == status["objects"]

    (run,) = [run for run in found["runs"] if run["events"].get("PackageCompleted")]
    assert run["events"]["PackageCompleted"] == 5
    samples = [sample for sample in found["samples"] if sample["pid"] == run["pid"]]
    assert samples[-1]["size"] == sum(one["size"] for one in told) > 0
    assert found["foreground"]["now"] > 0

    page = report(migrated, workplace / "a.html")
    (space,) = [row for row in page.rows("Bytes on disk") if row[0].startswith("saved on balance")]
    assert space[2] == f"{status['space_saved_bytes']:,}"
    measured = migrated("status", "--json", "--space").document["space"]
    assert found["space"] == measured
    whole = [row[2] for row in page.rows("The whole store, measured")]
    names = ("before", "now", "after", "overhead")
    assert whole == [f"{measured[f'{name}_bytes']:,}" for name in names]
    assert [row[1] for row in page.rows("Packages that save most")] == [row[0][:12] for row in rows]
    (failed,) = page.rows("Failed packages")
    assert failed[1] == HASHES[-1][:12]
    checks = dict(page.rows("Checks"))
    assert checks["published packages compared with their source"].startswith("5 of 5, ")


def test_names_of_strangers_do_nothing(migrated: Regrain, workplace: Path) -> None:
    page = report(migrated, workplace / "a.html")  # which looks for what must not be there
    (failed,) = page.rows("Failed packages")
    assert failed[0] == f"{SEEN} 1"
    assert failed[3] == "<img src=x onerror=a>\\x0a\\u202e\\xff|b"


def test_markdown_has_the_same_and_no_html(migrated: Regrain, workplace: Path) -> None:
    migrated("report", "-o", workplace / "a.md")
    text = (workplace / "a.md").read_text()
    assert [line.removeprefix("## ") for line in text.split("\n") if line.startswith("## ")] == [
        *SECTIONS
    ]
    assert "<" not in text
    assert "](" not in text.replace("\\](", "")
    assert "://" not in text
    assert "\u202e" not in text
    width = 0
    for line in text.split("\n"):
        cells = len(re.findall(r"(?<!\\)\|", line))
        if line.startswith("|"):
            assert cells == (width or cells), line
            width = cells
        else:
            width = 0
    assert "alert" in text


def test_at_any_point(workplace: Path) -> None:
    regrain = make_store(workplace / "store")
    place = workplace / "a.html"
    page = report(regrain, place)
    assert "0 of 6 packages" in page.text
    assert page.rows("Steps")[0][0] == "made a store, packages queued"
    regrain("migrate", "--jobs", "1", code=3)
    regrain("exclude", HASHES[-1])
    regrain("cutover", "--no-backup")
    assert "file level" in report(regrain, place).text
    regrain("cleanup", "--execute")
    page = report(regrain, place)
    steps = [row[:2] for row in page.rows("Steps")]
    assert ["legacy directories removed", "5"] in steps
    regrain("rollback")
    page = report(regrain, place)
    assert "rolled back" in page.text
    assert ["legacy directories rebuilt", "5"] in [row[:2] for row in page.rows("Steps")]
    assert "0 of 6 packages" in page.text


def test_a_store_without_a_package(workplace: Path) -> None:
    regrain = Regrain(workplace / "store")
    regrain.store.mkdir()
    regrain("init")
    assert "0 of 0 packages" in report(regrain, workplace / "a.html").text


def test_broken_ledger(workplace: Path) -> None:
    regrain = make_store(workplace / "store")
    place = workplace / "a.html"
    place.write_text("the one before")
    ledger = regrain.store / "state.sqlite"
    ledger.write_bytes(ledger.read_bytes()[:5000])
    for name in ("state.sqlite-wal", "state.sqlite-shm"):
        (regrain.store / name).unlink(missing_ok=True)
    done = regrain("report", "-o", place, code=4)
    assert "--rebuild-ledger" in done.stderr
    ledger.unlink()
    regrain("report", "-o", place, "--json", code=4)
    assert place.read_text() == "the one before"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ([], 2),
        (["-o", "a.txt"], 2),
        (["-o", "{store}/a.html"], 2),
        (["-o", "{store}/objects/a.html"], 2),
        (["-o", "{place}/folder.html"], 1),
        (["-o", "{place}/missing/a.html"], 1),
    ],
)
def test_where_it_cannot_go(
    migrated: Regrain, workplace: Path, words: list[str], code: int
) -> None:
    (workplace / "folder.html").mkdir()
    names = [word.format(store=migrated.store, place=workplace) for word in words]
    before = sorted(os.walk(migrated.store))
    migrated("report", *names, code=code)
    assert sorted(os.walk(migrated.store)) == before


def test_a_link_is_replaced_not_followed(migrated: Regrain, workplace: Path) -> None:
    other = workplace / "other"
    other.write_text("somebody's")
    (workplace / "a.html").symlink_to(other)
    report(migrated, workplace / "a.html")
    assert other.read_text() == "somebody's"
    assert not (workplace / "a.html").is_symlink()
