"""Error, direction and size of every gradient over the horizon.

    MSE_n = ‖bias_n‖² + tr Cov_n / N′          (N′: the batch one update averages over)
    cosine_n = ⟨E g_n, g*⟩ / (‖E g_n‖ ‖g*‖)          snr_n = ‖E g_n‖² / tr Cov_n
    sign agreement: the share of parameters that E g_n moves the way g* does
    sample norm: √(‖E g_n‖² + tr Cov_n), the root mean square norm of one sample

Cosine and SNR are noise-corrected: a cosine above 1 is drawn at 1, a ratio not above 0 at the upper
end of its interval.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from math import exp

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from gradlab.figures import drawing, style
from gradlab.figures.drawing import Curve
from gradlab.figures.style import INK, MUTED, STRONG, THIN, Look
from gradlab.runs.identity import data_of

UNIT = "[(return / parameter)²]"
_NO_TRUTH = "no admissible truth: squared bias and MSE cannot be shown"
_AT_MOST = "open marker with arrow: estimate not above 0, upper end of its 95 % interval"


def bias_variance(
    table: pd.DataFrame,
    ax: Axes | None = None,
    *,
    estimator: str = "model",
    batch: int = 256,
    truth_norm2: float | None = None,
    truth_error2: float | None = None,
    kept: Collection[int] = (),
) -> Axes:
    """Squared bias, variance / N′ and MSE of one estimator, the smallest MSE marked.

    Args:
        batch: N′, the number of samples that one update averages.
        truth_norm2: squared norm of the true gradient: the error of not moving at all. Above it
            an estimator is worse than none.
        truth_error2: squared standard error of the true gradient, shaded from below: a squared
            bias inside is as large as the truth's own error.
        kept: horizons that may have the smallest MSE, ringed.
    """
    ax = style.new_axes() if ax is None else ax
    bias = drawing.curve(table, estimator, "bias2")
    variance = drawing.curve(table, estimator, "variance")
    error = drawing.curve(table, estimator, "mse")
    variance = None if variance is None else variance.scaled(1 / batch)
    known = drawing.identities(table)
    data, name = None, data_of(known)
    if name is not None:
        data = drawing.curve(table, name, "variance" if error is None else "mse")
        data = data.scaled(1 / batch) if data is not None and error is None else data
    floor = drawing.log_floor([bias, variance, error, data])
    end = drawing.last_horizon(table)
    # The sum first, so that whichever part makes it up stays visible on top of it.
    parts = (error, style.MSE), (bias, style.BIAS), (variance, style.variance_look(batch))
    for line, look in parts:
        if line is not None:
            drawing.draw(ax, line, look, floor, width=3.2 if look is style.MSE else 1.8)
    if error is not None:
        here = np.isin(error.horizon, list(kept)) & (error.value > 0)
        if here.sum() > 1:
            ax.plot(error.horizon[here], error.value[here], "o", color=INK, markersize=11,
                    markerfacecolor="none", markeredgewidth=1.1, label="may be h* (95%)",
                    zorder=4)  # fmt: skip
        _mark_minimum(ax, error)
    if data is not None and not (estimator in known and known[estimator].data):
        what = "MSE" if error is not None else "variance / N′"
        drawing.level(
            ax, data, Look(f"{what} of data (critic only)", MUTED, (0, (7, 2.5)), ""), end, floor
        )
    notes = [_NO_TRUTH] if bias is None or error is None else []
    notes += _notes([bias, error, data])
    _finish(ax, floor, truth_norm2, truth_error2 if error is not None else None)
    if bias is variance is error is None:
        drawing.nothing(ax, f"no rows for the estimator {style.plain(estimator)}")
    name = style.looks([estimator], known)[estimator].label
    return style.dress(ax, f"Error of the gradient: {name}", f"squared error {UNIT}", notes)


def mse(
    table: pd.DataFrame,
    ax: Axes | None = None,
    *,
    truth_norm2: float | None = None,
    truth_error2: float | None = None,
    chosen: str | None = None,
) -> Axes:
    """The MSE of every estimator over the horizon, each one's smallest marked.

    Args:
        truth_norm2, truth_error2: as of `bias_variance`.
        chosen: the recommended estimator, drawn strong.
    """
    ax = style.new_axes() if ax is None else ax
    lines, looks = _lines(table, "mse"), drawing.looks(table)
    floor = _every(ax, table, lines, chosen, logarithmic=True)
    for name, line in lines.items():
        if len(line.horizon) > 1:
            _mark_minimum(ax, line, looks[name].colour, label=False)
    notes = ["star: smallest MSE of each estimator", *_notes([*lines.values()])]
    _finish(ax, floor, truth_norm2, truth_error2 if lines else None)
    if not lines:
        drawing.nothing(ax, _NO_TRUTH)
    title = "Error of every gradient"
    return style.dress(ax, title, f"MSE {UNIT}", notes if lines else [])


def _mark_minimum(ax: Axes, line: Curve, colour: str = INK, label: bool = True) -> None:
    best = int(np.nanargmin(line.value))
    if line.value[best] <= 0:
        return
    at = line.horizon[best]
    text = f"smallest MSE, h* = {at:.0f}" if label else ""
    star = Line2D(
        [at],
        [line.value[best]],
        marker="*",
        markersize=15,
        color=colour,
        linestyle="none",
        markeredgecolor=style.PAPER,
        markeredgewidth=0.8,
        zorder=5,
        label=text,
    )
    ax.add_line(star)


def _lines(table: pd.DataFrame, quantity: str) -> dict[str, Curve]:
    """The curve of every estimator that has the quantity."""
    found = {name: drawing.curve(table, name, quantity) for name in drawing.estimators(table)}
    return {name: line for name, line in found.items() if line is not None}


def _every(
    ax: Axes,
    table: pd.DataFrame,
    lines: Mapping[str, Curve],
    chosen: str | None,
    logarithmic: bool = False,
) -> float:
    """Draws the curves or levels of all estimators; the floor of a logarithmic axis."""
    looks, end = drawing.looks(table), drawing.last_horizon(table)
    floor = drawing.log_floor([*lines.values()])
    for name, line in lines.items():
        width = STRONG if name == chosen else 1.8 if chosen is None else THIN
        band = 0.05 if looks[name].colour == MUTED else 0.11
        low = floor if logarithmic else None
        drawing.curve_or_level(ax, line, looks[name], end, low, band, width)
    if logarithmic:
        ax.set_yscale("log")
    return floor


def _notes(lines: Sequence[Curve | None]) -> list[str]:
    unknown = "no band: the interval has no upper end, or one of no use"
    return [_AT_MOST] * drawing.has_bounds(lines) + [unknown] * drawing.has_unknown(lines)


def _finish(ax: Axes, floor: float, truth_norm2: float | None, truth_error2: float | None) -> None:
    if truth_error2 is not None and truth_error2 > 0:
        floor = min(floor, truth_error2 / 2)
        label = "the truth's own error"
        ax.axhspan(floor, truth_error2, color=MUTED, alpha=0.16, lw=0, label=label, zorder=0)
    if truth_norm2 is not None and truth_norm2 > 0:
        _threshold(ax, truth_norm2, "zero gradient: worse above")
    ax.set_yscale("log")
    ax.set_ylim(bottom=floor)


_USABLE = 0.7


def cosine(table: pd.DataFrame, ax: Axes | None = None, *, chosen: str | None = None) -> Axes:
    """Cosine of the mean gradient with the true one, every estimator, `chosen` drawn strong."""
    ax = style.new_axes() if ax is None else ax
    lowest, unknown = _bounded(ax, table, "cosine", -1.0, 1.0, chosen)
    span = max(1 - lowest, 0.05)
    ax.set_ylim(1 - 1.06 * span, 1 + 0.06 * span)
    if lowest < _USABLE:
        _threshold(ax, _USABLE, f"usable from {_USABLE}")
    if lowest < 0:
        ax.axhline(0, color=MUTED, lw=0.8)
    if not ax.lines:
        drawing.nothing(ax, "no cosine: the truth or its norm is not known")
    notes = ["no band: interval wider than 1; no point: noise beyond ± 1"] * unknown
    return style.dress(ax, "Direction: cosine with the true gradient", "cosine", notes)


def sign_agreement(
    table: pd.DataFrame, ax: Axes | None = None, *, chosen: str | None = None
) -> Axes:
    """Share of parameters whose step has the true sign, `chosen` drawn strong; ½ is chance."""
    ax = style.new_axes() if ax is None else ax
    lowest, unknown = _bounded(ax, table, "sign_agreement", 0.0, 1.0, chosen)
    lowest, notes = min(0.5, lowest), ["no band: interval wider than ½"] * unknown
    if ax.lines:
        _threshold(ax, 0.5, "chance: ½")
    else:
        drawing.nothing(ax, "no sign agreement in this table")
    ax.set_ylim(max(lowest - 0.04, -0.02), 1.02)
    title = "Direction: signs that agree with the truth"
    return style.dress(ax, title, "share of parameters", notes)


def _bounded(
    ax: Axes, table: pd.DataFrame, quantity: str, low: float, high: float, chosen: str | None
) -> tuple[float, bool]:
    """Every curve, clipped to what the quantity can be; the lowest point drawn, and whether an
    interval was too wide to be drawn, since it says next to nothing. A value beyond these limits
    with such an interval is noise, and is not drawn either."""
    lines, wide = dict[str, Curve](), False
    for name, line in _lines(table, quantity).items():
        cut, unknown = line.clipped(low, high).known((high - low) / 2)
        noise = np.isnan(cut.low) & (cut.value != line.value)
        lines[name] = replace(cut, value=np.where(noise, np.nan, cut.value))
        wide |= unknown
    _every(ax, table, lines, chosen)
    lowest = (float(np.nanmin([*line.value, *line.low, high])) for line in lines.values())
    return min(lowest, default=high), wide


def _threshold(ax: Axes, at: float, label: str) -> None:
    ax.axhline(at, color=style.PURPLE, lw=1.2, ls=(0, (2, 2)), label=label)


def snr(
    table: pd.DataFrame,
    ax: Axes | None = None,
    *,
    batch: int | None = None,
    chosen: str | None = None,
) -> Axes:
    """Squared mean over variance per sample, every estimator.

    Args:
        batch: N′; a line at 1 / N′ then shows where the mean of one batch is half noise.
        chosen: the recommended estimator, drawn strong.
    """
    ax = style.new_axes() if ax is None else ax
    lines = _lines(table, "snr")
    floor = _every(ax, table, lines, chosen, logarithmic=True)
    if batch:
        _threshold(ax, 1 / batch, f"1 / N′, N′ = {batch}: half noise")
        floor = min(floor, 0.5 / batch)
    ax.set_ylim(bottom=floor)
    if not lines:
        drawing.nothing(ax, "no signal-to-noise ratio in this table")
    title, notes = "Noise: signal-to-noise ratio of one sample", _notes([*lines.values()])
    return style.dress(ax, title, "‖mean‖² / variance", notes)


_LARGEST = 3.4e38  # in float32


def sample_norm(
    table: pd.DataFrame,
    ax: Axes | None = None,
    *,
    exponent: float | None = None,
    chosen: str | None = None,
) -> Axes:
    """Root mean square norm of one sample of every estimator.

    Args:
        exponent: λ + ln γ per step; drawn as a line through the judged estimator's last point.
        chosen: the recommended estimator, drawn strong.
    """
    ax = style.new_axes() if ax is None else ax
    lines = _norms(table)
    _every(ax, table, lines, chosen, logarithmic=True)
    judged = next((line for line in lines.values() if line.horizon.max() > 0), None)
    if exponent is not None and judged is not None:
        _predicted(ax, judged, exponent)
    if not lines:
        drawing.nothing(ax, "no norms in this table")
    elif ax.get_ylim()[1] > _LARGEST:
        _threshold(ax, _LARGEST, "range of float32")
    title = "Growth: size of one sample's gradient"
    return style.dress(ax, title, "norm, rms [return / parameter]")


def _norms(table: pd.DataFrame) -> dict[str, Curve]:
    """From variance and mean; the interval is the variance's, which dominates where it matters."""
    means, found = _lines(table, "mean_norm"), {}
    for name, each in _lines(table, "variance").items():
        if name in means:
            size = np.nan_to_num(means[name].value, posinf=0.0) ** 2
            parts = (np.maximum(part, 0.0) for part in (each.value, each.low, each.high))
            found[name] = Curve(each.horizon, *(np.sqrt(part + size) for part in parts))
    return found


def _predicted(ax: Axes, line: Curve, exponent: float) -> None:
    positive = np.flatnonzero(np.isfinite(line.value) & (line.value > 0))
    if len(positive) < 2:
        return
    last, x = positive[-1], line.horizon
    y = line.value[last] * np.exp(exponent * (x - x[last]))
    label = f"simulator's chain: × {exp(exponent):.3g} a step"
    shown = y > line.value[positive].min() / 10
    ax.plot(x[shown], y[shown], color=style.PURPLE, lw=1.3, ls=(0, (1, 1.2)), label=label)
