"""Plots in SVG, from the document of results alone, by Vega-Altair.

Altair and its renderer are in the dependency group `bench`, since nothing else needs them;
without them there are tables and no plots.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.deeds import STORE, VERIFY
from bench.results import Results, ratios
from bench.table import BASELINES

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    Chart = Any  # altair's own types are not there where it is not installed

FIGURES = {"wall": "wall", "cpu": "CPU", "peak_tree": "peak memory"}
GROWTH = {
    "migrate, wall µs a file": ("migrate", "wall", 1e6),
    "migrate, CPU µs a file": ("migrate", "cpu", 1e6),
    "verify, wall µs a file": ("verify", "wall", 1e6),
    "b3sum, wall µs a file": ("b3sum", "wall", 1e6),
}
WIDTH, HEIGHT = 260, 22
OURS, OTHERS = "#1b6e53", "#8a8f98"


def draw(results: Results, say: Callable[[str], None]) -> list[Path]:
    """Draw all there is to draw.

    Returns:
        The files that were written.
    """
    try:
        import altair as alt
        import vl_convert  # noqa: F401 -- what altair writes SVG with
    except ImportError as error:
        say(f"no plots: {error.name} is not installed (dependency group bench)")
        return []
    document = results.document
    charts = {
        f"peers-{name.replace(', ', '-')}": _peers(alt, name, part["rounds"])
        for name, part in document["parts"].items()
    }
    charts["scaling"] = _scaling(alt, document["scaling"])
    written = []
    for name, chart in charts.items():
        if chart is not None:
            path = results.directory / f"{name}.svg"
            chart.save(path)
            written.append(path)
    return written


def _peers(alt: ModuleType, part: str, rounds: list[dict[str, Any]]) -> Chart | None:
    """Draw the ratios of each peer to regrain, with their range, one panel a figure."""
    rows = [row for key in FIGURES for row in _ratio_rows(rounds, key)]
    if not rows:
        return None
    axis = alt.Axis(title="÷ regrain (logarithmic; left of 1 needs less)")
    order = [row["step"] for row in rows if row["figure"] == FIGURES["wall"]]
    y = alt.Y("step:N", sort=order, title=None, axis=alt.Axis(labelLimit=260))
    base = alt.Chart(alt.Data(values=rows))
    x = alt.X("median:Q", scale=alt.Scale(type="log"), axis=axis)
    dots = base.mark_point(filled=True, size=60).encode(
        x=x,
        y=y,
        color=alt.condition(
            "datum.median == 1 && datum.low == 1", alt.value(OURS), alt.value(OTHERS)
        ),
    )
    ranges = base.mark_rule(color=OTHERS).encode(x=alt.X("low:Q"), x2="high:Q", y=y)
    one = base.mark_rule(color=OURS, strokeDash=[3, 3]).encode(x=alt.datum(1))
    layers = alt.layer(one, ranges, dots).properties(width=WIDTH, height=HEIGHT * len(set(order)))
    columns = alt.Column("figure:N", title=None, sort=list(FIGURES.values()))
    return layers.facet(column=columns).properties(title=f"{part}: regrain = 1")


def _ratio_rows(rounds: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    rows = []
    for step in dict.fromkeys(name for found in rounds for name in found):
        work = next(found[step]["work"] for found in rounds if step in found)
        found = ratios(rounds, step, BASELINES.get(work, STORE), key)
        if found and all(found) and step not in {"regrain init", "regrain migrate"}:
            verb = " (verify)" if BASELINES.get(work) == VERIFY and step != VERIFY else ""
            rows.append(
                {
                    "step": f"{step}{verb}",
                    "figure": FIGURES[key],
                    "median": statistics.median(found),
                    "low": min(found),
                    "high": max(found),
                }
            )
    return rows


def _scaling(alt: ModuleType, scales: list[dict[str, Any]]) -> Chart | None:
    """Draw what a file takes, peak memory and ledger against the number of files."""
    plain = [row for row in scales if not row["jobs"] and row["name"].startswith(("1e", "3e"))]
    growth = _growth_rows(plain)
    if not growth:
        return None
    files = alt.X("files:Q", scale=alt.Scale(type="log"), title="files")

    def lines(rows: list[dict[str, Any]], title: str) -> Chart:
        return (
            alt.Chart(alt.Data(values=rows))
            .mark_line(point=True)
            .encode(
                x=files,
                y=alt.Y("value:Q", title=title, scale=alt.Scale(zero=True)),
                color=alt.Color("what:N", title=None),
            )
            .properties(width=WIDTH, height=WIDTH)
        )

    memory = [
        {
            "files": row["files"],
            "what": f"{step}, all processes",
            "value": row["steps"][step]["peak_tree"] / 1e6,
        }
        for row in plain
        for step in ("migrate", "verify")
        if step in row["steps"]
    ]
    ledger = [
        {"files": row["files"], "what": "ledger", "value": row["ledger"] / row["files"]}
        for row in plain
        if "ledger" in row
    ]
    return alt.hconcat(
        lines(growth, "µs a file"), lines(memory, "peak MB"), lines(ledger, "ledger, bytes a file")
    ).resolve_scale(color="independent")


def _growth_rows(scales: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "files": row["files"],
            "what": what,
            "value": row["steps"][step][key] / row["files"] * unit,
        }
        for row in scales
        for what, (step, key, unit) in GROWTH.items()
        if step in row["steps"]
    ]


if __name__ == "__main__":
    draw(Results.load(Path(sys.argv[1])), print)
