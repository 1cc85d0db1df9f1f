"""A choice as figures: who may be best, how to weigh, and what would be best elsewhere.

The tables are those of `gradlab.choice.tables`; the sets are 95% sets, so that more samples make
them smaller, never the other way round.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from gradlab.figures import drawing, style
from gradlab.figures.style import BLUE, GREEN, INK, MUTED, PAPER, PURPLE, TICKS, VERMILION, Look

_QUANTITY = {"mse": "mse", "direction": "cosine_batch"}
_LABEL = {"mse": "MSE [(return / parameter)²]", "direction": "cosine of one batch with the truth"}
_TITLE = {"mse": "Error, and who may be best", "direction": "Direction, and who may be best"}
LEAST_SHARE = 0.02  # of a weight, below which its cell, or a rule's point, is not shown
_MANY = 12  # rings, which then are smaller
_CONTENDERS = {
    "best single": "best single gradient",
    "best scaled single": "the same, best scale",
    "mse": "measured weights, MSE",
    "direction": "measured weights, direction",
}
_MEASURED = {"mse": (BLUE, "o"), "direction": (GREEN, "^")}


def choice_horizon(
    table: pd.DataFrame,
    ax: Axes | None = None,
    *,
    criterion: Literal["mse", "direction"] = "mse",
) -> Axes:
    """Every competitor over the horizon; members of the joint 95% set are ringed.

    Args:
        table: `error_table` of a choice.
    """
    ax = style.new_axes() if ax is None else ax
    quantity, names = _QUANTITY[criterion], drawing.estimators(table)
    lines = {name: drawing.curve(table, name, quantity) for name in names}
    floor = drawing.log_floor(list(lines.values())) if criterion == "mse" else None
    looks, end = drawing.looks(table), drawing.last_horizon(table)
    for name, line in lines.items():
        if line is None:
            continue
        shown = line if criterion == "mse" else line.clipped(-1.0, 1.0)
        drawing.curve_or_level(ax, shown, looks[name], end, floor)
    kept = table[table[f"kept_{criterion}"]]
    for estimator, rows in kept.groupby("estimator", sort=False):
        value = np.where(rows["value"] > 0, rows["value"], rows["ci_high"])
        ax.plot(
            rows["horizon"],
            np.minimum(value, 1.0) if (rows["quantity"] == "cosine_batch").all() else value,
            linestyle="none",
            marker="o",
            markersize=11 if len(kept) <= _MANY else 7.5,
            markerfacecolor="none",
            markeredgecolor=looks[str(estimator)].colour,
            markeredgewidth=1.6,
            zorder=6,
        )
    if criterion == "mse":
        ax.set_yscale("log")
        ax.set_ylim(bottom=floor)
    if not any(line is not None for line in lines.values()):
        drawing.nothing(ax, "no admissible truth: nothing to choose by")
    note = f"ring: may be best ({len(kept)} of the joint 95 % set); open marker: at most this"
    return style.dress(ax, _TITLE[criterion], _LABEL[criterion], [note])


def choice_weights(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Shares of every cell by the measured weights, with intervals, and by the papers' rules.

    Args:
        table: `weight_table` of a mixture.
    """
    ax = style.new_axes() if ax is None else ax
    # With a share worth showing by somebody, in the table's order.
    largest = table.groupby(["estimator", "horizon"], sort=False)[["value"]].max()["value"]
    cells = [(str(name), int(h)) for name, h in largest[largest >= LEAST_SHARE].index]
    looks = _choosers(list(dict.fromkeys(table["chooser"])))
    step = 0.8 / max(len(looks), 1)
    for k, (chooser, look) in enumerate(looks.items()):
        rows = table[table["chooser"] == chooser].set_index(["estimator", "horizon"])
        rows = rows.reindex(pd.MultiIndex.from_tuples(cells))
        x = np.arange(len(cells)) - 0.4 + (k + 0.5) * step
        value, low, high = (rows[name].to_numpy(float) for name in ("value", "ci_low", "ci_high"))
        if len(cells) > 2:
            value = np.where(high >= LEAST_SHARE, value, np.nan)
        ax.errorbar(
            x,
            value,
            yerr=np.maximum([value - low, high - value], 0.0),
            fmt=look.marker,
            color=look.colour,
            label=look.label,
            markersize=6,
            markeredgecolor=PAPER,
            markeredgewidth=0.6,
            elinewidth=1.3,
            capsize=2,
        )
    for edge in np.arange(len(cells) - 1) + 0.5:
        ax.axvline(edge, color=style.GRID, linewidth=0.8)
    ax.set_ylim(-0.03, 1.05)
    note = "bar: 95 % interval of the measured weights; rules have none"
    style.dress(ax, "Weights: measured and by rule", "weight", [note])
    names = [f"{name}\nh = {h}" for name, h in cells]
    ax.set_xticks(range(len(cells)), names, fontsize=8)
    ax.set_xlim(-0.5, len(cells) - 0.5)
    ax.set_xlabel("")  # two lines of names say it
    return ax


