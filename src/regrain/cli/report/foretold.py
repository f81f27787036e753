"""The prediction of ``plan``, where one was kept, beside what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regrain.cli import output
from regrain.cli.predicted import span
from regrain.cli.report.parts import Table
from regrain.model.wording import moment, percent, visible

if TYPE_CHECKING:
    from collections.abc import Mapping

_UNKNOWN = "not known yet"


def tables(figures: Mapping[str, object]) -> list[Table]:
    """Return the table of it; none where the figures of ``status`` have no prediction."""
    found = figures.get("prediction")
    if not isinstance(found, dict):
        return []
    is_within = found.get("within_margin")
    within = _UNKNOWN if is_within is None else "yes" if is_within else "no"
    low, high = (_share(found.get(f"saved_bytes_{end}"), found) for end in ("low", "high"))
    made_at = found.get("made_at")
    told = f"{_share(found.get('saved_bytes'), found)}: from {low} to {high}"
    rows = [
        ("made at (UTC)", moment(made_at if isinstance(made_at, int) else None)),
        ("of packages", visible(str(found.get("packages")))),
        ("ingest, compression", visible(f"{found.get('ingest')}, {found.get('compression')}")),
        ("predicted to be saved", told),
        ("saved", _share(found.get("outcome_saved_bytes"), found)),
        ("within the margin", within),
        *_times(found),
    ]
    return [Table("Prediction beside outcome", ("what", "is"), rows)]


def _times(found: Mapping[str, object]) -> list[tuple[str, str]]:
    """Return how long it was to take, where that was predicted, and how long it took."""
    seconds, took = found.get("seconds"), found.get("outcome_seconds")
    if not isinstance(seconds, list):
        return []
    return [
        ("predicted to take", span(*seconds)),
        ("took, pauses left out", output.duration(took) if isinstance(took, float) else _UNKNOWN),
    ]


def _share(value: object, found: Mapping[str, object]) -> str:
    """Return bytes, and the share they are of what was there."""
    whole = found.get("allocated_bytes")
    if not isinstance(value, int):
        return _UNKNOWN
    return f"{output.size(value)} ({percent(value, whole if isinstance(whole, int) else 0)})"
