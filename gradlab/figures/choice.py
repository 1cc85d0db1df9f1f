"""Weights of a choice as figures: measured and by the papers' rules, and their errors.

The tables are those of `gradlab.choice.tables`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from gradlab.figures import drawing, style
from gradlab.figures.style import BLUE, GREEN, INK, MUTED, PAPER, PURPLE, VERMILION, Look
from gradlab.wording import label

LEAST_SHARE = 0.02  # of a weight, below which its cell, or a rule's point, is not shown
_CONTENDERS = {
    "best single": "best single gradient",
    "best scaled single": "the same, best scale",
    "mse": "measured weights, MSE",
    "direction": "measured weights, direction",
}
_MEASURED = {"mse": (BLUE, "o"), "direction": (GREEN, "^")}


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
    known = table.attrs.get("identities")
    names = [f"{style.plain(label(name, known))}\nh = {h}" for name, h in cells]
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
