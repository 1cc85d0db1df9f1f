"""What each remedy changes beside what it costs, and every model by itself.

Effects take `Remedies.table()`, a row per arm, budget, quantity, block, at and region; levels and
marks take `Remedies.levels()`, a row per model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from gradlab.figures import drawing, style
from gradlab.figures.plots import ENDS, Series, lines
from gradlab.figures.style import (
    BLUE,
    CYAN,
    GREEN,
    INK,
    MUTED,
    OCHRE,
    PAPER,
    PURPLE,
    VERMILION,
    Dash,
    Look,
)
from gradlab.tools.remedies.result import (
    ALL,
    BASELINE,
    CLIPPED,
    SIMULATOR,
    SMOOTH,
    STEPS,
    TIME,
    longer,
)

_LOOKS: Mapping[str, tuple[str, Dash, str]] = {
    BASELINE: (INK, "-", "o"), SIMULATOR: (MUTED, (0, (7, 2.5)), ""),
    "spectral": (BLUE, (0, (5, 1.6)), "s"), "dd": (VERMILION, (0, (1.2, 1.4)), "^"),
    "multistep": (GREEN, (0, (3, 1.2, 1, 1.2)), "v"), "multistep-dd": (GREEN, "-", "*"),
    "two-model": (PURPLE, (0, (6, 1.5, 1.2, 1.5)), "D"), "mse": (OCHRE, (0, (9, 2)), "P"),
    "double-parameters": (CYAN, (0, (2, 1)), "X"), "ensemble": (BLUE, "-", "<"),
    "sobolev": (VERMILION, "-", ">"), "more-data": (OCHRE, "-", "h"),
    "batch × 2": (MUTED, "-", "d"), "batch × 4": (MUTED, "-", "d"),
}  # fmt: skip
_BLOCKS = {"A": "∂s′/∂s", "B": "∂s′/∂a", "r_s": "∂r/∂s", "r_a": "∂r/∂a"}
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
_STEPS_OF_AXIS = {6.0: (1, 1.2, 1.5, 2, 3, 5, 7), 500.0: (1, 2, 5), np.inf: (1,)}  # by its width
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
    """A row per remedy: with over without, its 95% interval; 1 changes nothing. `at`: step or
    horizon; None for a quantity that has none."""
    ax = style.new_axes() if ax is None else ax
    here = table["at"].isna() if at is None else table["at"] == at
    rows = table[(table["quantity"] == quantity) & here]
    known = rows[np.isfinite(rows["ratio"].to_numpy(float))]
    costs = table[table["quantity"] == "step_cost"]
    arms = _arms(rows) if len(known) else []
    for place, (arm, look) in enumerate(looks(arms).items()):
        # Equal time above and filled, equal steps below and open; a row without budgets between.
        for budget, shift in ((TIME, -0.17), (STEPS, 0.17), ("", 0.0)):
            chosen = known[(known["arm"] == arm) & (known["budget"] == budget)]
            _points(ax, chosen, place + shift, look, filled=budget != STEPS)
        if arm not in set(known["arm"]):
            _beside(ax, "no ratio: not clearly above 0", 0.02, place)
        for cost in costs[costs["arm"] == arm]["second"].iloc[:1]:
            _beside(ax, f"{cost:.2g}×", 1.01, place)
    for budget, face in ((TIME, INK), (STEPS, PAPER)) if (known["budget"] == STEPS).any() else ():
        ax.plot([], [], "o", ms=7, color=INK, mfc=face, label=f"at {budget}")
    where = "" if at is None else f" at horizon {at}"
    notes = ["left of 1: smaller with the remedy; right: time per step, × the baseline"]
    title = f"{QUANTITIES.get(quantity, quantity)}{where}"
    return _in_rows(ax, rows, arms, title, notes, "no error is shown to be above 0: no ratio")


def remedy_jacobians(table: pd.DataFrame, ax: Axes | None = None, *, budget: str = TIME) -> Axes:
    """Errors of every block's derivatives, with over without; clips and contacts by themselves."""
    ax = style.new_axes() if ax is None else ax
    rows = table[(table["quantity"] == "jacobian_error") & (table["budget"] == budget)]
    # Smooth and clipped apart where there are clipped points.
    places = []
    for block in _BLOCKS:
        here = set(rows[rows["block"] == block]["region"])
        shown = (SMOOTH, CLIPPED) if CLIPPED in here or ALL not in here else (ALL,)
        places += [(block, region) for region in shown if region in here]
    arms = _arms(rows)
    shifts = np.linspace(-0.3, 0.3, len(arms)) if len(arms) > 1 else np.zeros(len(arms))
    for shift, (arm, look) in zip(shifts, looks(arms).items(), strict=True):
        mine = rows[rows["arm"] == arm]
        for place, (block, region) in enumerate(places):
            chosen = mine[(mine["block"] == block) & (mine["region"] == region)]
            _points(ax, chosen, place + shift, look, filled=True)
        ax.plot([], [], marker=look.marker, color=look.colour, lw=1.6, ms=5, label=look.label)
    for place in range(0, len(places), 2):
        ax.axhspan(place - 0.5, place + 0.5, color=style.GRID, alpha=0.45, lw=0, zorder=0)
    names = [_BLOCKS[block] + f", {region}" * (region != ALL) for block, region in places]
    notes = [f"at {budget}; left of 1: smaller with the remedy"]
    title = "Error of the Jacobians on the path"
    return _in_rows(ax, rows, names, title, notes, "no Jacobians were compared")


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
    every = rows[rows["region"] == ALL]
    return {looks([name])[name]: every[every[column] == name] for name in names}


