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

from gradlab.figures import drawing, multiples, style
from gradlab.figures.drawing import curve_of, nothing
from gradlab.figures.multiples import Over
from gradlab.figures.plots import ENDS, lines
from gradlab.figures.style import INK, MUTED, Look, dress
from gradlab.wording import AT_STARTS, at_horizon

_LOOKS = (
    Look("", style.BLUE, "-", "o"), Look("", style.CYAN, "-", "s"), Look("", style.GREEN, "-", "^"),
    Look("", INK, "-", "D"),
)  # fmt: skip


def _of_horizons(horizons: Sequence[int]) -> dict[int, Look]:
    """Their looks: h = 0 is the data gradient, the others are the model's."""
    model = iter(_LOOKS)
    return {h: style.DATA if h == 0 else next(model, _LOOKS[-1]) for h in horizons}


def weights_against_rule(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Weight of every horizon over iterations: in force (seeds and their median), and the rule's.

    Of two horizons only the longer one's is drawn, with its seeds: the other's is the rest.
    """
    ax = ax or style.new_axes()
    horizons = sorted(set(table.loc[table["quantity"] == "in force", "horizon"]))
    drawn = horizons[1:] if len(horizons) == 2 else horizons
    for horizon, look in _of_horizons(drawn).items():
        for quantity, dash, fill, name in (
            ("in force", look.dash, look.colour, "measured"), ("rule", (0, (5, 2)), "none", "rule"),
        ):  # fmt: skip
            rows = table[(table["horizon"] == horizon) & (table["quantity"] == quantity)]
            seeds = rows.pivot(index="iteration", columns="seed", values="value")
            if name == "measured" and len(drawn) == 1 < len(seeds.columns):
                ax.step(seeds.index, seeds, where="post", color=look.colour, lw=0.6, alpha=0.4)
            ax.plot(seeds.index, seeds.median(axis=1), ls=dash, color=look.colour, lw=1.8,
                    marker=look.marker, markersize=4.5, markerfacecolor=fill,
                    label=f"h = {horizon}, {name}")  # fmt: skip
    ax.set_ylim(-0.03, 1.03)
    switched = table[table["quantity"] == "switched"]["value"]
    notes = [f"{switched.sum():.0f} of {len(switched)} measurements changed what is in force"]
    notes += [f"h = {horizons[0]} has the rest"] if len(horizons) == 2 else []
    title = "Weights through training: rule and measured"
    return dress(ax, title, "weight", notes, along="iteration")


def mixture_weights(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Weight of every horizon of the mixture over iterations."""
    rows = table[table["quantity"].str.startswith("weight ")]
    by = rows["quantity"].str.removeprefix("weight ").astype(int)
    looks = _of_horizons(list(dict.fromkeys(by)))
    shown = {replace(look, label=f"h = {h}"): rows[by == h] for h, look in looks.items()}
    return lines(
        shown, ax, "Weights of the mixture", "weight", x="iteration", along="iteration",
        limits=(0, 1), empty="not recorded",
    )  # fmt: skip


def error_over_rule(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """MSE of what was in force over that of the rule, on starts that did not choose it."""
    ax = ax or style.new_axes()
    rows = table[(table["quantity"] == "over rule") & np.isfinite(table["value"])]
    if not len(rows):
        nothing(ax, "errors are not distinguishable from zero, or nothing was put in force")
        return ax
    names = sorted(set(rows["seed"]))
    spread = np.diff(sorted(set(table["iteration"])))
    step = 0.5 * float(spread.min()) / len(names) if len(spread) else 0.0
    x = rows["iteration"] + (rows["seed"].map(names.index) - (len(names) - 1) / 2) * step
    ax.vlines(x, rows["ci_low"], rows["ci_high"], color=MUTED, lw=1, alpha=0.6)
    ax.plot(x, rows["value"], "o", color=style.BLUE, markersize=3, alpha=0.7,
            label="each seed, 95% interval over its starts")  # fmt: skip
    middle = rows.groupby("iteration")["value"].median()
    ax.plot(middle.index, middle, "-", color=INK, lw=1.8, label="median of the seeds")
    ax.axhline(1.0, color=MUTED, lw=0.8)
    ax.set_yscale("log")
    # Intervals of errors near zero span decades: the values decide on the axis.
    reach = max(float(np.abs(np.log(rows["value"])).max()), np.log(2)) * 1.15
    ax.set_ylim(np.exp(-reach), np.exp(reach))
    ax.yaxis.set_major_formatter(style.TICKS)
    ax.yaxis.set_minor_formatter(NullFormatter())
    notes = ["below 1: better than the rule's weights"]
    title, unit = "Error of the weights in force", "MSE / MSE of the rule's weights"
    return dress(ax, title, unit, notes, along="iteration")


def return_over_updates(
    table: pd.DataFrame, ax: Axes | None = None, *, chosen: tuple[str, int] | None = None
) -> Axes:
    """Change of the return from the start over the updates, every candidate a line with its band;
    a ring where the return of what may be followed is highest.

    Args:
        chosen: estimator and horizon that are recommended, drawn strong.
    """
    rows, looks = table[np.isfinite(table["value"])], _candidates(table)
    shown = dict[Look, pd.DataFrame]()
    for (name, horizon), look in looks.items():
        own = rows[(rows["estimator"] == name) & (rows["horizon"] == horizon)]
        if len(own):
            begin = pd.DataFrame({"updates": [0.0], "holds": False, **dict.fromkeys(ENDS, 0.0)})
            shown[look] = pd.concat([begin, own[begin.columns]])

    def ring(ax: Axes) -> list[str]:
        for look, own in shown.items():
            at = own[own["holds"].astype(bool)]
            ax.plot(at["updates"], at["value"], "o", ms=11, mfc="none", mec=look.colour, mew=1.6)
        return drawing.bent(ax, rows["value"].abs().to_numpy(float))

    return lines(
        shown, ax, "Return over updates", "change of the return", x="updates", along="updates",
        chosen=None if chosen is None else looks.get(chosen), level=0, then=ring,
        notes=["band: 95%, paired with the start; ring: follow it so far", "ends early: dropped"],
        empty="every branch was lost",
    )  # fmt: skip


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


_STEPS = (("after", "the step", style.BLUE), ("opposite", "the opposite step", MUTED))


def step_changes(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Change of the return by a step and by the opposite one, with intervals (`Step.table`)."""
    ax = ax or style.new_axes()
    for y, (policy, name, colour) in enumerate(_STEPS):
        row = table[table["policy"] == policy].iloc[0]
        at = (row["value"], y)
        ax.plot([row["ci_low"], row["ci_high"]], [y, y], color=colour, lw=style.STRONG, label="_")
        ax.plot(*at, "o", color=colour, ms=9, mec=style.PAPER, label="_")
        ax.annotate(name, at, (0, 12), textcoords="offset points", ha="center", color=INK)
    ax.axvline(0.0, color=INK, lw=1.1)
    along = "lower  ←  change of the return  →  higher"
    dress(ax, "Change of the return", "", ["dot and bar: mean and 95%"], along=along)
    ax.set_ylim(len(_STEPS) - 0.4, -0.6)
    ax.set_yticks([])
    ax.margins(x=0.25)
    style.ruled(ax, "x")
    return ax


def returns(
    table: pd.DataFrame,
    ax: Axes | None = None,
    *,
    over: Over = "iteration",
    goals: Sequence[float] = (),
) -> Axes:
    """Mean return over the evaluation starts, every run a curve; goals as levels."""
    ax = ax or style.new_axes()
    rows = table[table["quantity"] == "return"]
    multiples.levels(ax, goals, rows)
    _curves(ax, rows, over)
    multiples.bend_returns(ax, rows)
    multiples.name_levels(ax, goals)
    title = f"Return over {'iterations' if over == 'iteration' else 'wall time'}"
    unit = "undiscounted return of an episode"
    return dress(ax, title, unit, _notes(rows), along=multiples.AXIS[over])


def training_curve(
    table: pd.DataFrame, ax: Axes | None = None, *, name: str, title: str, unit: str
) -> Axes:
    """One recorded quantity over iterations, every run a curve; logarithmic where positive."""
    ax = ax or style.new_axes()
    rows = table[(table["quantity"] == name) & np.isfinite(table["value"])]
    if len(rows) == 0:
        nothing(ax, "not recorded")
        return ax
    _curves(ax, rows)
    if (rows["value"] > 0).all():
        ax.set_yscale("log")
    return dress(ax, title, unit, _notes(rows), along="iteration")


def gradient_errors(
    table: pd.DataFrame, ax: Axes | None = None, *, start: str = "", batch: int, title: str
) -> Axes:
    """Bias², variance and MSE of a batch's gradient over iterations, of one run.

    Args:
        start: "" for errors against the truth, "dynamics_" for the model's own; batch: N′.
    """
    parts = {"bias2": style.BIAS, "variance": style.variance_look(batch), "mse": style.MSE}
    rows = table[table["quantity"].isin([f"gradient {start}{x}" for x in parts])]
    together = rows[rows["seed"] == "all"]
    shown = {
        look: together[together["quantity"] == f"gradient {start}{part}"]
        for part, look in parts.items()
    }
    return lines(
        shown, ax, title, "gradient norm²", x="iteration", along="iteration", log=True,
        notes=_notes(rows), empty="not measured, or no true gradient",
    )  # fmt: skip


_FEWEST = 5  # rows of a record that make a box
_PARTS = {
    "policy": ("policy's update", style.VERMILION),
    "critic": ("critic's, with its target", style.BLUE),
    "iteration": ("whole iteration", MUTED),
}


def update_times(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Time of an update for every run and horizon of its model rollouts, as boxes (MPG Fig. 5).

    The table is that of `gradlab.runs.training.results.times`.
    """
    ax = ax or style.new_axes()
    table = table[np.isfinite(table["milliseconds"])]
    groups = {
        f"{style.plain(str(run))}, H = {horizon:.0f}": rows
        for (run, horizon), rows in table.groupby(["run", "horizon"], sort=False)
        if (rows["part"] == "iteration").sum() >= _FEWEST  # fewer: while weights changed hands
    }
    if not groups:
        nothing(ax, "too short a run")
        return ax
    for shift, (part, (name, colour)) in enumerate(_PARTS.items(), -1):
        shown = {"facecolor": colour, "alpha": 0.45}
        each = [
            rows.loc[rows["part"] == part, "milliseconds"].to_numpy() for rows in groups.values()
        ]
        at = [k for k, values in enumerate(each) if len(values)]
        if not at:
            continue
        ax.boxplot(
            [each[k] for k in at], positions=[k + 0.27 * shift for k in at], widths=0.22,
            whis=(5, 95), showfliers=False, orientation="horizontal", patch_artist=True,
            manage_ticks=False, medianprops={"color": INK}, boxprops=shown,
        )  # fmt: skip
        ax.fill_between([], [], color=colour, alpha=0.45, label=name)
    notes = ["boxes: quartiles over rows; whiskers: 5% and 95%"]
    dress(ax, "Time of an update", "", notes, along="milliseconds, all seeds together")
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(style.TICKS)
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_yticks(range(len(groups)), list(groups))
    ax.invert_yaxis()
    return ax


def _curves(ax: Axes, rows: pd.DataFrame, over: Over = "iteration") -> None:
    """One run: its seeds and their median; several: a line each, whose bands would overlap."""
    names = list(dict.fromkeys(rows["run"]))
    for name, look in style.looks(names).items():
        mine = rows[rows["run"] == name]
        if len(names) == 1:
            multiples.seeds_of(ax, mine, over, look.colour)
        else:
            line = curve_of(mine[mine["seed"] == "all"], over)
            drawing.draw(ax, replace(line, low=line.low * np.nan), look)


def _notes(rows: pd.DataFrame) -> list[str]:
    """How many seeds a curve speaks for."""
    counts = rows[rows["seed"] != "all"].groupby("run")["seed"].nunique()
    if len(counts) == 0:
        return ["one seed"]
    points = rows["iteration"].nunique() <= drawing.POINTS
    several = f"medians over {' to '.join(map(str, sorted({counts.min(), counts.max()})))} seeds"
    note = multiples.note_of(int(counts.max()), points) if len(counts) == 1 else several
    return [note, *multiples.lost_note(rows)]
