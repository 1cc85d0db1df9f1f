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
from gradlab.figures.drawing import Curve, Numbers
from gradlab.figures.style import INK, MUTED, PAPER, Look

BASELINE, SIMULATOR = "nll", "simulator"
TIME, STEPS = "equal time", "equal steps"
_LOOKS: Mapping[str, Look] = {
    BASELINE: Look("nll (baseline)", INK, "-", "o"),
    SIMULATOR: Look("simulator", MUTED, (0, (7, 2.5)), ""),
    "spectral": Look("spectral", style.BLUE, (0, (5, 1.6)), "s"),
    "dd": Look("dd", style.VERMILION, (0, (1.2, 1.4)), "^"),
    "multistep": Look("multistep", style.GREEN, (0, (3, 1.2, 1, 1.2)), "v"),
    "multistep-dd": Look("multistep-dd", style.GREEN, "-", "*"),
    "two-model": Look("two-model", style.PURPLE, (0, (6, 1.5, 1.2, 1.5)), "D"),
    "mse": Look("mse", style.OCHRE, (0, (9, 2)), "P"),
    "double-parameters": Look("double-parameters", style.CYAN, (0, (2, 1)), "X"),
    "ensemble": Look("ensemble", style.BLUE, "-", "<"),
    "sobolev": Look("sobolev", style.VERMILION, "-", ">"),
    "more-data": Look("more-data", style.OCHRE, "-", "h"),
    "batch × 2": Look("batch × 2", MUTED, "-", "d"),
    "batch × 4": Look("batch × 4", MUTED, "-", "d"),
}
_BLOCKS = {"A": "∂s′/∂s", "B": "∂s′/∂a", "r_s": "∂r/∂s", "r_a": "∂r/∂a"}
QUANTITIES = {
    "least_mse": "Least error of the gradient over the horizons",
    "mse": "Mean squared error of the gradient",
    "relative_mse": "Error of the gradient over that of a zero gradient",
    "bias2": "Squared bias of the gradient",
    "variance": "Variance of the gradient",
    "cosine": "Cosine of the mean gradient with the truth",
    "usable_horizon": "Usable horizon",
    "best_horizon": "Horizon of the least error",
    "jacobian_error": "Relative error of the model's Jacobians",
    "prediction_error": "Error of the predicted states",
    "lyapunov": "Lyapunov exponent of the closed loop",
    "held_out_nll": "Held-out negative log-likelihood",
    "held_out_mse": "Held-out error of one step",
    "fit_seconds": "Seconds of fitting",
    "step_cost": "Seconds per step of fitting, in those of the baseline",
    "no_change": "Error of predicting no change",
}
_CLIPPED = "contact or clip"
_RATIO = ("ratio", "ratio_low", "ratio_high")
_REACH = 1e3  # ratios beyond are drawn here
_STEPS_OF_AXIS = {6.0: (1, 1.2, 1.5, 2, 3, 5, 7), 500.0: (1, 2, 5), np.inf: (1,)}  # by its width
_PRICE = "right: time per step of the fit (of a batch: its samples), × the baseline"


def looks(names: Sequence[str]) -> dict[str, Look]:
    """The look of each model or arm, the same in every figure."""
    own = style.looks([name for name in names if name not in _LOOKS])
    return {name: _LOOKS.get(name) or own[name] for name in names}


