"""The return along lines through θ: what a gradient climbs, and what it gives."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gradlab.figures import drawing, style
from gradlab.figures.style import INK, MUTED, PAPER


def loss_slices(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """One line with its 95% band for every direction.

    Args:
        table: of `gradlab.measurement.return_slices.table`: direction, alpha, value (the change of
            the return), ci_low and ci_high.
    """
    ax = style.new_axes() if ax is None else ax
    rows = table[np.isfinite(table["value"])]
    looks = style.looks(list(dict.fromkeys(rows["direction"].astype(str))))
    for name, look in looks.items():
        own = rows[rows["direction"] == name].sort_values("alpha")
        x, y, low, high = (own[c].to_numpy(float) for c in ("alpha", "value", "ci_low", "ci_high"))
        ax.plot(x, y, color=look.colour, ls=look.dash, marker=look.marker, ms=4.5, markevery=2,
                mec=PAPER, mew=0.7, label=look.label)  # fmt: skip
        ax.fill_between(x, low, high, color=look.colour, alpha=0.1, lw=0)
    notes = ["band: 95%, paired with α = 0"]
    if len(rows):
        ax.axhline(0.0, color=MUTED, lw=0.8)
        ax.axvline(0.0, color=MUTED, lw=0.8)
        notes += drawing.bent(ax, rows["value"].abs().to_numpy(float))
    else:
        drawing.nothing(ax, "no slices were taken")
    style.dress(ax, "The return along lines through θ", "change of the discounted return", notes)
    ax.set_xlabel("step α: at ±1 the first actions move by half their size", color=INK)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=9))
    return ax
