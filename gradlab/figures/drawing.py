"""Curves with bands, levels, and what a logarithmic axis cannot show.

A noise-corrected square (bias², SNR) may come out at or below zero. On a logarithmic axis such a
point is drawn where its interval ends, as an open marker with an arrow down: "at most this".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray

from gradlab.figures import style
from gradlab.figures.style import MUTED, PAPER, TICKS, Look
from gradlab.runs.identity import Identity, by_known_name

Numbers = NDArray[np.float64]
_POINTS = 2  # values that make no curve
_SPREAD = 30.0  # largest over median size from which an axis is bent
_WIDE, _MOST = 1e6, 1e250  # times the largest value; what a logarithmic axis with a margin holds


@dataclass(frozen=True)
class Curve:
    """One quantity of one estimator over the horizon; all arrays [horizons]."""

    horizon: Numbers
    value: Numbers
    low: Numbers
    high: Numbers

    def clipped(self, low: float, high: float) -> Curve:
        clip = [np.clip(each, low, high) for each in (self.value, self.low, self.high)]
        return Curve(self.horizon, *clip)

    def within(self, low: float, high: float) -> tuple[Curve, bool]:
        """Clipped to what the quantity can be, and whether it has intervals wider than half of
        that. They say next to nothing and their bands cover all lines: they are left out, and so
        is a value beyond that has one, which is noise."""
        cut = self.clipped(low, high)
        with np.errstate(invalid="ignore"):
            unknown = cut.high - cut.low > (high - low) / 2
        lower, upper = (np.where(unknown, np.nan, each) for each in (cut.low, cut.high))
        value = np.where(unknown & (cut.value != self.value), np.nan, cut.value)
        return Curve(self.horizon, value, lower, upper), bool(unknown.any())

    def on_logarithmic(self) -> Curve:
        """Without values that no axis holds, and without upper ends that say nothing: they lie so
        far above the largest value that nothing else would be seen."""
        with np.errstate(invalid="ignore"):
            value = np.where(self.value <= _MOST, self.value, np.nan)
            largest = np.nanmax(value, initial=0.0)
            top = min(_WIDE * largest, _MOST) if largest > 0 else _MOST
            return replace(self, value=value, high=np.where(self.high <= top, self.high, np.nan))


_VALUE = ("value", "ci_low", "ci_high")


def curve_of(rows: pd.DataFrame, x: str, columns: Sequence[str] = _VALUE) -> Curve:
    """Rows as a curve over a column, with its interval."""
    rows = rows.sort_values(x)
    return Curve(*(rows[name].to_numpy(float) for name in (x, *columns)))


def estimators(table: pd.DataFrame) -> list[str]:
    """Names in the table's order."""
    return [str(name) for name in dict.fromkeys(table["estimator"])]


def identities(table: pd.DataFrame) -> dict[str, Identity]:
    """Who the estimators of a table are, as `Profile.table` says it, else by the default names."""
    kept = table.attrs.get("identities")
    if kept is None:
        return by_known_name(estimators(table))
    return {name: Identity(**fields) for name, fields in kept.items()}


def looks(table: pd.DataFrame) -> dict[str, Look]:
    """The look of every estimator of a table."""
    return style.looks(estimators(table), identities(table))


def log_floor(curves: Sequence[Curve | None]) -> float:
    """Where a logarithmic axis ends below: a third under the smallest positive value shown."""
    shown = [np.where(c.value > 0, c.value, c.high) for c in curves if c is not None]
    positive = _positive(np.concatenate([*shown, []]))
    return float(positive.min()) / 3 if positive.size else 0.1


def _positive(sizes: Numbers) -> Numbers:
    return sizes[np.isfinite(sizes) & (sizes > 0)]


