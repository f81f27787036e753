"""What a run counts for monitoring, and what becomes of it in the snapshot."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest

from regrain.errors import HaltedError, LockedError, NoSpaceError, RefusedError, RegrainError
from regrain.migrate.journal import Journal, read_snapshot
from regrain.migrate.probe import READS_A_WINDOW, Windows
from regrain.migrate.tally import ERROR_KINDS, Figures, Tally, read_figures
from regrain.model.events import (
    BatchCommitted,
    Event,
    LegacyKept,
    ObjectDamaged,
    PackageFailed,
    PackageGivenUp,
    Progress,
    Reconciled,
    Triggered,
)
from regrain.model.histogram import BOUNDS, NO_TIMES, Histogram
from regrain.store.root import StoreRoot
from tests.command import Regrain


def test_times_fall_into_their_class() -> None:
    assert list(BOUNDS) == sorted(set(BOUNDS))
    found = NO_TIMES.plus([0.0, BOUNDS[0], 0.003, BOUNDS[-1], BOUNDS[-1] * 2])
    classes = {place: count for place, count in enumerate(found.counts) if count}
    assert classes == {0: 2, BOUNDS.index(0.005): 1, len(BOUNDS) - 1: 1, len(BOUNDS): 1}
    assert found.seconds == pytest.approx(BOUNDS[0] + 0.003 + 3 * BOUNDS[-1])
    assert sum(NO_TIMES.counts) == 0


def test_batches_and_flushes() -> None:
    tally = Tally()
    tally(BatchCommitted(10, 0.2, (0.01, 0.02)))
    tally(BatchCommitted(10, 0.4, ()))
    assert tally.figures.batches == NO_TIMES.plus([0.2, 0.4])
    assert tally.figures.syncs == NO_TIMES.plus([0.01, 0.02])


ERRORS: dict[str, tuple[Event, int]] = {
    "package_failed": (PackageFailed("ab", "", "", "", None), 1),
    "object_damaged": (ObjectDamaged("ab", ""), 1),
    "legacy_kept": (LegacyKept("ab", "", in_doubt=True), 1),
    "triggered": (Triggered("integrity", "", "pause"), 1),
    "legacy_vanished": (Reconciled((), (), ("a", "b"), ()), 2),
    "legacy_changed": (Reconciled(("new",), (), (), (("a", "size"),)), 1),
    "legacy_unreadable": (Reconciled((), (), (), (), (("a", "EIO"),)), 1),
}


@pytest.mark.parametrize("kind", ERRORS)
def test_errors_by_kind(kind: str) -> None:
    tally = Tally()
    event, count = ERRORS[kind]
    tally(event)
    assert tally.figures.errors == {kind: count}
    tally(event)
    assert tally.figures.errors == {kind: 2 * count}


def test_what_is_no_error() -> None:
    tally = Tally()
    for event in (
        PackageGivenUp("ab", "stopped"),
        LegacyKept("ab", "somebody has it open", in_doubt=False),
        Triggered("integrity", "", "pause", before=True),
        Reconciled(("new",), (("b", "changing"),), (), ()),
    ):
        tally(event)
    assert tally.figures == Figures()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (NoSpaceError("x"), "no_space"),
        (HaltedError("x"), "halted"),
        (LockedError("x"), "locked"),
        (RefusedError("x"), "other"),
        (RegrainError("x"), "other"),
    ],
)
def test_what_ends_a_run_is_an_error(error: RegrainError, kind: str) -> None:
    tally = Tally()
    tally.ended_by(error)
    assert tally.figures.errors == {kind: 1}


def test_every_kind_is_known() -> None:
    assert set(ERRORS) | {"no_space", "halted", "locked", "other"} == set(ERROR_KINDS)


def test_the_snapshot_tells_it_again() -> None:
    tally = Tally()
    tally(BatchCommitted(1, 0.2, (0.01,)))
    tally(ERRORS["legacy_vanished"][0])
    snapshot = json.loads(json.dumps({"figures": tally.document()}))
    assert read_figures(snapshot) == tally.figures
    assert set(snapshot["figures"]) == {field.name for field in fields(Figures)}


OTHERS = {
    "none": {},
    "of another form": {"figures": [1]},
    "of other kinds": {"figures": {"errors": {"halted": "many"}}},
    "of other classes": {"figures": {"batches": asdict(Histogram((1, 2), 1.0))}},
}


@pytest.mark.parametrize("snapshot", OTHERS.values(), ids=OTHERS)
def test_a_snapshot_of_another_version_tells_nothing(snapshot: dict[str, object]) -> None:
    assert read_figures(snapshot) == Figures()


def test_reads_beside_a_run_are_counted_window_by_window() -> None:
    windows = Windows(0.001)
    for _ in range(READS_A_WINDOW - 1):
        windows.take(0.002)
    assert windows.found.reads == NO_TIMES
    windows.take(0.02)
    for _ in range(READS_A_WINDOW):
        windows.take(0.002)
    expected = NO_TIMES.plus([0.002] * (2 * READS_A_WINDOW - 1) + [0.02])
    assert windows.found.reads.counts == expected.counts
    assert windows.found.reads.seconds == pytest.approx(expected.seconds)


@pytest.mark.parametrize("error", [None, HaltedError("the disk failed")], ids=repr)
def test_the_last_snapshot_of_a_run_tells_all(store_path: Path, error: HaltedError | None) -> None:
    """Snapshots are written twice a second at the most, but for the last."""
    store_path.mkdir()
    Regrain(store_path)("init")
    root = StoreRoot(str(store_path))
    journal = Journal(root, clock_=lambda: 0.0)
    progress = Progress(3, 0, 0, 0, 10, 0, None, None)
    journal(progress)
    assert read_figures(read_snapshot(root)) == Figures()
    journal(BatchCommitted(1, 0.5, (0.1,)))
    journal(replace(progress, packages_done=1))
    assert read_snapshot(root)["packages_done"] == 0
    journal.end(error)
    assert read_snapshot(root)["packages_done"] == 1
    found = read_figures(read_snapshot(root))
    assert found.batches == NO_TIMES.plus([0.5])
    assert found.errors == ({} if error is None else {"halted": 1})


def test_a_run_that_told_nothing_has_no_last_snapshot(store_path: Path) -> None:
    store_path.mkdir()
    Regrain(store_path)("init")
    root = StoreRoot(str(store_path))
    Journal(root).end(HaltedError("x"))
    assert read_snapshot(root) == {}
