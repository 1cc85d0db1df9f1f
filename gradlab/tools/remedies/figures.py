"""What each remedy changes beside what it costs, and every model by itself.

Effects take `Remedies.table()`, a row per arm, budget, quantity, block and at; levels and
marks take `Remedies.levels()`, a row per model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from gradlab.figures import style
from gradlab.figures.plots import ENDS, Series, bars, lines
from gradlab.figures.style import (
    BLUE,
    CYAN,
    GREEN,
    INK,
    MUTED,
    OCHRE,
    PURPLE,
    VERMILION,
    Dash,
    Look,
)
from gradlab.tools.remedies.result import BASELINE, SIMULATOR, STEPS, TIME

_LOOKS: Mapping[str, tuple[str, Dash, str]] = {
    BASELINE: (INK, "-", "o"), SIMULATOR: (MUTED, (0, (7, 2.5)), ""),
    "spectral": (BLUE, (0, (5, 1.6)), "s"), "dd": (VERMILION, (0, (1.2, 1.4)), "^"),
    "multistep": (GREEN, (0, (3, 1.2, 1, 1.2)), "v"), "multistep-dd": (GREEN, "-", "*"),
    "two-model": (PURPLE, (0, (6, 1.5, 1.2, 1.5)), "D"), "mse": (OCHRE, (0, (9, 2)), "P"),
    "double-parameters": (CYAN, (0, (2, 1)), "X"), "ensemble": (BLUE, "-", "<"),
    "sobolev": (VERMILION, "-", ">"),
}  # fmt: skip
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
_MODELS, _STAR = Look("models", BLUE, "-", "o"), Look("", OCHRE, "-", "*")
_OVER = "with the remedy over without"


def looks(names: Sequence[str]) -> dict[str, Look]:
    """The look of each model or arm, the same in every figure."""
    own = style.looks([name for name in names if name not in _LOOKS])
    label = {BASELINE: "nll (baseline)"}
    return {name: own.get(name) or Look(label.get(name, name), *_LOOKS[name]) for name in names}


def remedy_effects(
    table: pd.DataFrame, ax: Axes | None = None, *, quantity: str = "least_mse",
    at: int | None = None,
) -> Axes:  # fmt: skip
    """With over without each remedy, beside its price, with 95% intervals; 1 changes nothing. `at`:
    step or horizon; None for a quantity that has none."""
    here = table["at"].isna() if at is None else table["at"] == at
    rows = table[(table["quantity"] == quantity) & here]
    costs = table[table["quantity"] == "step_cost"].groupby("arm")["second"].first()
    priced = {arm: f"{arm}, {costs[arm]:.2g}×" if arm in costs else arm for arm in _arms(rows)}
    rows = rows.assign(output=rows["arm"].map(priced))
    shown = {
        look: rows[rows["budget"] == budget]
        for budget, look in _BUDGETS.items() if budget in set(rows["budget"])
    }  # fmt: skip
    known = set(rows["arm"][np.isfinite(rows["ratio"].astype(float))])
    lost = [arm for arm in _arms(rows) if arm not in known]
    notes = ["below 1: smaller with the remedy; beside its name: time per step, × the baseline"]
    notes += [f"no ratio, not clearly above 0: {', '.join(lost)}"] * bool(lost and known)
    where = "" if at is None else f" at horizon {at}"
    title = f"{QUANTITIES.get(quantity, quantity)}{where}"
    why = "no error is shown to be above 0: no ratio"
    return _ratios(ax, title, rows, shown, "remedy", notes, why)


def remedy_jacobians(table: pd.DataFrame, ax: Axes | None = None, *, budget: str = TIME) -> Axes:
    """Errors of every block's derivatives, with over without."""
    rows = table[(table["quantity"] == "jacobian_error") & (table["budget"] == budget)]
    own = rows.assign(output=rows["block"].map(_BLOCKS))
    series = {look: own[own["arm"] == arm] for arm, look in looks(_arms(rows)).items()}
    notes = [f"at {budget}; below 1: smaller with the remedy"]
    title, why = "Error of the Jacobians on the path", "no Jacobians were compared"
    return _ratios(ax, title, own, series, "derivative", notes, why)


