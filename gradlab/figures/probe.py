"""What a probe sees at every update, and what it measures on the task now and then.

Tables are those of `gradlab.runs.probe.tables`: `curves` has a row per step, quantity and place (a
tensor, an action, a tier), with value, ci_low and ci_high, which are drawn as bands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from gradlab.figures import drawing, style
from gradlab.figures.drawing import Curve, Numbers
from gradlab.figures.style import INK, MUTED, PAPER, THOUSANDS, TICKS, Look

_FEW = 40  # points up to which each has a marker
_NAMED = 20  # tensors up to which each has its name
_DECADES = 6  # of colours below the largest norm
_MOST_ACTIONS = 8
_ENDS = ("ci_low", "ci_high")
_TIERS = (style.BLUE, style.OCHRE, style.GREEN)
_ACTIONS = (
    Look("", style.BLUE, "-", "o"),
    Look("", style.VERMILION, (0, (5, 1.6)), "s"),
    Look("", style.GREEN, (0, (1.2, 1.4)), "^"),
    Look("", style.PURPLE, (0, (6, 1.5, 1.2, 1.5)), "D"),
)


def probe_curve(
    table: pd.DataFrame,
    ax: Axes | None = None,
    *,
    quantity: str,
    title: str,
    unit: str,
    log: bool = False,
    level: tuple[float, str] | None = None,
) -> Axes:
    """One quantity over the steps of a loop, with its 95% intervals.

    Args:
        level: a height to compare with, and what it means.
    """
    ax = ax or style.new_axes()
    line = _curve_of(table, quantity)
    if line is None:
        return _empty(ax, title, "not measured")
    floor = drawing.log_floor([line]) if log else None
    if level is not None:
        ax.axhline(level[0], color=MUTED, lw=1.2, ls=(0, (2, 2)), label=level[1])
    _draw(ax, line, Look("", style.BLUE, "-", "o"), floor)
    bounds = log and drawing.has_bounds([line])
    if log:
        ax.set_yscale("log")
    if bounds:
        ax.set_ylim(bottom=floor)
    notes = [_AT_MOST] if bounds else []
    return _over_steps(ax, title, unit, [*notes, *_band_note(line)])


_AT_MOST = "open marker with arrow: at most so much (upper end of 95%)"


def gradient_norms(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Mean and largest norm of a window's gradients, and whether they may have been clipped."""
    ax = ax or style.new_axes()
    looks = {
        "grad_norm_max": Look("largest of a window", style.VERMILION, (0, (1.2, 1.4)), "^"),
        "grad_norm": Look("mean of a window", style.BLUE, "-", "o"),
    }
    found = {name: _curve_of(table, name) for name in looks}
    drawn = {name: line for name, line in found.items() if line and (line.value > 0).any()}
    if not drawn:
        return _empty(ax, "Norm of the gradient", "no gradient that is finite and not 0")
    for name, line in drawn.items():
        _draw(ax, line, looks[name])
    ax.set_yscale("log")
    lost = table[(table["quantity"] == "nonfinite") & (table["value"] > 0)]
    if not lost.empty:
        first, looked = lost["step"].min(), table[table["quantity"] == "looked"]["value"].sum()
        label = f"{lost['value'].sum():,.0f} of {looked:,.0f} not finite, from here on"
        ax.axvline(first, color=style.PURPLE, lw=1.6, ls=(0, (5, 2)), label=label)
    marked = table[table["quantity"] == "marked"]["value"]
    note = "as the backward pass left them, before any clipping"
    if not (marked > 0).all():
        some = "partly " if (marked > 0).any() else ""
        note = f"{some}not marked by `with probe(step)`: perhaps clipped already"
    notes = [note, *_band_note(drawn.get("grad_norm"))]
    return _over_steps(ax, "Norm of the gradient", "loss per parameter unit", notes)


