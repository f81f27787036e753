"""The part of the page that tells of space: before, now, after, and what was predicted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regrain.model.status import Status
from regrain.model.wording import moment, percent, size
from regrain.web.page.markup import Html, join, tag
from regrain.web.page.tables import Head, table

if TYPE_CHECKING:
    from regrain.app.observing import Overview
    from regrain.web.page.glimpse import Glimpse

_WIDTH = 1000
_HEADS = (Head("when"), Head("on disk"), Head("drawn", is_heard=True))


def space(glimpse: Glimpse) -> Html:
    """Return bars, one below the other, all of one scale."""
    seen = glimpse.seen
    if seen is None:
        return Html("")
    bars = _bars(glimpse, seen)
    longest = max((length for _, length, _, _ in bars), default=0) or 1
    rows = [_cells(name, length, words, kind, longest) for name, length, words, kind in bars]
    drawn = table("Bytes on disk of the whole store", _HEADS, rows, "bars")
    return join(drawn, *(tag("p", text, class_="soft") for text in _notes(glimpse, seen)))


def _bars(glimpse: Glimpse, seen: Overview) -> list[tuple[str, int, str, str]]:
    """Return name, length, words and kind of each bar."""
    totals, measured = seen.state.totals, glimpse.measured
    if measured is None:
        before, now, after = totals.allocated, None, totals.allocated - totals.saved
    else:
        taken = measured.space
        before, now, after = taken.before, taken.now, taken.after
    bars = [("before", before, size(before), "before")]
    if now is not None:
        bars.append(("now", now, size(now), "now"))
    is_done = totals.count(Status.COMPLETED) == totals.packages
    name = "after cleanup" if is_done else "after a cleanup now"
    bars.append((name, after, f"{size(after)}, {_saved(before, after)}", "after"))
    told = seen.figures["prediction"]
    if isinstance(told, dict):
        low, high, mean = (
            told["allocated_bytes"] - told[f"saved_bytes{end}"] for end in ("_high", "_low", "")
        )
        words = f"{size(mean)} ({size(low)} to {size(high)})"
        bars.append(("predicted", max(0, mean), words, "predicted"))
    return bars


def _saved(before: int, after: int) -> str:
    if after > before:
        return f"{percent(after - before, before)} more"
    return f"{percent(before - after, before)} saved"


def _cells(name: str, length: int, words: str, kind: str, longest: int) -> tuple[str, ...]:
    """Return a row; a bar is drawn by attributes, since the page allows no inline style."""
    bar = tag(
        "svg",
        tag("rect", width=f"{_WIDTH * length / longest:.1f}", height="10", class_=kind),
        viewBox=f"0 0 {_WIDTH} 10",
        preserveAspectRatio="none",
        aria_hidden="true",
    )
    return name, words, bar


def _notes(glimpse: Glimpse, seen: Overview) -> list[str]:
    figures, measured = seen.figures, glimpse.measured
    notes = []
    if measured is None:
        notes.append("By the ledger. 'regrain status --space' measures what is on disk now.")
    else:
        notes.append(
            f"Measured {moment(measured.at)} UTC; {size(measured.space.overhead)} of it is what "
            "regrain itself takes."
        )
    freed = figures["space_freed_bytes"]
    if isinstance(freed, int) and freed:
        notes.append(f"Removing legacy directories freed {size(freed)} so far.")
    undo = seen.state.matters.undo_bytes
    if undo:
        notes.append(f"A rollback would take {size(undo)} at the most.")
    told = figures["prediction"]
    if isinstance(told, dict) and told["within_margin"] is not None:
        place = "within" if told["within_margin"] else "outside"
        notes.append(f"What came is {place} the margin of the prediction.")
    return notes
