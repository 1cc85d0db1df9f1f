"""What one update along each gradient did to the return, by horizon.

The table is that of `runs.realised.Realised`: estimator, horizon, step, update, value, ci_low,
ci_high in units of the discounted return.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from gradlab.figures import drawing, style
from gradlab.figures.style import INK, MUTED, PAPER, Look

TRUTH = "truth"  # in the place of an estimator's name
SIDE = 0.12  # steps between estimators that share a horizon
_TRUE = Look("true gradient", INK, "-", "D")
UNIT = "change of the discounted return"


def realised_gains(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """One dot with its 95% interval for every step taken, those of one estimator joined."""
    ax = style.new_axes() if ax is None else ax
    finite = table[np.isfinite(table["value"])] if len(table) else table
    if not len(finite):
        drawing.nothing(ax, "no steps were taken")
        return style.dress(ax, "Realised gain of one step", "")
    rows = finite[finite["update"]]
    names = [name for name in drawing.estimators(rows) if name != TRUTH]
    looks = style.looks(names, drawing.identities(rows))
    for place, name in enumerate(names):
        own, look = rows[rows["estimator"] == name].sort_values("horizon"), looks[name]
        x = own["horizon"].to_numpy(float) + SIDE * (place - (len(names) - 1) / 2)
        value, low, high = (own[each].to_numpy(float) for each in ("value", "ci_low", "ci_high"))
        ax.vlines(x, low, high, color=look.colour, lw=1.8)
        ax.plot(x, value, color=look.colour, ls=look.dash, lw=1.0, alpha=0.6)
        ax.plot(x, value, color=look.colour, ls="", marker=look.marker or "D", ms=7, mec=PAPER,
                mew=0.8, label=look.label)  # fmt: skip
    ax.axhline(0.0, color=INK, lw=1.1)
    ax.axhspan(min(ax.get_ylim()[0], 0.0), 0.0, color=MUTED, alpha=0.07, lw=0, zorder=0)
    starts = int(rows["n"].iloc[0])
    notes = [f"dot and bar: estimate and 95%, {starts} fresh starts; the best possible is unknown"]
    bent = drawing.bent(ax, rows["value"].abs().to_numpy(float))
    title = "Realised gain of one update"
    style.dress(ax, title, "harms  ←  change of the return  →  helps", [*notes, *bent])
    ax.set_xlabel("steps through the model before the critic takes over", color=INK)
    if not bent:
        ax.yaxis.set_major_locator(MaxNLocator(nbins=6))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−")))
    return ax