def draw(
    ax: Axes,
    line: Curve,
    look: Look,
    floor: float | None = None,
    width: float = 1.8,
    band: float = 0.17,
) -> None:
    """A curve with its band; of one or two values, points with their intervals.

    Args:
        floor: the axis is logarithmic and ends there.
    """
    line = line if floor is None else line.on_logarithmic()
    value, low = line.value, line.low
    if floor is not None:
        value = np.where(value > 0, value, np.nan)
        low = np.maximum(low, floor)
        # `annotate` points from its text to the point; here the point is where the arrow begins.
        arrow = dict(color=look.colour, arrowstyle="<-", linewidth=1.1, shrinkA=0, shrinkB=3)
        bound = (line.value <= 0) & (line.high > 0) & np.isfinite(line.high)
        for x, y in zip(line.horizon[bound], line.high[bound], strict=True):
            ax.annotate("", (x, y), (0, -15), textcoords="offset points", arrowprops=arrow)
            ax.plot(x, y, marker=look.marker or "o", markersize=5, color=look.colour,
                    markerfacecolor=PAPER)  # fmt: skip
    points = len(value) <= _POINTS
    ax.plot(
        line.horizon, value, label=look.label, color=look.colour, linewidth=width,
        linestyle="none" if points else look.dash, marker=look.marker or ("o" if points else ""),
        markersize=7 if points else 5, markevery=max(1, len(value) // 13), markeredgecolor=PAPER,
        markeredgewidth=0.7,
    )  # fmt: skip
    if points:
        ends = np.isfinite(low) & np.isfinite(line.high)
        ax.vlines(line.horizon[ends], low[ends], line.high[ends], color=look.colour, lw=width,
                  label=f"_{look.label}")  # fmt: skip
    else:
        _band(ax, line.horizon, low, line.high, look, band)


def _band(ax: Axes, x: Numbers, low: Numbers, high: Numbers, look: Look, alpha: float) -> None:
    shown = np.isfinite(low) & np.isfinite(high) & (high > low)
    ax.fill_between(x, low, high, where=shown, color=look.colour, alpha=alpha, linewidth=0,
                    label=f"_{look.label}")  # fmt: skip


def log_notes(lines: Sequence[Curve]) -> list[str]:
    """What a logarithmic axis does not show of these, in words."""
    bounds = any(bool((line.value <= 0).any()) for line in lines)
    notes = ["open marker: at most so much (upper end of 95%)"] if bounds else []
    highs = [(each.on_logarithmic().high, each.high) for each in lines]
    cut = any(bool((~np.isfinite(shown) & ~np.isnan(high)).any()) for shown, high in highs)
    return [*notes, "no band: the interval has no upper end"] if cut else notes


def level(ax: Axes, line: Curve, look: Look, end: float, floor: float | None = None) -> None:
    """What has no horizon but 0, as the data gradient: a line from 0 to `end`, with its band."""
    line = line if floor is None else line.on_logarithmic()
    value, low, high = (each[:1].repeat(2) for each in (line.value, line.low, line.high))
    if floor is not None:
        value, low = np.where(value > 0, value, high), np.maximum(low, floor)
    x = np.array([0.0, end]) if end > 0 else np.array([-0.3, 0.3])
    ax.plot(x, value, color=look.colour, linestyle=look.dash, label=look.label, linewidth=1.6)
    _band(ax, x, low, high, look, alpha=0.14)


def bent(ax: Axes, sizes: Numbers) -> list[str]:
    """A symmetric logarithmic axis where a few sizes dwarf the rest, and the note that says so."""
    positive = _positive(sizes)
    if not positive.size or positive.max() < _SPREAD * np.median(positive):
        return []
    bend = 10.0 ** round(np.log10(np.median(positive)))  # a tick stands there, clear of that at 0
    ax.set_yscale("symlog", linthresh=bend)
    ax.yaxis.set_major_formatter(TICKS)
    return [f"axis: linear within ± {bend:g}, logarithmic beyond"]


def nothing(ax: Axes, why: str) -> None:
    """An axes without data says why."""
    ax.text(0.5, 0.5, why, transform=ax.transAxes, ha="center", va="center", color=MUTED)
    ax.set_xticks([])
    ax.set_yticks([])
