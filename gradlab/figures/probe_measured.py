"""What a probe measures on the task now and then: errors by horizon, choices, growth, critic.

Curves are those of `gradlab.figures.probe`; profiles (`gradlab.runs.probe.tables.profiles`) have a
row per step, estimator, horizon and quantity.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gradlab.figures import drawing, style
from gradlab.figures.drawing import Curve
from gradlab.figures.error import UNIT
from gradlab.figures.probe import curves_of, draw_seeds, empty, over_steps, seed_notes
from gradlab.figures.style import INK, MUTED, Look

LOOKS = (  # of measurements side by side, the newest last
    Look("", style.OCHRE, (0, (1.2, 1.4)), "^"),
    Look("", style.VERMILION, (0, (3, 1.2, 1, 1.2)), "v"),
    Look("", style.PURPLE, (0, (5, 1.6)), "D"),
    Look("", style.BLUE, (0, (9, 2)), "s"),
    Look("", style.INK, "-", "o"),
)


def moved_profiles(
    profiles: pd.DataFrame, ax: Axes | None = None, *, estimator: str, quantity: str = "mse"
) -> Axes:
    """One quantity of one estimator over the horizon at a few measurements, first to last."""
    ax = ax or style.new_axes()
    names = {"mse": "MSE", "bias2": "squared bias", "variance": "variance"}
    title = f"How the {names[quantity]} of the {estimator} gradient moved"
    chosen = (profiles["estimator"] == estimator) & (profiles["quantity"] == quantity)
    rows = profiles[chosen]
    if rows.empty:
        return empty(ax, title, "not measured: no admissible truth")
    floor = drawing.log_floor([_curve(own) for _, own in rows.groupby("step")])
    notes = _draw_moved(ax, rows, floor)
    ax.set_yscale("log")
    ax.set_ylim(bottom=floor)
    return style.dress(ax, title, f"squared error {UNIT}", notes)


def moved_chains(chains: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Size of the chained Jacobians over the steps chained, at a few measurements."""
    ax = ax or style.new_axes()
    title = "Growth of the closed loop's chained Jacobians"
    if chains.empty:
        return empty(ax, title, "not measured")
    ax.axhline(0, color=MUTED, lw=0.9)
    notes = _draw_moved(ax, chains, None)
    style.dress(ax, title, "log₁₀ |∂s_t / ∂s_0|, mean over starts", notes)
    ax.set_xlabel("steps chained, t", color=INK)
    return ax


def _draw_moved(ax: Axes, rows: pd.DataFrame, floor: float | None) -> list[str]:
    """First, last and those nearest to even steps between; says how many."""
    steps = np.unique(rows["step"].to_numpy(float))
    even = np.linspace(steps[0], steps[-1], len(LOOKS))
    shown = steps[np.unique(np.abs(steps[:, None] - even).argmin(axis=0))]
    for step, look in zip(shown, LOOKS[-len(shown) :], strict=True):
        line, label = _curve(rows[rows["step"] == step]), f"step {step:,.0f}"
        drawing.draw(ax, line, replace(look, label=label), floor, band=0.12)
    bands = "; bands: 95%" if np.isfinite(rows["ci_low"]).any() else ""
    return [f"{len(shown)} of {len(steps)} measurements{bands}"]


def chosen_horizons(
    choices: pd.DataFrame, ax: Axes | None = None, *, longest: int | None = None
) -> Axes:
    """At every measurement the gradients that may have the smallest error, the smallest ringed."""
    ax = ax or style.new_axes()
    title = "Which gradient has the smallest error?"
    if choices.empty:
        return empty(ax, title, "nothing could be chosen: no admissible truth")
    names = [str(name) for name in dict.fromkeys(choices["estimator"])]
    for k, (name, look) in enumerate(style.looks(names, drawing.identities(choices)).items()):
        mine = choices[choices["estimator"] == name]
        height = mine["horizon"] + 0.18 * (k - (len(names) - 1) / 2)
        ax.plot(mine["step"], height, look.marker or "X", color=look.colour, label=look.label,
                markersize=5, alpha=0.75, lw=0)  # fmt: skip
        best = mine["chosen"].to_numpy(bool)
        ax.plot(mine["step"][best], height[best], "o", color=INK, markersize=10, lw=0,
                markerfacecolor="none", markeredgewidth=1.1)  # fmt: skip
    if longest is not None:
        ax.set_ylim(-0.6, longest + 0.6)
    over_steps(ax, title, "horizon [steps]", ["marks: the 95% set; rings: the smallest estimate"])
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    return ax


def growth_rates(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Growth per step of the horizon: of the model gradient's variance, and of perturbations."""
    ax = ax or style.new_axes()
    looks = {
        "growth": Look("log of the model gradient's variance", style.VERMILION, (0, (5, 1.6)), "s"),
        "lyapunov": Look("Lyapunov exponent λ of the closed loop", style.BLUE, "-", "o"),
    }
    drawn = {name: curves_of(table, name) for name in looks}
    if not any(drawn.values()):
        return empty(ax, "Growth per step of the horizon", "not measured")
    ax.axhline(0, color=MUTED, lw=0.9)
    for name, look in looks.items():
        draw_seeds(ax, drawn[name], look, None)
    notes = ["above 0 errors grow with the horizon; bands: 95%"]
    return over_steps(ax, "Growth per step of the horizon", "per step", notes)


def critic_values(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Mean value at the starts between ± the largest return that the rewards seen allow."""
    ax = ax or style.new_axes()
    lines = curves_of(table, "value")
    if not lines:
        return empty(ax, "Critic against the bound of its return", "no critic was given")
    for k, bound in enumerate(curves_of(table, "return_bound")):
        label = "± largest |reward| so far / (1 − γ)" if k == 0 else ""
        for side, text in ((1, label), (-1, "")):
            ax.plot(bound.horizon, side * bound.value, color=style.PURPLE, lw=1.4,
                    ls=(0, (2, 2)), label=text)  # fmt: skip
    draw_seeds(ax, lines, Look("mean critic value at the starts", style.BLUE, "-", "o"), None)
    notes = drawing.bent(ax, np.abs(np.concatenate([line.value for line in lines])))
    return over_steps(ax, "Critic against the bound of its return", "reward",
                      [*notes, *seed_notes(lines)])  # fmt: skip


def dead_columns(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Columns of weights whose gradient was exactly 0 at both ends of a burst."""
    ax = ax or style.new_axes()
    lines, of = curves_of(table, "dead_columns"), curves_of(table, "columns")
    title = "Columns of weights without a gradient"
    if not lines:
        return empty(ax, title, "no burst of successive gradients yet")
    draw_seeds(ax, lines, Look("", style.VERMILION, "-", "o"), None)
    ax.set_ylim(0, 1.1 * max(1.0, *(float(line.value.max()) for line in lines)))
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    return over_steps(ax, title, "columns", [f"of {of[0].value[-1]:.0f} in linear layers"])


def _curve(rows: pd.DataFrame) -> Curve:
    rows = rows.sort_values("horizon")
    columns = (rows[name].to_numpy(float) for name in ("horizon", "value", "ci_low", "ci_high"))
    return Curve(*columns)
