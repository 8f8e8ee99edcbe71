"""A panel as inline SVG: no style attributes (the page's Content-Security-Policy forbids them), colours by class, so
that the page's themes apply, and a description for those who do not see it."""

from __future__ import annotations

import math
from collections.abc import Callable
from html import escape

import numpy as np
from numpy.typing import ArrayLike

from reports import style, summary
from reports.figures import LARGEST, Panel, Series, finite_range, widened
from reports.stats import Comparison

WIDTH, HEIGHT = 340, 236
LEFT, RIGHT, TOP, BOTTOM = 50, 10, 24, 36
MARKS = 7
"""Markers on one line, about."""


def panel(drawn: Panel, limits: tuple[float, float] | None = None) -> str:
    """The panel as one `<svg role="img">`, its y axis over `limits` or its own values; every text in it is escaped."""
    x_ticks = ticks(*finite_range([line.x for line in drawn.series]))
    y_ticks = ticks(*limits or finite_range([side for line in drawn.series for side in (line.low, line.high)]))
    to_x = _scale(x_ticks[0], x_ticks[-1], LEFT, WIDTH - RIGHT)
    to_y = _scale(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)
    measure = "" if drawn.y_label == drawn.title else f'<tspan class="tick" dx="6">{escape(drawn.y_label)}</tspan>'
    parts = [
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(drawn.alt)}">',
        f'<text class="head" x="8" y="14">{escape(drawn.title)}{measure}</text>',
    ]
    for tick in y_ticks:
        y, text = float(to_y(tick)), _tick(tick, y_ticks)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{y + 3.5:.1f}" text-anchor="end">{text}</text>')
    for tick in x_ticks:
        x, text = float(to_x(tick)), _tick(tick, x_ticks)
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 14}" text-anchor="middle">{text}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 4}" text-anchor="middle">{escape(drawn.x_label)}</text>')
    parts += [_line(line, to_x(line.x), to_y(line.y), to_y(line.low), to_y(line.high)) for line in drawn.series]
    return "".join(parts) + "</svg>"


def swatch(line: Series) -> str:
    """A legend's sample of a line: dash and marker, for a text beside it."""
    drawn = f'<path class="line" d="M0 6H34"{_dash(line.dash)}/>{_markers(line.slot, [(17.0, 6.0)])}'
    return f'<svg class="swatch" viewBox="0 0 34 12" aria-hidden="true"><g class="s{line.slot}">{drawn}</g></svg>'


def forest(comparison: Comparison, low: float, high: float) -> str:
    """A comparison as a little plot: interval, mean and every seed's difference between `low` and `high`, with zero."""
    interval = comparison.interval
    to_x = _scale(low, high, 6, 194)
    alt = f"differences by seed: {', '.join(summary.signed(value) for value in comparison.differences)}"
    dots = "".join(f'<circle cx="{float(to_x(value)):.1f}" cy="12" r="3"/>' for value in comparison.differences)
    bar = ""
    if math.isfinite(interval.low):
        start, end = (float(np.clip(to_x(bound), 0, 200)) for bound in (interval.low, interval.high))
        bar = f'<path class="bar" d="M{start:.1f} 12H{end:.1f}"/>'
    zero, mean = float(to_x(0.0)), float(to_x(interval.mean))
    return (
        f'<svg class="forest" viewBox="0 0 200 24" role="img" aria-label="{escape(alt)}">'
        f'<path class="grid" d="M{zero:.1f} 0V24"/>{bar}{dots}<path class="mean" d="M{mean:.1f} 4V20"/></svg>'
    )


def ticks(low: float, high: float, most: int = 5) -> np.ndarray:
    """Round numbers (1, 2 or 5 times a power of ten apart) from at or below `low` to at or above `high`, both finite:
    two at least, all different. A range that is nothing but rounding is widened first."""
    low, high = widened(low, high)
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return np.arange(first, last + 1) * step


