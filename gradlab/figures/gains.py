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
from matplotlib.ticker import MaxNLocator

from gradlab.figures import drawing, style
from gradlab.figures.plots import ENDS, lines
from gradlab.figures.style import INK, MUTED, PAPER, Look
from gradlab.runs.identity import Identity
from gradlab.wording import AT_STARTS, signed

_TRUTH = "truth"  # in the place of an estimator's name
_SIDE = 0.12  # steps between estimators that share a horizon
_ALONG = "steps through the model before the critic takes over"


def realised_gains(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """One dot with its 95% interval for every step taken, those of one estimator joined."""
    ax, title = style.new_axes() if ax is None else ax, "Realised gain of one update"
    rows = table[np.isfinite(table["value"])] if len(table) else table
    if rows.empty:
        drawing.nothing(ax, "no steps were taken")
        return style.dress(ax, title)
    rows = rows[rows["update"]]
    looks = style.looks(
        [name for name in drawing.estimators(rows) if name != _TRUTH], drawing.identities(rows)
    )
    for place, (name, look) in enumerate(looks.items()):
        line = drawing.curve_of(rows[rows["estimator"] == name], "horizon")
        x = line.horizon + _SIDE * (place - (len(looks) - 1) / 2)
        ax.vlines(x, line.low, line.high, color=look.colour, lw=1.8, label=f"_{look.label}")
        ax.plot(x, line.value, color=look.colour, ls=look.dash, lw=1.0, alpha=0.6)
        ax.plot(x, line.value, color=look.colour, ls="", marker=look.marker or "D", ms=7,
                mec=PAPER, mew=0.8, label=look.label)  # fmt: skip
    ax.axhline(0.0, color=INK, lw=1.1)
    ax.axhspan(min(ax.get_ylim()[0], 0.0), 0.0, color=MUTED, alpha=0.07, lw=0, zorder=0)
    bent = drawing.bent(ax, rows["value"].abs().to_numpy(float))
    notes = [f"dot and bar: estimate and 95%, {int(rows['n'].iloc[0])} fresh starts", *bent]
    style.dress(ax, title, "harms  ←  change of the return  →  helps", notes, along=_ALONG)
    if not bent:
        ax.yaxis.set_major_locator(MaxNLocator(nbins=6))
        ax.yaxis.set_major_formatter(style.TICKS)
    return ax


LOW, HIGH = -112.0, 112.0
_EDGE = 110.0  # % beyond which a dot is a triangle at the axis' end
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
    gains = table[(table["quantity"] == "gain") & np.isfinite(table["value"])]
    gains = gains.assign(**{name: 100 * gains[name].clip(-1, 1) for name in ENDS})
    known = drawing.identities(table)
    looks = {
        name: look  # the model's lines have no dots: these are steps
        if name in known and style.family(known[name]) and look.marker in _SIGNS
        else replace(look, marker="")
        for name, look in style.looks(drawing.estimators(gains), known).items()
    }
    best, at = chosen or ("", -1)
    ringed = gains[gains["estimator"] == best].sort_values("horizon")
    shown = dict[Look, pd.DataFrame]()
    # What competes over what needs the simulator, the recommended one over all others.
    for name in sorted(looks, key=lambda name: (name == best, looks[name].colour != MUTED)):
        own = gains[gains["estimator"] == name].sort_values("horizon")
        # Horizon 0 is the critic alone, which has a level of its own.
        shown[looks[name]] = own if len(own) == 1 else own[own["horizon"] > 0]
    strong = looks.get(best)
    if strong and at == 0 and best in known and known[best].jacobians != "none":
        # Nothing is backpropagated through what the line is named after.
        strong = _AT_STARTS
        shown[strong] = ringed[ringed["horizon"] == 0]
    notes = ["lines: to first order, 95% bands (solid: BPTT; dashed: first action)"]
    if realised is not None:
        notes.append("dots: your update, fresh starts, 95% bars (open: first action)")
    if any(look.colour == MUTED for look in shown):
        notes.append("grey: needs the simulator, does not compete")
    lines(
        shown, ax, "Gain of one step", "harms  ←  % of the best possible step  →  helps",
        chosen=strong or "", bands=(0.2, 0.1, 0.0), limits=(-100, 100), notes=notes,
        along=_ALONG, empty="no gains: they need the gradient of the return",
    )  # fmt: skip
    legend = ax.get_legend()
    if legend is None:
        return ax
    legend.remove()
    end = max(float(gains["horizon"].max()), 0.0)
    # A line at 0 as far as the curves go, so that it crosses no label, and shade below.
    ax.plot([-0.03 * max(end, 1), end], [0.0, 0.0], color=INK, lw=1.1, zorder=1.5, label="__")
    ax.axhspan(LOW, 0.0, color=MUTED, alpha=0.07, lw=0, zorder=0)
    if chosen is not None:
        x, y = ringed["horizon"], ringed["value"]
        band, ring = x.isin(list(close)), x == at
        ax.plot(x[band], y[band], color=INK, lw=13, alpha=0.15, solid_capstyle="round",
                zorder=1.2, label="__")  # fmt: skip
        ax.plot(x[ring], y[ring], marker="o", ms=17, color=INK, alpha=0.22, zorder=1.2, label="__")
    if realised is not None:
        _dots(ax, realised, looks, known)
    _label(ax, {look: float(own["value"].iloc[-1]) for look, own in shown.items()}, end, strong)
    ax.set_xlim(-0.03 * max(end, 1), _ROOM * max(end, 1))
    ax.set_ylim(LOW, HIGH)
    levels = range(-100, 101, 50)
    ax.set_yticks(levels, [f"{each}%".replace("-", "−") for each in levels])
    ticks = [tick for tick in ax.get_xticks() if 0 <= tick <= end]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    return ax


def _dots(
    ax: Axes, realised: pd.DataFrame, looks: Mapping[str, Look], known: Mapping[str, Identity]
) -> None:
    """The share that the user's update realised, with its interval; triangles: beyond the axis."""
    rows = realised[realised["estimator"].isin(list(looks)) & np.isfinite(realised["share"])]
    for row in rows[rows["update"]].itertuples():
        look, share, x = looks[str(row.estimator)], 100 * float(row.share), float(row.horizon)
        value, low, high = np.clip(
            [share, 100 * row.share_low, 100 * row.share_high], -_EDGE, _EDGE
        )
        beyond = abs(share) > _EDGE
        name = f"_{look.label}" + (f" ({signed(f'{row.share:.0%}')})" if beyond else "")
        ax.vlines(x, low, high, color=look.colour, lw=1.6, zorder=4, clip_on=False, label=name)
        own = known.get(str(row.estimator))
        first = own is not None and own.actions == "first"
        face, edge = (PAPER, look.colour) if first else (look.colour, PAPER)
        ax.plot(x, value, marker=("v" if share < 0 else "^") if beyond else "o", ms=8, mfc=face,
                mec=edge, mew=1.7, zorder=5, clip_on=False, label=name)  # fmt: skip


def _label(ax: Axes, ends: Mapping[Look, float], end: float, best: Look | None) -> None:
    """Names at the ends of the lines, moved apart where they would cover one another; the
    recommended one has a second line, below, with a place of its own."""
    lines = [
        (look, second)
        for look in sorted(ends, key=lambda look: ends[look])
        for second in ((True, False) if look == best else (False,))
    ]
    places, top = [float(np.clip(ends[look], LOW + 8, HIGH - 8)) for look, _ in lines], HIGH - 8
    for k in range(1, len(places)):
        places[k] = max(places[k], places[k - 1] + _APART)
    for k in reversed(range(len(places))):
        places[k] = min(places[k], top)
        top = places[k] - _APART
    x = max(end, 1)
    for (look, second), place, above in zip(lines, places, [*places[1:], HIGH], strict=True):
        text, height = f"{_SIGNS.get(look.marker, '')}{look.label}", place
        if second:
            text, height = "recommended", above - _CLOSE
        else:
            ax.plot([1.01 * x, 1.04 * x], [ends[look], place], color=MUTED, lw=0.7, clip_on=False,
                    label="__")  # fmt: skip
        ax.annotate(text, (1.05 * x, height), fontsize=9.5, color=look.colour, va="center",
                    fontweight="bold" if look == best else None, annotation_clip=False)  # fmt: skip
