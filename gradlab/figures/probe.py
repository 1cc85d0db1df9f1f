"""What a probe sees at every update, and what it measures on the task now and then.

Tables are those of `gradlab.runs.probe.tables`: `curves` has a row per step, quantity and place (a
tensor, an action, a tier), with value, ci_low and ci_high, which are drawn as bands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.ticker import MaxNLocator

from gradlab.figures import drawing, style
from gradlab.figures.plots import lines
from gradlab.figures.style import INK, MUTED, PAPER, TICKS, Look

_NAMED = 20  # tensors up to which each has its name
_DECADES = 6  # of colours below the largest norm
_STEPS = "step of the loop"
_LOOKS = (
    Look("", style.BLUE, "-", "o"),
    Look("", style.VERMILION, (0, (5, 1.6)), "s"),
    Look("", style.GREEN, (0, (1.2, 1.4)), "^"),
    Look("", style.PURPLE, (0, (6, 1.5, 1.2, 1.5)), "D"),
    Look("", style.OCHRE, (0, (3, 1.2, 1, 1.2)), "v"),
)


def probe_curves(
    table: pd.DataFrame,
    ax: Axes | None = None,
    *,
    quantities: Mapping[str, str],
    title: str,
    unit: str,
    log: bool = False,
    level: tuple[float, str] | None = None,
    lost: str = "",
) -> Axes:
    """Quantities over the steps of a loop, with their 95% intervals; of one by action, the first.

    Args:
        quantities: name → label, "" for that of its place.
        level: a height to compare with, and what it means.
        lost: the quantity of which the first value above 0 is marked.
    """
    finite = table[np.isfinite(table["value"])]
    found = {
        label or str(place): own
        for name, label in quantities.items()
        for place, own in finite[finite["quantity"] == name].groupby("place", sort=False)
    }
    gone = table.loc[(table["quantity"] == lost) & (table["value"] > 0), "step"]

    def mark(ax: Axes) -> None:
        if len(gone):
            ax.axvline(gone.min(), color=style.PURPLE, lw=1.6, ls=(0, (5, 2)),
                       label="not finite from here on")  # fmt: skip

    return lines(
        _looking(found), ax, title, unit, x="step", along=_STEPS, log=log, notes=["band: 95%"],
        thresholds={} if level is None else {level[1]: level[0]}, then=mark, empty="not measured",
    )  # fmt: skip


def _looking(found: Mapping[str, pd.DataFrame]) -> dict[Look, pd.DataFrame]:
    """As many as there are looks, in their order."""
    pairs = zip(found.items(), _LOOKS, strict=False)
    return {replace(look, label=label): rows for (label, rows), look in pairs}


def layer_norms(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Norms by tensor as a map, the input's layer on top; empty where exactly 0 or not finite."""
    ax, title = ax or style.new_axes(), "Gradient by tensor"
    norms = table[table["quantity"] == "layer_norm"]
    wide = norms.groupby(["place", "step"], sort=False)["value"].mean().unstack("step")
    values = wide.to_numpy(float)
    if not (values > 0).any():
        drawing.nothing(ax, "no norm that is finite and not 0")
        return style.dress(ax, title, along=_STEPS)
    steps = wide.columns.to_numpy(float)
    low, top = max(np.nanmax(values) / 10**_DECADES, values[values > 0].min()), np.nanmax(values)
    shown = np.where(values > 0, np.maximum(values, low), np.nan)
    # Windows as they are: the first one begins as long before its step as the second is wide.
    edges = np.append(2 * steps[0] - steps[1] if len(steps) > 1 else steps[0] - 1, steps)
    rows = np.arange(len(values) + 1) - 0.5
    image = ax.pcolormesh(
        edges, rows, shown, norm=LogNorm(low, max(top, 1.0001 * low)), rasterized=True,
        cmap=LinearSegmentedColormap.from_list("norm", [style.GRID, style.BLUE]),
    )  # fmt: skip
    ax.invert_yaxis()
    ax.fill_between(edges[[0, -1]], *rows[[0, -1]], fc=PAPER, hatch="////", ec=MUTED, lw=0,
                    zorder=0)  # fmt: skip
    bar = ax.figure.colorbar(image, ax=ax, pad=0.02, shrink=0.9, format=TICKS)
    bar.ax.tick_params(colors=MUTED, labelsize=9)
    names = [style.plain(str(name)) for name in wide.index]
    keep = range(0, len(names), 1 + (len(names) - 1) // _NAMED)
    ax.set_yticks(list(keep), [names[k] for k in keep], fontsize=9)
    ax.tick_params(length=0, colors=INK)
    style.dress(ax, title, "", ["hatched: exactly 0 or not finite"], along=_STEPS).grid(False)
    return ax


def moved_chains(chains: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Size of the chained Jacobians over the steps chained, at a few measurements."""
    steps = np.unique(chains["step"].to_numpy(float))
    few = np.unique(np.linspace(0, len(steps) - 1, len(_LOOKS)).round()).astype(int)
    shown = steps[few] if len(steps) else steps  # first, last and a few between
    found = {f"step {each:,.0f}": chains[chains["step"] == each] for each in shown[::-1]}
    return lines(
        _looking(found), ax, "Growth of the closed loop's chained Jacobians",
        "log₁₀ |∂s_t / ∂s_0|, mean over starts", along="steps chained, t", level=0,
        empty="not measured",
    )  # fmt: skip


def chosen_horizons(
    choices: pd.DataFrame, ax: Axes | None = None, *, longest: int | None = None
) -> Axes:
    """At every measurement the gradients that may have the smallest error, the smallest ringed."""
    ax = ax or style.new_axes()
    title = "Which gradient has the smallest error?"
    if choices.empty:
        drawing.nothing(ax, "nothing could be chosen: no admissible truth")
        return style.dress(ax, title, along=_STEPS)
    names = [str(name) for name in dict.fromkeys(choices["estimator"])]
    for k, (name, look) in enumerate(style.looks(names, drawing.identities(choices)).items()):
        mine = choices[choices["estimator"] == name]
        height = mine["horizon"] + 0.18 * (k - (len(names) - 1) / 2)
        ax.plot(mine["step"], height, look.marker or "X", color=look.colour, label=look.label,
                markersize=5, alpha=0.75, lw=0)  # fmt: skip
        best = mine["chosen"].to_numpy(bool)
        ax.plot(mine["step"][best], height[best], "o", color=INK, markersize=10, lw=0,
                markerfacecolor="none", markeredgewidth=1.1)  # fmt: skip
    if longest is not None:
        ax.set_ylim(-0.6, longest + 0.6)
    notes = ["marks: may be the best (95%); rings: smallest"]
    style.dress(ax, title, "horizon [steps]", notes, along=_STEPS)
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    return ax
