"""Where a model's Jacobians are wrong, and how chained Jacobians and the model's errors grow.

Maps are tints of one colour above the paper, so that colour, paper and numbers swap together on a
dark page; a cell that is exactly 0 has no tint.
"""

from __future__ import annotations

from dataclasses import replace
from math import log

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from gradlab.figures import drawing, style
from gradlab.figures.drawing import Curve
from gradlab.figures.style import BLUE, INK, MUTED, PAPER, TICKS, Look, tick
from gradlab.wording import signed, two

_OPACITIES = (0.1, 0.22, 0.36, 0.5, 0.85, 1.0)
_FULL = 4  # from this tint on numbers are written in the colour of the paper


def tinted(
    ax: Axes, values: NDArray[np.float64], decades: float, least: float, numbers: bool
) -> None:
    """Cells [rows, columns] with their numbers; a scale stands to the right. `decades`: from the
    palest tint to the fullest; least: smaller numbers are written "~0"."""
    rows, columns = values.shape
    positive = values[values > 0]
    top = float(positive.max()) if positive.size else 1.0
    # exactly 0 and not known: −1
    with np.errstate(divide="ignore", invalid="ignore"):
        share = 1 + np.log10(values / top) / decades
    level = np.clip(
        np.nan_to_num(np.floor(share * len(_OPACITIES)), nan=-1), 0, len(_OPACITIES) - 1
    )
    places = np.where(values > 0, level, -1).astype(np.int64)
    for (i, j), place in np.ndenumerate(places):
        if place >= 0:
            ax.add_patch(_cell(j - 0.5, i - 0.5, _OPACITIES[place]))
        if numbers:
            value = float(values[i, j])
            colour = MUTED if place < 0 else PAPER if place >= _FULL else INK
            text = two(value) if value >= 0.01 else f"{value:.1g}" if value >= least else "~0"
            text = "0" if value == 0 else "–" if place < 0 else text
            ax.text(j, i, text, ha="center", va="center", fontsize=9, color=colour)
    ax.set_xlim(-0.5, columns - 0.5)
    ax.set_ylim(rows - 0.5, -0.5)
    # Every tint, the largest above, with the number at which it begins.
    side = ax.inset_axes((1.03, 0.1, 0.035, 0.8))
    count = len(_OPACITIES)
    for step, opacity in enumerate(_OPACITIES):
        side.add_patch(_cell(0, step, opacity))
    side.set_xlim(0, 1)
    side.set_ylim(0, count)
    side.set_xticks([])
    begins = [top * 10 ** (decades * (step / count - 1)) for step in range(count + 1)]
    side.set_yticks(range(1, count + 1), [tick(float(f"{each:.1g}")) for each in begins[1:]])
    side.yaxis.tick_right()
    side.tick_params(colors=MUTED, labelsize=9, length=0)
    for spine in side.spines.values():
        spine.set_color(MUTED)


def _cell(x: float, y: float, opacity: float) -> Rectangle:
    return Rectangle((x, y), 1, 1, facecolor=BLUE, alpha=opacity, linewidth=0)


_LOOKS = {
    **style.DERIVATIVES,
    "next_state": Look("predicted next state", MUTED, (0, (9, 2)), "v"),
    "reward": Look("predicted reward", style.OCHRE, (0, (3, 1.2, 1, 1.2)), "P"),
}
_FLAGS = {
    "flagged share": (style.VERMILION, "failed the certificate"),
    "terminated share": (MUTED, "after termination"),
}
_NO_FLAGS = "no step failed its certificate, no rollout ended"
_NOTE = "100 % is the error of a model that knows nothing: derivatives of 0, no change"
_DECADES = 4  # of colours below the largest entry
_WORDY = 90  # entries up to which each shows its number
_LEAST = 1e-3  # smaller entries are nothing to a reader


