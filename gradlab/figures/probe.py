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

from gradlab.figures import style
from gradlab.figures.plots import lines, matrix
from gradlab.figures.style import INK, Look

_WINDOWS = 24  # of a map
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
    """Norms by tensor as a map, the input's layer on top, of at most `_WINDOWS` windows."""
    norms = table[table["quantity"] == "layer_norm"]
    steps = norms["step"].unique()
    shown = norms[norms["step"].isin(steps[:: 1 + (len(steps) - 1) // _WINDOWS])]
    named = shown.assign(output=shown["place"], input=[f"{step:,.0f}" for step in shown["step"]])
    return matrix(
        named, ax, "Gradient by tensor", "norm", decades=_DECADES, along=_STEPS, down="",
        notes=["empty: exactly 0 or not finite"], empty="not measured",
    )  # fmt: skip


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
    """At every measurement the horizons of each gradient that may have the smallest error, as a
    band; a ring at the smallest."""
    best = choices[choices["chosen"].astype(bool)]
    over = choices.groupby(["estimator", "step"], sort=False)["horizon"]
    bands = over.agg(value="median", ci_low="min", ci_high="max").reset_index()
    bands.attrs |= choices.attrs

    def ring(ax: Axes) -> None:
        ax.plot(best["step"], best["horizon"], "o", color=INK, ms=10, mfc="none", label="smallest")

    ax = lines(
        bands, ax, "Which gradient has the smallest error?", "horizon [steps]", x="step",
        along=_STEPS, then=ring, notes=["band: may have it (95%)"],
        empty="nothing could be chosen: no admissible truth",
    )  # fmt: skip
    if longest is not None:
        ax.set_ylim(-0.6, longest + 0.6)
    return ax
