"""Small multiples: one small axes per run on common axes, the others in grey behind it.

Overlapping bands of several runs cannot be told apart; side by side they can. The table is that of
`gradlab.runs.training.results.table`. Up to `_SINGLE` seeds are drawn one by one beside their
median; more, as the median with the order statistics that hold it with 95%
(`statistics.over_groups`). A seed that is lost counts in the median as the worst, and the note
counts it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import ceil
from textwrap import fill
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gradlab.figures import style
from gradlab.figures.drawing import POINTS, curve_of, draw
from gradlab.figures.style import BLUE, INK, MUTED, STRONG, THIN, THOUSANDS, Look, looks

Over = Literal["iteration", "seconds"]
AXIS = {"iteration": "iteration", "seconds": "wall time [s]"}
_SINGLE = 6  # seeds up to which each is a line
_COLUMNS = 2  # a phone's page has room for no more
_CELL = (2.65, 1.8)  # inches
_APART = 0.1  # of an axes' height, between two goals that are named
_LETTER = 0.085  # inches, of a bold title of 10 points


def several_returns(
    figure: Figure, table: pd.DataFrame, over: Over = "iteration", goals: Sequence[float] = ()
) -> Figure:
    """Return over iterations or time: a cell per run, the best median first in the reader's eye."""
    rows = table[table["quantity"] == "return"]
    shown = looks(list(dict.fromkeys(rows["run"])))
    cells = _grid(figure, len(shown), over, shared=True)
    for (name, look), ax in zip(shown.items(), cells, strict=True):
        others = {other: Look("_", MUTED, "-", "") for other in shown if other != name}
        _runs(ax, rows, others, over, width=0.7)
        for line in ax.lines:
            line.set(alpha=0.45, zorder=1)
        levels(ax, goals, rows)
        _runs(ax, rows, {name: look}, over, seeds=True)
        _dress_cell(ax, name)
    bend_returns(cells[0], rows)
    for ax in cells[_COLUMNS - 1 :: _COLUMNS] if len(cells) > 1 else cells:
        name_levels(ax, goals)
    return _around(figure, rows, "Return of an episode")


def several_quantities(
    figure: Figure, table: pd.DataFrame, shown: Mapping[str, str], title: str
) -> Figure:
    """One cell per quantity (name → its title): of one run the seeds, of several their medians."""
    cells = _grid(figure, len(shown), "iteration", shared=False)
    runs = looks(list(dict.fromkeys(table["run"])))
    for (quantity, label), ax in zip(shown.items(), cells, strict=True):
        rows = table[(table["quantity"] == quantity) & np.isfinite(table["value"])]
        if len(rows) and (rows["value"] > 0).all():
            ax.set_yscale("log")
        _runs(ax, rows, runs, seeds=len(runs) == 1)
        _dress_cell(ax, label)
    if len(runs) > 1:
        handles, labels = cells[0].get_legend_handles_labels()
        figure.set_figheight(figure.get_figheight() + 0.2 * ceil(len(runs) / 2))
        figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False,
                      fontsize=9, labelcolor=INK)  # fmt: skip
    return _around(figure, table, title)


def best_first(
    table: pd.DataFrame, ax: Axes, best: str, over: Over = "iteration", goals: Sequence[float] = ()
) -> Axes:
    """Median returns of several runs on one axes: the best strong, with its interval, the others
    thin, in the order of their last values."""
    rows = table[(table["quantity"] == "return") & (table["seed"] == "all")]
    last = rows.groupby("run", sort=False)["value"].last().sort_values()
    names = [*(str(name) for name in last.index if name != best), best]  # the best on top
    levels(ax, goals, rows)
    shown = looks(list(dict.fromkeys(table["run"])))  # in the colours of all other figures
    _runs(ax, rows, {name: shown[name] for name in names}, over, best=best, width=THIN)
    bend_returns(ax, rows)
    name_levels(ax, goals)
    counts = table[table["seed"] != "all"].groupby("run")["seed"].nunique()
    note = "one seed each" if counts.max() <= 1 else "medians over seeds; band of the best: 95%"
    title = "Return of an episode: the best run first"
    return style.dress(ax, title, "undiscounted return", [note], reverse=True, along=AXIS[over])


def _runs(
    ax: Axes, rows: pd.DataFrame, shown: Mapping[str, Look], over: Over = "iteration", *,
    best: str = "", width: float = 1.4, seeds: bool = False,
) -> None:  # fmt: skip
    """Runs on one axes: their seeds, or their medians, of the best with its interval: bands of
    several overlap."""
    for name, look in shown.items():
        mine = rows[rows["run"] == name]
        if seeds:
            seeds_of(ax, mine, over, look.colour)
            continue
        line = curve_of(mine[mine["seed"] == "all"], over)
        if name == best:
            draw(ax, line, replace(look, dash="-", marker=""), width=STRONG)
        else:
            draw(ax, replace(line, low=line.low * np.nan), replace(look, marker=""), width=width)


def levels(ax: Axes, goals: Sequence[float], rows: pd.DataFrame) -> None:
    """Goals above the least return as dotted lines."""
    low = float(rows["value"].min()) if len(rows) else 0.0
    for goal in goals:
        if goal > low:
            ax.axhline(goal, color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)))


