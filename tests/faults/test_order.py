"""The order that a power cut needs and a kill does not show: what is flushed before what."""

from __future__ import annotations

import errno
import os
import re
from itertools import pairwise
from types import FrameType
from typing import Any

import pytest

from regrain.ledger import Ledger
from tests.faults.crash_driver import Crasher
from tests.faults.crashes import (
    COPIED,
    KILLED,
    OBJECTS,
    PACKAGES,
    WAYS,
    on_disk,
    orphans,
    recover,
    survey,
)
from tests.faults.faulty import Call, Faults, injected
from tests.faults.inline import Way, migrate
from tests.faults.judge import ledger_problems
from tests.faults.small import SLICE_ENTRIES, Scene
from tests.sampling import each_with_one
from tests.stores import statuses


def steps_of_commits(
    scene: Scene, way: Way, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[Call], str]:
    """All calls, and a letter for each that counts in a commit.

    ``w`` a worker writes what will be published, ``d`` it flushes some, ``S`` the file system
    is flushed, ``O`` an object gets its name, ``o`` a directory of objects is flushed, ``t``
    the staging directory, ``P`` a package gets its name, ``p`` their directory is flushed,
    ``R`` the ledger records.
    """
    letters = {
        ("worker", "write_all", "temp"): "w",
        ("worker", "create", "temp"): "w",
        ("worker", "fsync", "temp"): "d",
        ("worker", "fsync", "legacy"): "d",
        ("commit", "syncfs", ""): "S",
        ("publish", "link", "objects"): "O",
        ("publish", "rename_noreplace", "objects"): "O",
        ("commit", "fsync", "objects"): "o",
        ("commit", "fsync", "temp"): "t",
        ("commit", "rename_noreplace", "packages"): "P",
        ("commit", "fsync", "packages"): "p",
        ("commit", "record", ""): "R",
    }
    with injected(Faults(scene.path)) as faults:
        note_records(faults, monkeypatch)
        migrate(scene.path, way)
    naming = {"link", "rename_noreplace", "rename_replace", "rename_exchange"}
    for call in faults.calls:  # nothing else gives a name there
        if call.function in naming and call.place in {"objects", "packages"}:
            assert (call.stage, call.function, call.place) in letters, call
    calls = [call for call in faults.calls if "write_spill" not in call.caller]
    return calls, "".join(letters.get((c.stage, c.function, c.place), "") for c in calls)


def note_records(faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have calls of the ledger stand among those of the disk."""

    def noted(name: str, stage: str) -> None:
        original = getattr(Ledger, name)

        def call(ledger: Ledger, *arguments: Any) -> None:
            faults.calls.append(Call(name, 0, stage, "", ""))
            original(ledger, *arguments)

        monkeypatch.setattr(Ledger, name, call)

    noted("record", "commit")
    noted("record_objects", "recover")


def test_the_order_of_a_commit(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data is flushed before names point to it, names before what names them.

    The second batch holds the large package, which is made whole while the first is published.
    """
    way = Way(batch=2, slice_entries=SLICE_ENTRIES)
    _, steps = steps_of_commits(scene, way, monkeypatch)
    assert re.fullmatch("w+SO+w*SPPpRw*SO+SPPpR", steps), steps


@pytest.mark.parametrize("ingest", ["copy", "auto"])
def test_the_order_of_a_commit_without_syncfs(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, ingest: str
) -> None:
    calls, steps = steps_of_commits(scene, Way(ingest, "fsync", batch=2), monkeypatch)
    assert re.fullmatch("[wd]+dO+(w*d)*o+tPPpR(w*d)*O+o+tPPpR", steps), steps
    work = [(call.function, call.place) for call in calls if call.stage == "worker"]
    for before, step in pairwise(work):
        if step == ("rename_noreplace", "temp"):  # a copy is on the disk before it has a name
            assert before == ("fsync", "temp")
    made = work.count(("create", "temp")) + len(scene.packages)  # and the directory of each
    assert work.count(("fsync", "temp")) == made
    # a legacy file may not be on the disk yet, although it is old enough to be linked
    linked = [p for p in (scene.path / "objects").glob("*/*") if p.stat().st_nlink > 1]
    assert bool(linked) == (ingest == "auto")
    # two packages in two batches have the same bytes, and each would have its own inode linked
    assert work.count(("fsync", "legacy")) == (len(linked) + 1 if linked else 0)


class Flushes(Faults):
    """Notes which directories are flushed."""

    def __init__(self, *what: Any) -> None:
        super().__init__(*what)
        self.flushed: set[str] = set()

    def called(self, function: str, fd: object, frame: FrameType | None) -> None:
        super().called(function, fd, frame)
        if function == "fsync":
            self.flushed.add(os.readlink(f"/proc/self/fd/{fd}"))


def test_names_of_a_package_that_failed_are_flushed_before_they_have_rows(
    template: Scene, scene: Scene
) -> None:
    """Some of its objects are there, when the rest cannot be read any more."""
    way = Way("auto", "fsync", batch=1, slice_entries=SLICE_ENTRIES)
    opened = [c for c in survey(template, way) if c.function == "open_directory"]
    last = [c for c in opened if (c.stage, c.place) == ("publish", "legacy")][-1]
    faults = Flushes(scene.path, "open_directory", last.number, errno.EIO)
    with injected(faults):
        assert migrate(scene.path, way).failed == 1
    failed = [name for name, status in statuses(scene.path).items() if status == "failed"]
    assert failed == [scene.named("sliced").hash]
    assert orphans(scene)
    assert ledger_problems(scene.path) == []
    shards = {f"{scene.path}/objects/{digest[:2]}" for digest in on_disk(scene)}
    assert shards <= faults.flushed


def test_names_that_a_killed_run_left_are_flushed_before_packages_name_them(
    crash: Crasher, scene: Scene
) -> None:
    """They have rows by then, and nothing is left to be published."""
    assert crash("migrate", scene.path, COPIED, OBJECTS["flushing objects"]) == KILLED
    recover(scene, COPIED)
    faults = Flushes(scene.path)
    with injected(faults):
        assert migrate(scene.path, COPIED).completed == 4
    shards = {f"{scene.path}/objects/{digest[:2]}" for digest in on_disk(scene)}
    assert shards | {f"{scene.path}/objects"} <= faults.flushed


@pytest.mark.parametrize(
    ("row", "way"), each_with_one(["flushing objects", "flushing packages"], WAYS)
)
def test_what_a_killed_run_left_is_flushed_before_it_is_recorded(
    crash: Crasher, scene: Scene, monkeypatch: pytest.MonkeyPatch, row: str, way: str
) -> None:
    """A kill is no power cut, but one may follow: what has a row must outlast it."""
    assert crash("migrate", scene.path, WAYS[way], {**OBJECTS, **PACKAGES}[row]) == KILLED
    with injected(Faults(scene.path)) as faults:
        note_records(faults, monkeypatch)
        recover(scene, WAYS[way])
    steps = [
        c.function for c in faults.calls if c.function in {"syncfs", "record_objects", "record"}
    ]
    expected = "syncfs (record_objects )+"
    assert re.fullmatch(expected + "(record )*", " ".join(steps) + " "), steps
    assert steps.count("record") == (4 if row == "flushing packages" else 0)
