"""What health remembers: rules that fired stand for a while, by a clock that the test sets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from regrain.app.health import HELD_SECONDS_MAX, Facts, Room, judge
from regrain.app.lasting import CLEAR_SECONDS, Memory, Standstill
from regrain.ledger import Concern
from regrain.model.events import Foreground, Progress

GIB = 1 << 30
FINE = Facts({}, 0, 100, 0.05, Room(100 * GIB, GIB, 10**6, 1000), 100, Foreground(0.1, 0.1, 0.1))


def reads(steady: float) -> dict[str, Any]:
    return {"foreground": Foreground(0.1, steady, steady)}


# Of each rule: beyond its bar; past that, not past the lower one; past both.
SWAYING: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "error_rate": ({"failed": 6}, {"failed": 5}, {"failed": 4}),
    "packages_an_hour": (
        {"packages_last_hour": 9},
        {"packages_last_hour": 12},
        {"packages_last_hour": 13},
    ),
    "foreground_reads": (reads(0.123), reads(0.119), reads(0.116)),
    "free_bytes": (
        {"room": replace(FINE.room, free_bytes=GIB - 1)},
        {"room": replace(FINE.room, free_bytes=GIB * 5 // 4 - 1)},
        {"room": replace(FINE.room, free_bytes=GIB * 5 // 4)},
    ),
    "free_inodes": (
        {"room": replace(FINE.room, free_inodes=999)},
        {"room": replace(FINE.room, free_inodes=1249)},
        {"room": replace(FINE.room, free_inodes=1250)},
    ),
}


class Remembered:
    """A memory, and its clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.memory = Memory(lambda: self.now)

    def rules(self, **changes: Any) -> list[str]:
        """The rules that stand after a look at these facts."""
        return [issue.rule for issue in judge(self.memory.after(replace(FINE, **changes))).details]


@pytest.fixture
def remembered() -> Remembered:
    return Remembered()


@pytest.mark.parametrize("rule", SWAYING)
def test_a_rule_that_fired_clears_past_a_lower_bar_and_after_a_time(
    remembered: Remembered, rule: str
) -> None:
    beyond, between, clear = SWAYING[rule]
    assert remembered.rules(**between) == []  # it did not fire yet
    assert remembered.rules(**beyond) == [rule]
    for _ in range(5):
        remembered.now += 10 * CLEAR_SECONDS
        assert remembered.rules(**between) == [rule], "the lower bar was not passed"
    remembered.now += CLEAR_SECONDS - 1
    assert remembered.rules(**clear) == [rule], "it was not past it for long enough"
    remembered.now += 1
    assert remembered.rules(**clear) == []
    assert remembered.rules(**between) == [], "it is clear, so the upper bar counts again"


def test_the_time_begins_anew_when_it_is_not_past_the_lower_bar(remembered: Remembered) -> None:
    beyond, between, clear = SWAYING["error_rate"]
    remembered.rules(**beyond)
    for step in (clear, between, clear, beyond, clear):
        remembered.now += CLEAR_SECONDS - 1
        assert remembered.rules(**step) == ["error_rate"]
    remembered.now += 1
    assert remembered.rules(**clear) == []


def test_what_stands_says_so_with_its_advice(remembered: Remembered) -> None:
    remembered.rules(failed=6)
    (issue,) = judge(remembered.memory.after(FINE)).details
    assert (
        issue.reason == "6 of 100 packages failed (6%, 5% is tolerated); that was so a moment ago"
    )
    assert issue.advice
    assert judge(remembered.memory.after(FINE)).status == "warning"


def test_what_is_tolerated_stays_what_it_is(remembered: Remembered) -> None:
    """The lower bar clears a rule that fired, and is told as what it is."""
    for failed, limit, words in (
        (6, 0.05, "(6%, 5% is tolerated)"),
        (7, 0.05, "(7%, 5% is tolerated)"),
        (5, 0.04, "(5%, 4% is tolerated) (it was past its limit; this bar clears it)"),
    ):
        facts = remembered.memory.after(replace(FINE, failed=failed))
        (issue,) = judge(facts).details
        assert issue.threshold == pytest.approx(limit)
        assert issue.reason == f"{failed} of 100 packages failed {words}"


def test_facts_do_not_sway(remembered: Remembered) -> None:
    """What stands against a package is gone when ``verify`` has taken it back, and no sooner."""
    damaged = {"a" * 64: Concern("damaged", 1)}
    assert remembered.rules(concerns=damaged, trouble="not JSON") == ["integrity", "control"]
    remembered.now += 10 * CLEAR_SECONDS
    assert remembered.rules(concerns=damaged) == ["integrity"]
    assert remembered.rules() == []


def test_what_a_run_remembers_is_heeded_and_not_kept(remembered: Remembered) -> None:
    """The run tells it with its progress; whoever looks at that has it from there."""
    run = Remembered()
    standing = run.memory.after(replace(FINE, failed=6)).standing
    assert [issue.rule for issue in judge(replace(FINE, standing=standing)).details] == [
        "error_rate"
    ]
    assert remembered.rules(standing=standing) == ["error_rate"]
    assert remembered.rules(standing=standing, failed=5) == ["error_rate"]
    remembered.now += CLEAR_SECONDS
    assert remembered.rules() == []


# held without a package


def progress(done: int = 0, *, held: bool = True) -> Progress:
    return Progress(9, done, 0, 0, 100, 10, None, None, "I/O pressure" if held else "", held=held)


def test_a_run_that_is_held_without_a_package_says_so() -> None:
    now = 0.0
    still = Standstill(lambda: now)
    now = 400.0
    assert still.seconds(progress(held=False), is_paused=False) == 0
    now = 800.0
    assert still.seconds(progress(), is_paused=False) == 400
    now = 5000.0
    assert still.seconds(progress(), is_paused=True) == 400, "a pause is what somebody wanted"
    now = 5200.0
    found = still.seconds(progress(), is_paused=False)
    assert found == HELD_SECONDS_MAX
    (issue,) = judge(replace(FINE, held_seconds=found, held_by="I/O pressure 50 %")).details
    assert (issue.rule, issue.severity) == ("held", "warning")
    assert "no package was done in 10 minutes" in issue.reason
    assert "I/O pressure 50 %" in issue.reason
    now = 5300.0
    assert still.seconds(progress(1), is_paused=False) == 0
    now = 5301.0
    assert still.seconds(progress(1), is_paused=False) == 1
