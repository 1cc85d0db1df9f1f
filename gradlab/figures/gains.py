"""What one small step along each gradient gains, in % of the best possible step of its length.

    above 0 the step helps, below it harms; 100% is the direction of the true gradient
    lines   to first order, with 95% bands, labelled at their ends; the recommended one is strong,
            others are thin, grey is what needs the simulator
    dots    realised: the user's update taken along each gradient, returns on fresh starts

Beside it what steps did to the return, in its units, and the return along lines through θ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from gradlab.figures import drawing, style
from gradlab.figures.drawing import Curve
from gradlab.figures.style import (
    INK,
    MUTED,
    PAPER,
    STRONG,
    THIN,
    Look,
)
from gradlab.runs.identity import Identity
from gradlab.wording import AT_STARTS, signed

_TRUTH = "truth"  # in the place of an estimator's name
_SIDE = 0.12  # steps between estimators that share a horizon


def realised_gains(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """One dot with its 95% interval for every step taken, those of one estimator joined."""
    ax = style.new_axes() if ax is None else ax
    finite = table[np.isfinite(table["value"])] if len(table) else table
    if not len(finite):
        drawing.nothing(ax, "no steps were taken")
        return style.dress(ax, "Realised gain of one step", "")
    rows = finite[finite["update"]]
    names = [name for name in drawing.estimators(rows) if name != _TRUTH]
    looks = style.looks(names, drawing.identities(rows))
    for place, name in enumerate(names):
        own, look = rows[rows["estimator"] == name].sort_values("horizon"), looks[name]
        x = own["horizon"].to_numpy(float) + _SIDE * (place - (len(names) - 1) / 2)
        value, low, high = (own[each].to_numpy(float) for each in ("value", "ci_low", "ci_high"))
        ax.vlines(x, low, high, color=look.colour, lw=1.8, label=f"_{look.label}")
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


LOW, HIGH = -112.0, 112.0
_EDGE = 1.1  # share beyond which a dot is a triangle at the axis' end
_WIDE = 100.0  # points, beyond which an interval says next to nothing
_ROOM = 1.72  # of the horizontal axis, with the names at the ends of lines
_APART = 15.0  # % between labels at the ends of lines
_CLOSE = 11.5  # % from a name to its second line
_AT_STARTS = Look(AT_STARTS, INK, (0, (1.2, 1.4)), "")  # h = 0 of a model's line
_SIGNS = {"s": "■ ", "^": "▲ "}  # of the marks, beside the names at the ends of lines


def gain(
    table: pd.DataFrame,
    realised: pd.DataFrame | None = None,
    chosen: tuple[str, int] | None = None,
    ax: Axes | None = None,
    *,
    close: Sequence[int] = (),
) -> Axes:
    """Gain over the horizon of every estimator.

    Args:
        realised: dots of the user's update; None: no steps were taken.
        chosen: the recommended estimator and its horizon, marked; its name says so.
        close: its horizons that gain practically as much, a band behind the line.
    """
    ax = style.new_axes() if ax is None else ax
    names = [name for name in drawing.estimators(table) if _curve(table, name) is not None]
    known = drawing.identities(table)
    best, at = (None, None) if chosen is None else chosen
    looks = _looks(names, known)
    # At h = 0 nothing is backpropagated through what the line is named after.
    starts = best in known and at == 0 and known[str(best)].jacobians != "none"
    best = None if starts else best
    if not names:
        drawing.nothing(ax, "no gains: they need the gradient of the return")
        return style.dress(ax, "Gain of one step", "")
    end = drawing.last_horizon(table[table["estimator"].isin(names)])
    # What competes over what needs the simulator, the recommended one over all others.
    above = sorted(names, key=lambda name: (name == best, looks[name].colour != MUTED))
    ends = {name: _line(ax, table, name, looks[name], end, name == best) for name in above}
    lines = [_curve(table, name) for name in names]
    unknown = any(line is not None and line.known(_WIDE)[1] for line in lines)
    # A line at 0 as far as the curves go, so that it crosses no label, and shade below.
    ax.plot([-0.03 * max(end, 1), end], [0.0, 0.0], color=INK, lw=1.1, zorder=1.5, label="__")
    ax.axhspan(LOW, 0.0, color=MUTED, alpha=0.07, lw=0, zorder=0)
    if chosen is not None:
        if starts and (line := _curve(table, chosen[0])) is not None:
            drawing.level(ax, line, _AT_STARTS, end)
            best = _AT_STARTS.label
            ends[best], looks[best] = float(line.value[0]), _AT_STARTS
        _mark(ax, table, chosen, close)
    if realised is not None:
        _dots(ax, realised, looks, known)
    _label(ax, ends, looks, end, best)
    oracles = any(looks[name].colour == MUTED for name in names)
    notes = ["lines: to first order, 95% bands (solid: BPTT; dashed: first action)"]
    if realised is not None:
        notes.append("dots: your update, fresh starts, 95% bars (open: first action)")
    more = ["grey: needs the simulator, does not compete"] if oracles else []
    if unknown:
        more.append(f"no band: interval wider than {_WIDE:.0f} points")
    notes += ["; ".join(more)] if more else []
    style.dress(ax, "Gain of one step", "harms  ←  % of the best possible step  →  helps", notes)
    legend = ax.get_legend()
    if legend is not None:
        legend.remove()
    ax.set_xlabel("steps through the model before the critic takes over", color=INK)
    ax.set_xlim(-0.03 * max(end, 1), _ROOM * max(end, 1))
    ax.set_ylim(LOW, HIGH)
    levels = range(-100, 101, 50)
    ax.set_yticks(levels, [f"{each}%".replace("-", "−") for each in levels])
    ticks = [tick for tick in ax.get_xticks() if 0 <= tick <= end]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    return ax


def _curve(table: pd.DataFrame, name: str) -> Curve | None:
    line = drawing.curve(table, name, "gain")
    return None if line is None else line.clipped(-1.0, 1.0).scaled(100.0)


def _line(ax: Axes, table: pd.DataFrame, name: str, look: Look, end: float, strong: bool) -> float:
    """Draws one estimator; returns the height of its end. The critic alone is one level."""
    line = _curve(table, name)
    assert line is not None
    line, _ = line.known(_WIDE)
    if len(line.horizon) == 1:
        drawing.level(ax, line, look, end)
        return float(line.value[0])
    # Horizon 0 is the critic alone, which has a level of its own.
    later = line.horizon > 0
    line = Curve(*(each[later] for each in (line.horizon, line.value, line.low, line.high)))
    band = 0.2 if strong else 0.0 if look.colour == MUTED else 0.1
    drawing.draw(ax, line, look, band=band, width=STRONG if strong else THIN)
    finite = np.flatnonzero(np.isfinite(line.value))
    return float(line.value[finite[-1]])


def _looks(names: Sequence[str], known: Mapping[str, Identity]) -> dict[str, Look]:
    """Those of all figures; the model's lines have no dots: these are steps."""
    looks = {}
    for name, look in style.looks(names, known).items():
        marked = name in known and style.family(known[name]) and look.marker in _SIGNS
        looks[name] = look if marked else replace(look, marker="")
    return looks


