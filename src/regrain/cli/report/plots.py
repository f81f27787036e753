"""Plots as SVG: lines that stretch with the page; all words stand beside them, as text."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

from regrain.cli import output
from regrain.model.wording import milliseconds, moment

if TYPE_CHECKING:
    from regrain.cli.report.parts import Bars, Curve

_WIDTH, _HEIGHT = 1000, 100
_STEPS = (1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8, 10)
_KIBI = 1024
_LEAST = 1e-9
"""Less than this is nothing: neither bytes nor seconds are said as finely."""


def bars(plot: Bars) -> str:
    """Return bars as a list of names, words, and one drawing each."""
    longest = max((max(row.value, row.left) for row in plot.rows), default=0) or 1
    items = []
    for row in plot.rows:
        whole, rest = (_WIDTH * max(0, size) / longest for size in (row.value, row.left))
        items.append(
            f'<li><span class="name">{escape(row.name)}</span> '
            f'<span class="words">{escape(row.words)}</span>'
            f'<svg class="bar" viewBox="0 0 {_WIDTH} 10" preserveAspectRatio="none" '
            f'aria-hidden="true"><rect class="whole" width="{whole:.1f}" height="10"/>'
            f'<rect class="rest" width="{rest:.1f}" height="10"/></svg></li>'
        )
    return (
        f'<figure><figcaption>{escape(plot.title)}</figcaption><p class="legend">'
        f'<span class="key whole"></span>{escape(plot.whole)} '
        f'<span class="key rest"></span>{escape(plot.rest)}</p>'
        f'<ul class="bars">{"".join(items)}</ul></figure>'
    )


def curve(plot: Curve) -> str:
    """Return a curve; its axes are text around the drawing."""
    begin, end = plot.points[0][0], plot.points[-1][0]
    highest = max(value for _, value in plot.points)
    top = _nice(max(highest, plot.level or 0), plot.unit)
    span = max(end - begin, 1e-9)

    def x(at: float) -> float:
        return _WIDTH * min(1.0, max(0.0, (at - begin) / span))

    def y(value: float) -> float:
        return _HEIGHT * (1 - value / top)

    drawn = [
        f'<rect class="shaded" x="{x(one):.1f}" width="{max(1.0, x(other) - x(one)):.1f}" '
        f'height="{_HEIGHT}"/>'
        for one, other in plot.shaded
    ]
    drawn += [f'<path class="grid" d="M0 {_HEIGHT * part:.1f}H{_WIDTH}"/>' for part in (0, 0.5, 1)]
    drawn += [f'<path class="mark" d="M{x(at):.1f} 0V{_HEIGHT}"/>' for at, _ in plot.marks]
    line = _line([(x(at), y(value)) for at, value in plot.points], is_step=plot.is_step)
    drawn.append(f'<path class="area" d="{line}L{_WIDTH} {_HEIGHT}L0 {_HEIGHT}Z"/>')
    drawn.append(f'<path class="line" d="{line}"/>')
    if plot.level is not None:
        drawn.append(f'<path class="level" d="M0 {y(plot.level):.1f}H{_WIDTH}"/>')
    labels = "".join(f"<span>{escape(_said(top * part, plot.unit))}</span>" for part in (1, 0.5, 0))
    return (
        f"<figure><figcaption>{escape(plot.title)}</figcaption>"
        f'<div class="plot"><div class="y" aria-hidden="true">{labels}</div>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(f"{plot.title}. {plot.summary}")}">{"".join(drawn)}</svg></div>'
        f'<div class="x" aria-hidden="true"><span>{escape(moment(begin))}</span>'
        f"<span>{escape(moment(end))}</span></div>{_legend(plot)}</figure>"
    )


def _line(points: list[tuple[float, float]], *, is_step: bool) -> str:
    (x0, y0), *rest = points
    words = [f"M{x0:.1f} {y0:.1f}"]
    words += [f"H{x:.1f}V{y:.1f}" if is_step else f"L{x:.1f} {y:.1f}" for x, y in rest]
    return "".join(words)


def _legend(plot: Curve) -> str:
    words = [escape(plot.summary)]
    if plot.level is not None:
        words.append(f'<span class="key level"></span>{escape(plot.level_name)}')
    if plot.shaded:
        words.append(f'<span class="key shaded"></span>{escape(plot.shaded_name)}')
    words += [
        f'<span class="key mark"></span>{escape(name)} at {escape(moment(at))}'
        for at, name in plot.marks
    ]
    return f'<p class="legend">{" ".join(words)}</p>'


def _nice(value: float, unit: str) -> float:
    """Return a round number that is not less, in the unit it will be said in."""
    if value < _LEAST:
        return 1.0
    base = 1.0
    while unit.startswith("bytes") and value >= base * _KIBI:
        base *= _KIBI
    scale: float = base * 10.0 ** math.floor(math.log10(value / base))
    return next((step * scale for step in _STEPS if step * scale >= value), 10 * scale)


def _said(value: float, unit: str) -> str:
    if unit == "seconds":
        return milliseconds(value) if value else "0"
    if unit.startswith("bytes"):
        return f"{output.size(value)}/s" if value else "0"
    return f"{value:,.0f}" if value == round(value) else f"{value:,.1f}"