def _ratios(
    ax: Axes | None, title: str, rows: pd.DataFrame, series: Series, along: str,
    notes: Sequence[str], why: str,
) -> Axes:  # fmt: skip
    """Ratios on a logarithmic axis around 1; `why`: there are none."""
    ax = style.new_axes() if ax is None else ax
    known = {}
    if np.isfinite(rows["ratio"].to_numpy(float)).any():
        ax.set_yscale("log")
        ends = dict(zip(ENDS, _RATIO, strict=True))
        for look, each in series.items():
            clipped = {end: each[own].clip(1 / _REACH, _REACH) for end, own in ends.items()}
            known[look] = each.assign(**clipped)
    return bars(
        known, ax, title, _OVER, along=along, level=1.0, notes=[*notes, *_beyond(rows)], empty=why
    )


def remedy_horizons(
    table: pd.DataFrame, ax: Axes | None = None, *, quantity: str = "mse", budget: str = TIME
) -> Axes:
    """With over without the remedy at every horizon, with its band; 1 changes nothing."""
    rows = table[(table["quantity"] == quantity) & (table["budget"] == budget)]
    clipped = rows.assign(**{end: rows[end].clip(1 / _REACH, _REACH) for end in _RATIO})
    title = f"{QUANTITIES.get(quantity, quantity)} over the horizon"
    notes = [f"at {budget}; below 1: smaller with the remedy", *_beyond(rows)]
    return lines(
        _by_name(clipped, "arm", _arms(rows)), ax, title, _OVER, x="at", columns=_RATIO, log=True,
        level=1.0, notes=notes, empty="not known to be above 0 in both",
    )  # fmt: skip


def remedy_levels(
    levels: pd.DataFrame, ax: Axes | None = None, *, quantity: str,
    along: str = "horizon n [steps]", one: str | None = None,
) -> Axes:  # fmt: skip
    """A quantity of the baseline and every remedy's model on a logarithmic axis. `along`: what the
    horizontal axis is; one: what the level 1 means, where it means anything."""
    rows = levels[(levels["quantity"] == quantity) & levels["model"].isin([*_LOOKS])]
    values = rows["value"].to_numpy(float)
    # A divergent model must not press the others into one line.
    usual = float(np.median(values[np.isfinite(values)])) if np.isfinite(values).any() else 1.0
    top = float(f"{_FAR * max(usual, 1e-12):.0e}")
    beyond = [f"beyond {top:g}: drawn there"] * bool((values > top).any())
    return lines(
        _by_name(rows, "model", _named(rows, "model")), ax, QUANTITIES.get(quantity, quantity),
        x="at", along=along, log=True, limits=(-np.inf, top), thresholds={one: 1.0} if one else {},
        notes=["at equal steps", *beyond], empty="not measured",
    )  # fmt: skip


def _by_name(rows: pd.DataFrame, column: str, names: Sequence[str]) -> Series:
    return {looks([name])[name]: rows[rows[column] == name] for name in names}


def remedy_marks(
    levels: pd.DataFrame, ax: Axes | None = None, *, quantity: str, unit: str, beside: str = ""
) -> Axes:
    """A value of every model, fitted longer ones too; the simulator's own as a line. `beside`: a
    second quantity, as a star."""
    ax = style.new_axes() if ax is None else ax
    rows = levels[(levels["quantity"] == quantity) & (levels["model"] != SIMULATOR)]
    names = _named(rows, "model")
    true = levels[(levels["quantity"] == quantity) & (levels["model"] == SIMULATOR)]
    for value, low, high in true[ENDS].to_numpy(float)[:1]:
        look = looks([SIMULATOR])[SIMULATOR]
        ax.axhline(value, color=look.colour, ls=look.dash, lw=1.6, label=look.label)
        if np.isfinite([low, high]).all():
            ax.axhspan(low, high, color=look.colour, alpha=0.14, lw=0)
    series = {_MODELS: rows.assign(output=rows["model"])} if names else {}
    starred = levels[(levels["quantity"] == beside) & levels["model"].isin(names)]
    if len(starred):
        label = QUANTITIES.get(beside, beside)
        series[replace(_STAR, label=label)] = starred.assign(output=starred["model"])
    title = QUANTITIES.get(quantity, quantity)
    return bars(series, ax, title, unit, along="model", empty="not measured")


def _named(rows: pd.DataFrame, column: str) -> list[str]:
    return [str(each) for each in dict.fromkeys(rows[column])]


def _arms(rows: pd.DataFrame) -> list[str]:
    return _named(rows, "arm")


def _beyond(rows: pd.DataFrame) -> list[str]:
    """Says that something is drawn at the end of the axis, where it is."""
    ends = rows[list(_RATIO)].to_numpy(float)
    far = bool((ends > _REACH).any() or (ends < 1 / _REACH).any())
    return [f"beyond {_REACH:g}× or {1 / _REACH:g}×: drawn there"] * far
