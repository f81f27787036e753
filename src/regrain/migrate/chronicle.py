"""What the logs tell of the past: runs, how they went, and what held them back."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from regrain import disk
from regrain.migrate import course
from regrain.migrate.logbook import Log, content_size, lines_of, logs_in
from regrain.model import layout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regrain.store.root import StoreRoot

BYTES_MAX = 128 << 20
"""Older logs than these are left out."""

_SETTING = re.compile(r"\((\w+)\)\Z")
_APART_SECONDS = 86_400
"""The number of a process is given again; after so long it is another's."""


class _Line(msgspec.Struct, gc=False):
    """What is read of a line; other fields are nothing to this."""

    at: int
    event: str
    pid: int = 0
    text: str = ""
    trigger: str = ""
    why: str = ""
    bytes_done: int = 0
    rate_bytes_per_second: float | None = None
    throttle_reason: str = ""
    read_seconds: float | None = None
    read_baseline_seconds: float | None = None


_decode = msgspec.json.Decoder(_Line).decode


class Sample(NamedTuple):
    """How far a run was at one moment.

    Attributes:
        at: In Unix seconds, as all times here.
        pid: The run's process.
        size: Bytes it had read.
        rate: Bytes a second of late; None if that could not be told.
        throttled: What held it back; empty if nothing did.
        read_seconds: How long a small read beside it took; None where nobody measured.
        baseline_seconds: The same before it began.
    """

    at: int
    pid: int
    size: int
    rate: float | None
    throttled: str
    read_seconds: float | None
    baseline_seconds: float | None


class Remark(NamedTuple):
    """What a run said: why it was held, that it went on, which trigger fired."""

    at: int
    pid: int
    text: str


@dataclass(slots=True)
class Run:
    """A command that wrote to the log.

    Attributes:
        pid: Its process.
        began_at: Its first line.
        ended_at: Its last.
        events: How often it told what.
        throttled_seconds: How long something held it back, as far as samples tell.
    """

    pid: int
    began_at: int
    ended_at: int
    events: Counter[str] = field(default_factory=Counter)
    throttled_seconds: int = 0


@dataclass(slots=True)
class Chronicle:
    """All of that.

    Attributes:
        runs: In the order they began.
        samples: In order.
        remarks: Likewise.
        throttled: Seconds that runs were held back, by reason.
        unreadable: Lines, or whole files, that could not be read.
        left_out: Bytes of older logs that were left out.
    """

    runs: list[Run] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)
    throttled: Counter[str] = field(default_factory=Counter)
    unreadable: int = 0
    left_out: int = 0


def read_chronicle(root: StoreRoot, bytes_max: int = BYTES_MAX) -> Chronicle:
    """Read the logs of a store, the newest ones; what cannot be read is counted, and passed over.

    Args:
        root: The store.
        bytes_max: Of logs, at the most.
    """
    found = Chronicle()
    running: dict[int, Run] = {}
    last: dict[int, Sample] = {}
    for raw in _lines(root, bytes_max, found):
        try:
            line = _decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            found.unreadable += 1
            continue
        run = _run_of(line, running, found.runs)
        run.ended_at = line.at
        run.events[line.event] += 1
        if line.event == course.NAME:
            sample = _sample(line)
            _account(last.get(line.pid), sample, run, found)
            last[line.pid] = sample
            found.samples.append(sample)
        elif line.event == "Remark":
            found.remarks.append(Remark(line.at, line.pid, line.text))
        elif line.event == "Triggered":
            found.remarks.append(Remark(line.at, line.pid, f"{line.trigger}: {line.why}"))
    return found


def sample_in(raw: bytes) -> Sample | None:
    """Return the sample that a line of the log holds; None where it holds none."""
    try:
        line = _decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return _sample(line) if line.event == course.NAME else None


def _lines(root: StoreRoot, bytes_max: int, found: Chronicle) -> Iterator[bytes]:
    """Yield the lines of the newest logs, the oldest of these first."""
    try:
        logs = disk.open_directory(layout.LOGS, root.fd)
    except OSError:  # none was written yet
        return
    with disk.Closing(logs):
        for log in _newest(logs, bytes_max, found):
            try:
                yield from (raw for raw in lines_of(logs, log) if raw and not raw.isspace())
            except OSError:
                found.unreadable += 1


def _newest(logs: int, bytes_max: int, found: Chronicle) -> list[Log]:
    """Return the newest logs that are not too much, the oldest of these first."""
    chosen: list[Log] = []
    total = 0
    for log in reversed(logs_in(logs)):
        try:
            size = content_size(logs, log)
        except OSError:
            found.unreadable += 1
            continue
        if found.left_out or total + size > bytes_max:
            found.left_out += size
            continue
        total += size
        chosen.append(log)
    return chosen[::-1]


def _run_of(line: _Line, running: dict[int, Run], runs: list[Run]) -> Run:
    run = running.get(line.pid)
    if run is None or line.at - run.ended_at > _APART_SECONDS:
        run = running[line.pid] = Run(line.pid, line.at, line.at)
        runs.append(run)
    return run


def _sample(line: _Line) -> Sample:
    return Sample(
        line.at,
        line.pid,
        line.bytes_done,
        line.rate_bytes_per_second,
        line.throttle_reason,
        line.read_seconds,
        line.read_baseline_seconds,
    )


def _account(before: Sample | None, now: Sample, run: Run, found: Chronicle) -> None:
    """Count the time since the sample before as held back, if that one was."""
    if before is None or not before.throttled or now.at < before.at:
        return
    seconds = now.at - before.at
    run.throttled_seconds += seconds
    found.throttled[_cause(before.throttled)] += seconds


def _cause(reason: str) -> str:
    """Return what a reason is called, whatever its figures: the setting it names, or its start."""
    setting = _SETTING.search(reason)
    return reason.partition(":")[0] if setting is None else setting[1]
