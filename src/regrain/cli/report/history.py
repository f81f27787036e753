"""The sections that tell of time: what was done when, runs and brakes, how long readers waited."""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from regrain.cli import output
from regrain.cli.report.parts import Curve, Section, Table
from regrain.ledger.recounting import MIGRATED
from regrain.model.phase import Phase
from regrain.model.wording import milliseconds, moment, visible

if TYPE_CHECKING:
    from regrain.app.reporting import Report
    from regrain.ledger.recounting import Step
    from regrain.migrate.chronicle import Run, Sample

REMARKS_MAX = 60
RUNS_MAX = 40

_WORDS = {
    MIGRATED: "packages migrated",
    "initialised": "made a store, packages queued",
    "phase": "phase changed",
    "package_failed": "packages failed",
    "package_added": "packages added",
    "package_removed": "packages removed",
    "package_excluded": "packages set aside",
    "package_included": "packages no longer set aside",
    "package_unpublished": "packages taken out of the file level",
    "package_taken_up": "packages taken up again after a rollback",
    "package_healed": "packages healed",
    "legacy_removed": "legacy directories removed",
    "legacy_restored": "legacy directories rebuilt",
    "legacy_vanished": "legacy directories vanished",
    "legacy_appeared": "legacy directories appeared",
    "legacy_reappeared": "legacy directories appeared again",
    "legacy_accepted": "changed legacy directories accepted",
    "legacy_healed": "legacy directories healed",
    "integrity": "damage or change noted",
    "integrity_cleared": "damage or change taken back",
    "verified": "whole store verified, deep",
    "trigger": "a trigger ended a run",
    "trigger_ignored": "a trigger fired, the run went on",
    "backup_marked": "backup marked",
    "backup_created": "backup made",
    "collected": "objects collected",
    "repacked": "objects repacked",
    "purged": "file lists and objects of a rolled-back store dropped",
    "ledger_rebuilt": "ledger rebuilt",
    "restored_from_backup": "restored from a backup",
}
"""How events of the history are told; others by their own words."""


def timeline(report: Report) -> Section:
    """Return what was done when."""
    tale = report.tale
    table = Table(
        "Steps",
        ("what", "how often", "from (UTC)", "to (UTC)", "details"),
        [
            (
                _words(step),
                f"{step.times:,}",
                moment(step.began_at),
                "" if step.began_at == step.ended_at else moment(step.ended_at),
                _details(step),
            )
            for step in tale.steps
        ],
        frozenset({1}),
        "Nothing was done yet.",
    )
    text = [
        (
            "The same thing done to one package after the other is one step. For packages that "
            "were migrated more than once the last time counts."
        ),
    ]
    return Section(
        "timeline", "What was done when", text, plots=_completions(report), tables=[table]
    )


def _words(step: Step) -> str:
    return _WORDS.get(step.event) or visible(step.event.replace("_", " "))


def _details(step: Step) -> str:
    if step.event == "phase":
        return _phase(step.detail)
    if step.times > 1:
        return ""
    return visible(f"{step.package[:12]} {step.detail}".strip())


def _phase(word: str) -> str:
    try:
        return Phase(word).label
    except ValueError:  # of another version
        return visible(word)


def _completions(report: Report) -> list[Curve]:
    """Return the curve of packages over time, where there is more than a moment."""
    curve = report.tale.curve
    if len(curve) < 2:
        return []
    done = list(accumulate(point.packages for point in curve))
    first, last = curve[0].at, curve[-1].at
    marks = [
        (float(step.began_at), _phase(step.detail))
        for step in report.tale.steps
        if step.event == "phase" and first <= step.began_at <= last
    ]
    return [
        Curve(
            "Packages migrated over time",
            f"{done[0]:,} by {moment(first)}, {done[-1]:,} by {moment(last)}.",
            [(float(point.at), float(count)) for point, count in zip(curve, done, strict=True)],
            "packages",
            marks=marks,
            is_step=True,
        )
    ]


def course_sections(report: Report) -> list[Section]:
    """Return what the logs tell: runs, what held them back, how long readers waited."""
    samples = _longest(report)
    return [_throttling(report, samples), _readers(report, samples)]