def remedy_effects(
    table: pd.DataFrame,
    ax: Axes | None = None,
    *,
    quantity: str = "least_mse",
    at: int | None = None,
) -> Axes:
    """A row per remedy: with over without, its 95% interval; 1 changes nothing. `at`: step or
    horizon; None for a quantity that has none."""
    ax = style.new_axes() if ax is None else ax
    here = table["at"].isna() if at is None else table["at"] == at
    rows = table[(table["quantity"] == quantity) & here]
    arms = _arms(rows)
    known = np.isfinite(rows["ratio"].to_numpy(float)).any()
    if known:
        # Equal time above and filled, equal steps below and open; a row without budgets between.
        for place, arm in enumerate(arms):
            mine, look = rows[rows["arm"] == arm], looks([arm])[arm]
            for budget, shift in ((TIME, -0.17), (STEPS, 0.17), ("", 0.0)):
                chosen = mine[mine["budget"] == budget]
                label = f"at {budget}" if budget else arm
                _point(ax, chosen, place + shift, look, label, filled=budget != STEPS)
            if not np.isfinite(mine["ratio"].to_numpy(float)).any():
                ax.annotate("no ratio: not clearly above 0", (0.02, place), (0, 0),
                            ("axes fraction", "data"), "offset points", fontsize=9, color=MUTED,
                            va="center")  # fmt: skip
        _ratio_axis(ax, rows)
        costs = table[table["quantity"] == "step_cost"]
        for place, arm in enumerate(arms):
            for cost in costs[costs["arm"] == arm]["second"].iloc[:1]:
                ax.annotate(f"{cost:.2g}×", (1.0, place), (6, 0), ("axes fraction", "data"),
                            "offset points", fontsize=9, color=MUTED, va="center")  # fmt: skip
        ax.set_ylim(len(arms) - 0.4, -0.6)
    else:
        drawing.nothing(ax, "no error is shown to be above 0: no ratio")
    where = "" if at is None else f" at horizon {at}"
    title = f"{QUANTITIES.get(quantity, quantity)}{where}"
    notes = ["left of 1: smaller with the remedy; bars: 95%", _PRICE, *_beyond(rows)]
    style.dress(ax, title, "", notes)
    ax.set_xlabel("with the remedy over without", color=INK)
    if known:
        _named_rows(ax, arms)
        _plain_ratios(ax)
    return ax


def remedy_jacobians(table: pd.DataFrame, ax: Axes | None = None, *, budget: str = TIME) -> Axes:
    """Errors of every block's derivatives, with over without; clips and contacts by themselves."""
    ax = style.new_axes() if ax is None else ax
    rows = table[(table["quantity"] == "jacobian_error") & (table["budget"] == budget)]
    # Smooth and clipped apart where there are clipped points.
    places = []
    for block in _BLOCKS:
        here = set(rows[rows["block"] == block]["region"])
        shown = ("smooth", _CLIPPED) if _CLIPPED in here or "all" not in here else ("all",)
        places += [(block, region) for region in shown if region in here]
    arms = _arms(rows)
    shifts = np.linspace(-0.3, 0.3, len(arms)) if len(arms) > 1 else np.zeros(len(arms))
    for shift, (arm, look) in zip(shifts, looks(arms).items(), strict=True):
        for place, (block, region) in enumerate(places):
            mine = rows[
                (rows["arm"] == arm) & (rows["block"] == block) & (rows["region"] == region)
            ]
            _point(ax, mine, place + shift, look, look.label, filled=True)
        ax.plot([], [], marker=look.marker, color=look.colour, lw=1.6, ms=5, label=look.label)
    if places:
        _ratio_axis(ax, rows)
        for place in range(0, len(places), 2):
            ax.axhspan(place - 0.5, place + 0.5, color=style.GRID, alpha=0.45, lw=0, zorder=0)
        ax.set_ylim(len(places) - 0.5, -0.5)
    else:
        drawing.nothing(ax, "no Jacobians were compared")
    notes = [f"at {budget}; left of 1: smaller with the remedy; bars: 95%", *_beyond(rows)]
    style.dress(ax, "Error of the Jacobians on the path", "", notes)
    ax.set_xlabel("with the remedy over without", color=INK)
    if places:
        names = ((_BLOCKS[block], region) for block, region in places)
        _named_rows(ax, [x if region == "all" else f"{x}, {region}" for x, region in names])
        _plain_ratios(ax)
    return ax


