"""Curves, marks and maps of a long table: one function each, figures are rows of their settings."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from gradlab.figures import drawing, style
from gradlab.figures.style import BLUE, INK, MUTED, PAPER, Look, tick
from gradlab.wording import two

Series = Mapping[Look, pd.DataFrame]
_ENDS = ["value", "ci_low", "ci_high"]
_FALL = 1e-6  # of the largest value, below which a curve is rounding
_APART = 0.24  # of the room between two names, for all series
_OPACITIES = (0.1, 0.22, 0.36, 0.5, 0.85, 1.0)
_FULL = 4  # from this tint on numbers are written in the colour of the paper
_WORDY = 90  # entries up to which each shows its number
_MOST = 24  # names beside a map


def rows(table: pd.DataFrame, section: str, quantity: str, **where: str) -> pd.DataFrame:
    """The rows of one quantity, where labels have given values."""
    chosen = (table["section"] == section) & (table["quantity"] == quantity)
    for name, wanted in where.items():
        chosen &= table[name] == wanted
    return table[chosen]


def scaled(frame: pd.DataFrame, factor: float | pd.Series) -> pd.DataFrame:
    """Values and ends, multiplied."""
    return frame.assign(**{name: frame[name] * factor for name in _ENDS})


def rooted(frame: pd.DataFrame) -> pd.DataFrame:
    """Of squares; what is estimated below 0 stays there, so that it is drawn as "at most"."""
    ends = {name: np.sqrt(frame[name].clip(lower=0)) for name in _ENDS}
    return frame.assign(**ends | {"value": ends["value"].where(frame["value"] > 0, frame["value"])})


def lines(
    ax: Axes | None, title: str, series: Series, unit: str, *, x: str = "step",
    along: str = "", level: float | None = None, log: bool = False, percent: bool = False,
    most: float = inf, note: str = "",
) -> Axes:  # fmt: skip
    """Curves with bands over a column.

    Args:
        along: what the column is; level: a line to compare with; most: where the axis ends.
    """
    ax = style.new_axes() if ax is None else ax
    curves = {look: drawing.curve_of(each, x) for look, each in series.items()}
    curves = {
        look: each.clipped(-inf, most)
        for look, each in curves.items()
        if np.isfinite(each.value).any() and not (log and not (each.high > 0).any())
    }
    floor = None
    if curves and log:
        largest = max(float(np.nanmax(each.value)) for each in curves.values())
        floor = max(drawing.log_floor(list(curves.values())), largest * _FALL)
    if curves and level is not None:
        ax.axhline(level, color=MUTED, lw=1.0)
    for look, each in curves.items():
        drawing.draw(ax, each, look, floor, band=0.13)
    if floor is not None:
        ax.set_yscale("log")
        ax.set_ylim(bottom=floor)
    if not curves:
        drawing.nothing(ax, "no numbers")
    style.dress(ax, title, unit, [note] if note and curves else [])
    if percent and curves:
        drawing.percent_axis(ax)
    ax.set_xlabel(along or "horizon h [steps]", color=INK)
    if curves and x == "x":
        ax.xaxis.set_major_locator(MaxNLocator(nbins=8))
    return ax


def marks(
    ax: Axes | None, title: str, series: Series, unit: str, *, along: str, level: float = 0.0,
    percent: bool = False, least: float = -inf,
) -> Axes:  # fmt: skip
    """Values with their intervals, side by side for every output. `least`: where the axis ends."""
    ax = style.new_axes() if ax is None else ax
    names = list(dict.fromkeys(str(name) for each in series.values() for name in each["output"]))
    for k, (look, each) in enumerate(series.items()):
        value, low, high = (each[name].to_numpy(float) for name in _ENDS)
        place = np.array([names.index(str(name)) for name in each["output"]], dtype=float)
        place += _APART * (k / max(len(series) - 1, 1) - 0.5)
        ends = np.abs(np.nan_to_num([value - low, high - value], posinf=0.0, neginf=0.0))
        ax.errorbar(place, value, yerr=ends, fmt=look.marker, color=look.colour, label=look.label,
                    markersize=5, capsize=3)  # fmt: skip
    if not names:
        drawing.nothing(ax, "no numbers")
    style.dress(ax, title, unit)
    ax.set_xlabel(along, color=INK)
    if names:
        ax.axhline(level, color=MUTED, lw=0.9)
        ax.set_ylim(bottom=max(ax.get_ylim()[0], least))
        _named(ax, names, [])
        if percent:
            drawing.percent_axis(ax)
    return ax


def matrix(
    ax: Axes | None, title: str, frame: pd.DataFrame, note: str, *, decades: float, least: float
) -> Axes:
    """Output × input as a map of tints, a line before the last output and the inputs beyond it.

    Args:
        decades: from the palest tint to the fullest; least: smaller numbers are "~0".
    """
    ax = style.new_axes() if ax is None else ax
    if frame.empty:
        drawing.nothing(ax, "no numbers")
        return style.dress(ax, title, "")
    wide = frame.pivot_table("value", "output", "input", "sum", sort=False)
    tinted(ax, wide.to_numpy(float), decades, least)
    style.dress(ax, title, "output", [note])
    ax.grid(False)
    ax.spines[["top", "right"]].set_visible(True)
    outputs, inputs = ([str(name) for name in each] for each in (wide.index, wide.columns))
    _named(ax, inputs, outputs)
    ax.axhline(len(outputs) - 1.5, color=MUTED, lw=1.2)
    ax.axvline(len(outputs) - 1.5, color=MUTED, lw=1.2)
    ax.set_xlabel("input", color=INK)
    return ax


def _named(ax: Axes, across: list[str], down: list[str]) -> None:
    """Names beside columns and rows, as many as there is room for."""
    for axis, names in ((ax.xaxis, across), (ax.yaxis, down)):
        if names:
            keep = range(0, len(names), 1 + (len(names) - 1) // _MOST)
            axis.set_ticks(list(keep), [style.plain(names[k]) for k in keep])
    ax.tick_params(length=0, labelsize=9, colors=INK)
    if len(across) > 5:
        for label in ax.get_xticklabels():
            label.set(rotation=45, ha="right")


def tinted(ax: Axes, values: NDArray[np.float64], decades: float, least: float) -> None:
    """Cells in tints of one colour above the paper, so that they swap together on a dark page; a
    cell that is exactly 0 has none. The scale to the right says where each begins."""
    shape, count = values.shape, len(_OPACITIES)
    top = float(np.nanmax(values, initial=0.0)) or 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.floor(count * (1 + np.log10(values / top) / decades))
    places = np.where(values > 0, np.clip(np.nan_to_num(share), 0, count - 1), -1).astype(int)
    for (i, j), place in np.ndenumerate(places):
        if place >= 0:
            ax.add_patch(_cell(j - 0.5, i - 0.5, _OPACITIES[place]))
        if values.size <= _WORDY:
            value = float(values[i, j])
            colour = MUTED if place < 0 else PAPER if place >= _FULL else INK
            text = two(value) if value >= 0.01 else f"{value:.1g}" if value >= least else "~0"
            text = "0" if value == 0 else "–" if place < 0 else text
            ax.text(j, i, text, ha="center", va="center", fontsize=9, color=colour)
    ax.set(xlim=(-0.5, shape[1] - 0.5), ylim=(shape[0] - 0.5, -0.5))
    side = ax.inset_axes((1.03, 0.1, 0.035, 0.8))
    for step, opacity in enumerate(_OPACITIES):
        side.add_patch(_cell(0, step, opacity))
    side.set(xlim=(0, 1), ylim=(0, count), xticks=[])
    begins = [top * 10 ** (decades * (step / count - 1)) for step in range(1, count + 1)]
    side.set_yticks(range(1, count + 1), [tick(float(f"{each:.1g}")) for each in begins])
    side.yaxis.tick_right()
    side.tick_params(colors=MUTED, labelsize=9, length=0)
    for spine in side.spines.values():
        spine.set_color(MUTED)


def _cell(x: float, y: float, opacity: float) -> Rectangle:
    return Rectangle((x, y), 1, 1, facecolor=BLUE, alpha=opacity, linewidth=0)
