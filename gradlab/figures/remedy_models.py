"""Every model of a test of remedies by itself, beside the simulator.

    remedy_levels     a quantity over horizon or steps
    remedy_marks      one number per model: usable horizon, exponent

The table is `Remedies.levels()`: a row per model, quantity, block, at and region with value, ci_low
and ci_high.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from gradlab.figures import drawing, style
from gradlab.figures.drawing import Curve, Numbers
from gradlab.figures.remedies import (
    BASELINE,
    LOOKS,
    SIMULATOR,
    curve,
    looks,
    mark,
    named_rows,
    title_of,
)
from gradlab.figures.style import INK, PAPER

LONGER = f"{BASELINE} as long as "
VALUE = ("value", "ci_low", "ci_high")
FAR = 1e4  # times the usual value: what is beyond is drawn here


def remedy_levels(
    levels: pd.DataFrame,
    ax: Axes | None = None,
    *,
    quantity: str,
    along: str = "horizon n [steps]",
    one: str | None = None,
) -> Axes:
    """A quantity of the baseline and every remedy's model on a logarithmic axis.

    Args:
        along: what the horizontal axis is; one: what the level 1 means, where it means anything.
    """
    ax = style.new_axes() if ax is None else ax
    rows = levels[levels["quantity"] == quantity]
    names = [str(m) for m in dict.fromkeys(rows["model"]) if m in LOOKS]
    curves = {name: curve(rows[rows["model"] == name], VALUE) for name in names}
    lines = {name: line for name, line in curves.items() if line is not None}
    floor = drawing.log_floor(list(lines.values()))
    top = _top(list(lines.values()))
    for name, line in lines.items():
        drawing.draw(ax, line.clipped(-np.inf, top), looks([name])[name], floor, band=0.1)
    notes = ["at equal steps; band: 95%"]
    if lines:
        if one is not None:
            ax.axhline(1.0, color=style.PURPLE, lw=1.2, ls=(0, (2, 2)), label=one)
            floor = min(floor, 0.5)
        ax.set_yscale("log")
        ax.set_ylim(bottom=floor)
        notes += [f"beyond {top:g}: drawn there"] * any(
            bool(np.nanmax(line.value) > top) for line in lines.values()
        )
    else:
        drawing.nothing(ax, "not measured")
    style.dress(ax, title_of(quantity), "", notes)
    ax.set_xlabel(along, color=INK)
    return ax


def remedy_marks(
    levels: pd.DataFrame, ax: Axes | None = None, *, quantity: str, unit: str, beside: str = ""
) -> Axes:
    """A row per model, fitted longer ones too; the simulator's own value as a line.

    Args:
        beside: a second quantity, as an open star.
    """
    ax = style.new_axes() if ax is None else ax
    rows = levels[levels["quantity"] == quantity]
    names = [str(name) for name in dict.fromkeys(rows["model"]) if name != SIMULATOR]
    for place, name in enumerate(names):
        mine = rows[rows["model"] == name].iloc[0]
        arm = name.removeprefix(LONGER)
        mark(ax, [float(mine[c]) for c in VALUE], place, looks([arm])[arm], filled=arm == name)
    starred = (levels["quantity"] == beside) & levels["model"].isin(names)
    _stars(ax, levels[starred], names, beside)
    _simulators(ax, rows[rows["model"] == SIMULATOR])
    if names:
        ax.set_ylim(len(names) - 0.4, -0.6)
    else:
        drawing.nothing(ax, "not measured")
    style.dress(
        ax, title_of(quantity), "", ["bars: 95%; open: the baseline, fitted as long as the remedy"]
    )
    ax.set_xlabel(unit, color=INK)
    ax.locator_params(axis="x", nbins=5)  # exponents may need five digits each
    if names:
        named_rows(ax, names)
    return ax


def _stars(ax: Axes, rows: pd.DataFrame, names: Sequence[str], quantity: str) -> None:
    label = title_of(quantity)
    for name, value in zip(rows["model"], rows["value"], strict=True):
        ax.plot(value, names.index(str(name)), marker="*", ms=11, color=INK, mfc=PAPER, ls="none",
                zorder=2, label=label)  # fmt: skip
        label = "_nolegend_"


def _top(lines: Sequence[Curve]) -> float:
    """Where the axis ends above: a divergent model must not press the others into one line."""
    values: Numbers = np.concatenate([line.value for line in lines]) if lines else np.ones(1)
    usual = float(np.nanmedian(values[np.isfinite(values)])) if np.isfinite(values).any() else 1.0
    return float(f"{FAR * max(usual, 1e-12):.0e}")


def _simulators(ax: Axes, rows: pd.DataFrame) -> None:
    for value, low, high in rows[list(VALUE)].to_numpy(float)[:1]:
        look = LOOKS[SIMULATOR]
        ax.axvline(value, color=look.colour, ls=look.dash, lw=1.6, label=look.label)
        if np.isfinite([low, high]).all():
            ax.axvspan(low, high, color=look.colour, alpha=0.14, lw=0)
