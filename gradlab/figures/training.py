"""Curves of training, of branches and of weights, and what a step did.

The table (`gradlab.runs.training.results.table`) has a row per run, iteration, seed and quantity;
the seed "all" is the median over all seeds with its interval. `return_over_updates` draws
`Race.table()` or `Rehearsal.table()`, figures of weights `runs.training.measured_weights.table`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter

from gradlab.figures import drawing, style
from gradlab.figures.drawing import nothing
from gradlab.figures.multiples import (
    Over,
    along,
    bend_returns,
    levels,
    lost_note,
    name_levels,
    note_of,
    seeds_of,
)
from gradlab.figures.style import (
    BIAS,
    BLUE,
    CYAN,
    DATA,
    GREEN,
    INK,
    MSE,
    MUTED,
    PAPER,
    STRONG,
    THIN,
    TICKS,
    VERMILION,
    Dash,
    Look,
    dress,
    looks,
    new_axes,
    plain,
    variance_look,
)
from gradlab.wording import AT_STARTS, at_horizon

_LOOKS = (
    Look("", BLUE, "-", "o"), Look("", CYAN, "-", "s"), Look("", GREEN, "-", "^"),
    Look("", INK, "-", "D"),
)  # fmt: skip
_RULE: Dash = (0, (5, 2))


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
    for horizon, look in _of_horizons(drawn).items():
        colour, dash, marker = look.colour, look.dash, look.marker
        rows = table[table["horizon"] == horizon]
        seeds, rule = (
            rows[rows["quantity"] == quantity].pivot(
                index="iteration", columns="seed", values="value"
            )
            for quantity in ("in force", "rule")
        )
        for name in seeds.columns if len(drawn) == 1 < len(seeds.columns) else ():
            ax.step(seeds.index, seeds[name], where="post", color=colour, lw=0.6, alpha=0.4)
        ax.plot(seeds.index, seeds.median(axis=1), ls=dash, color=colour, marker=marker, lw=1.8,
                markersize=4.5, label=f"h = {horizon}, measured")  # fmt: skip
        ax.plot(rule.index, rule.median(axis=1), linestyle=_RULE, color=colour, lw=1.4,
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
    along(ax)
    return ax


def _of_horizons(horizons: Sequence[int]) -> dict[int, Look]:
    """Their looks: h = 0 is the data gradient, the others are the model's."""
    model = iter(_LOOKS)
    return {h: DATA if h == 0 else next(model, _LOOKS[-1]) for h in horizons}


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
    along(ax)
    return ax


def return_over_updates(
    table: pd.DataFrame, ax: Axes | None = None, *, chosen: tuple[str, int] | None = None
) -> Axes:
    """Change of the return from the start over the updates, every candidate a line with its band;
    a ring where the return of what may be followed is highest.

    Args:
        chosen: estimator and horizon that are recommended, drawn strong.
    """
    ax = style.new_axes() if ax is None else ax
    notes = ["band: 95%, paired with the start; ring: follow it so far; a line that ends: dropped"]
    if not np.isfinite(table["value"]).any():
        drawing.nothing(ax, "every branch was lost")
    for cell, look in _candidates(table).items():
        own = table[(table["estimator"] == cell[0]) & (table["horizon"] == cell[1])]
        own = own[np.isfinite(own["value"])]
        x, y, low, high = (
            np.concatenate([[0.0], own[column].to_numpy(float)])
            for column in ("updates", "value", "ci_low", "ci_high")
        )
        width = 1.8 if chosen is None else STRONG if cell == chosen else THIN
        ax.plot(
            x, y, color=look.colour, ls=look.dash, lw=width, marker=look.marker, ms=5.5,
            label=look.label,
        )  # fmt: skip
        ax.fill_between(x, low, high, color=look.colour, alpha=0.14, lw=0, label=f"_{look.label}")
        at = own[own["holds"].astype(bool)]
        ax.plot(at["updates"], at["value"], "o", ms=11, mfc="none", mec=look.colour, mew=1.6)
    if np.isfinite(table["value"]).any():
        ax.axhline(0.0, color=MUTED, lw=0.8)
        notes += drawing.bent(ax, table["value"].abs().to_numpy(float))
    style.dress(ax, "Return over updates", "change of the return", notes)
    ax.set_xlabel("updates", color=INK)
    return ax


