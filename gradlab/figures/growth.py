"""How gradients and chained Jacobians grow with the horizon, and with them the model's errors.

`sample_norm` takes a profile's table and draws √(|E g_n|² + tr Cov_n), the root mean square norm of
one sample. Every other figure takes the long table of a comparison of Jacobians
(`gradlab.runs.jacobians`).
"""

from __future__ import annotations

from math import exp, log

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from gradlab.figures import drawing, style
from gradlab.figures.drawing import Curve
from gradlab.figures.style import INK, MUTED, PURPLE, TICKS, Look

_LOOPS = {
    "closed": Look("closed loop, A + B K", style.BLUE, "-", "o"),
    "open": Look("open loop, A", style.VERMILION, (0, (5, 1.6)), "s"),
}
_FLOAT32 = log(float(np.finfo(np.float32).max)) / log(10)
_TOP = 1e3  # relative errors beyond are drawn here
_LARGEST = 3.4e38  # in float32


def product_growth(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Largest singular value of the chained Jacobians, in powers of ten; the others thin."""
    ax = style.new_axes() if ax is None else ax
    rows = table[table["section"] == "growth"]
    for loop, look in _LOOPS.items():
        block = rows[rows["block"] == loop]
        for k in sorted(int(each) for each in set(block["output"])):
            line = _curve(block[block["output"] == str(k)]).scaled(1 / log(10))
            if k == 1:
                drawing.draw(ax, line, look)
            else:
                ax.plot(line.horizon, line.value, color=look.colour, lw=0.6, alpha=0.45)
    _exponents_in_words(ax, table)
    if rows.empty:
        drawing.nothing(ax, "no products")
    bottom, top = ax.get_ylim()
    if top > 0.5 * _FLOAT32:
        ax.axhline(_FLOAT32, color=style.PURPLE, lw=1.2, ls=(0, (2, 2)), label="end of float32")
    if bottom < -16:  # directions that die at once would hide the ones that matter
        ax.set_ylim(bottom=max(bottom, -16.0))
    style.dress(
        ax,
        "Growth of the chained Jacobians",
        "log₁₀ of the singular value",
        ["thick: the largest one, with its band; thin: the others"],
    )
    ax.set_xlabel("steps chained", color=INK)
    return ax


def lyapunov(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Finite-time Lyapunov exponents with their intervals, both loops."""
    ax = style.new_axes() if ax is None else ax
    rows = table[(table["section"] == "exponent") & (table["quantity"] == "λ")]
    rows = rows[np.isfinite(rows["value"])]
    for shift, (loop, look) in zip((-0.12, 0.12), _LOOPS.items(), strict=True):
        block = rows[rows["block"] == loop]
        if block.empty:
            continue
        value = block["value"].to_numpy(float)
        error = [value - block["ci_low"].to_numpy(float), block["ci_high"].to_numpy(float) - value]
        ax.errorbar(
            block["output"].astype(int).to_numpy() + shift,
            value,
            yerr=np.abs(np.nan_to_num(error)),
            fmt=look.marker,
            color=look.colour,
            label=look.label,
            markersize=5,
            capsize=3,
        )
    ax.axhline(0, color=MUTED, lw=0.9)
    if rows.empty:
        drawing.nothing(ax, "no exponents")
    notes = ["above 0 gradients grow; second half of the window, 95 % over starts"]
    lowest = -3 * max(0.3, float(rows["value"].max())) if len(rows) else 0.0
    if ax.get_ylim()[0] < lowest:
        ax.set_ylim(bottom=lowest)
        notes.append("directions below the axis die at once")
    style.dress(ax, "Lyapunov exponents", "λ per step", notes)
    ax.set_xlabel("direction, fastest first", color=INK)
    return ax


def chain_error(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Relative error of the model's chained product; above 1, zero is the better guess."""
    ax = style.new_axes() if ax is None else ax
    rows = table[(table["section"] == "product") & (table["step"] > 0)]
    if rows.empty:
        drawing.nothing(ax, "no model to compare with")
        return _chained(ax, [])
    line = _curve(rows).clipped(0.0, _TOP)
    floor = min(drawing.log_floor([line]), 0.5)
    ax.axhline(
        1, color=style.PURPLE, lw=1.2, ls=(0, (2, 2)), label="as wrong as zero: informs no more"
    )
    drawing.draw(ax, line, Look("median over starts", style.BLUE, "-", "o"), floor)
    ax.set_yscale("log")
    ax.set_ylim(bottom=floor)
    beyond = np.nanmax(rows["value"].to_numpy(float)) > _TOP
    return _chained(ax, [f"beyond {_TOP:g}: drawn there"] if beyond else [])


def model_error(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Error of the model's own rollout against a straight line (Condition 1 of MPG)."""
    ax = style.new_axes() if ax is None else ax
    rows = table[table["section"] == "model_error"]
    if rows.empty or not rows["value"].max() > 0:
        drawing.nothing(ax, "no rollout of a model")
    else:
        line = _curve(rows)
        i = line.horizon
        first = line.value[0] * i / i[0]
        ax.plot(i, first, color=MUTED, lw=1.2, ls=(0, (2, 2)), label="linear from the first step")
        look = Look("model's rollout against the simulator's", style.BLUE, "-", "o")
        drawing.draw(ax, line, look, drawing.log_floor([line]))
        ax.set_xscale("log")
        ax.set_yscale("log")
    style.dress(
        ax, "Error of the model's own rollout", "distance [standard deviations of the path]"
    )
    ax.set_xlabel("steps i", color=INK)
    if len(rows):
        _plain_steps(ax, float(rows["step"].max()))
    return ax


def _curve(rows: pd.DataFrame) -> Curve:
    rows = rows.sort_values("step")
    columns = (rows[name].to_numpy(float) for name in ("step", "value", "ci_low", "ci_high"))
    return Curve(*columns)


def _exponents_in_words(ax: Axes, table: pd.DataFrame) -> None:
    """The exponent of each loop joins its label."""
    rows = table[(table["section"] == "exponent") & (table["output"] == "1")].set_index("block")
    for line in ax.lines:
        for loop, look in _LOOPS.items():
            if line.get_label() == look.label and loop in rows.index:
                line.set_label(f"{look.label}: λ = {rows['value'][loop]:.3g} per step")


def _chained(ax: Axes, notes: list[str]) -> Axes:
    style.dress(ax, "Error of the model's chained Jacobians", "relative error", notes)
    ax.set_xlabel("steps chained", color=INK)
    return ax


def _plain_steps(ax: Axes, last: float) -> None:
    """1, 2, 5, 10, … on a logarithmic axis, as plain text."""
    ticks = [m * 10**k for k in range(5) for m in (1, 2, 5) if m * 10**k <= last]
    ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.xaxis.set_minor_locator(MaxNLocator(1))
    ax.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
    ax.xaxis.set_major_formatter(TICKS)


def sample_norm(
    table: pd.DataFrame, ax: Axes | None = None, *, exponent: float | None = None
) -> Axes:
    """Root mean square norm of one sample of every estimator.

    Args:
        exponent: λ + ln γ per step; drawn as a line through the judged estimator's last point.
    """
    ax = style.new_axes() if ax is None else ax
    looks, end = drawing.looks(table), drawing.last_horizon(table)
    lines = {name: _norm(table, name) for name in looks}
    drawn = {name: line for name, line in lines.items() if line is not None}
    floor = drawing.log_floor(list(drawn.values()))
    for name, line in drawn.items():
        drawing.curve_or_level(ax, line, looks[name], end, floor)
    judged = next((line for line in drawn.values() if line.horizon.max() > 0), None)
    if exponent is not None and judged is not None:
        _predicted(ax, judged, exponent)
    ax.set_yscale("log")
    if not drawn:
        drawing.nothing(ax, "no norms in this table")
    elif ax.get_ylim()[1] > _LARGEST:
        ax.axhline(_LARGEST, color=PURPLE, lw=1.2, ls=(0, (2, 2)), label="range of float32")
    title = "Growth: size of one sample's gradient"
    return style.dress(ax, title, "root mean square norm [return / parameter]")


def _norm(table: pd.DataFrame, name: str) -> Curve | None:
    """From variance and mean; the interval is the variance's, which dominates where it matters."""
    variance = drawing.curve(table, name, "variance")
    mean = drawing.curve(table, name, "mean_norm")
    if variance is None or mean is None:
        return None
    size = np.where(np.isfinite(mean.value), mean.value, 0.0) ** 2
    parts = (np.maximum(each, 0.0) for each in (variance.value, variance.low, variance.high))
    return Curve(variance.horizon, *(np.sqrt(each + size) for each in parts))


def _predicted(ax: Axes, line: Curve, exponent: float) -> None:
    positive = np.flatnonzero(np.isfinite(line.value) & (line.value > 0))
    if len(positive) < 2:
        return
    last, x = positive[-1], line.horizon
    y = line.value[last] * np.exp(exponent * (x - x[last]))
    label = f"simulator's chain alone: × {exp(exponent):.3g} per step"
    shown = y > line.value[positive].min() / 10
    ax.plot(x[shown], y[shown], color=PURPLE, lw=1.3, ls=(0, (1, 1.2)), label=label)
