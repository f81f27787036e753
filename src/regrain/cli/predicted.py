"""What ``plan`` predicts, in words and for programs; and what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regrain.cli import output

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regrain.app.prediction import Prediction
    from regrain.migrate.prediction import Choice


def document(found: Prediction) -> dict[str, object]:
    """Return the fields of ``plan --json`` that are predicted."""
    return {
        "sample": {
            "files": found.kept.files,
            "bytes_read": found.kept.bytes_read,
            "seconds": found.kept.seconds,
        },
        "choices": [_fields(one, chosen=one is found.chosen) for one in found.choices],
    }


def _fields(one: Choice, *, chosen: bool) -> dict[str, object]:
    return {
        "ingest": one.ingest,
        "compression": one.compression,
        "chosen": chosen,
        "possible": one.is_possible,
        "saved_bytes": round(one.saved.value),
        "saved_bytes_margin": round(one.saved.margin),
        "saved_share": one.share.value,
        "saved_share_margin": one.share.margin,
        "reaches_60_percent": one.reaches,
        "peak_bytes": one.peak_bytes,
        "peak_inodes": one.peak_inodes,
        "seconds": list(one.seconds),
        "fits": one.fits,
    }


def lines(found: Prediction) -> list[str]:
    """Return the table of all choices, line by line."""
    rows: list[tuple[str, ...]] = [
        ("ingest", "compression", "saves", "60 %", "needs at most", "inodes", "takes", "")
    ]
    rows += [_row(one, chosen=one is found.chosen) for one in found.choices]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    table: list[str] = [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    read = output.size(found.kept.bytes_read)
    return [
        f"predicted from {output.count(found.kept.files, 'file')} ({read} read): what is saved",
        "once all is migrated and the legacy directories are gone, with its margin",
        *table,
    ]


def _row(one: Choice, *, chosen: bool) -> tuple[str, ...]:
    remarks = ["as configured"] * chosen
    if not one.is_possible:
        remarks.append("not on this file system")
    elif not one.fits:
        remarks.append("does not fit")
    return (
        one.ingest,
        one.compression,
        f"{one.share.value:.1%} ± {one.share.margin:.1%}",
        one.reaches,
        output.size(one.peak_bytes),
        f"{one.peak_inodes:,}",
        span(*one.seconds),
        ", ".join(remarks),
    )


def in_words(found: dict[str, object]) -> str:
    """Say what was predicted, and what came of it once that is known."""

    def size(key: str) -> str:
        value = found[key]
        return output.size(value) if isinstance(value, int) else "unknown"

    said = f"{size('saved_bytes_low')} to {size('saved_bytes_high')} saved"
    if found["outcome_saved_bytes"] is not None:
        place = "within" if found["within_margin"] else "outside"
        said += f"; it is {size('outcome_saved_bytes')}, {place} the margin"
    return "; ".join([said, *_time_in_words(found)])


def _time_in_words(found: dict[str, object]) -> Iterator[str]:
    """Say how long it was to take, and how long it took."""
    seconds, took = found["seconds"], found["outcome_seconds"]
    if isinstance(seconds, list):
        yield f"{span(*seconds)} of work"
    if isinstance(took, float):
        yield f"it took {output.duration(took)}"


def span(low: float, high: float) -> str:
    """Return a range of time, as people read it."""
    ends = output.duration(low), output.duration(high)
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)
