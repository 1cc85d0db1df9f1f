"""Three plots of a long table, `lines`, `bars` and `matrix`: figures are rows of their settings."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from math import inf, isfinite

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, NullFormatter

from gradlab.figures import drawing, style
from gradlab.figures.drawing import Curve, Numbers
from gradlab.figures.style import BLUE, INK, MUTED, PAPER, STRONG, THIN, Look, tick
from gradlab.wording import signed, two

Series = Mapping[Look, pd.DataFrame]
ENDS = ["value", "ci_low", "ci_high"]
_APART = 0.24  # of the room between two names, for all series
_OPACITIES = (0.1, 0.22, 0.36, 0.5, 0.85, 1.0)
_FULL = 4  # from this tint on numbers are written in the colour of the paper
_WORDY = 120  # entries up to which each shows its number
_MOST, _LEVEL = 24, 5  # names beside a map; of them, beyond which they are slanted


def rows(table: pd.DataFrame, section: str, quantity: str, **where: str) -> pd.DataFrame:
    """The rows of one quantity, where labels have given values."""
    chosen = (table["section"] == section) & (table["quantity"] == quantity)
    for name, wanted in where.items():
        chosen &= table[name] == wanted
    return table[chosen]


def scaled(frame: pd.DataFrame, factor: float | pd.Series) -> pd.DataFrame:
    """Values and ends, multiplied."""
    return frame.assign(**{name: frame[name] * factor for name in ENDS})


def rooted(frame: pd.DataFrame) -> pd.DataFrame:
    """Of squares; what is estimated below 0 stays there, so that it is drawn as "at most"."""
    ends = {name: np.sqrt(frame[name].clip(lower=0)) for name in ENDS}
    return frame.assign(**ends | {"value": ends["value"].where(frame["value"] > 0, frame["value"])})


def lines(
    table: pd.DataFrame | Series, ax: Axes | None = None, title: str = "", unit: str = "", *,
    quantity: str = "", x: str = "horizon", by: str = "estimator",
    along: str = "horizon n [steps]",
    columns: Sequence[str] = ENDS, chosen: str | Look | None = None,
    widths: tuple[float, float] = (STRONG, THIN),
    bands: tuple[float, float, float] = (0.11, 0.11, 0.05), log: bool = False,
    decades: float = inf, percent: bool = False, limits: tuple[float, float] = (-inf, inf),
    level: float | None = None, thresholds: Mapping[str, float | None] = {},
    within: Mapping[str, float] = {}, shade: Mapping[str, float | None] = {},
    star: str | None = None, kept: Collection[float] = (), notes: Sequence[str] = (),
    empty: str = "no numbers", then: Callable[[Axes], Sequence[str] | None] | None = None,
) -> Axes:  # fmt: skip
    """One quantity over a column, a line with its band for every group.

    What has one value, at 0, is a level. Intervals that say nothing have no band, and a note says
    so.

    Args:
        table: long, with a row per group, x and quantity; or the rows of every line by its look.
        x, along: the column, and what its axis is called; by: the column of groups.
        columns: of the value and the ends of its interval.
        chosen: the group that is drawn strong; widths: of its line and the others'.
        bands: opacity of its band, of the others', and of what is grey.
        log, decades: a logarithmic axis, and how far it goes down from the largest value.
        limits: what the quantity can be.
        level: where nothing changes; thresholds: heights of lines by their label; within: of lines
            that are drawn where the values reach them; shade: below which all is shaded.
        star: marks the smallest value of every line; with words, for the legend, of `chosen`.
        kept: x where `chosen` may be the smallest, ringed.
        then: draws more, ahead of the legend, and returns notes.
    """
    ax = style.new_axes() if ax is None else ax
    if isinstance(table, pd.DataFrame):
        mine = table[table["quantity"] == quantity] if quantity else table
        names = [str(name) for name in dict.fromkeys(table[by])]
        known = drawing.identities(table) if by == "estimator" else None
        looks = style.looks(names, known)
        table = {look: mine[mine[by] == name] for name, look in looks.items()}
        chosen = looks.get(chosen) or chosen if isinstance(chosen, str) else chosen
    curves, hidden = dict[Look, Curve](), False
    for look, own in table.items():
        line, unknown = drawing.curve_of(own, x, columns).within(*limits)
        positive = (np.fmax(line.value, line.high) > 0).any()
        if np.isfinite(line.value).any() and (positive or not log):
            curves[look], hidden = line, hidden or unknown
    if not curves:
        drawing.nothing(ax, empty)
        return style.dress(ax, title, unit, along=along)
    shown, floor = [*curves.values()], None
    end = max(float(line.horizon.max()) for line in shown)
    below, levels = (
        {label: at for label, at in each.items() if at is not None and (at > 0 or not log)}
        for each in (shade, thresholds)
    )
    seen = [*below.values(), *levels.values()]  # the axis reaches them
    if log:
        largest = max(float(np.nanmax(line.value)) for line in shown)
        floor = max(drawing.log_floor(shown), largest / 10**decades)
        floor = min(floor, *(each / 2 for each in seen), inf)
    if level is not None:
        ax.axhline(level, color=MUTED, lw=1.0)
    for look, line in curves.items():
        strong = look == chosen
        if len(line.horizon) == 1 and line.horizon[0] == 0:
            drawing.level(ax, line, look, end, floor)
        else:
            width = widths[not strong] if chosen is not None else 1.8
            band = bands[0 if strong else 1 + (look.colour == MUTED)]
            drawing.draw(ax, line, look, floor, width, band)
    for look, line in curves.items():
        if star is not None and (look == chosen or not star) and len(line.horizon) > 1:
            _mark_smallest(ax, line, look.colour, star, kept)
    for label, at in below.items():
        ax.axhspan(floor or 0, at, color=MUTED, alpha=0.16, lw=0, label=label, zorder=0)
    _levels(ax, levels)
    notes = [*notes, *((then and then(ax)) or ())]
    if floor is not None:
        ax.set_yscale("log")
        ax.set_ylim(bottom=floor)
        notes += drawing.log_notes(shown)
    elif isfinite(limits[0]):
        low, high = limits
        span = max(high - min(*(np.nanmin([*x.value, *x.low]) for x in shown), *seen, high), 0.05)
        ax.set_ylim(high - 1.06 * span, high + 0.06 * span)
        notes += [f"no band: interval wider than {(high - low) / 2:g}"] * hidden
    bottom, top = ax.get_ylim()
    _levels(ax, {label: at for label, at in within.items() if bottom < at < top})
    style.dress(ax, title, unit, notes, along=along)
    if percent:
        _percent(ax)
    if any((line.horizon % 1).any() for line in shown):
        ax.xaxis.set_major_locator(MaxNLocator(nbins=8))
    return ax


def _percent(ax: Axes) -> None:
    """Shares as percentages, on the ticks that `dress` chose."""
    for write, setting in (
        (ax.yaxis.get_major_formatter(), ax.yaxis.set_major_formatter),
        (ax.yaxis.get_minor_formatter(), ax.yaxis.set_minor_formatter),
    ):
        if not isinstance(write, NullFormatter):
            setting(lambda value, _: signed(f"{100 * value:g} %"))


def _levels(ax: Axes, heights: Mapping[str, float]) -> None:
    for label, at in heights.items():
        ax.axhline(at, color=style.PURPLE, lw=1.2, ls=(0, (2, 2)), label=label)


def _mark_smallest(ax: Axes, line: Curve, colour: str, label: str, kept: Collection[float]) -> None:
    """A star at the smallest value, rings around what may be."""
    x, y = line.horizon, line.value
    ringed = np.isin(x, list(kept)) & (y > 0)
    if ringed.sum() > 1:
        ax.plot(x[ringed], y[ringed], "o", color=INK, markersize=11, markerfacecolor="none",
                markeredgewidth=1.1, label="may be the smallest (95%)", zorder=4)  # fmt: skip
    best = int(np.nanargmin(y))
    if y[best] > 0:
        text = f"{label}, h* = {x[best]:.0f}" if label else ""
        star = Line2D(
            [x[best]], [y[best]], marker="*", markersize=15, color=colour, linestyle="none",
            markeredgecolor=PAPER, markeredgewidth=0.8, zorder=5, label=text,
        )  # fmt: skip
        ax.add_line(star)


def bars(
    table: pd.DataFrame | Series, ax: Axes | None = None, title: str = "", unit: str = "", *,
    by: str = "cause", along: str = "", level: float = 0.0, percent: bool = False,
    least: float = -inf, notes: Sequence[str] = (), empty: str = "no numbers",
) -> Axes:  # fmt: skip
    """Values with their intervals, side by side for every entry of the column `output`.

    Args:
        table: long; or the rows of every series by its look. by: the column of series.
        level: where nothing changes; percent: values are shares; least: where the axis ends.
    """
    ax = style.new_axes() if ax is None else ax
    if isinstance(table, pd.DataFrame):
        looks = style.looks([str(name) for name in dict.fromkeys(table[by])])
        table = {look: table[table[by] == name] for name, look in looks.items()}
    ax = style.new_axes() if ax is None else ax
    names = list(dict.fromkeys(str(name) for each in table.values() for name in each["output"]))
    for k, (look, each) in enumerate(table.items()):
        value, low, high = (each[name].to_numpy(float) for name in ENDS)
        place = np.array([names.index(str(name)) for name in each["output"]], dtype=float)
        place += _APART * (k / max(len(table) - 1, 1) - 0.5)
        ends = np.abs(np.nan_to_num([value - low, high - value], posinf=0.0, neginf=0.0))
        ax.errorbar(place, value, yerr=ends, fmt=look.marker or "o", color=look.colour,
                    label=look.label, markersize=5, capsize=3)  # fmt: skip
    if not names:
        drawing.nothing(ax, empty)
    style.dress(ax, title, unit, notes, along=along)
    if names:
        ax.axhline(level, color=MUTED, lw=0.9)
        ax.set_ylim(bottom=max(ax.get_ylim()[0], least))
        _named(ax, names, [])
        if len(names) > _LEVEL:  # slanted names stand where the legend would
            ax.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=9,
                      labelcolor=INK)  # fmt: skip
        if percent:
            _percent(ax)
    return ax


def matrix(
    table: pd.DataFrame, ax: Axes | None = None, title: str = "", unit: str = "", *,
    value: str = "value", percent: bool = False, decades: float = 2, least: float = 0,
    apart: bool = False, along: str = "input", down: str = "output",
    notes: Sequence[str] = (), empty: str = "no numbers",
) -> Axes:  # fmt: skip
    """Output by input as a map with numbers, hatched where negative and empty where 0.

    Args:
        value: the column; unit: a note; percent: values are shares.
        decades: of sizes, as tints from the palest to the fullest; least: smaller ones are "~0".
        apart: a line before the last output and the inputs beyond it; along, down: the axes.
    """
    ax = style.new_axes() if ax is None else ax
    if table.empty:
        drawing.nothing(ax, empty)
        return style.dress(ax, title)
    wide = table.pivot_table(value, "output", "input", "sum", sort=False)
    outputs, inputs = ([str(name) for name in each] for each in (wide.index, wide.columns))
    tinted(ax, wide.to_numpy(float), decades, least, percent)
    style.dress(ax, title, down, [unit, *notes])
    ax.grid(False)
    _named(ax, inputs, outputs)
    ax.set_xlabel(along, color=INK)
    ax.spines[["top", "right"]].set_visible(True)
    for line in (ax.axhline, ax.axvline) if apart else ():
        line(len(outputs) - 1.5, color=MUTED, lw=1.2)
    return ax


def _text(value: float, least: float, percent: bool) -> str:
    size = abs(value)
    if value == 0 or not isfinite(value):
        return "0" if value == 0 else "–"
    if size < least:
        return "~0"
    if percent:
        return f"{value:+.2g}×" if size >= 10 else f"{value:+.0%}"
    return two(value) if size >= 0.01 else f"{value:.1g}"


def _named(ax: Axes, across: list[str], down: list[str]) -> None:
    """Names beside columns and rows, as many as there is room for."""
    for axis, names in ((ax.xaxis, across), (ax.yaxis, down)):
        if names:
            keep = range(0, len(names), 1 + (len(names) - 1) // _MOST)
            axis.set_ticks(list(keep), [style.plain(names[k]) for k in keep])
    ax.tick_params(length=0, labelsize=9, colors=INK)
    if len(across) > _LEVEL:
        for label in ax.get_xticklabels():
            label.set(rotation=45, ha="right")


def tinted(ax: Axes, values: Numbers, decades: float, least: float, percent: bool = False) -> None:
    """Cells in tints of one colour above the paper, so that they swap together on a dark page; a
    cell that is exactly 0 has none. The scale to the right says where each begins."""
    shape, count, sizes = values.shape, len(_OPACITIES), np.abs(values)
    top = float(np.nanmax(sizes, initial=0.0)) or 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.floor(count * (1 + np.log10(sizes / top) / decades))
    places = np.where(sizes > 0, np.clip(np.nan_to_num(share), 0, count - 1), -1).astype(int)
    for (i, j), place in np.ndenumerate(places):
        value, negative = float(values[i, j]), bool(values[i, j] < 0)
        if place >= 0:
            ax.add_patch(_cell(j - 0.5, i - 0.5, _OPACITIES[place], "///" * negative))
        if values.size <= _WORDY:  # a number stands clear of the hatching
            colour = MUTED if place < 0 else PAPER if place >= _FULL and not negative else INK
            ax.text(j, i, signed(_text(value, least, percent)), ha="center", va="center",
                    fontsize=9, color=colour,
                    bbox={"fc": PAPER, "ec": "none", "pad": 1.0} if negative else None)  # fmt: skip
    ax.set(xlim=(-0.5, shape[1] - 0.5), ylim=(shape[0] - 0.5, -0.5))
    side = ax.inset_axes((1.03, 0.1, 0.035, 0.8))
    for step, opacity in enumerate(_OPACITIES):
        side.add_patch(_cell(0, step, opacity))
    side.set(xlim=(0, 1), ylim=(0, count), xticks=[])
    begins = [top * 10 ** (decades * (step / count - 1)) for step in range(1, count + 1)]
    written = [f"{x:.0%}" if percent else tick(float(f"{x:.1g}")) for x in begins]
    side.set_yticks(range(1, count + 1), written)
    side.yaxis.tick_right()
    side.tick_params(colors=MUTED, labelsize=9, length=0)
    side.spines[:].set_color(MUTED)


def _cell(x: float, y: float, opacity: float, hatch: str = "") -> Rectangle:
    return Rectangle((x, y), 1, 1, facecolor=BLUE, edgecolor=MUTED, alpha=opacity, hatch=hatch,
                     linewidth=0)  # fmt: skip