def remedy_horizons(
    table: pd.DataFrame,
    ax: Axes | None = None,
    *,
    quantity: str = "mse",
    budget: str = TIME,
) -> Axes:
    """With over without the remedy at every horizon, with its band; 1 changes nothing."""
    ax = style.new_axes() if ax is None else ax
    rows = table[(table["quantity"] == quantity) & (table["budget"] == budget)]
    arms = _arms(rows)
    for arm, look in looks(arms).items():
        line = curve(rows[rows["arm"] == arm], ("ratio", "ratio_low", "ratio_high"))
        if line is not None:
            drawing.draw(ax, line.clipped(1 / _REACH, _REACH), look, 1 / _REACH / 3, band=0.1)
    drawing.ratio_axis(ax)
    title = f"{QUANTITIES.get(quantity, quantity)} over the horizon"
    notes = [f"at {budget}; below 1: smaller with the remedy; band: 95%", *_beyond(rows)]
    return style.dress(ax, title, "with the remedy over without", notes)


def _named_rows(ax: Axes, names: Sequence[str]) -> None:
    """A name per row, the first on top, and lines across the other way."""
    ax.set_yticks(range(len(names)), [style.plain(name) for name in names])
    ax.tick_params(axis="y", labelcolor=INK)
    ax.grid(True, axis="x", color=style.GRID, linewidth=0.8)
    ax.grid(False, axis="y")


def _arms(rows: pd.DataFrame) -> list[str]:
    return [str(arm) for arm in dict.fromkeys(rows["arm"])]


def _point(ax: Axes, rows: pd.DataFrame, y: float, look: Look, label: str, filled: bool) -> None:
    if len(rows) and np.isfinite(rows["ratio"].iloc[0]):
        ratio = np.clip([float(rows[c].iloc[0]) for c in _RATIO], 1 / _REACH, _REACH)
        mark(ax, list(ratio), y, look, label, filled)


def mark(ax: Axes, value: Sequence[float], y: float, look: Look, label: str, filled: bool) -> None:
    """A point with its interval (value, low, high) in row `y`; `label`: of its series."""
    middle, low, high = value
    if np.isfinite([low, high]).all():
        ax.hlines(y, low, high, color=look.colour, lw=2.0 if filled else 1.2, label=f"_{label}")
    ax.plot(middle, y, marker=look.marker or "o", color=look.colour, ms=7 if filled else 6,
            mfc=look.colour if filled else PAPER, mec=PAPER if filled else look.colour,
            mew=0.8 if filled else 1.3, ls="none", zorder=3, label=f"_{label}")  # fmt: skip


def _beyond(rows: pd.DataFrame) -> list[str]:
    """Says that something is drawn at the end of the axis, where it is."""
    ends = rows[list(_RATIO)].to_numpy(float)
    far = bool((ends > _REACH).any() or (ends < 1 / _REACH).any())
    return [f"beyond {_REACH:g}× or {1 / _REACH:g}×: drawn there"] * far


def _ratio_axis(ax: Axes, rows: pd.DataFrame) -> None:
    ax.axvline(1.0, color=MUTED, lw=1.0)
    ax.set_xscale("log")
    low, high = ax.get_xlim()
    ax.set_xlim(min(low, 0.7), max(high, 1.43))
    if not (rows["budget"] == STEPS).any():
        return
    for budget, filled in ((TIME, True), (STEPS, False)):
        if (rows["budget"] == budget).any():
            ax.plot([], [], marker="o", ls="none", ms=7 if filled else 6, color=INK,
                    mfc=INK if filled else PAPER, label=f"at {budget}")  # fmt: skip


def _plain_ratios(ax: Axes) -> None:
    """Plain text: powers of ten on a wide axis, finer steps the narrower it is."""
    low, high = ax.get_xlim()
    steps = next(each for most, each in _STEPS_OF_AXIS.items() if high / low <= most)
    ticks = [m * 10.0**k for k in range(-5, 6) for m in steps if low <= m * 10.0**k <= high]
    ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))


def curve(rows: pd.DataFrame, columns: tuple[str, str, str]) -> Curve | None:
    """Three columns (value, low, high) over `at`; None where nothing is known."""
    line = drawing.curve_of(rows[rows["region"] == "all"], "at", columns)
    return line if np.isfinite(line.value).any() else None


_LONGER = f"{BASELINE} as long as "
_VALUE = ("value", "ci_low", "ci_high")
_FAR = 1e4  # times the usual value: what is beyond is drawn here


