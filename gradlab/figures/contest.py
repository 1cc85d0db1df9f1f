"""Estimators at equal samples: single gradients, the papers' rules, and measured weights.

The table has a row per contender: chooser, mse with mse_low and mse_high, cosine of one batch; all
from starts that chose none of the weights (`gradlab.choice.tables.contender_table`).
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from gradlab.figures import drawing, style
from gradlab.figures.style import BLUE, GREEN, INK, MUTED, VERMILION

NAMES = {
    "best single": "best single gradient",
    "best scaled single": "the same, best scale",
    "mse": "measured weights, MSE",
    "direction": "measured weights, direction",
}
MEASURED = {"mse": (BLUE, "o"), "direction": (GREEN, "^")}


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
        colour, marker = _look(name)
        if known[place]:
            ends = [max(low[place], floor), high[place]]
            ax.plot(ends, [place, place], color=colour, lw=2.2)
            ax.plot(value[place], place, marker=marker, color=colour, ms=7, mec=style.PAPER)
        told = f"{min(cosine[place], 1.0):.2f}" if np.isfinite(cosine[place]) else "–"
        ax.annotate(told, (1.0, place), (6, 0), ("axes fraction", "data"), "offset points",
                    fontsize=9, color=MUTED, va="center")  # fmt: skip
    notes = ["on starts that chose none of them; bar: 95%; right: cosine of one batch"]
    if known.any():
        ax.set_xscale("log")
        ax.set_ylim(len(names) - 0.4, -0.6)
    else:
        drawing.nothing(ax, "no contender has a known error")
    style.dress(ax, "Contest: error at equal samples", "", notes)
    ax.set_xlabel("MSE [(return / parameter)²]", color=INK)
    ax.set_yticks(range(len(names)), [_name(each) for each in names])
    ax.grid(True, axis="x", color=style.GRID, linewidth=0.8)
    ax.grid(False, axis="y")
    _plain_decades(ax)
    return ax


def _look(name: str) -> tuple[str, str]:
    if name in MEASURED:
        return MEASURED[name]
    return (VERMILION, "s") if "rule" in name else (INK, "D")


def _name(name: str) -> str:
    return style.plain(NAMES.get(name, name).replace("iteration ", ""))


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