def jacobian_entries(
    table: pd.DataFrame, ax: Axes | None = None, *, quantity: str = "error"
) -> Axes:
    """Every entry of [A B; r_s r_a] as a map. `quantity`: "error" of the model or "size" of the
    simulator's own entries, in standard deviations of output and input; "effect" of the errors on
    the policy gradient."""
    ax = style.new_axes() if ax is None else ax
    chosen = (table["section"] == "entry") & (table["quantity"] == quantity)
    rows = table[chosen]
    titles = {
        "error": "Error of each derivative",
        "size": "Size of each derivative of the simulator",
        "effect": "Effect of each error on the gradient",
    }
    if rows.empty:
        drawing.nothing(ax, "no entries" if quantity == "size" else "no model to compare with")
        return _titled(ax, titles[quantity])
    outputs, inputs = ([str(x) for x in dict.fromkeys(rows[name])] for name in ("output", "input"))
    values = np.full((len(outputs), len(inputs)), np.nan)
    for output, entry, value in zip(rows["output"], rows["input"], rows["value"], strict=True):
        values[outputs.index(str(output)), inputs.index(str(entry))] = value
    tinted(ax, values, _DECADES, _LEAST, numbers=values.size <= _WORDY)
    # Names beside rows and columns, lines between the blocks.
    for axis, names in ((ax.xaxis, inputs), (ax.yaxis, outputs)):
        keep = range(0, len(names), 1 + (len(names) - 1) // 24)
        axis.set_ticks(list(keep), [style.plain(names[k]) for k in keep])
    ax.tick_params(axis="x", labelsize=9, colors=INK)
    if len(inputs) > 5:
        for label in ax.get_xticklabels():
            label.set(rotation=45, ha="right")
    ax.tick_params(axis="y", labelsize=9, colors=INK)
    ax.tick_params(length=0)
    ax.axhline(len(outputs) - 1.5, color=MUTED, lw=1.2)
    ax.axvline(len(outputs) - 1.5, color=MUTED, lw=1.2)
    ax.set_xlabel("input", color=INK)
    ax.set_ylabel("output", color=INK)
    note = "σ of the output per σ of the input along the path; 0: no effect at all"
    if quantity == "effect":
        note = "change of the mean policy gradient (BPTT), relative to its norm"
    return _titled(ax, titles[quantity], note)


def jacobian_time(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Relative error of every block along the rollout; flagged and ended shares on the axis."""
    ax = style.new_axes() if ax is None else ax
    time = table[table["section"] == "time"]
    steps = time["step"].to_numpy(float)
    curves = _curves(time[time["quantity"] == "relative error"], "step")
    _draw(ax, curves)
    # A strip per kind of flag along the time axis: as dark as the share of starts is large.
    place = 0.0
    for quantity, (colour, label) in _FLAGS.items():
        rows = time[time["quantity"] == quantity].sort_values("step")
        when, share = rows["step"].to_numpy(float), rows["value"].to_numpy(float)
        if not np.nanmax(share, initial=0.0) > 0:
            continue
        for step, value in zip(when, share, strict=True):
            dark = 0.12 + 0.88 * value if value > 0 else 0.0
            ax.axvspan(step - 0.5, step + 0.5, place, place + 0.035, color=colour, alpha=dark, lw=0)
        mean = f"{label} (bottom; {100 * float(np.nanmean(share)):.2g} % of steps)"
        ax.plot([], [], color=colour, lw=5, alpha=0.6, label=mean)
        place += 0.045
    marked = place > 0
    if not curves:
        drawing.nothing(ax, "shares of starts, at the bottom" if marked else _NO_FLAGS)
    title = "Error along the rollout" if curves else "Flags along the rollout"
    style.dress(ax, title, "relative error" if curves else "", [_NOTE] if curves else [])
    if ax.get_yscale() == "log":
        drawing.percent_axis(ax)
    ax.set_xlabel("step t", color=INK)
    if len(steps):
        ax.set_xlim(-0.5, steps.max() + 0.5)
    if not curves:
        ax.xaxis.set_major_locator(MaxNLocator(nbins=9, integer=True))
    return ax


def jacobian_distance(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Relative error of every block over the distance from the nearest data."""
    ax = style.new_axes() if ax is None else ax
    curves = _curves(table[table["section"] == "distance"], "x")
    _draw(ax, curves)
    if not curves:
        drawing.nothing(ax, "no data were given")
    style.dress(ax, "Error away from the data", "relative error", [_NOTE] if curves else [])
    if ax.get_yscale() == "log":
        drawing.percent_axis(ax)
    ax.set_xlabel("distance from the nearest data [standard deviations]", color=INK)
    if curves:
        ax.xaxis.set_major_locator(MaxNLocator(nbins=8))
    return ax


def _curves(rows: pd.DataFrame, x: str) -> dict[str, Curve]:
    """Block → its curve over column `x`, known blocks only, where any error is above 0."""
    lines = {}
    for block in _LOOKS:
        line = drawing.curve_of(rows[rows["block"] == block], x)
        if np.nanmax(line.value, initial=0.0) > 0:
            lines[block] = line
    return lines


def _draw(ax: Axes, curves: dict[str, Curve]) -> None:
    if not curves:
        return
    ax.axhline(1.0, color=MUTED, lw=0.9)
    # An entry at rounding error would press everything else into one line.
    largest = max(float(np.nanmax(each.value)) for each in curves.values())
    floor = max(drawing.log_floor(list(curves.values())), largest * 1e-6)
    for block, line in curves.items():
        drawing.draw(ax, line, _LOOKS[block], floor, band=0.13)
    ax.set_yscale("log")
    ax.set_ylim(bottom=floor)


def _titled(ax: Axes, title: str, note: str = "") -> Axes:
    pad = 21 if note else 8
    ax.set_title(title, loc="left", pad=pad, fontsize=11, color=INK, fontweight="bold")
    if note:
        ax.annotate(note, (0, 1), (0, 6), "axes fraction", "offset points", fontsize=9, color=MUTED)
    for spine in ax.spines.values():
        spine.set_color(MUTED)
    return ax


_LOOPS = {
    "closed": Look("closed loop, A + B K", style.BLUE, "-", "o"),
    "open": Look("open loop, A", style.VERMILION, (0, (5, 1.6)), "s"),
}
_FLOAT32 = log(float(np.finfo(np.float32).max)) / log(10)
_BELOW = 2.0  # decades below the largest singular value at its lowest
_TOP = 1e3  # relative errors beyond are drawn here


def product_growth(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Largest singular value of the chained Jacobians, in powers of ten; the others thin."""
    ax = style.new_axes() if ax is None else ax
    rows = table[table["section"] == "growth"]
    largest = (table["section"] == "exponent") & (table["output"] == "1")
    exponents = table[largest].set_index("block")["value"]
    for loop, own in _LOOPS.items():
        known = f": λ = {signed(two(exponents[loop]))} per step" if loop in exponents.index else ""
        look, block = replace(own, label=f"{own.label}{known}"), rows[rows["block"] == loop]
        for k in sorted(int(each) for each in set(block["output"])):
            line = drawing.curve_of(block[block["output"] == str(k)], "step").scaled(1 / log(10))
            if k == 1:
                drawing.draw(ax, line, look)
            else:
                ax.plot(line.horizon, line.value, color=look.colour, lw=0.6, alpha=0.45,
                        label=f"_{own.label}, direction {k}")  # fmt: skip
    if rows.empty:
        drawing.nothing(ax, "no products")
    top, first = ax.get_ylim()[1], rows[rows["output"].astype(str) == "1"]["value"]
    if top > 0.5 * _FLOAT32:
        ax.axhline(_FLOAT32, color=style.PURPLE, lw=1.2, ls=(0, (2, 2)), label="end of float32")
    # Directions that die would hide the one that matters.
    lowest = float(first.min()) / log(10) - _BELOW if len(first) else 0.0
    if ax.get_ylim()[0] < lowest:
        ax.set_ylim(bottom=lowest)
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
    line = drawing.curve_of(rows, "step").clipped(0.0, _TOP)
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
        line = drawing.curve_of(rows, "step")
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
        # 1, 2, 5, 10, … on a logarithmic axis, as plain text
        last = float(rows["step"].max())
        ticks = [m * 10**k for k in range(5) for m in (1, 2, 5) if m * 10**k <= last]
        ax.xaxis.set_major_locator(FixedLocator(ticks))
        ax.xaxis.set_minor_locator(MaxNLocator(1))
        ax.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
        ax.xaxis.set_major_formatter(TICKS)
    return ax


def _chained(ax: Axes, notes: list[str]) -> Axes:
    style.dress(ax, "Error of the model's chained Jacobians", "relative error", notes)
    ax.set_xlabel("steps chained", color=INK)
    return ax
