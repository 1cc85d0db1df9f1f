"""The latest value of every curve, as numbers and as both views print them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf, isnan, nan

from gradlab.watching.curves import Chart, Curve


@dataclass(frozen=True)
class LatestValue:
    """The latest value of a curve.

    Attributes:
        at: where it was measured; old: other tables have later rows.
        shown, ends: value and interval or range in words.
    """

    name: str
    unit: str
    value: float
    low: float
    high: float
    at: float
    old: bool
    shown: str
    ends: str


def through_run(charts: Sequence[Chart]) -> list[tuple[Chart, Curve]]:
    """All curves over the run, in order."""
    return [(chart, curve) for chart in charts if chart.through_run for curve in chart.curves]


def latest_values(charts: Sequence[Chart]) -> Iterator[LatestValue]:
    """The latest value of every curve over the run, in order."""
    curves = through_run(charts)
    newest = max((float(curve.x[-1]) for _, curve in curves), default=-inf)
    for chart, curve in curves:
        k = curve.latest
        at = nan if k is None else float(curve.x[k])
        parts = (curve.value, curve.low, curve.high)
        value, low, high = (nan if k is None or p is None else float(p[k]) for p in parts)
        label, shown, ends = name(chart, curve), number(value), _span(low, high)
        yield LatestValue(label, chart.unit, value, low, high, at, at < newest, shown, ends)


def name(chart: Chart, curve: Curve) -> str:
    return f"{chart.title}, {curve.label}" if curve.label else chart.title


def number(value: float, digits: int = 4) -> str:
    """Significant digits; a dash for a missing value."""
    if isnan(value):
        return "–"
    return f"{value:.{digits}g}".replace("-", "−").replace("inf", "∞")


def _span(low: float, high: float) -> str:
    """Both ends of an interval or range; "" where there is none."""
    finite = not isnan(low) and not isnan(high) and low != high
    return f"{number(low, 3)} … {number(high, 3)}" if finite else ""
