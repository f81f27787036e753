"""The prediction of ``plan``, where one was kept, beside what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regrain.cli import output
from regrain.cli.report.parts import Table
from regrain.model.wording import moment, visible

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
    low, high = _size(found.get("saved_bytes_low")), _size(found.get("saved_bytes_high"))
    made_at = found.get("made_at")
    rows = [
        ("made at (UTC)", moment(made_at if isinstance(made_at, int) else None)),
        ("of packages", visible(str(found.get("packages")))),
        ("ingest, compression", visible(f"{found.get('ingest')}, {found.get('compression')}")),
        ("predicted to be saved", f"{_size(found.get('saved_bytes'))}: from {low} to {high}"),
        ("saved", _size(found.get("outcome_saved_bytes"))),
        ("within the margin", within),
    ]
    return [Table("Prediction beside outcome", ("what", "is"), rows)]


def _size(value: object) -> str:
    return output.size(value) if isinstance(value, int) else _UNKNOWN
