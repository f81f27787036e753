"""Every rule of health, at its threshold and beyond."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from regrain.app.health import Facts, Room, judge
from regrain.app.triggers import HourOfWork
from regrain.ledger import Concern
from regrain.model.events import Foreground

FINE = Facts(
    concerns={},
    failed=1,
    tried=20,
    error_rate_max=0.05,
    room=Room(1 << 30, 1 << 30, 1000, 1000),
    packages_last_hour=10,
    foreground=Foreground(0.010, 0.013, 0.013),
    held_seconds=599.9,
)
RULES: dict[str, tuple[dict[str, Any], str, str]] = {
    "integrity": ({"concerns": {"a" * 64: Concern("damaged", 1)}}, "critical", "damaged"),
    "error_rate": ({"failed": 2}, "warning", "2 of 20 packages failed (10%, 5% is tolerated)"),
    "packages_an_hour": ({"packages_last_hour": 9}, "warning", "9 packages"),
    "foreground_reads": (
        {"foreground": Foreground(0.010, 0.0140, 0.0131)},
        "warning",
        "a small read takes 14.0 ms, 1.4 times",
    ),
    "held": (
        {"held_seconds": 720.0, "held_by": "I/O pressure 50 %"},
        "warning",
        "no package was done in 12 minutes in which the run was held: I/O pressure 50 %",
    ),
    "control": ({"trouble": "not JSON"}, "warning", "not JSON"),
    "free_bytes": (
        {"room": replace(FINE.room, free_bytes=(1 << 30) - 1)},
        "critical",
        "1073741823 bytes are free, under 1073741824",
    ),
    "free_inodes": (
        {"room": replace(FINE.room, free_inodes=999)},
        "critical",
        "999 inodes are free, under 1000",
    ),
}


def test_at_the_thresholds_all_is_well() -> None:
    found = judge(FINE)
    assert (found.status, found.issues) == ("healthy", [])


def test_a_rate_just_over_its_limit_is_not_told_as_the_limit() -> None:
    (issue,) = judge(replace(FINE, failed=2, tried=39)).details
    assert issue.reason == "2 of 39 packages failed (5.13%, 5% is tolerated)"


@pytest.mark.parametrize("rule", RULES)
def test_each_rule(rule: str) -> None:
    changes, severity, words = RULES[rule]
    found = judge(replace(FINE, **changes))
    (issue,) = found.details
    assert (found.status, issue.rule) == (severity, rule)
    assert found.issues == [issue.reason]
    assert words in issue.reason
    assert issue.figure != issue.threshold
    assert issue.advice


def test_the_worst_counts_and_all_are_told() -> None:
    changes = {key: value for facts, *_ in RULES.values() for key, value in facts.items()}
    found = judge(replace(FINE, **changes))
    assert found.status == "critical"
    assert {issue.rule for issue in found.details} == RULES.keys() - {"free_bytes"}


def test_what_is_not_known_is_no_issue() -> None:
    unknown = replace(
        FINE,
        failed=19,
        tried=19,
        packages_last_hour=None,
        foreground=Foreground(0.010, 9.0),
        room=replace(FINE.room, free_inodes=None),
    )
    assert judge(unknown).status == "healthy"


def test_an_hour_of_work_leaves_out_what_was_held_back() -> None:
    now = 0.0
    hour = HourOfWork(lambda: now)
    for _ in range(7):
        hour.package()
    now = 3000.0
    assert hour.packages(throttled=False) is None
    now = 90_000.0
    assert hour.packages(throttled=True) is None
    hour.package()
    now += 600.0
    assert hour.packages(throttled=False) == 1  # the seven were done at its very beginning
    now += 1.0
    hour.package()
    assert hour.packages(throttled=False) == 2
    now += 3598.0
    assert hour.packages(throttled=False) == 1