def _mark(ax: Axes, table: pd.DataFrame, chosen: tuple[str, int], close: Sequence[int]) -> None:
    """A ring around the recommended point of a line, a band behind those that gain as much."""
    name, at = chosen
    line = _curve(table, name)
    if line is None:
        return
    x, y, ring = line.horizon, line.value, line.horizon == at
    band = np.isin(x, list(close))
    ax.plot(x[band], y[band], color=INK, lw=13, alpha=0.15, solid_capstyle="round", zorder=1.2,
            label="__")  # fmt: skip
    ax.plot(x[ring], y[ring], marker="o", ms=17, color=INK, alpha=0.22, zorder=1.2, label="__")


def _dots(
    ax: Axes, realised: pd.DataFrame, looks: dict[str, Look], known: Mapping[str, Identity]
) -> None:
    """The share that the user's update realised, with its interval; triangles: beyond the axis."""
    rows = realised[realised["estimator"].isin(list(looks)) & np.isfinite(realised["share"])]
    rows = rows[rows["update"]]
    for row in rows.itertuples():
        look, x = looks[str(row.estimator)], float(row.horizon)
        value, low, high = (
            100 * float(np.clip(each, -_EDGE, _EDGE))
            for each in (row.share, row.share_low, row.share_high)
        )
        name = (
            look.label
            if abs(row.share) <= _EDGE
            else f"{look.label} ({signed(f'{row.share:.0%}')})"
        )
        ax.vlines(x, low, high, color=look.colour, lw=1.6, zorder=4, clip_on=False,
                  label=f"_{name}")  # fmt: skip
        own = known.get(str(row.estimator))
        first = own is not None and own.actions == "first"
        face, edge = (PAPER, look.colour) if first else (look.colour, PAPER)
        mark = "v" if row.share < -_EDGE else "^" if row.share > _EDGE else "o"  # beyond the axis
        ax.plot(x, value, marker=mark, ms=8, mfc=face, mec=edge, mew=1.7, zorder=5, clip_on=False,
                label=f"_{name}")  # fmt: skip


def _label(
    ax: Axes, ends: dict[str, float], looks: dict[str, Look], end: float, best: str | None
) -> None:
    """Names at the ends of the lines, moved apart where they would cover one another; the
    recommended one has a second line, with a place of its own."""
    names = sorted(ends, key=lambda name: ends[name])
    own = {best: (True, False)}  # the second line is below the name, and places rise
    lines = [(name, second) for name in names for second in own.get(name, (False,))]
    places = _apart([ends[name] for name, _ in lines])
    x = max(end, 1)
    for (name, second), place, above in zip(lines, places, [*places[1:], HIGH], strict=True):
        look, weight = looks[name], "bold" if name == best else None
        text, height = f"{_SIGNS.get(look.marker, '')}{look.label}", place
        if second:
            text, height = "recommended", above - _CLOSE
        else:
            ax.plot([1.01 * x, 1.04 * x], [ends[name], place], color=MUTED, lw=0.7, clip_on=False,
                    label="__")  # fmt: skip
        ax.annotate(text, (1.05 * x, height), fontsize=9.5, color=look.colour, va="center",
                    fontweight=weight, annotation_clip=False)  # fmt: skip


def _apart(heights: Sequence[float]) -> list[float]:
    """Heights in rising order, moved so that neighbours are `_APART` from one another."""
    places = [float(np.clip(each, LOW + 8, HIGH - 8)) for each in heights]
    top = HIGH - 8
    for k in range(1, len(places)):
        places[k] = max(places[k], places[k - 1] + _APART)
    for k in reversed(range(len(places))):
        places[k] = min(places[k], top)
        top = places[k] - _APART
    return places