def remedy_marks(
    levels: pd.DataFrame, ax: Axes | None = None, *, quantity: str, unit: str, beside: str = ""
) -> Axes:
    """A row per model, fitted longer ones too; the simulator's own value as a line. `beside`: a
    second quantity, as an open star."""
    ax = style.new_axes() if ax is None else ax
    rows = levels[levels["quantity"] == quantity]
    names = [name for name in _named(rows, "model") if name != SIMULATOR]
    for place, name in enumerate(names):
        arm = name.removeprefix(longer(""))
        _mark(ax, rows[rows["model"] == name][ENDS].to_numpy(float)[0], place,
              looks([arm])[arm], filled=arm == name)  # fmt: skip
    starred = levels[(levels["quantity"] == beside) & levels["model"].isin(names)]
    places = [names.index(name) for name in starred["model"]]
    if places:
        ax.plot(starred["value"], places, "*", ms=11, color=INK, mfc=PAPER, zorder=2,
                label=QUANTITIES.get(beside, beside))  # fmt: skip
    for value, low, high in rows[rows["model"] == SIMULATOR][ENDS].to_numpy(float)[:1]:
        look = looks([SIMULATOR])[SIMULATOR]
        ax.axvline(value, color=look.colour, ls=look.dash, lw=1.6, label=look.label)
        if np.isfinite([low, high]).all():
            ax.axvspan(low, high, color=look.colour, alpha=0.14, lw=0)
    if not names:
        drawing.nothing(ax, "not measured")
    notes = ["open: the baseline, fitted as long"]
    style.dress(ax, QUANTITIES.get(quantity, quantity), "", notes)
    ax.set_xlabel(unit, color=INK)
    ax.locator_params(axis="x", nbins=5)  # exponents may need five digits each
    if names:
        _name_rows(ax, names)
    return ax


def _named(rows: pd.DataFrame, column: str) -> list[str]:
    return [str(each) for each in dict.fromkeys(rows[column])]


def _arms(rows: pd.DataFrame) -> list[str]:
    return _named(rows, "arm")


def _points(ax: Axes, rows: pd.DataFrame, y: float, look: Look, filled: bool) -> None:
    for ratio in rows[[*_RATIO]].to_numpy(float):
        _mark(ax, np.clip(ratio, 1 / _REACH, _REACH), y, look, filled)


def _mark(ax: Axes, value: drawing.Numbers, y: float, look: Look, filled: bool) -> None:
    """A point with its interval (value, low, high) in row `y`."""
    middle, low, high = value
    if np.isfinite([low, high]).all():
        ax.hlines(y, low, high, color=look.colour, lw=2.0 if filled else 1.2, label="_")
    if np.isfinite(middle):
        ax.plot(middle, y, marker=look.marker or "o", color=look.colour, ms=7 if filled else 6,
                mfc=look.colour if filled else PAPER, mec=PAPER if filled else look.colour,
                mew=0.8 if filled else 1.3, ls="none", zorder=3, label="_")  # fmt: skip


def _beside(ax: Axes, text: str, x: float, row: float) -> None:
    """Text in a row, at a share of the axis."""
    ax.annotate(text, (x, row), xycoords=("axes fraction", "data"), fontsize=9, color=MUTED,
                va="center")  # fmt: skip


def _beyond(rows: pd.DataFrame) -> list[str]:
    """Says that something is drawn at the end of the axis, where it is."""
    ends = rows[list(_RATIO)].to_numpy(float)
    far = bool((ends > _REACH).any() or (ends < 1 / _REACH).any())
    return [f"beyond {_REACH:g}× or {1 / _REACH:g}×: drawn there"] * far


def _in_rows(
    ax: Axes, rows: pd.DataFrame, names: Sequence[str], title: str, notes: list[str], why: str
) -> Axes:
    """Rows of ratios on a logarithmic axis around 1; `why`: there are none."""
    if names:
        ax.axvline(1.0, color=MUTED, lw=1.0)
        ax.set_xscale("log")
        low, high = ax.get_xlim()
        ax.set_xlim(min(low, 0.7), max(high, 1.43))
    else:
        drawing.nothing(ax, why)
    style.dress(ax, title, "", [*notes, *_beyond(rows)])
    ax.set_xlabel(_OVER, color=INK)
    if names:
        _name_rows(ax, names)
        # Plain text: powers of ten on a wide axis, finer steps the narrower it is.
        low, high = ax.get_xlim()
        steps = next(each for most, each in _STEPS_OF_AXIS.items() if high / low <= most)
        ticks = [m * 10.0**k for k in range(-5, 6) for m in steps if low <= m * 10.0**k <= high]
        ax.xaxis.set_major_locator(FixedLocator(ticks))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    return ax


def _name_rows(ax: Axes, names: Sequence[str]) -> None:
    """A name per row, the first on top, and lines across the other way."""
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_yticks(range(len(names)), [style.plain(name) for name in names])
    ax.tick_params(axis="y", labelcolor=INK)
    ax.grid(True, axis="x", color=style.GRID, linewidth=0.8)
    ax.grid(False, axis="y")