def layer_norms(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Norms by tensor as a map, the input's layer on top; empty where exactly 0 or not finite."""
    ax, title = ax or style.new_axes(), "Gradient by tensor"
    rows = table[table["quantity"] == "layer_norm"]
    wide = rows.groupby(["place", "step"], sort=False)["value"].mean().unstack("step")
    values = wide.to_numpy(float)
    if not (values > 0).any():
        return _empty(ax, title, "no norm that is finite and not 0")
    _map(ax, values, wide.columns.to_numpy(float))
    names = [style.plain(str(name)) for name in wide.index]
    keep = range(0, len(names), 1 + (len(names) - 1) // _NAMED)
    ax.set_yticks(list(keep), [names[k] for k in keep], fontsize=9)
    ax.tick_params(length=0, colors=INK)
    note = "norms, window means; hatched: exactly 0 or not finite"
    _over_steps(ax, title, "", [note]).grid(False)
    return ax


def action_shares(
    table: pd.DataFrame, ax: Axes | None = None, *, quantity: str, title: str, unit: str
) -> Axes:
    """Saturation or attenuation of every action, between 0 and 1 around a line at one half."""
    ax = ax or style.new_axes()
    places = list(dict.fromkeys(table[table["quantity"] == quantity]["place"]))
    drawn = {str(place): _curve_of(table, quantity, place) for place in places}
    if not any(drawn.values()):
        return _empty(ax, title, "no limit of the actions is known")
    ax.axhline(0.5, color=MUTED, lw=1.2, ls=(0, (2, 2)))
    for k, (place, line) in enumerate([*drawn.items()][:_MOST_ACTIONS]):
        _draw(ax, line, replace(_ACTIONS[k % len(_ACTIONS)], label=place))
    ax.set_ylim(-0.03, 1.03)
    _percent(ax)
    more = len(places) > _MOST_ACTIONS
    notes = [f"the first {_MOST_ACTIONS} of {len(places)} actions"] if more else []
    return _over_steps(ax, title, unit, [*notes, *_band_note(drawn[str(places[0])])])


def probe_cost(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Share of the time that the probe took, tier on tier, under its budget."""
    ax = ax or style.new_axes()
    rows = table[(table["quantity"] == "share") & np.isfinite(table["value"])]
    budget = table[table["quantity"] == "budget"]["value"]
    if rows.empty:
        return _empty(ax, "What the probe took", "no row yet")
    below = np.zeros(rows["step"].nunique())
    for place, colour in zip(dict.fromkeys(rows["place"]), _TIERS, strict=True):
        mine = rows[rows["place"] == place].sort_values("step")
        x, above = mine["step"].to_numpy(float), below + mine["value"].to_numpy(float)
        ax.fill_between(x, below, above, color=colour, alpha=0.55, lw=0, label=str(place))
        ax.plot(x, above, color=colour, lw=1.2)
        below = above
    limit = float(budget.iloc[-1])
    ax.axhline(limit, color=INK, lw=1.4, ls=(0, (5, 2)), label=f"budget, {limit:.2g}")
    ax.set_ylim(0, 1.25 * max(limit, float(np.median(below))))
    _percent(ax)
    note = f"{below[-1]:.2%} of the time so far"
    return _over_steps(ax, "What the probe took", "share of the time so far", [note])


def _draw(ax: Axes, line: Curve | None, look: Look, floor: float | None = None) -> None:
    """A line with its band."""
    if line is not None:
        marker = look.marker if len(line.horizon) <= _FEW else ""
        drawing.draw(ax, line, replace(look, marker=marker), floor, 1.8, 0.2)


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
    columns = (rows[name].to_numpy(float) for name in ("step", "value", *_ENDS))
    return Curve(*columns) if len(rows) else None


def _band_note(line: Curve | None) -> list[str]:
    return ["band: 95%"] if line is not None and bool((line.high > line.low).any()) else []


def _percent(ax: Axes) -> None:
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}%"))


def _map(ax: Axes, values: Numbers, steps: Numbers) -> None:
    top = float(np.nanmax(values))
    low = max(top / 10**_DECADES, float(values[values > 0].min()))
    colours = LinearSegmentedColormap.from_list("norm", [style.GRID, style.BLUE])
    shown = np.where(values > 0, np.maximum(values, low), np.nan)
    # Windows as they are: the first one begins as long before its step as the second is wide.
    width = steps[1] - steps[0] if len(steps) > 1 else 1.0
    edges = np.concatenate([[steps[0] - width], steps])
    norm = LogNorm(low, max(top, 1.0001 * low))
    rows = np.arange(len(values) + 1) - 0.5
    image = ax.pcolormesh(edges, rows, shown, cmap=colours, norm=norm, rasterized=True)
    ax.invert_yaxis()
    ax.set_facecolor(PAPER)
    whole = Rectangle((edges[0], rows[0]), edges[-1] - edges[0], rows[-1] - rows[0], fill=False,
                      hatch="////", ec=MUTED, lw=0, zorder=0)  # fmt: skip
    ax.add_patch(whole)
    bar = ax.figure.colorbar(image, ax=ax, pad=0.02, shrink=0.9)
    bar.ax.yaxis.set_major_locator(LogLocator(numticks=6))
    bar.ax.yaxis.set_major_formatter(TICKS)
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.ax.tick_params(colors=MUTED, labelsize=9)
    bar.outline.set_edgecolor(MUTED)


_LOOKS = (  # of measurements side by side, the newest last
    Look("", style.OCHRE, (0, (1.2, 1.4)), "^"),
    Look("", style.VERMILION, (0, (3, 1.2, 1, 1.2)), "v"),
    Look("", style.PURPLE, (0, (5, 1.6)), "D"),
    Look("", style.BLUE, (0, (9, 2)), "s"),
    Look("", style.INK, "-", "o"),
)


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
    for step, look in zip(shown, _LOOKS[-len(shown) :], strict=True):
        rows = chains[chains["step"] == step].sort_values("horizon")
        columns = (rows[name].to_numpy(float) for name in ("horizon", "value", *_ENDS))
        drawing.draw(ax, Curve(*columns), replace(look, label=f"step {step:,.0f}"), None, band=0.12)
    notes = [f"{len(shown)} of {len(steps)} measurements"]
    style.dress(ax, title, "log₁₀ |∂s_t / ∂s_0|, mean over starts", notes)
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
    _over_steps(
        ax, title, "horizon [steps]", ["marks: may be the best (95%); rings: the smallest estimate"]
    )
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    return ax


def growth_rates(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Growth per step of the horizon: of the gradient's variance, and of perturbations."""
    ax = ax or style.new_axes()
    looks = {
        "growth": Look("log of the gradient's variance", style.VERMILION, (0, (5, 1.6)), "s"),
        "lyapunov": Look("Lyapunov exponent λ of the closed loop", style.BLUE, "-", "o"),
    }
    drawn = {name: _curve_of(table, name) for name in looks}
    if not any(drawn.values()):
        return _empty(ax, "Growth per step of the horizon", "not measured")
    ax.axhline(0, color=MUTED, lw=0.9)
    for name, look in looks.items():
        _draw(ax, drawn[name], look)
    notes = ["above 0 errors grow with the horizon; bands: 95%"]
    return _over_steps(ax, "Growth per step of the horizon", "per step", notes)


def critic_values(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Mean value at the starts between ± the largest return that the rewards seen allow."""
    ax = ax or style.new_axes()
    line, bound = _curve_of(table, "value"), _curve_of(table, "return_bound")
    if line is None:
        return _empty(ax, "Critic against the bound of its return", "no critic was given")
    if bound is not None:
        for side, text in ((1, "± what the largest |reward| so far allows"), (-1, "")):
            ax.plot(bound.horizon, side * bound.value, color=style.PURPLE, lw=1.4,
                    ls=(0, (2, 2)), label=text)  # fmt: skip
    _draw(ax, line, Look("mean critic value at the starts", style.BLUE, "-", "o"))
    notes = [*drawing.bent(ax, np.abs(line.value)), *_band_note(line)]
    return _over_steps(ax, "Critic against the bound of its return", "reward", notes)
