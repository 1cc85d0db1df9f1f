"""What theorems promise beside what was measured: |bias| or variance, and bounds of it.

The axis is logarithmic and as long as it takes, so that a reader sees how loose a bound is. A bound
whose assumptions do not hold is drawn faint and dotted, and its name says so.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from gradlab.errors import InputError
from gradlab.figures import drawing, style
from gradlab.figures.drawing import Curve
from gradlab.figures.error import AT_MOST
from gradlab.figures.style import MUTED, Dash, Look

BIAS, VARIANCE = "bias", "variance"
_AXES = {
    BIAS: "|bias| [return / parameter]",
    VARIANCE: "variance [(return / parameter)²]",
}
NOT_APPLYING = "does not apply"
DECADES = 9  # shown above what was measured: the gap is plain by then
DOTTED: Dash = (0, (1, 1.2))
_DASHES: tuple[Dash, ...] = ((0, (4, 1.5)), DOTTED, (0, (6, 1.5, 1, 1.5)), (0, (10, 2)))


def bounds(table: pd.DataFrame, ax: Axes | None = None, *, quantity: str = BIAS) -> Axes:
    """Measured |bias| of each estimator and the bounds on it, or the same of the variance.

    Args:
        table: long, as `Profile.bounds()` makes it: quantities "bias" and "variance" with their
            intervals, and a row per theorem, horizon and estimator, whose method says whether the
            theorem applies; `bounded` says which of both a row is about.
        quantity: "bias", or "variance" of one gradient (a batch of N′ divides all of it).

    Raises:
        InputError: the quantity is neither of them.
    """
    if quantity not in _AXES:
        raise InputError(f"quantity is {quantity!r}, expected one of {tuple(_AXES)}")
    ax = style.new_axes() if ax is None else ax
    looks = drawing.looks(table)
    table = table[table["bounded"] == quantity]
    names = drawing.estimators(table)
    measured = {name: drawing.curve(table, name, quantity) for name in names}
    floor = drawing.log_floor(list(measured.values()))
    for name, line in measured.items():
        if line is not None:
            look = looks[name]
            label = f"measured, {style.plain(name)}"
            drawing.draw(ax, line, Look(label, look.colour, "-", look.marker), floor, width=2.4)
    ceiling = _ceiling(list(measured.values()))
    theorems = [str(q) for q in dict.fromkeys(table["quantity"]) if q != quantity]
    left_out = [
        _promise(ax, table, name, theorem, k, looks[name], ceiling)
        for name in names
        for k, theorem in enumerate(theorems)
    ]
    ax.set_yscale("log")
    ax.set_ylim(bottom=floor)
    notes = [AT_MOST] if drawing.has_bounds(list(measured.values())) else []
    notes += [_legend(quantity)] if theorems else []
    missing = sorted({each for each in left_out if each})
    notes += [f"without a value here: {', '.join(missing)}"[:90]] if missing else []
    if not ax.lines:
        drawing.nothing(ax, "no bounds in this table")
    title = f"Theory: bounds beside the measured {quantity}"
    return style.dress(ax, title, _AXES[quantity], notes)


def _legend(quantity: str) -> str:
    """Bounds on a variance are 0 at h = 0, as printed, where they bound nothing: no star."""
    what = "star: smallest value" if quantity == BIAS else "of one gradient: a batch divides it"
    return f"{what}; cut off 1e{DECADES} above the {quantity}"


def _ceiling(measured: list[Curve | None]) -> float:
    shown = [np.nanmax(np.maximum(c.value, c.high)) for c in measured if c is not None]
    return float(max(shown, default=1.0)) * 10.0**DECADES


def _promise(
    ax: Axes, table: pd.DataFrame, name: str, theorem: str, k: int, look: Look, ceiling: float
) -> str:
    """One bound; its name where nothing of it can be drawn, else nothing."""
    chosen = (table["estimator"] == name) & (table["quantity"] == theorem)
    rows = table[chosen].sort_values("horizon")
    x, y = rows["horizon"].to_numpy(float), rows["value"].to_numpy(float)
    shown = np.where((y > 0) & (y <= ceiling), y, np.nan)
    if not np.isfinite(shown).any():
        return style.plain(theorem) if len(rows) else ""
    holds = not rows["method"].astype(str).str.startswith(NOT_APPLYING).any()
    label = f"{style.plain(theorem)}, {style.plain(name)}"
    label += "" if holds else f" ({NOT_APPLYING})"
    colour, width = (look.colour, 1.8) if holds else (MUTED, 1.0)
    dash = _DASHES[k % len(_DASHES)] if holds else DOTTED
    ax.plot(x, shown, color=colour, ls=dash, lw=width, label=label)
    if set(rows["bounded"]) == {BIAS}:
        best = int(np.nanargmin(shown))
        ax.plot(x[best], shown[best], marker="*", ms=11, color=colour, mec=style.PAPER, mew=0.7)
    return ""
