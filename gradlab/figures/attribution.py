"""Where an error comes from: shares as a waterfall, entries as a map.

Each figure takes the long table of an attribution. Shares may be negative; a waterfall ends at the
total, in units of the sizes of all shares: where causes cancel, the total is small beside them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, TwoSlopeNorm, to_rgba
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from gradlab.figures import drawing, style
from gradlab.figures.drawing import Numbers
from gradlab.figures.style import INK, MUTED, PAPER, Look
from gradlab.wording import signed

# A cause's marker stands for its hatch where it is a bar.
_CAUSES: Mapping[str, Look] = {
    "states": Look("states", MUTED, (0, (7, 2.5)), "v"),
    "A": Look("∂f/∂s", style.BLUE, "-", "o"),
    "B": Look("∂f/∂a", style.VERMILION, (0, (5, 1.6)), "s"),
    "reward": Look("reward gradient", style.GREEN, (0, (1.2, 1.4)), "^"),
    "critic_s": Look("critic ∇_s", style.PURPLE, (0, (6, 1.5, 1.2, 1.5)), "D"),
    "critic_a": Look("critic ∇_a", style.OCHRE, (0, (3, 1.2, 1, 1.2)), "P"),
}
_HATCHES = ("", "////", "....", "\\\\\\\\", "xxxx", "----")
_ENDS = ("value", "ci_low", "ci_high")
_UNIT = "1 = the sizes of all shares together; black line: the total"
_LEAST = 1e-2  # of the largest size: smaller numbers are not written into a map
_FULL = 0.8  # opacity of the largest size: numbers stand out from it in both schemes
_WORDY = 120  # cells up to which each shows its number


def ledger(table: pd.DataFrame, ax: Axes | None = None, *, estimator: str = "model") -> Axes:
    """Shapley shares of one estimator's squared bias at every attributed horizon."""
    ax = style.new_axes() if ax is None else ax
    rows = table[(table["account"] == "bias") & (table["estimator"] == estimator)]
    title = "Where the squared bias comes from"
    horizons = sorted(rows["horizon"].unique())
    if not horizons:
        drawing.nothing(ax, f"nothing attributed for the estimator {style.plain(estimator)}")
        return style.dress(ax, title, "")
    lost = []
    for look, hatch in zip(_CAUSES.values(), _HATCHES, strict=True):  # the legend, never faint
        ax.bar(0, 0, color=look.colour, edgecolor=PAPER, hatch=hatch, label=look.label)
    for place, horizon in enumerate(horizons):
        at = rows[rows["horizon"] == horizon]
        total, parts = at[at["kind"] == "total"].iloc[0], at[at["kind"] == "shapley"]
        _fall(ax, place, parts.set_index("cause"), total)
        if not total["ci_low"] > 0:
            lost.append(str(horizon))
    notes = [_named(table, estimator), _UNIT] + (
        [f"not distinguishable from zero, lighter: h = {', '.join(lost)}"] if lost else []
    )
    ax.axhline(0, color=MUTED, linewidth=0.8)
    style.dress(ax, title, "part of the sizes of all shares", notes)
    ax.set_xticks(range(len(horizons)), [str(n) for n in horizons])
    ax.set_xlim(-0.6, len(horizons) - 0.4)
    return ax


def _fall(ax: Axes, place: int, parts: pd.DataFrame, total: pd.Series) -> None:
    """The bars of one horizon, each beginning where the one before it ends."""
    size = float(parts["value"].abs().sum())
    scale = size if size > 0 else 1.0
    width, base = 0.86 / len(_CAUSES), 0.0
    faint = 1.0 if total["ci_low"] > 0 else 0.4
    for k, (cause, look) in enumerate(_CAUSES.items()):
        value, *ends = (float(x) for x in parts.loc[cause, list(_ENDS)].to_numpy(float))
        x, height = place - 0.43 + (k + 0.5) * width, value / scale
        ax.bar(
            x, height, width, bottom=base, color=look.colour, edgecolor=PAPER, linewidth=0.4,
            hatch=_HATCHES[k], alpha=faint,
        )  # fmt: skip
        low, high = (base + each / scale for each in ends)
        if np.isfinite(high - low) and high > low:
            ax.plot([x, x], [low, high], color=INK, linewidth=1.0, alpha=faint)
        base += height
        if k + 1 < len(_CAUSES):
            ax.plot([x, x + width], [base, base], color=MUTED, linewidth=0.6, alpha=faint)
    mark = float(total["value"]) / scale
    ax.plot([place - 0.47, place + 0.47], [mark, mark], color=INK, linewidth=1.8, alpha=faint)


