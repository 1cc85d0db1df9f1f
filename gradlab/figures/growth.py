"""How gradients grow with the horizon.

`sample_norm` takes a profile's table and draws √(|E g_n|² + tr Cov_n), the root mean square norm of
one sample.
"""

from __future__ import annotations

from math import exp

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from gradlab.figures import drawing, style
from gradlab.figures.drawing import Curve
from gradlab.figures.style import PURPLE

_LARGEST = 3.4e38  # in float32


def sample_norm(
    table: pd.DataFrame, ax: Axes | None = None, *, exponent: float | None = None
) -> Axes:
    """Root mean square norm of one sample of every estimator.

    Args:
        exponent: λ + ln γ per step; drawn as a line through the judged estimator's last point.
    """
    ax = style.new_axes() if ax is None else ax
    looks, end = drawing.looks(table), drawing.last_horizon(table)
    lines = {name: _norm(table, name) for name in looks}
    drawn = {name: line for name, line in lines.items() if line is not None}
    floor = drawing.log_floor(list(drawn.values()))
    for name, line in drawn.items():
        drawing.curve_or_level(ax, line, looks[name], end, floor)
    judged = next((line for line in drawn.values() if line.horizon.max() > 0), None)
    if exponent is not None and judged is not None:
        _predicted(ax, judged, exponent)
    ax.set_yscale("log")
    if not drawn:
        drawing.nothing(ax, "no norms in this table")
    elif ax.get_ylim()[1] > _LARGEST:
        ax.axhline(_LARGEST, color=PURPLE, lw=1.2, ls=(0, (2, 2)), label="range of float32")
    title = "Growth: size of one sample's gradient"
    return style.dress(ax, title, "root mean square norm [return / parameter]")


def _norm(table: pd.DataFrame, name: str) -> Curve | None:
    """From variance and mean; the interval is the variance's, which dominates where it matters."""
    variance = drawing.curve(table, name, "variance")
    mean = drawing.curve(table, name, "mean_norm")
    if variance is None or mean is None:
        return None
    size = np.where(np.isfinite(mean.value), mean.value, 0.0) ** 2
    parts = (np.maximum(each, 0.0) for each in (variance.value, variance.low, variance.high))
    return Curve(variance.horizon, *(np.sqrt(each + size) for each in parts))


def _predicted(ax: Axes, line: Curve, exponent: float) -> None:
    positive = np.flatnonzero(np.isfinite(line.value) & (line.value > 0))
    if len(positive) < 2:
        return
    last, x = positive[-1], line.horizon
    y = line.value[last] * np.exp(exponent * (x - x[last]))
    label = f"simulator's chain alone: × {exp(exponent):.3g} per step"
    shown = y > line.value[positive].min() / 10
    ax.plot(x[shown], y[shown], color=PURPLE, lw=1.3, ls=(0, (1, 1.2)), label=label)
