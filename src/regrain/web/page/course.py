"""How runs went over time: points for the plots, and the same in words and figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regrain.migrate.chronicle import Sample
from regrain.model.wording import milliseconds, moment, size
from regrain.web.page.markup import Html, join, tag
from regrain.web.page.tables import Head, table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from regrain.app.observing import Overview

POINTS_MAX = 900
ROWS_MAX = 12
GAP_SECONDS = 30


def observed(seen: Overview) -> Sample | None:
    """Return what a look saw of a run; None where none is under way."""
    run, snapshot = seen.state.of_the_run, seen.state.snapshot
    at, pid = snapshot.get("at"), snapshot.get("pid")
    if run is None or not isinstance(at, int) or not isinstance(pid, int):
        return None
    waits = run.foreground
    return Sample(
        at,
        pid,
        run.bytes_done,
        run.rate_bytes_per_second,
        run.throttle_reason,
        None if waits is None else waits.seconds,
        None if waits is None else waits.baseline_seconds,
    )


def merged(logged: Iterable[Sample], watched: Iterable[Sample]) -> list[Sample]:
    """Return one point a second at the most, in order; of very many the newest."""
    found = {sample.at: sample for sample in (*logged, *watched)}
    return [found[at] for at in sorted(found)][-POINTS_MAX:]


def in_rows(points: Iterable[Sample], after: int) -> list[list[float | None]]:
    """Return points for the plots: time, bytes a second, milliseconds now and before, held."""
    rows: list[list[float | None]] = []
    last: Sample | None = None
    for point in points:
        if last is not None and point.at > after and is_apart(last, point):
            # A line does not cross the gap.
            rows.append([(last.at + point.at) / 2, None, None, None, 0])
        last = point
        if point.at > after:
            rows.append(
                [
                    point.at,
                    point.rate,
                    _in_ms(point.read_seconds),
                    _in_ms(point.baseline_seconds),
                    int(bool(point.throttled)),
                ]
            )
    return rows


def is_apart(one: Sample, other: Sample) -> bool:
    """Tell whether nothing is known between two points: they are of two runs, or far apart."""
    return one.pid != other.pid or other.at - one.at > GAP_SECONDS


def _in_ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1e3, 3)


def rate_words(points: list[Sample]) -> Html:
    """Return what the plot of the rate shows, in a sentence."""
    rates = [point.rate for point in points if point.rate is not None]
    if not rates:
        return join("No run has told of a rate yet.")
    held = sum(bool(point.throttled) for point in points)
    note = f" Held back in {held:,} of {len(points):,} moments." if held else ""
    return join(
        f"Last {size(rates[-1])}/s, between {size(min(rates))}/s and {size(max(rates))}/s since "
        f"{moment(points[0].at)} UTC.{note}"
    )


def reads_words(points: list[Sample]) -> Html:
    """Return what the plot of readers shows, in a sentence."""
    measured = [point for point in points if point.read_seconds is not None]
    waits = [point.read_seconds for point in measured if point.read_seconds is not None]
    if not waits:
        return join(
            "Nobody timed readers beside a run: it has to be a long one, or "
            "[migration] latency_slowdown_max has to be set."
        )
    return join(
        f"Last {milliseconds(waits[-1])}, between {milliseconds(min(waits))} and "
        f"{milliseconds(max(waits))}; {milliseconds(measured[-1].baseline_seconds)} before the run."
    )


def figures(points: list[Sample]) -> Html:
    """Return some of the points as a table, for who does not see the plots."""
    step = max(1, len(points) // ROWS_MAX)
    rows = [
        (
            moment(point.at),
            "-" if point.rate is None else f"{size(point.rate)}/s",
            milliseconds(point.read_seconds),
            point.throttled or "-",
        )
        for point in points[::-1][::step][:ROWS_MAX]
    ]
    if not rows:
        return tag("p", "There are no figures yet.", class_="soft")
    return table("Rate and readers, the newest first", _HEADS, rows)


_HEADS = (
    Head("at (UTC)", "when"),
    Head("rate", "number"),
    Head("a small read", "number"),
    Head("held back by"),
)
