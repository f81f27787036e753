"""What the page is made of, without a browser: packages by pages, the end of logs, the gate."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from regrain.app.account import Matters
from regrain.app.health import Health
from regrain.app.readiness import readiness
from regrain.app.standing import State
from regrain.ledger import Scanned, Totals, open_ledger
from regrain.ledger.browsing import Kind, Leaf, browse
from regrain.migrate.chronicle import Sample
from regrain.migrate.log_tail import LogTail
from regrain.migrate.logbook import Logbook
from regrain.model.issue import Issue
from regrain.model.phase import Phase
from regrain.model.status import Status
from regrain.store.root import StoreRoot
from regrain.web.page.course import in_rows, merged
from regrain.web.page.markup import join, tag
from regrain.web.page.packages import Wanted, wanted
from tests.command import Regrain


def name_of(number: int) -> str:
    return f"{number:02x}" * 32


@pytest.fixture
def store(regrain: Regrain, store_path: Path) -> StoreRoot:
    store_path.mkdir()
    regrain("init")
    return StoreRoot(str(store_path))


def ask(store: StoreRoot, kind: Kind = Kind.ALL, text: str = "", first: int = 0) -> Leaf:
    ledger = open_ledger(store.path, read_only=True)
    try:
        return browse(ledger, kind=kind, text=text, first=first, rows_max=3)
    finally:
        ledger.close()


def fill(store: StoreRoot) -> None:
    """Ten packages: one damaged, two failed, one set aside, one in progress, five pending."""
    ledger = open_ledger(store.path)
    names = ["zeta", "100%", "ALPHA", "beta", "a_b", "axb", "gamma", "gamma", "gamma", "gamma"]
    ledger.queue(
        Scanned(name_of(number), name, f"1.{number}", 1, 1, 10 + number, 4096)
        for number, name in enumerate(names)
    )
    claimed = [claim.package_hash for claim in ledger.claim(3)]
    assert claimed == [name_of(0), name_of(1), name_of(2)]
    ledger.fail(name_of(0), "a fifo", b"x\xff")
    ledger.fail(name_of(1), "no right to read", None)
    ledger.concern(name_of(3), "damaged: rot")
    ledger.exclude(name_of(4))
    ledger.close()


def test_what_needs_somebody_comes_first(store: StoreRoot) -> None:
    fill(store)
    found = [ask(store, first=first) for first in (0, 3, 6, 9, 12)]
    assert [leaf.total for leaf in found] == [10] * 5
    rows = [row for leaf in found for row in leaf.rows]
    assert [row.package_hash for row in rows][:4] == [name_of(n) for n in (3, 1, 0, 2)]
    assert [row.name for row in rows][4:] == ["axb", "gamma", "gamma", "gamma", "gamma", "a_b"]
    assert rows[0].why == "damaged: rot"
    assert (rows[2].why, rows[2].path) == ("a fifo", b"x\xff")
    kinds = {kind: ask(store, kind).total for kind in Kind if kind}
    assert kinds == {**Counter(row.kind for row in rows), Kind.MIGRATED: 0, Kind.ADDED: 0}


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("alpha", [2]),
        ("100%", [1]),
        ("%", [1]),
        ("a_b", [4]),
        ("ZETA 1.0", [0]),
        (name_of(7)[:8].upper(), [7]),
        ("FIFO", [0]),
        ("rot", [3]),
        ("' OR 1=1 --", []),
    ],
)
def test_search(store: StoreRoot, text: str, numbers: list[int]) -> None:
    fill(store)
    assert [row.package_hash for row in ask(store, text=text).rows] == [
        name_of(number) for number in numbers
    ]


def test_queries_that_make_no_sense_ask_for_nothing() -> None:
    assert wanted({}) == Wanted()
    for page in ("0", "-1", "x", "1e9", "9" * 30, "²", ""):
        assert wanted({"page": page, "kind": "none", "q": " "}) == Wanted()
    assert wanted({"page": "7", "kind": "failed", "q": " a "}) == Wanted(Kind.FAILED, "a", 7)
    assert wanted({"q": "&kind=x#y"}).address(2) == "/?q=%26kind%3Dx%23y&page=2#packages"


def test_markup_is_escaped_by_construction() -> None:
    evil = "<b onclick='x'>&\"\u202e\x00"
    assert tag("p", evil, title='"><i>') == (
        '<p title="&quot;&gt;&lt;i&gt;">&lt;b onclick=&#x27;x&#x27;&gt;&amp;&quot;\\u202e\\x00</p>'
    )
    assert tag("p", tag("b", "x"), None, hidden=True, class_=None) == "<p hidden><b>x</b></p>"
    assert join("<", str(tag("b", "x"))) == "&lt;&lt;b&gt;x&lt;/b&gt;", "text is never markup"


def test_the_end_of_logs(store: StoreRoot) -> None:
    logs = Path(store.path) / "migration/logs"
    tail = LogTail(100)
    assert tail.lines(store) == []
    logs.mkdir(exist_ok=True)
    lines = [json.dumps({"at": at, "event": "Remark"}).encode() for at in range(1000, 1010)]
    (logs / "2026-01-01.jsonl").write_bytes(b"\n".join(lines[:8]) + b"\n")
    (logs / "2026-01-02.jsonl").write_bytes(lines[8] + b"\n" + lines[9])
    found = tail.lines(store)
    assert found == lines[7:9], "the last is not whole, the first ones are too many"
    assert tail.lines(store) is found, "nothing was read again"
    with (logs / "2026-01-02.jsonl").open("ab") as log:
        log.write(b"\n")
    assert tail.lines(store)[-1] == lines[9]
    (logs / "2026-01-03.jsonl").symlink_to("/etc/passwd")
    assert tail.lines(store)[-1] == lines[9]


@pytest.mark.parametrize("bytes_max", [60, 1000])
def test_the_end_of_logs_that_were_put_away(store: StoreRoot, bytes_max: int) -> None:
    """As after a cleanup: what they tell is over, and still what happened last."""
    book = Logbook(store)
    lines = [json.dumps({"at": at, "event": "Remark"}).encode() for at in range(1000, 1010)]
    for line in lines[:5]:
        book.append(line + b"\n")
    book.put_away()
    tail = LogTail(bytes_max)
    assert tail.lines(store) == lines[4 if bytes_max == 60 else 0 : 5]
    for line in lines[5:6]:
        book.append(line + b"\n")
    assert tail.lines(store) == lines[5 if bytes_max == 60 else 0 : 6]
    for path in (Path(store.path) / "migration/logs").glob("*.zst"):
        path.write_bytes(b"no frame")
    assert LogTail(bytes_max).lines(store) == lines[5:6]


def sample(at: int, pid: int = 1) -> Sample:
    return Sample(at, pid, 0, 5.0, "", None, None)


def test_points_are_told_once_and_lines_end_where_nothing_is_known() -> None:
    points = merged([sample(1), sample(2), sample(50, 2)], [sample(2), sample(3)])
    assert [point.at for point in points] == [1, 2, 3, 50]
    assert [row[:2] for row in in_rows(points, 0)] == [
        [1, 5.0],
        [2, 5.0],
        [3, 5.0],
        [26.5, None],
        [50, 5.0],
    ]
    assert [row[0] for row in in_rows(points, 3)] == [26.5, 50]
    assert in_rows(points, 50) == []


TOTALS = Totals({Status.COMPLETED: 3}, 3, 3, 0, 3, 3, 3, 0, 3, 3)


def gate(state: State, health: Health | None = None) -> dict[str, bool | None]:
    return {check.name: check.is_met for check in readiness(state, health or Health())}


def test_the_gate_as_a_list() -> None:
    assert gate(State(Phase.DUAL, TOTALS, "", {})) == {
        "packages": True,
        "reconciliation": None,
        "integrity": True,
        "verification": True,
        "backup": False,
        "health": True,
        "comparison": None,
    }
    left = Totals({Status.COMPLETED: 1, Status.PENDING: 2}, 3, 3, 0, 3, 3, 3, 0, 3, 3)
    assert not gate(State(Phase.DUAL, left, "", {}))["packages"]
    for matters, name in (
        (Matters(failed=1), "packages"),
        (Matters(unqueued=1), "reconciliation"),
        (Matters(unverified=1), "verification"),
    ):
        assert gate(State(Phase.DUAL, TOTALS, "", {}, matters))[name] is False
    health = Health()
    health.add(Issue("free_bytes", "critical", 1, 2, "full", "free some"))
    assert gate(State(Phase.DUAL, TOTALS, "", {}), health)["health"] is False
