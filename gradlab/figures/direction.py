"""Is the direction usable? Cosine with the truth, and signal against noise.

    cosine_n = ⟨E g_n, g*⟩ / (‖E g_n‖ ‖g*‖)          snr_n = ‖E g_n‖² / tr Cov_n
    sign agreement: the share of parameters that E g_n moves the way g* does

The first two are noise-corrected, so an estimate may leave the range of the quantity: a cosine
above 1 is drawn at 1, a ratio not above 0 at the upper end of its interval.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from gradlab.figures import drawing, style
from gradlab.figures.error import AT_MOST
from gradlab.figures.style import MUTED

USABLE = 0.7
WIDE = 1.0  # an interval of a cosine that is wider says next to nothing


def cosine(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Cosine of the mean gradient with the true one, every estimator."""
    ax = style.new_axes() if ax is None else ax
    lowest = _drawn(ax, table, "cosine", -1.0, 1.0)
    span = max(1 - lowest, 0.05)
    ax.set_ylim(1 - 1.06 * span, 1 + 0.06 * span)
    if lowest < USABLE:
        label = f"usable from {USABLE}"
        ax.axhline(USABLE, color=style.PURPLE, lw=1.2, ls=(0, (2, 2)), label=label)
    if lowest < 0:
        ax.axhline(0, color=MUTED, lw=0.8)
    if not ax.lines:
        drawing.nothing(ax, "no cosine: the truth or its norm is not known")
    notes = [f"no band: the interval is wider than {WIDE:g}"]
    lines = [drawing.curve(table, name, "cosine") for name in drawing.estimators(table)]
    unknown = any(line.clipped(-1.0, 1.0).known(WIDE)[1] for line in lines if line is not None)
    title = "Direction: cosine with the true gradient"
    return style.dress(ax, title, "cosine", notes if unknown else [])


def sign_agreement(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Share of parameters whose step has the true sign, every estimator; ½ is chance."""
    ax = style.new_axes() if ax is None else ax
    lowest = min(0.5, _drawn(ax, table, "sign_agreement", 0.0, 1.0))
    if ax.lines:
        ax.axhline(0.5, color=style.PURPLE, lw=1.2, ls=(0, (2, 2)), label="chance: ½")
    else:
        drawing.nothing(ax, "no sign agreement in this table")
    ax.set_ylim(max(lowest - 0.04, -0.02), 1.02)
    return style.dress(ax, "Direction: signs that agree with the truth", "share of parameters")


def _drawn(ax: Axes, table: pd.DataFrame, quantity: str, low: float, high: float) -> float:
    """Every estimator's curve, clipped to what the quantity can be; the lowest point drawn."""
    end, lowest = drawing.last_horizon(table), high
    for name, look in drawing.looks(table).items():
        line = drawing.curve(table, name, quantity)
        if line is None:
            continue
        line, _ = line.clipped(low, high).known(WIDE)
        drawing.curve_or_level(ax, line, look, end)
        lowest = min(lowest, float(np.nanmin([line.value, line.low])))
    return lowest


def snr(table: pd.DataFrame, ax: Axes | None = None, *, batch: int | None = None) -> Axes:
    """Squared mean over variance per sample, every estimator.

    Args:
        batch: N′; a line at 1 / N′ then shows where the mean of one batch is half noise.
    """
    ax = style.new_axes() if ax is None else ax
    names = drawing.estimators(table)
    lines = {name: drawing.curve(table, name, "snr") for name in names}
    floor, end = drawing.log_floor(list(lines.values())), drawing.last_horizon(table)
    looks = drawing.looks(table)
    for name, line in lines.items():
        if line is None:
            continue
        drawing.curve_or_level(ax, line, looks[name], end, floor)
    if batch:
        label = f"1 / N′, N′ = {batch}: a batch is half noise"
        ax.axhline(1 / batch, color=style.PURPLE, lw=1.2, ls=(0, (2, 2)), label=label)
        floor = min(floor, 0.5 / batch)
    ax.set_yscale("log")
    ax.set_ylim(bottom=floor)
    if not any(lines.values()):
        drawing.nothing(ax, "no signal-to-noise ratio in this table")
    notes = [AT_MOST] if drawing.has_bounds(list(lines.values())) else []
    return style.dress(
        ax, "Noise: signal-to-noise ratio of one sample", "‖mean‖² / variance", notes
    )
