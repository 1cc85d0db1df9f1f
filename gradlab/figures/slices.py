"""The return along lines through θ: what a model's gradient climbs, and what it gives.

    loss_slices     one surface, "simulator" or "model", along one direction, of every model

The table is that of `Remedies.slices`: a row per model, surface, direction and alpha with value,
the change of the return, ci_low and ci_high; `at` is the horizon of the model's surface.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gradlab.figures import drawing, style
from gradlab.figures.remedies import SIMULATOR, looks
from gradlab.figures.style import INK, MUTED, PAPER

UNIT = "change of the discounted return"
TITLES = {
    ("simulator", "gradient"): "True return along each model's gradient",
    ("model", "gradient"): "What each model expects along its own gradient",
    ("model", "random"): "Each model's surface along a random direction",
}


def loss_slices(
    table: pd.DataFrame,
    ax: Axes | None = None,
    *,
    surface: str = "simulator",
    direction: str = "gradient",
    roughness: Mapping[str, float] | None = None,
) -> Axes:
    """Lines of one surface along one direction; the simulator's own along a random one.

    Args:
        roughness: of each model's line, told in the legend.
    """
    ax = style.new_axes() if ax is None else ax
    along = table["direction"] == direction
    mine = along & ((table["surface"] == surface) | (table["model"] == SIMULATOR))
    rows, told = table[mine & np.isfinite(table["value"])], roughness or {}
    for name, look in looks(
        drawing.estimators(rows.rename(columns={"model": "estimator"}))
    ).items():
        own = rows[rows["model"] == name].sort_values("alpha")
        x, y, low, high = (own[c].to_numpy(float) for c in ("alpha", "value", "ci_low", "ci_high"))
        label = f"{look.label}, roughness {told[name]:.2g}" if name in told else look.label
        ax.plot(x, y, color=look.colour, ls=look.dash, marker=look.marker, ms=4.5, label=label,
                markevery=2, mec=PAPER, mew=0.7, lw=2.4 if name == SIMULATOR else 1.6)  # fmt: skip
        ax.fill_between(x, low, high, color=look.colour, alpha=0.1, lw=0)
    notes = ["band: 95%, paired with α = 0" + "; roughness of a parabola: 0.02" * bool(told)]
    if len(rows):
        ax.axhline(0.0, color=MUTED, lw=0.8)
        ax.axvline(0.0, color=MUTED, lw=0.8)
        notes += drawing.bent(ax, rows["value"].abs().to_numpy(float))
    else:
        drawing.nothing(ax, "no slices were taken")
    style.dress(ax, TITLES.get((surface, direction), "Slices of the return"), UNIT, notes)
    ax.set_xlabel("step α: at ±1 the first actions move by half their size", color=INK)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=9))
    return ax
