"""Curves of training: returns, weights and tracking errors over iterations or over wall time.

The table (`gradlab.runs.training.results.table`) has a row per run, iteration, seed and quantity;
the seed "all" is the median over all seeds with its interval. One run is drawn by
its seeds and their median, several by a line each: small multiples (`multiples`) show their seeds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter

from gradlab.figures.drawing import nothing
from gradlab.figures.multiples import AXIS, Over, bend_returns, lost_note, note_of, seeds_of
from gradlab.figures.style import (
    BIAS,
    BLUE,
    INK,
    MSE,
    MUTED,
    TICKS,
    VERMILION,
    Look,
    dress,
    looks,
    new_axes,
    plain,
    variance_look,
)

FEWEST = 5  # rows of a record that make a box
PARTS = {
    "policy": Look("an update of the policy", VERMILION, "-", ""),
    "critic": Look("an update of the critic, with its target", BLUE, "-", ""),
    "iteration": Look("a whole iteration", MUTED, "-", ""),
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
    low = float(rows["value"].min()) if len(rows) else 0.0
    for goal in goals:
        if goal > low:
            ax.axhline(goal, color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)))
            place = (1.0, goal)
            ax.annotate(f"{goal:g}", place, (2, 0), ("axes fraction", "data"), "offset points",
                        fontsize=8, color=MUTED, va="center")  # fmt: skip
    _curves(ax, rows, over)
    bend_returns(ax, rows)
    title = f"Return over {'iterations' if over == 'iteration' else 'wall time'}"
    dress(ax, title, "return of an episode", _notes(rows))
    ax.set_xlabel(AXIS[over])
    return ax


def mixture_weights(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Weight of every horizon of the mixture over iterations."""
    ax = ax or new_axes()
    rows = table[table["quantity"].str.startswith("weight ")]
    for name, look in looks(list(dict.fromkeys(rows["quantity"]))).items():
        mine = rows[rows["quantity"] == name]
        label = f"horizon {name.removeprefix('weight ')}"
        ax.plot(
            mine["iteration"], mine["value"], color=look.colour, linestyle=look.dash, label=label
        )
    ax.set_ylim(-0.03, 1.03)
    dress(ax, "Weights of the mixture", "weight")
    ax.set_xlabel(AXIS["iteration"])
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
    ax.set_xlabel(AXIS["iteration"])
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
    ax.set_xlabel(AXIS["iteration"])
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
        if (rows["part"] == "iteration").sum() >= FEWEST  # fewer: while weights changed hands
    }
    if not groups:
        nothing(ax, "too short a run")
        return ax
    for k, rows in enumerate(groups.values()):
        for shift, (part, look) in enumerate(PARTS.items()):
            _box(ax, rows[rows["part"] == part]["milliseconds"], k + 0.27 * (shift - 1), look)
    for look in PARTS.values():
        ax.fill_between([], [], color=look.colour, alpha=0.45, label=look.label)
    notes = ["boxes: quartiles over rows of the record, whiskers: 5% and 95%"]
    dress(ax, "Time of an update", "", notes)
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(TICKS)
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_yticks(range(len(groups)), list(groups))
    ax.invert_yaxis()
    ax.set_xlabel("milliseconds, all seeds together")
    return ax


def _box(ax: Axes, values: pd.Series[float], place: float, look: Look) -> None:
    if len(values):
        ax.boxplot(
            [values.to_numpy()], positions=[place], widths=0.22, whis=(5, 95), showfliers=False,
            orientation="horizontal", patch_artist=True, manage_ticks=False,
            medianprops={"color": INK}, boxprops={"facecolor": look.colour, "alpha": 0.45},
        )  # fmt: skip


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
        ax.fill_between(x, low, high, color=look.colour, alpha=0.17, linewidth=0)


def _notes(rows: pd.DataFrame) -> list[str]:
    """How many seeds a curve speaks for."""
    seeds = rows[rows["seed"] != "all"].groupby("run")["seed"].nunique()
    if len(seeds) == 0:
        return ["one seed"]
    few, many = int(seeds.min()), int(seeds.max())
    counts = f"{many}" if few == many else f"{few} to {many}"
    notes = [note_of(many)] if len(seeds) == 1 else [f"medians over {counts} seeds"]
    return notes + lost_note(rows)
