"""Returns of a race's branches, or of rehearsed gradients, over their updates, with 95% bands.

The table is `Race.table()` or `Rehearsal.table()`: a row per candidate and evaluation, with the
change of the return from the common start, paired, and whether it is followed for so long.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from gradlab.figures import drawing, style
from gradlab.figures.style import INK, MUTED


def return_over_updates(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Change of the return from the start over the updates, every candidate a line with its band;
    a ring where the return of what may be followed is highest."""
    ax = style.new_axes() if ax is None else ax
    if "candidate" not in table:
        steps = table["estimator"] + ", h = " + table["horizon"].astype(str)
        table = table.assign(candidate=steps.where(table["horizon"] > 0, table["estimator"]))
    names = list(dict.fromkeys(table["candidate"]))
    rows = table[np.isfinite(table["value"])]
    notes = ["band: 95%, paired with the start; ring: follow it so far; a line that ends: dropped"]
    if not len(rows):
        drawing.nothing(ax, "every branch was lost")
    for name, look in style.looks(names).items():
        own = rows[rows["candidate"] == name]
        x, y, low, high = (
            np.concatenate([[0.0], own[column].to_numpy(float)])
            for column in ("updates", "value", "ci_low", "ci_high")
        )
        ax.plot(x, y, color=look.colour, ls=look.dash, marker=look.marker, ms=4, label=name)
        ax.fill_between(x, low, high, color=look.colour, alpha=0.14, lw=0)
        at = own[own["holds"].astype(bool)]
        ax.plot(at["updates"], at["value"], "o", ms=11, mfc="none", mec=look.colour, mew=1.6)
    if len(rows):
        ax.axhline(0.0, color=MUTED, lw=0.8)
        notes += drawing.bent(ax, rows["value"].abs().to_numpy(float))
    style.dress(ax, "Return over updates", "change of the return", notes)
    ax.set_xlabel("updates", color=INK)
    return ax
