"""What each remedy changes beside what it costs, and every model by itself.

Effects take `Remedies.table()`, a row per arm, budget, quantity, block and at; levels and
bars take `Remedies.levels()`, a row per model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from gradlab.figures import style
from gradlab.figures.plots import ENDS, Series, bars, lines
from gradlab.figures.style import BLUE, VERMILION, Look
from gradlab.tools.remedies.result import ABOUT, BASELINE, STEPS, TIME

_BLOCKS = {block: look.label for block, look in style.DERIVATIVES.items()}
QUANTITIES = {
    "least_mse": "Least error of the gradient over the horizons",
    "mse": "Mean squared error of the gradient",
    "relative_mse": "Error of the gradient over that of a zero gradient",
    "bias2": "Squared bias of the gradient",
    "variance": "Variance of the gradient",
    "cosine": "Cosine with the truth",
    "usable_horizon": "Usable horizon",
    "best_horizon": "Horizon of the least error",
    "jacobian_error": "Relative error of the Jacobians",
    "prediction_error": "Error of the predicted states",
    "lyapunov": "Lyapunov exponent of the closed loop",
    "held_out_nll": "Held-out negative log-likelihood",
    "held_out_mse": "Held-out error of one step",
    "fit_seconds": "Seconds of fitting",
    "step_cost": "Time per step, × the baseline",
    "no_change": "Error of predicting no change",
}
_RATIO = ("ratio", "ratio_low", "ratio_high")
_REACH = 1e3  # ratios beyond are drawn here
_FAR = 1e4  # times the usual level: what is beyond is drawn here
_BUDGETS = {
    TIME: Look(f"at {TIME}", BLUE, "-", "o"),
    STEPS: Look(f"at {STEPS}", VERMILION, (0, (5, 1.6)), "s"),
}
_OVER = "with the remedy over without"


def looks(names: Sequence[str]) -> dict[str, Look]:
    """The look of each model or arm, the same in every figure."""
    known = [BASELINE, *ABOUT]
    every = style.looks([*known, *(name for name in names if name not in known)])
    return {name: every[name] for name in names}


def remedy_effects(
    table: pd.DataFrame, ax: Axes | None = None, *, quantity: str = "least_mse",
    at: int | None = None,
) -> Axes:  # fmt: skip
    """With over without each remedy, beside its price, with 95% intervals; 1 changes nothing. `at`:
    step or horizon; None for a quantity that has none."""
    here = table["at"].isna() if at is None else table["at"] == at
    rows = table[(table["quantity"] == quantity) & here]
    costs = table[table["quantity"] == "step_cost"].groupby("arm")["second"].first()
    rows = rows.assign(output=[f"{arm}, {costs.get(arm, 1.0):.2g}×" for arm in rows["arm"]])
    shown = {look: rows[rows["budget"] == budget] for budget, look in _BUDGETS.items()}
    title = QUANTITIES.get(quantity, quantity) + ("" if at is None else f" at horizon {at}")
    return _ratios(ax, title, shown, "remedy, time per step × the baseline's")


def remedy_jacobians(table: pd.DataFrame, ax: Axes | None = None, *, budget: str = TIME) -> Axes:
    """Errors of every block's derivatives, with over without."""
    rows = table[(table["quantity"] == "jacobian_error") & (table["budget"] == budget)]
    own = rows.assign(output=rows["block"].map(_BLOCKS))
    return _ratios(ax, "Error of the Jacobians on the path", _by_name(own, "arm"), "derivative")


def _ratios(ax: Axes | None, title: str, series: Series, along: str) -> Axes:
    """Ratios on a logarithmic axis around 1."""
    ax = style.new_axes() if ax is None else ax
    ends = dict(zip(ENDS, _RATIO, strict=True))
    known = {
        look: each.assign(**{x: each[own].clip(1 / _REACH, _REACH) for x, own in ends.items()})
        for look, each in series.items()
        if np.isfinite(each["ratio"].to_numpy(float)).any()
    }
    if known:
        ax.set_yscale("log")
    return bars(known, ax, title, _OVER, along=along, level=1.0, empty="no ratio above 0")


def remedy_horizons(
    table: pd.DataFrame, ax: Axes | None = None, *, quantity: str = "mse", budget: str = TIME
) -> Axes:
    """With over without the remedy at every horizon, with its band; 1 changes nothing."""
    rows = table[(table["quantity"] == quantity) & (table["budget"] == budget)]
    title = f"{QUANTITIES.get(quantity, quantity)} over the horizon, at {budget}"
    return lines(
        _by_name(rows, "arm"), ax, title, _OVER, x="at", columns=_RATIO, log=True, level=1.0,
        limits=(-np.inf, _REACH), empty="no ratio above 0",
    )  # fmt: skip


def remedy_levels(
    levels: pd.DataFrame, ax: Axes | None = None, *, quantity: str,
    along: str = "horizon n [steps]", one: str | None = None,
) -> Axes:  # fmt: skip
    """A quantity of the baseline and every remedy's model on a logarithmic axis, at equal steps.
    `along`: what the horizontal axis is; one: what the level 1 means, where it means anything."""
    rows = levels[(levels["quantity"] == quantity) & levels["model"].isin([BASELINE, *ABOUT])]
    # A divergent model must not press the others into one line.
    top = _FAR * max(float(rows["value"].replace([np.inf, -np.inf], np.nan).median()), 1e-12)
    return lines(
        _by_name(rows, "model"), ax, QUANTITIES.get(quantity, quantity), x="at", along=along,
        log=True, limits=(-np.inf, top), thresholds={one: 1.0} if one else {},
        empty="not measured",
    )  # fmt: skip


def _by_name(rows: pd.DataFrame, column: str) -> Series:
    names = [str(each) for each in dict.fromkeys(rows[column])]
    return {look: rows[rows[column] == name] for name, look in looks(names).items()}