def _tick(value: float, all_ticks: np.ndarray) -> str:
    """A tick's number, with as many decimals as the ticks' distance asks for; rounding noise of a zero is zero."""
    step = float(all_ticks[1] - all_ticks[0])
    if abs(value) < step / 1e6:
        return "0"
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    largest = float(np.abs(all_ticks).max())
    if decimals <= 6 and largest < 1e5:
        return f"{value:.{decimals}f}"
    digits = 1 + max(0, math.floor(math.log10(largest) + 1e-9) - math.floor(math.log10(step) + 1e-9))
    return summary.number(float(value), max(3, digits))


def _scale(low: float, high: float, start: float, end: float) -> Callable[[ArrayLike], np.ndarray]:
    """What maps values to pixels, NaN where one is not finite; what is larger than `LARGEST` lies there."""

    def pixels(value: ArrayLike) -> np.ndarray:
        values = np.asarray(value, dtype=float)
        values = np.where(np.isfinite(values), np.clip(values, -LARGEST, LARGEST), math.nan)
        return start + (values - low) / (high - low) * (end - start)

    return pixels


def _line(line: Series, x: np.ndarray, y: np.ndarray, low: np.ndarray, high: np.ndarray) -> str:
    """The line with its band and markers; where a value is missing, both have a gap."""
    there = np.isfinite(x) & np.isfinite(y)
    runs = [run for run in _runs(there) if len(run) > 1]
    band = ""
    if line.seeds > 1 and (
        sides := [run for run in _runs(there & np.isfinite(low) & np.isfinite(high)) if len(run) > 1]
    ):
        areas = (f"M{_points(x[run], low[run])}L{_points(x[run[::-1]], high[run[::-1]])}Z" for run in sides)
        band = f'<path class="band" d="{"".join(areas)}"/>'
    path = "".join(f"M{_points(x[run], y[run])}" for run in runs)
    path = f'<path class="line" d="{path}"{_dash(line.dash)}/>' if path else ""
    shown = np.flatnonzero(there)
    chosen = shown[np.unique(np.linspace(0, len(shown) - 1, min(MARKS, len(shown))).round().astype(int))]
    title = f"{line.name}: {summary.number(line.last, 3)}"
    marks = _markers(line.slot, [(float(x[i]), float(y[i])) for i in chosen])
    return f'<g class="s{line.slot}"><title>{escape(title)}</title>{band}{path}{marks}</g>'


def _runs(there: np.ndarray) -> list[np.ndarray]:
    """The indices of a mask's true entries, cut where they are not neighbours."""
    places = np.flatnonzero(there)
    return np.split(places, np.flatnonzero(np.diff(places) > 1) + 1) if len(places) else []


def _points(x: np.ndarray, y: np.ndarray) -> str:
    return "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True))


def _dash(dash: int) -> str:
    lengths = style.DASHES[dash]
    return f' stroke-dasharray="{" ".join(map(str, lengths))}"' if lengths else ""


SHAPES = {
    "o": "m-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0z",
    "s": "m-2.7-2.7h5.4v5.4h-5.4z",
    "^": "m0-3.4l3.2 5.8h-6.4z",
    "D": "m0-3.6l3.6 3.6l-3.6 3.6l-3.6-3.6z",
    "v": "m0 3.4l3.2-5.8h-6.4z",
    "X": "m-3-1.6l1.4-1.4l1.6 1.6l1.6-1.6l1.4 1.4l-1.6 1.6l1.6 1.6l-1.4 1.4l-1.6-1.6l-1.6 1.6l-1.4-1.4l1.6-1.6z",
    "P": "m-1-3.3h2v2.3h2.3v2h-2.3v2.3h-2v-2.3h-2.3v-2h2.3z",
    "h": "m-3.4 0l1.7-3h3.4l1.7 3l-1.7 3h-3.4z",
}


def _markers(slot: int, places: list[tuple[float, float]]) -> str:
    shape = SHAPES[style.MARKERS[slot]]
    return f'<path class="dot" d="{"".join(f"M{x:.1f} {y:.1f}{shape}" for x, y in places)}"/>'