def name_levels(ax: Axes, goals: Sequence[float]) -> None:
    """The goals' numbers on the right, from the highest; one too close to another has none."""
    before, to_axes = np.inf, ax.transData - ax.transAxes
    for goal in sorted(goals, reverse=True):
        height = float(to_axes.transform((0.0, goal))[1])
        if 0 <= height <= before - _APART:
            before = height
            ax.annotate(style.tick(goal), (1.0, goal), (2, 0), ("axes fraction", "data"),
                        "offset points", fontsize=9, color=MUTED, va="center")  # fmt: skip


def bend_returns(ax: Axes, rows: pd.DataFrame) -> None:
    """Returns that are negative and span decades: what matters lies near zero."""
    if len(rows) == 0:
        return
    low, high = float(rows["value"].min()), float(rows["value"].max())
    if low < -50 and high > low / 20:
        ax.set_yscale("symlog", linthresh=max(0.1, -high))
        ax.yaxis.set_major_formatter(style.TICKS)
        bent = ax.yaxis.get_transform()  # limits of the straight axis would leave half of it empty
        ends = bent.transform([low, max(high, ax.dataLim.y1)])
        bottom, top = bent.inverted().transform(ends + 0.05 * np.ptp(ends) * np.array([-1, 1]))
        ax.set_ylim(bottom, min(top, 0.0) if ends[1] <= 0 else top)


def _grid(figure: Figure, count: int, over: Over, shared: bool) -> list[Axes]:
    """`count` axes, at most two in a row; the figure takes their size."""
    columns = min(count, _COLUMNS)
    rows = ceil(count / columns)
    figure.set_size_inches(_CELL[0] * _COLUMNS, max(_CELL[1] * rows, 2 * _CELL[1]) + 0.6)
    made = figure.subplots(rows, columns, sharex=True, sharey=shared, squeeze=False).ravel()
    for spare in made[count:]:
        spare.set_visible(False)
    for lowest in made[max(count - columns, 0) : count]:  # also above a spare one
        lowest.tick_params(labelbottom=True)
        lowest.set_xlabel(AXIS[over], fontsize=9, color=INK)
    return list(made[:count])


def _around(figure: Figure, rows: pd.DataFrame, title: str) -> Figure:
    """Title, and a note on the lines."""
    note = note_of(max(rows.loc[rows["seed"] != "all", "seed"].nunique(), 1))
    if rows["run"].nunique() > 1:
        grey = f"{note}; grey: the other runs"
        note = grey if title.startswith("Return of an") else "medians over seeds"
    whole = f"{title} ({'; '.join([note, *lost_note(rows)])})"
    whole = fill(whole, int(figure.get_figwidth() / _LETTER))
    figure.suptitle(whole, x=0.01, ha="left", fontsize=10, color=INK, weight="bold")
    return figure


def seeds_of(ax: Axes, rows: pd.DataFrame, over: Over = "iteration", colour: str = BLUE) -> None:
    """The seeds of one run and one quantity, and their median."""
    seeds, line = rows[rows["seed"] != "all"], curve_of(rows[rows["seed"] == "all"], over)
    if seeds.empty:
        ax.plot(line.horizon, line.value, color=colour, linewidth=1.8, label="_the seed")
        return
    values = seeds.pivot_table(index="iteration", columns="seed", values="value", dropna=False)
    x = seeds.groupby("iteration")[over].first()
    mark, middle = (".", "D") if len(x) <= POINTS else ("-", "-")
    if values.shape[1] <= _SINGLE:
        ax.plot(x, values, mark, color=colour, linewidth=0.7, alpha=0.6)
    else:
        ax.fill_between(line.horizon, line.low, line.high, color=colour, alpha=0.2, linewidth=0,
                        label="_median")  # fmt: skip
    # Where lost seeds have no median, it has fewer iterations than they.
    ax.plot(line.horizon, line.value, middle, color=colour, linewidth=1.9, label="_median")


def _dress_cell(ax: Axes, name: str) -> None:
    """A small axes: its run above it, few ticks."""
    ax.set_title(style.plain(name), loc="left", fontsize=10, color=INK)
    style.ruled(ax, "y")
    if ax.get_yscale() == "log":
        style.label_decades(ax)
    ax.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
    if ax.get_xlim()[1] > 1000:
        ax.xaxis.set_major_formatter(THOUSANDS)
    ax.tick_params(colors=MUTED, which="both", labelsize=9, width=0.6)
    for spine in ax.spines.values():
        spine.set_color(MUTED)


def note_of(seeds: int, few: bool = False) -> str:
    """How a reader takes the lines, or the points where there are few."""
    if seeds <= 1:
        return "one seed"
    if seeds <= _SINGLE:
        own, together = ("dots", "diamonds") if few else ("thin", "thick")
        return f"{own}: each of {seeds} seeds; {together}: their median"
    return f"median of {seeds} seeds; band: order statistics, at least 95%"


def lost_note(rows: pd.DataFrame) -> list[str]:
    """How many seeds have no value at the end; medians count them as the worst."""
    if "lost" not in rows:
        return []
    last = rows[rows["seed"] == "all"].groupby(["run", "quantity"], sort=False)["lost"].last()
    most = int(np.nan_to_num(last.max()))
    return [f"{most} lost at the end, counted as the worst"] if most else []
