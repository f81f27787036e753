"""What a report is made of: steps, the logs, moments worth keeping, kinds, words, round numbers."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrain.app.initialising import initialise
from regrain.cli.report import foretold, plots
from regrain.cli.report.markdown import quoted
from regrain.cli.report.parts import Curve
from regrain.ledger.recounting import MIGRATED, STEP_SECONDS, Step, joined
from regrain.migrate.chronicle import Chronicle, read_chronicle
from regrain.migrate.course import PAUSE_SECONDS, Course, line
from regrain.model.events import Foreground, Progress
from regrain.model.kinds import kind_of_file
from regrain.model.wording import TEXT_MAX, moment, visible
from regrain.store.root import StoreRoot


def step(at: int, event: str, package: str = "", count: int = 1) -> Step:
    return Step(at, at, event, count, package, "")


def progress(done: int = 0, reason: str = "") -> Progress:
    return Progress(9, done, 0, 0, 100, 10, None, None, reason, Foreground(0.1, 0.2))


def test_steps_are_joined_but_not_across_what_concerns_the_store() -> None:
    late = 30 + STEP_SECONDS
    found = joined(
        [
            step(1, "initialised"),
            step(10, MIGRATED, count=3),
            step(11, "package_failed", "a"),
            step(12, MIGRATED, count=2),
            step(13, "package_failed", "b"),
            step(20, "phase"),
            step(21, "phase"),
            step(22, MIGRATED),
            step(late - 1, "legacy_removed", "a"),
            step(late + STEP_SECONDS, "legacy_removed", "b"),
        ]
    )
    assert [(one.event, one.began_at, one.ended_at, one.times) for one in found] == [
        ("initialised", 1, 1, 1),
        (MIGRATED, 10, 12, 5),
        ("package_failed", 11, 13, 2),
        ("phase", 20, 20, 1),
        ("phase", 21, 21, 1),
        (MIGRATED, 22, 22, 1),
        ("legacy_removed", late - 1, late - 1, 1),
        ("legacy_removed", late + STEP_SECONDS, late + STEP_SECONDS, 1),
    ]


def read(store: Path, *logs: tuple[str, list[bytes]], bytes_max: int = 1 << 20) -> Chronicle:
    store.mkdir()
    initialise(str(store))
    place = store / "migration" / "logs"
    place.mkdir(exist_ok=True)
    for name, lines in logs:
        (place / name).write_bytes(b"\n".join(lines))
    return read_chronicle(StoreRoot(str(store)), bytes_max)


def raw(at: int, event: str, **fields: object) -> bytes:
    return json.dumps({"at": at, "event": event, "pid": 7, **fields}).encode()


def sample(at: int, reason: str = "", seconds: float | None = None) -> bytes:
    return raw(at, "Progress", throttle_reason=reason, read_seconds=seconds)


def test_logs_tell_of_runs_and_brakes(workplace: Path) -> None:
    found = read(
        workplace / "store",
        (
            "2026-01-01.jsonl",
            [
                sample(100),
                sample(102, "I/O pressure 9.1 %, over 5 % (io_pressure_max)"),
                raw(103, "Remark", text="waiting"),
                sample(105, "I/O pressure 8.0 %, over 5 % (io_pressure_max)", 0.5),
                raw(106, "PackageCompleted", package_hash="a", another=[1]),
                sample(110, "too little space: 1 KiB"),
                sample(111),
            ],
        ),
        ("2026-01-02.jsonl", [raw(100 + 3 * 86_400, "PackageFailed")]),
    )
    assert found.throttled == {"io_pressure_max": 8, "too little space": 1}
    assert [(run.began_at, run.ended_at, run.throttled_seconds) for run in found.runs] == [
        (100, 111, 9),
        (100 + 3 * 86_400, 100 + 3 * 86_400, 0),
    ]
    assert found.runs[0].events["PackageCompleted"] == 1
    assert [one.read_seconds for one in found.samples] == [None, None, 0.5, None, None]
    assert [one.text for one in found.remarks] == ["waiting"]
    assert (found.unreadable, found.left_out) == (0, 0)


def test_logs_that_cannot_be_read_are_counted(workplace: Path) -> None:
    store = workplace / "store"
    lines = [b"", b"{", b"\xff\xfe", b'{"at":"x","event":1}', b"[]", raw(1, "Remark", text="a")]
    found = read(store, ("2026-01-02.jsonl", lines))
    assert found.unreadable == 4
    assert len(found.runs) == 1
    logs = store / "migration" / "logs"
    os.mkfifo(logs / "2026-01-03.jsonl")
    (logs / "2026-01-04.jsonl").symlink_to("2026-01-02.jsonl")
    (logs / "other").write_bytes(raw(1, "Remark"))
    (logs / "2026-01-01.jsonl").write_bytes(raw(0, "Remark", text="old" * 400))
    root = StoreRoot(str(store))
    assert [one.text[:3] for one in read_chronicle(root).remarks] == ["old", "a"]
    found = read_chronicle(root, 1000)
    assert [one.text[:3] for one in found.remarks] == ["a"]
    assert found.left_out == (logs / "2026-01-01.jsonl").stat().st_size


def test_a_course_is_kept_from_time_to_time() -> None:
    course = Course()
    assert course.is_due(progress(), 50.0)
    assert not course.is_due(progress(), 50.0 + PAUSE_SECONDS / 2)
    assert course.is_due(progress(reason="held"), 50.5)
    assert not course.is_due(progress(reason="held, otherwise"), 50.6)
    assert course.is_due(progress(), 50.7)
    assert course.is_due(progress(9), 50.8)
    assert course.is_due(progress(), 1050.0)
    assert not course.is_due(progress(), 1050.0 + 9)
    assert course.is_due(progress(), 1050.0 + 11)
    hours = Course()
    lines = sum(hours.is_due(progress(), second / 2) for second in range(2 * 3600))
    assert 250 < lines < 500
    pauses = Course()
    reasons = ("between batches", "")
    lines = sum(pauses.is_due(progress(reason=reasons[at % 2]), at / 10) for at in range(36_000))
    assert lines < 5000, "an hour of pauses between batches do not fill the logs"
    assert line(progress())["read_seconds"] == 0.2


@pytest.mark.parametrize(
    ("path", "mode", "kind"),
    [
        (b"opt/pm/live/bin/jq", 0o755, "programs"),
        (b"opt/pm/live/lib/libz.so.1.2", 0o644, "libraries"),
        (b"lib/a.PY", 0o755, "Python"),
        (b"py", 0o644, "other"),
        (b"x/LICENSE.txt", 0o644, "licences and notices"),
        (b"manifest.toml", 0o644, "package metadata"),
        (b"share/man/man1/jq.1.gz", 0o644, "manual pages"),
        (b"share/jq.gz", 0o644, "archives"),
        (b"\xff\xfe", 0o644, "other"),
    ],
)
def test_kinds(path: bytes, mode: int, kind: str) -> None:
    assert kind_of_file(path, mode) == kind


@given(st.text(st.characters(exclude_categories=[])) | st.binary())
def test_what_is_shown_can_be_seen(text: str | bytes) -> None:
    found = visible(text)
    unseen = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    assert not [char for char in found if unicodedata.category(char) in unseen]
    found.encode()
    assert len(found) <= TEXT_MAX * 10 + 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("[a](javascript:b)", "\\[a\\](javascript:b)"),
        ("<b>&amp;", "&lt;b&gt;&amp;amp;"),
        ("a|b`c`\\|", "a\\|b\\`c\\`\\\\\\|"),
        ("https://a www.b c@d", "https&#58;//a www&#46;b c&#64;d"),
    ],
)
def test_markdown_is_quoted(text: str, shown: str) -> None:
    assert quoted(text) == shown


def test_prediction_stands_beside_outcome() -> None:
    found = {
        "made_at": 0,
        "packages": 3,
        "allocated_bytes": 8192,
        "ingest": "auto",
        "compression": "<none>",
        "saved_bytes": 2048,
        "saved_bytes_low": 1024,
        "saved_bytes_high": 4096,
        "seconds": [20.0, 70.0],
        "outcome_saved_bytes": 3072,
        "within_margin": True,
        "outcome_seconds": 34.2,
    }
    (table,) = foretold.tables({"prediction": found})
    told = {row[0]: row[1] for row in table.rows}
    assert told["predicted to be saved"] == (
        "2.0 KiB (25.0%): from 1.0 KiB (12.5%) to 4.0 KiB (50.0%)"
    )
    assert (told["saved"], told["within the margin"]) == ("3.0 KiB (37.5%)", "yes")
    assert told["predicted to take"] == "20 s to 1 min 10 s"
    assert told["took, pauses left out"] == "34 s"
    early = found | dict.fromkeys(("outcome_saved_bytes", "within_margin", "outcome_seconds"))
    (table,) = foretold.tables({"prediction": early})
    assert ("within the margin", "not known yet") in table.rows
    assert table.rows[-1] == ("took, pauses left out", "not known yet")
    (table,) = foretold.tables({"prediction": {**found, "seconds": None}})
    assert table.rows[-1] == ("within the margin", "yes")
    assert foretold.tables({"prediction": None}) == foretold.tables({}) == []


def test_moments_no_calendar_has() -> None:
    assert moment(0) == "1970-01-01 00:00:00"
    assert moment(None) == "-"
    assert moment(1 << 62).endswith(" s")


@given(
    st.lists(st.tuples(st.floats(0, 1e10), st.floats(0, 1e15)), min_size=1),
    st.sampled_from(["packages", "seconds", "bytes a second"]),
)
def test_a_curve_stays_in_its_frame(points: list[tuple[float, float]], unit: str) -> None:
    drawn = plots.curve(Curve("t", "s", sorted(points), unit, level=points[0][1]))
    line = drawn.split('class="line" d="')[1].split('"')[0]
    numbers = [float(n) for n in line.replace("M", " ").replace("L", " ").split()]
    assert all(0 <= x <= 1000 for x in numbers[::2])
    assert all(0 <= y <= 100 for y in numbers[1::2])
