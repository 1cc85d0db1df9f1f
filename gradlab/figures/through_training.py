"""Gradients through training: errors of J_0 and J_H, and what each should weigh.

The table has a row per iteration, estimator, horizon and quantity, with value, ci_low and ci_high:
`mse` and `bias2` of "data" (J_0) and "model" (J_H), and weights of J_H as `weight_mse`,
`weight_direction` (measured) and `weight_rule` (MPG eq. 10). Iterations may begin at 0, so the axis
is linear up to the first checkpoint and logarithmic beyond.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from gradlab.figures import drawing
from gradlab.figures.drawing import Curve, Numbers
from gradlab.figures.style import BLUE, GREEN, INK, MUTED, TICKS, VERMILION, Look, dress, new_axes

_NAMES = {"bias2": "Squared bias", "mse": "Mean squared error"}
_DATA = Look("data, J_0", VERMILION, (0, (5, 1.6)), "s")
_MODEL = Look("model, J_H", BLUE, "-", "o")
_WEIGHTS = {
    "weight_rule": Look("by the rule of MPG, eq. 10", MUTED, (0, (7, 2.5)), ""),
    "weight_mse": Look("measured, least MSE", INK, "-", "o"),
    "weight_direction": Look("measured, best direction", GREEN, (0, (1.2, 1.4)), "^"),
}


def errors_through_training(
    table: pd.DataFrame, ax: Axes | None = None, *, quantity: str = "bias2"
) -> Axes:
    """One error of J_0 and J_H over iterations, on a logarithmic axis, and where they cross.

    Args:
        quantity: "bias2" or "mse", or a relative one, "relative_bias2" or "relative_mse", in which
            1 is the level of a zero gradient.
    """
    ax = ax or new_axes()
    lines = [_curve(table, estimator, quantity) for estimator in ("data", "model")]
    if all(line is None for line in lines):
        drawing.nothing(ax, f"{quantity} was not measured")
        return ax
    floor = drawing.log_floor(lines)
    for line, look in zip(lines, (_DATA, _MODEL), strict=True):
        if line is not None:
            drawing.draw(ax, line, look, floor, band=0.0)
            _bars(ax, line, look, floor)
    ax.set_yscale("log")
    relative = quantity.startswith("relative")
    if relative:
        ax.axhline(1.0, color=MUTED, linewidth=0.8)
    data, model = lines
    notes = ["95% intervals over the starts"]
    if data is not None and model is not None:
        common, i, j = np.intersect1d(model.horizon, data.horizon, return_indices=True)
        pair = np.stack([model.value[i], data.value[j]])
        logs = np.log(np.where(pair > 0, pair, np.nan))
        places = crossings(common, logs[0] - logs[1])
        for each in places:
            ax.axvline(each, color=MUTED, linewidth=0.9, linestyle=(0, (2, 2)))
        notes.insert(0, f"J_H's estimate passes J_0's at {_words(places)}")
    name = _NAMES[quantity.removeprefix("relative_")]
    unit = "over |truth|²  (1: a zero gradient)" if relative else "in squared reward units"
    dress(ax, f"{name} through training", unit, notes)
    _iterations(ax, table)
    return ax


def weights_through_training(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Measured and rule-based weights of J_H beside J_0, and where each gives up half."""
    ax = ax or new_axes()
    drawn = {name: _curve(table, "model", name) for name in _WEIGHTS}
    if all(line is None for line in drawn.values()):
        drawing.nothing(ax, "no weights were measured")
        return ax
    for name, line in drawn.items():
        if line is not None:
            drawing.draw(ax, line, _WEIGHTS[name], band=0.0)
            _bars(ax, line, _WEIGHTS[name], 0.0)
    ax.axhline(0.5, color=MUTED, linewidth=0.8)
    ax.set_ylim(-0.04, 1.04)
    rule = drawn["weight_rule"]
    notes = ["95% intervals over the starts; the rest of the weight is J_0's"]
    if rule is not None:
        half = _words(crossings(rule.horizon, 0.5 - rule.value))
        notes.insert(0, f"the rule gives up half at {half}")
    dress(ax, "Weight of the model's gradient J_H", "weight", notes)
    _iterations(ax, table)
    return ax


def crossings(iteration: Numbers, gap: Numbers) -> Numbers:
    """Where a gap from checkpoint to checkpoint turns positive, interpolated linearly."""
    finite = np.isfinite(gap)
    x, y = iteration[finite], gap[finite]
    at = np.flatnonzero((y[:-1] < 0) & (y[1:] >= 0))
    share = -y[at] / (y[at + 1] - y[at])
    return np.asarray(x[at] + share * (x[at + 1] - x[at]))


def _curve(table: pd.DataFrame, estimator: str, quantity: str) -> Curve | None:
    """Over iterations; None where nothing is finite."""
    rows = table[(table["estimator"] == estimator) & (table["quantity"] == quantity)]
    rows = rows.sort_values("iteration")
    columns = (rows[name].to_numpy(float) for name in ("iteration", "value", "ci_low", "ci_high"))
    line = Curve(*columns)
    return line if np.isfinite(line.value).any() else None


def _bars(ax: Axes, line: Curve, look: Look, floor: float) -> None:
    """Intervals of a few points; of an upper bound its arrow says all."""
    shown = np.isfinite(line.low) & np.isfinite(line.high) & (line.high > line.low)
    shown &= line.value >= floor
    low, high = np.maximum(line.low[shown], floor), line.high[shown]
    ax.vlines(line.horizon[shown], low, high, color=look.colour, linewidth=4.5, alpha=0.35)


def _words(crossing: Numbers) -> str:
    if not len(crossing):
        return "none of the checkpoints"
    return "iteration " + " and ".join(f"{each:.0f}" for each in crossing)


def _iterations(ax: Axes, table: pd.DataFrame) -> None:
    """Ticks at the checkpoints themselves."""
    measured = table[table["quantity"] != "weight_rule"]
    steps = np.unique(measured["iteration"].to_numpy(float))
    positive = steps[steps > 0]
    if len(positive):
        first = float(positive.min())
        ax.set_xscale("symlog", linthresh=first, linscale=0.5)
        ax.set_xlim(min(float(steps.min()), 0.0) - 0.15 * first, 1.15 * float(steps.max()))
    ax.set_xticks(steps)
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(TICKS)
    ax.set_xlabel("iteration of the checkpoint", color=INK)
