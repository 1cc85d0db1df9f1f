"""What a probe sees at every update, and what it measures on the task now and then.

Tables are those of `gradlab.runs.probe.tables`: `curves` has a row per step, quantity and place (a
tensor, an action, a tier), with value, ci_low and ci_high, which are drawn as bands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.ticker import MaxNLocator

from gradlab.figures import drawing, style
from gradlab.figures.drawing import Curve
from gradlab.figures.style import INK, MUTED, PAPER, THOUSANDS, TICKS, Look

_FEW = 40  # points up to which each has a marker
_NAMED = 20  # tensors up to which each has its name
_DECADES = 6  # of colours below the largest norm
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
    ax = ax or style.new_axes()
    lines = [
        (label or str(place), line)
        for name, label in quantities.items()
        for place in dict.fromkeys(table[table["quantity"] == name]["place"])
        if (line := _curve_of(table, name, place)) is not None
    ][: len(_LOOKS)]
    if not lines:
        return _empty(ax, title, "not measured")
    shown = [line for _, line in lines]
    floor = drawing.log_floor(shown) if log else None
    if level is not None:
        ax.axhline(level[0], color=MUTED, lw=1.2, ls=(0, (2, 2)), label=level[1])
    for (label, line), look in zip(lines, _LOOKS, strict=False):
        look = replace(look, label=label, marker=look.marker if len(line.horizon) <= _FEW else "")
        drawing.draw(ax, line, look, floor, 1.8, 0.2)
    bounds = log and drawing.has_bounds(shown)
    if log:
        ax.set_yscale("log")
    if bounds:
        ax.set_ylim(bottom=floor)
    rows = table[(table["quantity"] == lost) & (table["value"] > 0)]
    if not rows.empty:
        ax.axvline(rows["step"].min(), color=style.PURPLE, lw=1.6, ls=(0, (5, 2)),
                   label="not finite from here on")  # fmt: skip
    notes = ["open marker with arrow: at most so much (upper end of 95%)"] if bounds else []
    notes += ["band: 95%"] if any(bool((x.high > x.low).any()) for x in shown) else []
    return _over_steps(ax, title, unit, notes)


def layer_norms(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Norms by tensor as a map, the input's layer on top; empty where exactly 0 or not finite."""
    ax, title = ax or style.new_axes(), "Gradient by tensor"
    norms = table[table["quantity"] == "layer_norm"]
    wide = norms.groupby(["place", "step"], sort=False)["value"].mean().unstack("step")
    values = wide.to_numpy(float)
    if not (values > 0).any():
        return _empty(ax, title, "no norm that is finite and not 0")
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
    _over_steps(ax, title, "", ["hatched: exactly 0 or not finite"]).grid(False)
    return ax


def _over_steps(ax: Axes, title: str, unit: str, notes: Sequence[str] = ()) -> Axes:
    """Everything around curves over the steps of a loop."""
    style.dress(ax, title, unit, notes)
    ax.set_xlabel("step of the loop", color=INK)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    ax.xaxis.set_major_formatter(THOUSANDS)
    return ax


def _empty(ax: Axes, title: str, why: str) -> Axes:
    """No data, and why."""
    drawing.nothing(ax, why)
    _over_steps(ax, title, "").set_xlabel("")
    ax.set_xticks([])
    return ax


def _curve_of(table: pd.DataFrame, quantity: str, place: str = "") -> Curve | None:
    """Its finite values; None where there is none."""
    rows = table[(table["quantity"] == quantity) & (table["place"] == place)]
    rows = rows[np.isfinite(rows["value"])].sort_values("step")
    return drawing.curve_of(rows, "step") if len(rows) else None


def moved_chains(chains: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Size of the chained Jacobians over the steps chained, at a few measurements."""
    ax = ax or style.new_axes()
    title = "Growth of the closed loop's chained Jacobians"
    if chains.empty:
        return _empty(ax, title, "not measured")
    ax.axhline(0, color=MUTED, lw=0.9)
    steps = np.unique(chains["step"].to_numpy(float))
    even = np.linspace(steps[0], steps[-1], len(_LOOKS))  # first, last and a few between
    shown = steps[np.unique(np.abs(steps[:, None] - even).argmin(axis=0))]
    for step, look in zip(shown[::-1], _LOOKS, strict=False):  # the newest as the first look
        rows = chains[chains["step"] == step].sort_values("horizon")
        line = drawing.curve_of(rows, "horizon")
        drawing.draw(ax, line, replace(look, label=f"step {step:,.0f}"), band=0.12)
    style.dress(ax, title, "log₁₀ |∂s_t / ∂s_0|, mean over starts")
    ax.set_xlabel("steps chained, t", color=INK)
    return ax


def chosen_horizons(
    choices: pd.DataFrame, ax: Axes | None = None, *, longest: int | None = None
) -> Axes:
    """At every measurement the gradients that may have the smallest error, the smallest ringed."""
    ax = ax or style.new_axes()
    title = "Which gradient has the smallest error?"
    if choices.empty:
        return _empty(ax, title, "nothing could be chosen: no admissible truth")
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
    _over_steps(ax, title, "horizon [steps]", ["marks: may be the best (95%); rings: smallest"])
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    return ax
