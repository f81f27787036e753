"""What was measured: one JSON document, saved after every turn.

An interrupted run leaves all it had measured. Tables and plots are made from the document
alone, so they can be made anew at any time.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SCHEMA = 1
NAME = "results.json"

Step = dict[str, Any]
Round = dict[str, Step]


@dataclass(slots=True)
class Results:
    """The document, and where it is kept.

    Attributes:
        directory: Holds the document, the tables and the plots.
        document: What is in it so far.
    """

    directory: Path
    document: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def begin(cls, directory: Path, command: str) -> Results:
        """Start a new document; the one of the last run is kept beside it."""
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / NAME
        if path.exists():
            path.replace(directory / f"last-{NAME}")
        made = cls(
            directory,
            {
                "schema": SCHEMA,
                "command": command,
                "machine": machine(),
                "tools": {},
                "parts": {},
                "micro": [],
                "scaling": [],
                "problems": [],
                "complete": False,
            },
        )
        made.save()
        return made

    @classmethod
    def load(cls, directory: Path) -> Results:
        """Read what a run has left."""
        return cls(directory, json.loads((directory / NAME).read_text(encoding="utf-8")))

    def save(self) -> None:
        """Write the document; it is there in whole or not at all."""
        path = self.directory / NAME
        unfinished = path.with_suffix(".new")
        unfinished.write_text(json.dumps(self.document, indent=1) + "\n", encoding="utf-8")
        unfinished.replace(path)

    def problem(self, text: str) -> None:
        """Keep what could not be measured, and why."""
        if text not in self.document["problems"]:
            self.document["problems"].append(text)
            self.save()


def machine() -> dict[str, Any]:
    """Describe the machine as far as it explains a figure."""
    pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "cpus": os.cpu_count(),
        "cpu": _cpu_model(),
        "memory_bytes": pages * page,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def values(rounds: list[Round], step: str, key: str) -> list[float]:
    """Take one figure of a step from every round that has it."""
    return [float(found[step][key]) for found in rounds if step in found and key in found[step]]


def ratios(rounds: list[Round], step: str, baseline: str, key: str) -> list[float]:
    """Divide a step's figures by the baseline's of the same rounds."""
    return [
        float(found[step][key]) / float(found[baseline][key])
        for found in rounds
        if step in found and found.get(baseline, {}).get(key) and key in found[step]
    ]


def spread(figures: list[float], digits: int = 2) -> str:
    """Write a median, with its range if there is more than one value."""
    if not figures:
        return ""
    text = f"{statistics.median(figures):.{digits}f}"
    if len(figures) == 1:
        return text
    return f"{text} ({min(figures):.{digits}f} to {max(figures):.{digits}f})"
