"""Makes the table of a test run's faults: ``python -m tests.faults.table TALLY [FILE]``.

Given a Markdown file, what stands in it between the two markers is replaced; else it is printed.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections import Counter, defaultdict
from datetime import UTC, datetime
from pathlib import Path

from tests.faults.tally import ENDINGS

BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"


def table(lines: list[str]) -> str:
    """Return the table of what a tally says, as Markdown."""
    by_command: dict[str, Counter[str]] = defaultdict(Counter)
    endings: dict[str, Counter[str]] = defaultdict(Counter)
    kinds: Counter[str] = Counter()
    told = [json.loads(line) for line in lines]
    passed = {line["test"] for line in told if line.get("passed")}
    passed -= {line["test"] for line in told if line.get("passed") is False}
    faults = [line for line in told if "fault" in line]
    doubtful = sum(fault["times"] for fault in faults if fault["test"] not in passed)
    for fault in faults:
        if fault["test"] not in passed:
            continue
        by_command[fault["command"]][fault["fault"]] += fault["times"]
        endings[fault["command"]][fault["outcome"]] += fault["times"]
        kinds[fault["fault"]] += fault["times"]
    total = sum(kinds.values())
    rows = [
        f"{total:,} faults fired in tests that passed, {doubtful:,} in others; {_machine()}.",
        "",
        "| command | faults | how it ended |",
        "| --- | ---: | --- |",
    ]
    for command in sorted(by_command):
        ended = ", ".join(
            f"{ENDINGS[letter]} {number:,}" for letter, number in endings[command].most_common()
        )
        rows.append(f"| {command} | {sum(by_command[command].values()):,} | {ended} |")
    rows += ["", "| fault | fired |", "| --- | ---: |"]
    rows += [f"| {kind} | {number:,} |" for kind, number in sorted(kinds.items())]
    return "\n".join(rows) + "\n"


def _machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    today = datetime.now(UTC).date().isoformat()
    return (
        f"{today}, Linux {platform.release()}, {platform.machine()}, {os.cpu_count()} cores, "
        f"{memory:.0f} GiB, Python {platform.python_version()}"
    )


def replaced(page: str, made: str) -> str:
    """Return a page with the table in its place."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{made}\n{END}{tail}"


def main() -> None:
    """Make the table of the tally that is named."""
    tally, *page = map(Path, sys.argv[1:])
    made = table(tally.read_text().splitlines() if tally.exists() else [])
    if page:
        page[0].write_text(replaced(page[0].read_text(), made))
    else:
        print(made)  # noqa: T201 -- what was asked for


if __name__ == "__main__":
    main()