def entries(
    table: pd.DataFrame,
    ax: Axes | None = None,
    *,
    estimator: str = "model",
    horizon: int | None = None,
) -> Axes:
    """Which entry of [∂f/∂s ∂f/∂a; ∂r; ∇Q] makes the squared bias, as a map.

    Args:
        horizon: None: the longest whose total is distinguishable from zero, else the longest.
    """
    ax = style.new_axes() if ax is None else ax
    at = _account(table, estimator, horizon)
    rows = at[(at["kind"] == "entry") & (at["cause"] != "states")]
    title = "Which derivative makes the squared bias"
    if rows.empty:
        drawing.nothing(ax, f"nothing attributed for the estimator {style.plain(estimator)}")
        return style.dress(ax, title, "")
    positive = bool(at[at["kind"] == "total"]["ci_low"].iloc[0] > 0)
    column = "fraction" if positive else "value"
    outputs, inputs = ([str(x) for x in dict.fromkeys(rows[name])] for name in ("output", "input"))
    values = rows.pivot_table(column, "output", "input", "sum", sort=False)
    shown = values.reindex(index=outputs, columns=inputs).to_numpy(float)
    top = float(np.nanmax(np.abs(shown), initial=0.0))
    scale = 1.0 if positive or not top > 0 else 10.0 ** np.floor(np.log10(top))
    _signed_map(ax, shown / scale, percent=positive)
    for axis, names in ((ax.xaxis, inputs), (ax.yaxis, outputs)):
        keep = range(0, len(names), 1 + (len(names) - 1) // 24)
        axis.set_ticks(list(keep), [style.plain(names[k]) for k in keep])
    states = at[(at["kind"] == "shapley") & (at["cause"] == "states")].iloc[0]
    rest, unit = f"{states[column]:.0%}", "share of the squared bias"
    if not positive:
        rest = style.tick(float(f"{states[column]:.2g}"))
        unit = f"squared gradient norms × {style.tick(scale)}; their sum"
        unit += " is not distinguishable from zero"
    notes = [
        f"{_named(table, estimator)}, h = {int(at['horizon'].iloc[0])}",
        unit,
        f"beside the map: {rest} from the states",
        "empty: exactly 0; hatched: negative",
    ]
    style.dress(ax, title, "output", notes)
    ax.set_xlabel("input", color=INK)
    ax.grid(False)
    ax.tick_params(axis="x", rotation=45 if len(inputs) > 5 else 0, length=0)
    ax.tick_params(axis="y", length=0)
    return ax


def _account(table: pd.DataFrame, estimator: str, horizon: int | None) -> pd.DataFrame:
    """The rows of one account."""
    rows = table[(table["account"] == "bias") & (table["estimator"] == estimator)]
    if horizon is None and len(rows):
        totals = rows[rows["kind"] == "total"]
        sure = totals[totals["ci_low"] > 0]
        horizon = int((sure if len(sure) else totals)["horizon"].max())
    return rows[rows["horizon"] == horizon]


def _named(table: pd.DataFrame, estimator: str) -> str:
    return style.looks([estimator], drawing.identities(table))[estimator].label


def _signed_map(ax: Axes, values: Numbers, percent: bool) -> None:
    top = float(np.nanmax(np.abs(values), initial=0.0)) or 1.0
    tints = ((0.0, style.BLUE, _FULL), (0.5, style.BLUE, 0), (0.5, style.VERMILION, 0),
             (1.0, style.VERMILION, _FULL))  # fmt: skip
    colours = LinearSegmentedColormap.from_list(
        "share", [(place, to_rgba(colour, opacity)) for place, colour, opacity in tints]
    )
    norm = TwoSlopeNorm(0.0, -top, top)
    shown = np.where(values == 0, np.nan, values)
    image = ax.imshow(shown, cmap=colours, norm=norm, aspect="auto", interpolation="nearest")
    figure = ax.get_figure()
    if figure is not None:
        bar = figure.colorbar(image, cax=ax.inset_axes((1.03, 0.05, 0.035, 0.9)))
        bar.ax.yaxis.set_major_locator(MaxNLocator(5))
        bar.ax.yaxis.set_major_formatter(lambda x, _: signed(f"{x:.0%}" if percent else f"{x:.2g}"))
        bar.ax.tick_params(colors=MUTED, labelsize=9)
        bar.outline.set_edgecolor(MUTED)
    for (i, j), value in np.ndenumerate(values):
        if abs(value) < _LEAST * top:
            continue
        if value < 0:
            ax.add_patch(
                Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, hatch="///", lw=0, ec=MUTED)
            )
        if values.size <= _WORDY:
            text = signed(_text(value, percent))
            # A number stands clear of the hatching.
            box = {"fc": PAPER, "ec": "none", "pad": 1.0} if value < 0 else None
            ax.text(j, i, text, ha="center", va="center", fontsize=9, color=INK, bbox=box)


def _text(value: float, percent: bool) -> str:
    if not percent:
        return f"{value:+.1f}" if abs(value) >= 0.1 else f"{value:+.1g}"
    if abs(value) >= 10:
        return f"{value:+.2g}×"
    return f"{value:+.0%}" if abs(value) >= 0.1 else f"{100 * value:+.2g}%"
