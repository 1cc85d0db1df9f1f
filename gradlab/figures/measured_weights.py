"""Weights through training: what measurements put in force, beside what the rule would have done.

The table (`gradlab.runs.training.measured_weights.table`) has a row per measurement, seed, quantity
and horizon, with value, ci_low and ci_high.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from gradlab.figures.drawing import nothing
from gradlab.figures.style import BLUE, GREEN, INK, MUTED, TICKS, VERMILION, Dash, dress, new_axes

LOOKS: tuple[tuple[str, Dash, str], ...] = (
    (VERMILION, "-", "s"), (BLUE, "-", "o"), (GREEN, "-", "^"), (INK, "-", "D"),
)  # fmt: skip
RULE: Dash = (0, (5, 2))


def weights_against_rule(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Weight of every horizon over iterations: in force (seeds and their median), and the rule's.

    Of two horizons only the longer one's is drawn, with its seeds: the other's is the rest.
    """
    ax = ax or new_axes()
    horizons = sorted(set(table.loc[table["quantity"] == "in force", "horizon"]))
    if not horizons:
        nothing(ax, "no weights were measured")
        return ax
    drawn = horizons[1:] if len(horizons) == 2 else horizons
    for horizon, (colour, dash, marker) in zip(drawn, LOOKS, strict=False):
        seeds, rule = (_wide(table, quantity, horizon) for quantity in ("in force", "rule"))
        for name in seeds.columns if len(drawn) == 1 < len(seeds.columns) else ():
            ax.step(seeds.index, seeds[name], where="post", color=colour, lw=0.6, alpha=0.4)
        ax.plot(seeds.index, seeds.median(axis=1), dash, color=colour, marker=marker, lw=1.8,
                markersize=4.5, label=f"h = {horizon}, measured")  # fmt: skip
        ax.plot(rule.index, rule.median(axis=1), linestyle=RULE, color=colour, lw=1.4,
                marker=marker, markersize=4.5, markerfacecolor="none",
                label=f"h = {horizon}, rule")  # fmt: skip
    ax.set_ylim(-0.03, 1.03)
    rest = f"the rest of the weight is that of h = {horizons[0]}" if len(horizons) == 2 else ""
    switched = table[table["quantity"] == "switched"]["value"]
    notes = [f"{switched.sum():.0f} of {len(switched)} measurements changed what is in force"]
    count = table["seed"].nunique()
    median = f"measured: median of {count} seeds" if count > 1 else "one seed"
    notes += [f"{rest}; {median}" if rest else median]
    dress(ax, "Weights through training: rule and measured", "weight", notes)
    ax.set_xlabel("iteration")
    return ax


def error_over_rule(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """MSE of what was in force over that of the rule, on starts that did not choose it."""
    ax = ax or new_axes()
    rows = table[(table["quantity"] == "over rule") & np.isfinite(table["value"])]
    if not len(rows):
        nothing(ax, "errors are not distinguishable from zero, or nothing was put in force")
        return ax
    names = sorted(set(rows["seed"]))
    spread = np.diff(sorted(set(table["iteration"])))
    step = 0.5 * float(spread.min()) / max(len(names), 1) if len(spread) else 0.0
    for k, seed in enumerate(names):
        mine = rows[rows["seed"] == seed]
        x = mine["iteration"] + (k - (len(names) - 1) / 2) * step
        ax.vlines(x, mine["ci_low"], mine["ci_high"], color=MUTED, lw=1, alpha=0.6)
        ax.plot(x, mine["value"], "o", color=BLUE, markersize=3, alpha=0.7,
                label="each seed, 95% interval over its starts" if k == 0 else None)  # fmt: skip
    middle = rows.groupby("iteration")["value"].median()
    ax.plot(middle.index, middle, "-", color=INK, lw=1.8, label="median of the seeds")
    ax.axhline(1.0, color=MUTED, lw=0.8)
    ax.set_yscale("log")
    # Intervals of errors near zero span decades: the values decide on the axis.
    reach = max(float(np.abs(np.log(rows["value"])).max()), np.log(2)) * 1.15
    ax.set_ylim(np.exp(-reach), np.exp(reach))
    ax.yaxis.set_major_formatter(TICKS)
    ax.yaxis.set_minor_formatter(NullFormatter())
    notes = ["below 1: better than the rule's weights"]
    dress(ax, "Error of the weights in force", "MSE / MSE of the rule's weights", notes)
    ax.set_xlabel("iteration")
    return ax


def _wide(table: pd.DataFrame, quantity: str, horizon: int) -> pd.DataFrame:
    """Iterations × seeds."""
    rows = table[(table["quantity"] == quantity) & (table["horizon"] == horizon)]
    return rows.pivot(index="iteration", columns="seed", values="value")
