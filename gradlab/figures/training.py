"""Curves of training, of branches and of weights, and what a step did.

The table (`gradlab.runs.training.results.table`) has a row per run, iteration, seed and quantity;
the seed "all" is the median over all seeds with its interval (`statistics.over_groups`), in which a
seed that is lost counts as the worst. `return_over_updates` draws `Race.table()` or
`Rehearsal.table()`, figures of weights `runs.training.measured_weights.table`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradlab.figures import drawing, style
from gradlab.figures.plots import ENDS, bars, lines
from gradlab.figures.style import INK, MUTED, Look
from gradlab.wording import AT_STARTS, at_horizon

Over = Literal["iteration", "seconds"]
_AXIS = {"iteration": "iteration", "seconds": "wall time [s]"}

_LOOKS = (
    Look("", style.BLUE, "-", "o"), Look("", style.CYAN, "-", "s"), Look("", style.GREEN, "-", "^"),
    Look("", INK, "-", "D"),
)  # fmt: skip


def _of_horizons(horizons: Sequence[int]) -> dict[int, Look]:
    """Their looks: h = 0 is the data gradient, the others are the model's."""
    model = iter(_LOOKS)
    return {h: style.DATA if h == 0 else next(model, _LOOKS[-1]) for h in horizons}


def weights_against_rule(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Weight of every horizon over iterations: in force (the seeds' median, least and largest), and
    the rule's. Of two horizons only the longer one's is drawn: the other's is the rest."""
    horizons = sorted(set(table.loc[table["quantity"] == "in force", "horizon"]))
    drawn, shown = horizons[len(horizons) == 2 :], dict[Look, pd.DataFrame]()
    for h, look in _of_horizons(drawn).items():
        for quantity, own in (("in force", look), ("rule", replace(look, dash=(0, (5, 2))))):
            rows = table[(table["horizon"] == h) & (table["quantity"] == quantity)]
            over = rows.groupby("iteration")["value"].agg(
                value="median", ci_low="min", ci_high="max"
            )
            label = f"h = {h}, {'measured' if own is look else 'rule'}"
            shown[replace(own, label=label)] = over.reset_index()
    switched = table[table["quantity"] == "switched"]["value"]
    notes = [f"{switched.sum():.0f} of {len(switched)} measurements changed what is in force"]
    notes += [f"h = {horizons[0]} has the rest"] if len(drawn) < len(horizons) else []
    return lines(
        shown, ax, "Weights through training: rule and measured", "weight", x="iteration",
        along="iteration", notes=[*notes, "band: all seeds"], empty="not measured",
    )  # fmt: skip


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
    """MSE of what was in force over that of the rule, on starts that did not choose it, by seed."""
    rows = table[table["quantity"] == "over rule"].astype({"seed": str})
    return lines(
        rows, ax, "Error of the weights in force",
        "MSE / MSE of the rule's weights", x="iteration", by="seed", along="iteration", log=True,
        thresholds={"as the rule's": 1.0}, notes=["band: 95% over a seed's starts"],
        empty="no error is known",
    )  # fmt: skip


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


def step_changes(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Change of the return by a step and by the opposite one, with intervals (`Step.table`)."""
    names = {"after": "the step", "opposite": "the opposite step"}
    looks = style.looks([*names.values()])
    series = {
        replace(looks[name], marker="o"): table[table["policy"] == policy].assign(output=name)
        for policy, name in names.items()
    }
    unit = "lower  ←  change of the return  →  higher"
    return bars(series, ax, "Change of the return", unit, along="", notes=["mean and 95%"])


def returns(
    table: pd.DataFrame,
    ax: Axes | None = None,
    *,
    over: Over = "iteration",
    goals: Sequence[float] = (),
    best: str = "",
) -> Axes:
    """Mean return over the evaluation starts, every run a curve; goals as levels; `best`: the run
    that is drawn strong."""
    title = f"Return over {'iterations' if over == 'iteration' else 'wall time'}"
    unit, reached = "undiscounted return of an episode", {f"goal {x:g}": x for x in goals}
    return _curves(table, ax, "return", title, unit, over, best, within=reached)


def training_curve(
    table: pd.DataFrame, ax: Axes | None = None, *, name: str, title: str, unit: str = ""
) -> Axes:
    """One recorded quantity over iterations, every run a curve; logarithmic where positive."""
    return _curves(table, ax, name, title, unit)


def stacked(figure: Figure, table: pd.DataFrame, shown: Mapping[str, str]) -> None:
    """One quantity (name → title) below the other."""
    figure.set_size_inches(style.SIZE[0], 2.9 * len(shown))
    axes = figure.subplots(len(shown), squeeze=False).ravel()
    for ax, (name, title) in zip(axes, shown.items(), strict=True):
        training_curve(table, ax, name=name, title=title)


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


_FEWEST = 5  # rows of a record that make a mark
_PARTS = {
    "policy": Look("policy's update", style.VERMILION, "-", "s"),
    "critic": Look("critic's, with its target", style.BLUE, "-", "o"),
    "iteration": Look("whole iteration", MUTED, "-", "D"),
}


def update_times(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Time of an update for every run and horizon of its model rollouts (MPG Fig. 5).

    The table is that of `gradlab.runs.training.results.times`.
    """
    rows = table[np.isfinite(table["milliseconds"])]
    groups = rows.groupby(["run", "horizon", "part"], sort=False)["milliseconds"]
    found = groups.quantile(np.array([0.5, 0.05, 0.95])).unstack()
    found = found[[0.5, 0.05, 0.95]].set_axis(ENDS, axis=1)
    found = found[groups.size() >= _FEWEST].reset_index()  # fewer: while weights changed hands
    names = zip(found["run"], found["horizon"], strict=True)
    found["output"] = [f"{style.plain(str(run))}, H = {h:.0f}" for run, h in names]
    series = {x: own for part, x in _PARTS.items() if len(own := found[found["part"] == part])}
    return bars(
        series, ax, "Time of an update", "milliseconds, all seeds together", along="",
        empty="too short a run", notes=["median over rows of the record; bars: 5% and 95%"],
    )  # fmt: skip


def _curves(
    table: pd.DataFrame, ax: Axes | None, quantity: str, title: str, unit: str,
    over: Over = "iteration", best: str = "", **more: Any,
) -> Axes:  # fmt: skip
    """One run: its seeds and their median; several: medians alone, whose bands would overlap, but
    the best one's."""
    rows, looks = table[table["quantity"] == quantity], style.looks([*dict.fromkeys(table["run"])])
    of_seed = (rows["seed"] != "all") & np.isfinite(rows["value"])
    together = rows[rows["seed"] == "all"]
    shown = {x: together[together["run"] == run] for run, x in looks.items()}
    chosen = looks[best or next(iter(looks))] if best or len(looks) == 1 else ""
    values = rows["value"][np.isfinite(rows["value"])]

    def seeds(ax: Axes) -> list[str]:
        for _, own in rows[of_seed].groupby("seed") if len(looks) == 1 else ():
            ax.plot(own[over], own["value"], lw=0.7, alpha=0.6, zorder=1, label="_seed",
                    color=next(iter(looks.values())).colour)  # fmt: skip
        return drawing.bent(ax, values.abs().to_numpy(float)) if values.min() <= 0 else []

    return lines(
        shown, ax, title, unit, x=over, along=_AXIS[over], chosen=chosen, widths=(1.9, style.THIN),
        bands=(0.2, 0.0, 0.0), log=quantity != "return" and bool((values > 0).all()),
        notes=_notes(rows), then=seeds, empty="not recorded", **more,
    )  # fmt: skip


def _notes(rows: pd.DataFrame) -> list[str]:
    """How many seeds a curve speaks for, and how many have no value at the end."""
    together = rows["seed"] == "all"
    counts = rows[~together].groupby("run")["seed"].nunique()
    last: Any = rows[together].groupby(["run", "quantity"])["lost"].last() if "lost" in rows else []
    lost = int(np.nanmax([0, *last]))
    several = " to ".join(map(str, sorted({counts.min(), counts.max()}))) if len(counts) else ""
    thin = "thin: each seed, " * (rows["run"].nunique() == 1)
    note = f"medians of {several} seeds; {thin}band: order statistics" if several else "one seed"
    return [note, *([f"{lost} lost at the end, counted as the worst"] if lost else [])]