def _choosers(names: list[str]) -> dict[str, Look]:
    """Measured weights filled and first; rules after them, the two papers apart."""
    named = {
        "mse": Look("measured, mean squared error", BLUE, "-", "o"),
        "direction": Look("measured, direction", VERMILION, "-", "s"),
    }
    rules = [name for name in names if name not in named]
    colours, markers = (GREEN, PURPLE, INK, MUTED, style.OCHRE, style.CYAN), "^vDPX*"
    own = {
        name: Look(style.plain(name), colours[k % 6], "-", markers[k % 6])
        for k, name in enumerate(rules)
    }
    return {name: named[name] for name in named if name in names} | own


def what_if_grid(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """MSE and cosine at the best cell of every setting that was not measured.

    Args:
        table: `trial_table` of a choice: its batch sizes.
    """
    ax = style.new_axes() if ax is None else ax
    if not len(table):
        drawing.nothing(ax, "nothing to vary")
        return style.dress(ax, "What if", "")
    rows = np.arange(len(table))
    value, low, high = (table[name].to_numpy(float) for name in ("mse", "mse_low", "mse_high"))
    floor = drawing.log_floor([drawing.Curve(rows.astype(np.float64), value, low, high)])
    shown = np.where(value > 0, value, high)
    ends = np.maximum([shown - np.maximum(low, floor), high - shown], 0.0)
    ax.errorbar(
        shown, rows, xerr=ends, fmt="o", color=BLUE, markersize=6, elinewidth=1.4, capsize=2.5
    )
    lost = value <= 0
    ax.plot(shown[lost], rows[lost], "o", color=BLUE, markerfacecolor=PAPER, markersize=6)
    places = zip(table["estimator"], table["horizon"], table["cosine"], high, strict=True)
    for row, (name, horizon, cosine, end) in enumerate(places):
        cell = f"{style.plain(str(name))}, h = {int(horizon)}"
        text = f"{cell}, cos {min(float(cosine), 1.0):.2g}"
        ax.annotate(text, (end, row), (6, 0), textcoords="offset points", va="center",
                    fontsize=8, color=INK)  # fmt: skip
    notes = ["bar: 95 % interval; beside it the best and its cosine of one batch"]
    notes += ["open: estimate not above 0, upper end of its interval"] if lost.any() else []
    style.dress(ax, "What if: least error, and where", "", notes)
    ax.set_xscale("log")
    # Plain text: a formula would not survive as text in an SVG.
    ax.xaxis.set_major_formatter(TICKS)
    ax.set_xlim(floor, float(np.nanmax(high)) * 30)
    ax.set_yticks(rows, [str(each) for each in table["change"]], fontsize=8)
    ax.invert_yaxis()
    ax.set_xlabel(_LABEL["mse"], color=INK)
    ax.grid(True, axis="x", color=style.GRID, linewidth=0.8)
    return ax


def contest(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """MSE of every contender with its interval, the cosine of one batch at the right."""
    ax = style.new_axes() if ax is None else ax
    names = [str(each) for each in table["chooser"]]
    value, low, high, cosine = (
        table[name].to_numpy(float) for name in ("mse", "mse_low", "mse_high", "cosine")
    )
    known = np.isfinite(value) & (value > 0)
    floor = float(value[known].min()) / 3 if known.any() else 0.1
    for place, name in enumerate(names):
        rule = (VERMILION, "s") if "rule" in name else (INK, "D")
        colour, marker = _MEASURED.get(name, rule)
        if known[place]:
            ends = [max(low[place], floor), high[place]]
            ax.plot(ends, [place, place], color=colour, lw=2.2)
            ax.plot(value[place], place, marker=marker, color=colour, ms=7, mec=style.PAPER)
        label = f"{min(cosine[place], 1.0):.2f}" if np.isfinite(cosine[place]) else "–"
        ax.annotate(label, (1.0, place), (6, 0), ("axes fraction", "data"), "offset points",
                    fontsize=9, color=MUTED, va="center")  # fmt: skip
    notes = ["on starts that chose none of them; bar: 95%; right: cosine of one batch"]
    if known.any():
        ax.set_xscale("log")
        ax.set_ylim(len(names) - 0.4, -0.6)
    else:
        drawing.nothing(ax, "no contender has a known error")
    style.dress(ax, "Contest: error at equal samples", "", notes)
    ax.set_xlabel("MSE [(return / parameter)²]", color=INK)
    ticks = [_CONTENDERS.get(each, each).replace("iteration ", "") for each in names]
    ax.set_yticks(range(len(names)), [style.plain(each) for each in ticks])
    ax.grid(True, axis="x", color=style.GRID, linewidth=0.8)
    ax.grid(False, axis="y")
    _plain_decades(ax)
    return ax


def _plain_decades(ax: Axes) -> None:
    """Labels as plain text, at 1, 2 and 5 of each decade where there are few decades."""
    low, high = ax.get_xlim()
    if ax.get_xscale() != "log":
        return
    parts = (1, 2, 5) if high / low < 100 else (1,)
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    places = [p * 10.0**d for d in decades for p in parts if low <= p * 10.0**d <= high]
    ax.set_xticks(places, [f"{each:g}" for each in places])
    ax.xaxis.set_minor_formatter(NullFormatter())
