"""Two measurements side by side: B / A where both are above 0, B − A where they need not be.

    ratio         mean squared error or variance of B over that of A, on a logarithmic axis
    difference    squared bias or cosine of B less that of A

The table is that of `Comparison.table()`: first, second, difference with ci_low and ci_high, ratio
with ratio_low and ratio_high, one row per estimator, horizon and quantity.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from gradlab import validation
from gradlab.figures import drawing, style
from gradlab.figures.drawing import Curve
from gradlab.figures.style import MUTED

_NAMES = {
    "mse": "mean squared error",
    "bias2": "squared bias",
    "variance": "variance",
    "cosine": "cosine with the truth",
}
_RATIO = ("ratio", "ratio_low", "ratio_high")
_DIFFERENCE = ("difference", "ci_low", "ci_high")


def ratio(
    table: pd.DataFrame, ax: Axes | None = None, *, quantity: str = "mse", names: tuple[str, str]
) -> Axes:
    """B over A of every estimator, with its band; 1 is no change."""
    ax = _drawn(table, ax, quantity, _RATIO)
    A, B = (style.plain(each) for each in names)
    title = f"{_NAMES[quantity].capitalize()}: {B} over {A}"
    drawing.ratio_axis(ax)
    return style.dress(ax, title, "ratio", [f"below 1: {B} is smaller; band: 95%"])


def difference(
    table: pd.DataFrame,
    ax: Axes | None = None,
    *,
    quantity: str = "bias2",
    names: tuple[str, str],
) -> Axes:
    """B less A of every estimator, with its band; 0 is no change."""
    ax = _drawn(table, ax, quantity, _DIFFERENCE)
    A, B = (style.plain(each) for each in names)
    notes = [f"above 0: {B} is larger; band: 95%"]
    if ax.lines:
        ax.axhline(0.0, color=MUTED, lw=1.0)
        sizes = table[table["quantity"] == quantity]["difference"].abs()
        notes += drawing.bent(ax, sizes.to_numpy(float))
    else:
        drawing.nothing(ax, "not measured in both")
    unit = "" if quantity == "cosine" else " [(return / parameter)²]"
    title = f"{_NAMES[quantity].capitalize()}: {B} less {A}"
    return style.dress(ax, title, f"difference{unit}", notes)


def _drawn(
    table: pd.DataFrame, ax: Axes | None, quantity: str, columns: tuple[str, str, str]
) -> Axes:
    validation.word("quantity", quantity, _NAMES)
    ax = style.new_axes() if ax is None else ax
    looks, end = drawing.looks(table), drawing.last_horizon(table)
    for name, look in looks.items():
        chosen = (table["estimator"] == name) & (table["quantity"] == quantity)
        rows = table[chosen].sort_values("horizon")
        line = Curve(*(rows[each].to_numpy(float) for each in ("horizon", *columns)))
        if np.isfinite(line.value).any():
            drawing.curve_or_level(ax, line, look, end, band=0.12)
    return ax