def remedy_levels(
    levels: pd.DataFrame,
    ax: Axes | None = None,
    *,
    quantity: str,
    along: str = "horizon n [steps]",
    one: str | None = None,
) -> Axes:
    """A quantity of the baseline and every remedy's model on a logarithmic axis. `along`: what the
    horizontal axis is; one: what the level 1 means, where it means anything."""
    ax = style.new_axes() if ax is None else ax
    rows = levels[levels["quantity"] == quantity]
    names = [str(m) for m in dict.fromkeys(rows["model"]) if m in _LOOKS]
    curves = {name: curve(rows[rows["model"] == name], _VALUE) for name in names}
    lines = {name: line for name, line in curves.items() if line is not None}
    floor = drawing.log_floor(list(lines.values()))
    # A divergent model must not press the others into one line.
    levels_of = [line.value for line in lines.values()]
    values: Numbers = np.concatenate(levels_of) if lines else np.ones(1)
    usual = float(np.nanmedian(values[np.isfinite(values)])) if np.isfinite(values).any() else 1.0
    top = float(f"{_FAR * max(usual, 1e-12):.0e}")
    for name, line in lines.items():
        drawing.draw(ax, line.clipped(-np.inf, top), looks([name])[name], floor, band=0.1)
    notes = ["at equal steps; band: 95%"]
    if lines:
        if one is not None:
            ax.axhline(1.0, color=style.PURPLE, lw=1.2, ls=(0, (2, 2)), label=one)
            floor = min(floor, 0.5)
        ax.set_yscale("log")
        ax.set_ylim(bottom=floor)
        notes += [f"beyond {top:g}: drawn there"] * any(
            bool(np.nanmax(line.value) > top) for line in lines.values()
        )
    else:
        drawing.nothing(ax, "not measured")
    style.dress(ax, QUANTITIES.get(quantity, quantity), "", notes)
    ax.set_xlabel(along, color=INK)
    return ax


def remedy_marks(
    levels: pd.DataFrame, ax: Axes | None = None, *, quantity: str, unit: str, beside: str = ""
) -> Axes:
    """A row per model, fitted longer ones too; the simulator's own value as a line. `beside`: a
    second quantity, as an open star."""
    ax = style.new_axes() if ax is None else ax
    rows = levels[levels["quantity"] == quantity]
    names = [str(name) for name in dict.fromkeys(rows["model"]) if name != SIMULATOR]
    for place, name in enumerate(names):
        mine = rows[rows["model"] == name].iloc[0]
        arm = name.removeprefix(_LONGER)
        mark(ax, [float(mine[c]) for c in _VALUE], place, looks([arm])[arm], name,
             filled=arm == name)  # fmt: skip
    starred = levels[(levels["quantity"] == beside) & levels["model"].isin(names)]
    label = QUANTITIES.get(beside, beside)
    for name, value in zip(starred["model"], starred["value"], strict=True):
        ax.plot(value, names.index(str(name)), marker="*", ms=11, color=INK, mfc=PAPER, ls="none",
                zorder=2, label=label)  # fmt: skip
        label = "_nolegend_"
    for value, low, high in rows[rows["model"] == SIMULATOR][list(_VALUE)].to_numpy(float)[:1]:
        look = _LOOKS[SIMULATOR]
        ax.axvline(value, color=look.colour, ls=look.dash, lw=1.6, label=look.label)
        if np.isfinite([low, high]).all():
            ax.axvspan(low, high, color=look.colour, alpha=0.14, lw=0)
    if names:
        ax.set_ylim(len(names) - 0.4, -0.6)
    else:
        drawing.nothing(ax, "not measured")
    style.dress(
        ax,
        QUANTITIES.get(quantity, quantity),
        "",
        ["bars: 95%", "open: the baseline, fitted as long"],
    )
    ax.set_xlabel(unit, color=INK)
    ax.locator_params(axis="x", nbins=5)  # exponents may need five digits each
    if names:
        _named_rows(ax, names)
    return ax
