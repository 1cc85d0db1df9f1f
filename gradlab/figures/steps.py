"""What one step along each gradient did to the return.

    realised_gains change of the return by the user's update along each mean gradient, by horizon
    step_gains     change of the return by one step of equal length along each gradient
    step_slices    the return along the true gradient and along the judged one

The first takes the table of `runs.realised.Realised`: estimator, horizon, step, update, value,
ci_low, ci_high in units of the discounted return. The others take that of
`runs.one_step.OneStepImprovement`: rows of kind "step" and "slice" with the same columns but
"update" and, of steps, the share of the truth's gain.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from gradlab.figures import drawing, style
from gradlab.figures.drawing import Numbers
from gradlab.figures.style import INK, MUTED, PAPER, PURPLE, TICKS, Look

TRUTH = "truth"  # in the place of an estimator's name
SIDE = 0.12  # steps between estimators that share a horizon
_TRUE = Look("true gradient", INK, "-", "D")
UNIT = "change of the discounted return"


def realised_gains(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """One dot with its 95% interval for every step taken, those of one estimator joined."""
    ax = style.new_axes() if ax is None else ax
    finite = table[np.isfinite(table["value"])] if len(table) else table
    if not len(finite):
        drawing.nothing(ax, "no steps were taken")
        return style.dress(ax, "Realised gain of one step", "")
    rows = finite[finite["update"]]
    names = [name for name in drawing.estimators(rows) if name != TRUTH]
    looks = style.looks(names, drawing.identities(rows))
    for place, name in enumerate(names):
        own, look = rows[rows["estimator"] == name].sort_values("horizon"), looks[name]
        x = own["horizon"].to_numpy(float) + SIDE * (place - (len(names) - 1) / 2)
        value, low, high = (own[each].to_numpy(float) for each in ("value", "ci_low", "ci_high"))
        ax.vlines(x, low, high, color=look.colour, lw=1.8)
        ax.plot(x, value, color=look.colour, ls=look.dash, lw=1.0, alpha=0.6)
        ax.plot(x, value, color=look.colour, ls="", marker=look.marker or "D", ms=7, mec=PAPER,
                mew=0.8, label=look.label)  # fmt: skip
    ax.axhline(0.0, color=INK, lw=1.1)
    ax.axhspan(min(ax.get_ylim()[0], 0.0), 0.0, color=MUTED, alpha=0.07, lw=0, zorder=0)
    starts = int(rows["n"].iloc[0])
    notes = [f"dot and bar: estimate and 95%, {starts} fresh starts; the best possible is unknown"]
    bent = drawing.bent(ax, rows["value"].abs().to_numpy(float))
    title = "Realised gain of one update"
    style.dress(ax, title, "harms  ←  change of the return  →  helps", [*notes, *bent])
    ax.set_xlabel("steps through the model before the critic takes over", color=INK)
    if not bent:
        ax.yaxis.set_major_locator(MaxNLocator(nbins=6))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−")))
    return ax


def step_gains(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """One row per gradient, its change of the return with the 95% interval, the truth's on top."""
    ax = style.new_axes() if ax is None else ax
    rows = table[table["kind"] == "step"]
    looks, names = _looks(rows), [str(name) for name in rows["estimator"]]
    value, low, high, share = (
        rows[name].to_numpy(float) for name in ("value", "ci_low", "ci_high", "share")
    )
    for place, name in enumerate(names):
        look = looks[name]
        ax.plot([low[place], high[place]], [place, place], color=look.colour, lw=2.2)
        ax.plot(value[place], place, marker=look.marker or "o", color=look.colour, ms=7,
                mec=style.PAPER, mew=0.8)  # fmt: skip
        label = f"{share[place]:.0%}" if np.isfinite(share[place]) else "–"
        ax.annotate(label, (1.0, place), (6, 0), ("axes fraction", "data"), "offset points",
                    fontsize=9, color=MUTED, va="center")  # fmt: skip
    if len(rows):
        ax.axvline(0.0, color=MUTED, lw=1.0)
        ax.set_ylim(len(rows) - 0.4, -0.6)
    else:
        drawing.nothing(ax, "no steps were taken")
    notes = ["point and bar: estimate and 95%; right: share of the true gradient's gain"]
    style.dress(ax, "Consequence: one step along each gradient", "", notes)
    ax.set_xlabel(UNIT, color=INK)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=5))
    ax.xaxis.set_major_formatter(TICKS)
    ends = rows["horizon"].to_numpy(int)
    ax.set_yticks(range(len(rows)), [_name(*each, looks) for each in zip(names, ends, strict=True)])
    ax.grid(True, axis="x", color=style.GRID, linewidth=0.8)
    ax.grid(False, axis="y")
    return ax


def step_slices(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """The return along unit directions, with its 95% band; a dotted line at the step taken."""
    ax = style.new_axes() if ax is None else ax
    rows = table[table["kind"] == "slice"]
    looks = _looks(rows)
    for (name, horizon), own in rows.groupby(["estimator", "horizon"], sort=False):
        own, look = own.sort_values("step"), looks[str(name)]
        x, y, low, high = (own[c].to_numpy(float) for c in ("step", "value", "ci_low", "ci_high"))
        label = look.label if name == TRUTH else f"{look.label}, h = {horizon}"
        ax.plot(x, y, color=look.colour, ls=look.dash, marker=look.marker, ms=5, label=label,
                mec=style.PAPER, mew=0.7)  # fmt: skip
        ax.fill_between(x, low, high, color=look.colour, alpha=0.14, lw=0)
        ax.plot(x, _slope(x, y) * x, color=look.colour, lw=1.0, ls=(0, (1, 2.2)))
    taken = table[table["kind"] == "step"]["step"]
    notes = []
    if len(rows):
        ax.axhline(0.0, color=MUTED, lw=0.8)
        ax.axvline(float(taken.iloc[0]), color=PURPLE, lw=1.2, ls=(0, (2, 2)), label="step taken")
        notes = ["band: 95%; thin dotted: the straight line of the smallest steps"]
    else:
        drawing.nothing(ax, "no slices were taken")
    style.dress(ax, "Consequence: the return along the gradient", UNIT, notes)
    ax.set_xlabel("length of the step in θ", color=INK)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=7))
    return ax


def _slope(x: Numbers, y: Numbers) -> float:
    """By the two smallest steps on either side of 0."""
    near = np.argsort(np.abs(x))[1:3]
    return float((y[near] * np.sign(x[near])).sum() / np.abs(x[near]).sum())


def _looks(rows: pd.DataFrame) -> dict[str, Look]:
    names = [name for name in drawing.estimators(rows) if name != TRUTH]
    return {TRUTH: _TRUE} | style.looks(names, drawing.identities(rows))


def _name(name: str, horizon: int, looks: dict[str, Look]) -> str:
    short = looks[name].label.split(" (")[0]
    alone = name == TRUTH or looks[name].dash == style.DATA.dash
    return short if alone else f"{short}, h = {horizon}"