def _candidates(table: pd.DataFrame) -> dict[tuple[str, int], Look]:
    """By estimator and horizon: the look and the name are the estimator's, with a dash and a marker
    for each horizon."""
    known, looks, often = drawing.identities(table), drawing.looks(table), Counter[str]()
    cells = list(dict.fromkeys(zip(table["estimator"], table["horizon"], strict=True)))
    several = Counter(name for name, _ in cells)
    found = {}
    for name, horizon in cells:
        own, k = looks[name], often[name]
        dash = (own.dash, (0, (5, 1.8)), (0, (1.2, 1.4)), (0, (6, 1.5, 1.2, 1.5)))[k % 4]
        at = f" at h = {horizon}" if several[name] > 1 or (horizon > 0 and name in known) else ""
        marker = "osD^vP"[k % 6] if name in known else own.marker
        alone = at_horizon(name, horizon, known) == AT_STARTS
        label = AT_STARTS if alone else f"{own.label}{at}"
        found[name, horizon] = replace(own, label=label, dash=dash, marker=marker)
        often[name] += 1
    return found


_STEPS = {"after": "the step", "opposite": "the opposite step"}


def step_changes(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Change of the return by a step and by the opposite one, with intervals (`Step.table`)."""
    ax = style.new_axes() if ax is None else ax
    for y, (policy, name) in enumerate(_STEPS.items()):
        row = table[table["policy"] == policy].iloc[0]
        colour = BLUE if policy == "after" else MUTED
        ax.plot([row["ci_low"], row["ci_high"]], [y, y], color=colour, lw=STRONG, label="_")
        ax.plot([row["value"]], [y], "o", color=colour, ms=9, mec=PAPER, label="_")
        ax.annotate(
            name, (row["value"], y), (0, 12), textcoords="offset points", ha="center", color=INK
        )
    ax.axvline(0.0, color=INK, lw=1.1)
    style.dress(ax, "Change of the return", "", ["dot and bar: mean and 95%"])
    ax.set_xlabel("lower  ←  change of the return  →  higher", color=INK)
    ax.set_ylim(len(_STEPS) - 0.4, -0.6)
    ax.set_yticks([])
    ax.margins(x=0.25)
    style.ruled(ax, "x")
    return ax


_FEWEST = 5  # rows of a record that make a box
_PARTS = {
    "policy": Look("policy's update", VERMILION, "-", ""),
    "critic": Look("critic's, with its target", BLUE, "-", ""),
    "iteration": Look("whole iteration", MUTED, "-", ""),
}


def returns(
    table: pd.DataFrame,
    ax: Axes | None = None,
    *,
    over: Over = "iteration",
    goals: Sequence[float] = (),
) -> Axes:
    """Mean return over the evaluation starts, every run a curve; goals as levels."""
    ax = ax or new_axes()
    rows = table[table["quantity"] == "return"]
    levels(ax, goals, rows)
    _curves(ax, rows, over)
    bend_returns(ax, rows)
    name_levels(ax, goals)
    title = f"Return over {'iterations' if over == 'iteration' else 'wall time'}"
    dress(ax, title, "undiscounted return of an episode", _notes(rows))
    along(ax, over)
    return ax


def mixture_weights(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Weight of every horizon of the mixture over iterations."""
    ax = ax or new_axes()
    rows = table[table["quantity"].str.startswith("weight ")]
    names = {int(name.removeprefix("weight ")): name for name in dict.fromkeys(rows["quantity"])}
    for horizon, look in _of_horizons(list(names)).items():
        mine = rows[rows["quantity"] == names[horizon]]
        ax.plot(mine["iteration"], mine["value"], color=look.colour, linestyle=look.dash,
                label=f"h = {horizon}")  # fmt: skip
    ax.set_ylim(-0.03, 1.03)
    dress(ax, "Weights of the mixture", "weight")
    along(ax)
    return ax


def training_curve(
    table: pd.DataFrame, ax: Axes | None = None, *, name: str, title: str, unit: str
) -> Axes:
    """One recorded quantity over iterations, every run a curve; logarithmic where positive."""
    ax = ax or new_axes()
    rows = table[(table["quantity"] == name) & np.isfinite(table["value"])]
    if len(rows) == 0:
        nothing(ax, "not recorded")
        return ax
    _curves(ax, rows, "iteration")
    if (rows["value"] > 0).all():
        ax.set_yscale("log")
    dress(ax, title, unit, _notes(rows))
    along(ax)
    return ax


def gradient_errors(
    table: pd.DataFrame, ax: Axes | None = None, *, start: str = "", batch: int, title: str
) -> Axes:
    """Bias², variance and MSE of a batch's gradient over iterations, of one run.

    Args:
        start: "" for errors against the truth, "dynamics_" for the model's own; batch: N′.
    """
    ax = ax or new_axes()
    parts = {"bias2": BIAS, "variance": variance_look(batch), "mse": MSE}
    rows = table[np.isfinite(table["value"]) & (table["value"] > 0)]
    drawn = [rows[rows["quantity"] == f"gradient {start}{part}"] for part in parts]
    if not any(len(own) for own in drawn):
        nothing(ax, "not measured, or no true gradient")
        return ax
    for own, look in zip(drawn, parts.values(), strict=True):
        # An estimate of bias² without bias may be negative: it is left out of a logarithmic axis.
        _curve(ax, own[own["seed"] == "all"], "iteration", look)
    ax.set_yscale("log", nonpositive="clip")
    dress(ax, title, "gradient norm²", _notes(pd.concat(drawn)))
    along(ax)
    return ax


def update_times(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Time of an update for every run and horizon of its model rollouts, as boxes (MPG Fig. 5).

    The table is that of `gradlab.runs.training.results.times`.
    """
    ax = ax or new_axes()
    table = table[np.isfinite(table["milliseconds"])]
    groups = {
        f"{plain(str(run))}, H = {horizon:.0f}": rows
        for (run, horizon), rows in table.groupby(["run", "horizon"], sort=False)
        if (rows["part"] == "iteration").sum() >= _FEWEST  # fewer: while weights changed hands
    }
    if not groups:
        nothing(ax, "too short a run")
        return ax
    for k, rows in enumerate(groups.values()):
        for shift, (part, look) in enumerate(_PARTS.items()):
            values = rows[rows["part"] == part]["milliseconds"]
            if len(values):
                ax.boxplot(
                    [values.to_numpy()], positions=[k + 0.27 * (shift - 1)], widths=0.22,
                    whis=(5, 95), showfliers=False, orientation="horizontal", patch_artist=True,
                    manage_ticks=False, medianprops={"color": INK},
                    boxprops={"facecolor": look.colour, "alpha": 0.45},
                )  # fmt: skip
    drawn = set(pd.concat(groups.values())["part"])
    for look in (look for part, look in _PARTS.items() if part in drawn):
        ax.fill_between([], [], color=look.colour, alpha=0.45, label=look.label)
    notes = ["boxes: quartiles over rows", "whiskers: 5% and 95%"]
    dress(ax, "Time of an update", "", notes)
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(TICKS)
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_yticks(range(len(groups)), list(groups))
    ax.invert_yaxis()
    ax.set_xlabel("milliseconds, all seeds together")
    return ax


def _curves(ax: Axes, rows: pd.DataFrame, over: Over) -> None:
    """One run: its seeds and their median; several: a line each, whose bands would overlap."""
    names = list(dict.fromkeys(rows["run"]))
    for name, look in looks(names).items():
        mine = rows[rows["run"] == name]
        if len(names) == 1:
            seeds_of(ax, mine, over, look.colour)
        else:
            _curve(ax, mine[mine["seed"] == "all"], over, look, band=False)


def _curve(ax: Axes, rows: pd.DataFrame, over: Over, look: Look, band: bool = True) -> None:
    x, value, low, high = (
        rows[name].to_numpy(float) for name in (over, "value", "ci_low", "ci_high")
    )
    every = max(1, len(x) // 12)
    ax.plot(x, value, color=look.colour, linestyle=look.dash, label=look.label,
            marker=look.marker, markevery=every, markersize=4.5, linewidth=1.8)  # fmt: skip
    if band:
        ax.fill_between(x, low, high, color=look.colour, alpha=0.17, linewidth=0,
                        label=f"_{look.label}")  # fmt: skip
    else:
        drawing.hidden_band(ax, x, low, high, look)


def _notes(rows: pd.DataFrame) -> list[str]:
    """How many seeds a curve speaks for."""
    seeds = rows[rows["seed"] != "all"].groupby("run")["seed"].nunique()
    if len(seeds) == 0:
        return ["one seed"]
    few, many = int(seeds.min()), int(seeds.max())
    counts = f"{many}" if few == many else f"{few} to {many}"
    points = rows["iteration"].nunique() <= drawing.POINTS
    notes = [note_of(many, points)] if len(seeds) == 1 else [f"medians over {counts} seeds"]
    return notes + lost_note(rows)
