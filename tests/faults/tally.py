"""Counts injected faults: what fired, in which command, how it ended.

With ``REGRAIN_TALLY`` set to a file, every fault that fired is one line of JSON there, appended in
one write, so that several processes may count, and so is how each test ended: a fault counts only
if its test passed. ``tests.faults.table`` makes a table of it.
"""

from __future__ import annotations

import json
import os
from typing import Any

VARIABLE = "REGRAIN_TALLY"
ENDINGS = {
    "ok": "went on",
    "S": "pending again",
    "C": "completed by the next run",
    "F": "one package failed",
    "P": "no space, resumable",
    "H": "halted",
    "E": "refused or reported",
    "Q": "quarantined or reported as damage",
    "K": "deletion refused",
    "T": "old or new, never a mix",
    "killed": "recovered",
    "": "judged by its test",
}
"""What the outcomes mean; a fault that ended otherwise has failed its test."""


def count(command: str, fault: str, outcome: str = "", times: int = 1) -> None:
    """Take note of a fault that fired.

    Args:
        command: Which command met it.
        fault: What it was: an errno's name, ``SIGKILL``, ``power cut`` ...
        outcome: How it ended: one of ``ENDINGS``.
        times: So many of them.
    """
    assert outcome in ENDINGS, outcome
    if times:
        _write(
            {
                "command": command,
                "fault": fault,
                "outcome": outcome,
                "times": times,
                "test": os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0],
            }
        )


def ended(test: str, *, passed: bool) -> None:
    """Take note of how a test ended: its faults did no harm only if it passed."""
    _write({"test": test, "passed": passed})


def _write(line: dict[str, Any]) -> None:
    place = os.environ.get(VARIABLE)
    if not place:
        return
    fd = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(fd, json.dumps(line).encode() + b"\n")
    finally:
        os.close(fd)


def command_of_test() -> str:
    """Tell which command a test is about that does not say so itself: by its file and case."""
    test = os.environ.get("PYTEST_CURRENT_TEST", "").partition(" ")[0]
    file, _, case = test.rpartition("/")[2].partition("::")
    command = next((known for word, known in _BY_FILE.items() if word in file), "migrate")
    named = [name for name in _BY_CASE.get(command, ()) if name in case]
    found = max(named, key=len) if named else command
    return _IN_OTHER_WORDS.get(found, found)


_BY_FILE = {
    "keeping": "keeping",
    "undoing": "undoing",
    "backup": "backup",
    "repair": "repair",
    "repack": "repack",
    "cutover": "cutover",
}
_BY_CASE = {
    "keeping": ("add", "remove", "exclude", "collect"),
    "undoing": ("cleanup", "rollback", "purge", "forward", "roll_one_back", "in_place"),
    "backup": ("restore",),
}
_IN_OTHER_WORDS = {
    "collect": "gc",
    "forward": "migrate after rollback",
    "in_place": "migrate in place",
    "purge": "rollback --purge",
    "roll_one_back": "rollback of one",
}