def _longest(report: Report) -> list[Sample]:
    """Return the samples of the run that has the most: the one worth a look."""
    by_run: dict[tuple[int, int], list[Sample]] = {}
    for run in report.chronicle.runs:
        by_run[run.pid, run.began_at] = [
            sample
            for sample in report.chronicle.samples
            if sample.pid == run.pid and run.began_at <= sample.at <= run.ended_at
        ]
    return max(by_run.values(), key=len, default=[])


def _shaded(samples: list[Sample]) -> list[tuple[float, float]]:
    return [(one.at, other.at) for one, other in pairwise(samples) if one.throttled]


def _throttling(report: Report, samples: list[Sample]) -> Section:
    chronicle = report.chronicle
    rates = [(float(s.at), s.rate) for s in samples if s.rate is not None]
    plots = []
    if len(rates) > 1:
        top = max(rate for _, rate in rates)
        plots.append(
            Curve(
                "Reading rate of the longest run",
                f"Up to {output.size(top)} a second, on average of late; held, it stands still.",
                rates,
                "bytes a second",
                shaded=_shaded(samples),
                shaded_name="held back",
            )
        )
    causes = Table(
        "What held runs back, and how long",
        ("reason", "in all"),
        [(visible(name), output.duration(s)) for name, s in chronicle.throttled.most_common()],
        frozenset({1}),
        "Nothing, as far as the logs tell.",
    )
    runs = Table(
        f"Runs (the last {RUNS_MAX} at the most)",
        ("began (UTC)", "lasted", "packages", "failed", "held back", "other events"),
        [_run(run) for run in chronicle.runs[-RUNS_MAX:]],
        frozenset({1, 2, 3, 4}),
        "There are no logs.",
    )
    remarks = Table(
        f"What runs said (the last {REMARKS_MAX} at the most)",
        ("at (UTC)", "remark"),
        [(moment(one.at), visible(one.text)) for one in chronicle.remarks[-REMARKS_MAX:]],
    )
    return Section(
        "throttling", "Runs, and what held them back", plots=plots, tables=[causes, runs, remarks]
    )


_COUNTED = {"PackageCompleted", "PackageFailed", "Progress", "Remark"}


def _run(run: Run) -> tuple[str, ...]:
    others = ", ".join(
        f"{visible(name)} {count:,}"
        for name, count in run.events.most_common()
        if name not in _COUNTED
    )
    return (
        moment(run.began_at),
        output.duration(max(0, run.ended_at - run.began_at)),
        f"{run.events['PackageCompleted']:,}",
        f"{run.events['PackageFailed']:,}",
        output.duration(run.throttled_seconds) if run.throttled_seconds else "-",
        others,
    )


def _readers(report: Report, samples: list[Sample]) -> Section:
    waits = report.waits
    facts = [
        ("before", milliseconds(waits.before)),
        ("during", milliseconds(waits.during)),
        ("slowest during", milliseconds(waits.worst)),
        ("now", milliseconds(waits.now)),
    ]
    text = [
        (
            "How long a reader waits for a small file, read from the disk. Before: the median of "
            "a few reads before the first run began to work. During: the median of windows of "
            "reads beside runs. Now: the median of a few reads for this report."
        ),
    ]
    if not waits.windows:
        text.append("Nobody measured beside a run: short runs are over before there is a window.")
    beside = [(float(s.at), s.read_seconds) for s in samples if s.read_seconds is not None]
    level = next((s.baseline_seconds for s in samples if s.baseline_seconds is not None), None)
    plots = []
    if len(beside) > 1:
        plots.append(
            Curve(
                "What a small read took beside the longest run",
                (
                    f"Between {milliseconds(min(y for _, y in beside))} and "
                    f"{milliseconds(max(y for _, y in beside))}; "
                    f"{milliseconds(level)} before the run."
                ),
                beside,
                "seconds",
                level=level,
                level_name="before the run",
                shaded=_shaded(samples),
                shaded_name="held back",
            )
        )
    return Section("readers", "What readers waited", text, facts, plots)
