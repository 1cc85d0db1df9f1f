"""What one small step along each gradient gains, in % of the best possible step of its length.

    above 0 the step helps, below it harms; 100% is the direction of the true gradient
    lines   to first order, with 95% bands; the recommended one is strong, others are thin, grey is
            what needs the simulator
    dots    realised: the user's update taken along each gradient, returns on fresh starts

Beside it what steps did to the return, in its units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from gradlab.figures import drawing, style
from gradlab.figures.plots import ENDS, lines
from gradlab.figures.style import INK, MUTED, PAPER, Look
from gradlab.wording import AT_STARTS, signed

_TRUTH = "truth"  # in the place of an estimator's name
_ALONG = "steps through the model before the critic takes over"
_EDGE = 1.1  # share beyond which a dot is a triangle at the axis' end
_AT_STARTS = Look(AT_STARTS, INK, (0, (1.2, 1.4)), "")  # h = 0 of a model's line


def realised_gains(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Change of the return by the user's update along every gradient, with its 95% interval."""
    rows = table[table["update"] & (table["estimator"] != _TRUTH) & np.isfinite(table["value"])]
    judges = f"{rows['n'].max():,} fresh starts" if len(rows) else ""
    return lines(
        rows, ax, "Realised gain of one update", "harms  ←  change of the return  →  helps",
        along=_ALONG, level=0, notes=[f"band: 95%, {judges}"], empty="no steps were taken",
        then=lambda ax: drawing.bent(ax, rows["value"].abs().to_numpy(float)),
    )  # fmt: skip


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
    gains = table[(table["quantity"] == "gain") & np.isfinite(table["value"])]
    gains = gains.assign(**{name: gains[name].clip(-1, 1) for name in ENDS})
    gains = gains.sort_values("horizon", kind="stable")
    known, (best, at) = drawing.identities(table), chosen or ("", -1)
    ringed = gains[gains["estimator"] == best]
    alone = at == 0 and best in known and known[best].jacobians != "none"
    looks = {  # the model's lines have no dots: these are steps
        name: replace(look, marker=look.marker.strip("o"))
        for name, look in style.looks(drawing.estimators(gains), known).items()
    }
    # Nothing is backpropagated at h = 0 of what the line is named after.
    strong = _AT_STARTS if alone else looks.get(best)
    if strong is not None:
        strong = replace(strong, label=f"{strong.label} (recommended)")
        looks |= {} if alone else {best: strong}
    shown = dict[Look, pd.DataFrame]()
    # What competes over what needs the simulator, the recommended one over all others.
    for name in sorted(looks, key=lambda name: (name == best, looks[name].colour != MUTED)):
        own = gains[gains["estimator"] == name]
        # Horizon 0 is the critic alone, which has a level of its own.
        shown[looks[name]] = own if len(own) == 1 else own[own["horizon"] > 0]
    if alone and strong is not None:
        shown[strong] = ringed[ringed["horizon"] == 0]
    notes = ["lines: to first order, 95% bands (solid: BPTT; dashed: first action)"]
    notes += [] if realised is None else ["dots: your update, fresh starts, 95% bars"]
    if any(look.colour == MUTED for look in shown):
        notes.append("grey: needs the simulator, does not compete")

    def marked(ax: Axes) -> None:
        x, y = ringed["horizon"], ringed["value"]
        for here, mark in ((x.isin([*close]), {"lw": 13, "alpha": 0.15}),
                            (x == at, {"marker": "o", "ms": 17, "alpha": 0.22})):  # fmt: skip
            ax.plot(x[here], y[here], color=INK, solid_capstyle="round", zorder=1.2, label="__",
                    **mark)  # fmt: skip
        steps: list[Any] = []
        if realised is not None:
            steps += realised[realised["update"]].itertuples()
        for row in steps:
            look, share = looks.get(str(row.estimator)), float(row.share)
            if look is None or not np.isfinite(share):
                continue
            beyond = abs(share) > _EDGE  # a triangle, whose label has the value
            name = f"_{look.label}" + f" ({signed(f'{share:.0%}')})" * beyond
            value, low, high = np.clip([share, row.share_low, row.share_high], -_EDGE, _EDGE)
            ax.vlines(row.horizon, low, high, color=look.colour, lw=1.6, zorder=4, clip_on=False,
                      label=name)  # fmt: skip
            ax.plot(row.horizon, value, ("v" if share < 0 else "^") if beyond else "o", ms=8,
                    mec=PAPER, color=look.colour, mew=1.7, zorder=5, clip_on=False,
                    label=name)  # fmt: skip

    ax = lines(
        shown, ax, "Gain of one step", "harms  ←  % of the best possible step  →  helps",
        chosen=strong or "", bands=(0.2, 0.1, 0.0), limits=(-1, 1), level=0, notes=notes,
        along=_ALONG, percent=True, then=marked, empty="no gains: they need the gradient of the "
        "return",
    )  # fmt: skip
    if shown:
        ax.set_ylim(-_EDGE - 0.02, _EDGE + 0.02)
    return ax
