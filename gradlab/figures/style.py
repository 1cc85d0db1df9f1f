"""How curves look: a colour, a dash and a marker each, so that greyscale and colour-blind
readers lose nothing.

The colours are constants with names because the report gives each a twin for dark pages.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from gradlab import validation
from gradlab.errors import InputError
from gradlab.runs.identity import Identity, competing
from gradlab.wording import label

COLOURS: Mapping[str, str] = {
    "ink": "#14181f", "muted": "#5c6571", "grid": "#e1e5ea", "paper": "#fefefe",
    "blue": "#0b63a8", "vermilion": "#d2580a", "green": "#0a8f6a", "purple": "#95518f",
    "ochre": "#a17d05", "cyan": "#2c94b8",
}  # fmt: skip
INK, MUTED, GRID, PAPER, BLUE, VERMILION, GREEN, PURPLE, OCHRE, CYAN = COLOURS.values()

Dash = str | tuple[int, tuple[float, ...]]
SIZE = (6.6, 4.3)
_TITLE, _NOTE = 50, 68  # letters in a line above the plot, which fit a page's figure
_PAIR = 60  # and of the two entries in a row of the legend
_BELOW = 4.3  # from the axes down to the legend, in heights of its text: clear of ticks and label
STRONG, THIN = 3.2, 1.3  # widths of the recommended line and of the others
_Width = Literal["single", "text", "double"]
# ICML's column, NeurIPS' and ICLR's text, ICML's two columns; IEEE's 3.5 and 7.16 have room.
INCHES = {"single": 3.25, "text": 5.5, "double": 6.75}
_HEIGHTS = {"single": 2.0, "text": 2.3, "double": 2.5}  # inches of the figure without its legend
_LABEL, _TICK = 8.0, 7.0  # points, in a paper's column
_LETTER = 0.56  # mean width of a letter, in heights of the text


@dataclass(frozen=True)
class Look:
    """What identifies one curve."""

    label: str
    colour: str
    dash: Dash
    marker: str


BIAS = Look("squared bias", VERMILION, (0, (5, 1.6)), "s")
MSE = Look("MSE = squared bias + variance / N′", INK, "-", "o")
DERIVATIVES = {
    "A": Look("A = ∂s'/∂s", BLUE, "-", "o"),
    "B": Look("B = ∂s'/∂a", VERMILION, (0, (5, 1.6)), "s"),
    "r_s": Look("∂r/∂s", GREEN, (0, (1.2, 1.4)), "^"),
    "r_a": Look("∂r/∂a", PURPLE, (0, (6, 1.5, 1.2, 1.5)), "D"),
}


def variance_look(batch: int) -> Look:
    return Look(f"variance / N′, N′ = {batch}", BLUE, (0, (1.2, 1.4)), "^")


DATA = Look("", VERMILION, (0, (7, 2.5)), "")
_FIRST: Dash = (0, (5, 1.8))  # solid: θ in all actions
_FAMILIES: Mapping[tuple[tuple[str, str], str], Look] = {
    (("model", "model"), "first"): Look("", BLUE, _FIRST, "o"),
    (("simulator", "model"), "first"): Look("", VERMILION, _FIRST, "s"),
    (("simulator", "simulator"), "first"): Look("", GREEN, _FIRST, "^"),
    (("model", "model"), "all"): Look("", CYAN, "-", "o"),
    (("simulator", "model"), "all"): Look("", OCHRE, "-", "s"),
    (("simulator", "simulator"), "all"): Look("", PURPLE, "-", "^"),
}
# Of different lengths, so that own estimators differ in more than one trait and repeat late.
_COLOURS = (PURPLE, OCHRE, CYAN)
_DASHES: Sequence[Dash] = ((0, (6, 1.5, 1.2, 1.5)), (0, (3, 1.2, 1, 1.2, 1, 1.2)), (0, (9, 2)), "-")
_MARKERS = "DvPX<p>"


def looks(
    estimators: Sequence[str], identities: Mapping[str, Identity] | None = None
) -> dict[str, Look]:
    """The look of each estimator, the same in every figure: by who it is; all others take turns,
    where alone with every colour. Grey is what needs the simulator and so does not compete."""
    known = identities or {}
    grey = {name for name in known if name not in competing(known)}
    fixed: dict[str, Look] = {}
    for name in estimators:
        who = known.get(name)
        if who is None or who.cut or who.gradient_model:
            continue
        look = DATA if who.data else _FAMILIES.get((who.systems, who.actions))
        if look is not None and look not in fixed.values():
            fixed[name] = look
    taken = {look.colour for name, look in fixed.items() if name not in grey}
    turns = (*_COLOURS, *(() if fixed else (BLUE, VERMILION, GREEN, INK)))
    colours = [each for each in turns if each not in taken] or [INK]
    own = {
        name: Look("", colours[i % len(colours)], _DASHES[i % 4], _MARKERS[i % len(_MARKERS)])
        for i, name in enumerate(name for name in estimators if name not in fixed)
    }
    named = {
        name: replace(look, label=plain(label(name, identities)))
        for name, look in (fixed | own).items()
    }
    return named | {name: replace(named[name], colour=MUTED) for name in grey & set(named)}


def plain(name: str) -> str:
    """A name from a file as figure text: no formula in dollars, no hidden label, one short line."""
    text = " ".join(name.split()).replace("$", r"\$")
    text = text if len(text) <= 36 else text[:35] + "…"
    return f" {text}" if text.startswith("_") else text


def new_axes() -> Axes:
    """A figure of its own, on the user's pyplot."""
    _, axes = plt.subplots(figsize=SIZE, layout="constrained")
    return axes


def dress(
    ax: Axes, title: str, ylabel: str = "", notes: Sequence[str] = (), reverse: bool = False,
    along: str = "horizon n [steps]",
) -> Axes:  # fmt: skip
    """Everything around the curves. Notes stand above the plot, the legend below it, in the order
    of drawing or in `reverse`; `along` is what the horizontal axis is called."""
    above = 6
    for note in reversed(notes):
        lines = textwrap.wrap(note, _NOTE)
        ax.annotate("\n".join(lines), (0, 1), (0, above), "axes fraction", "offset points",
                    fontsize=9, color=MUTED)  # fmt: skip
        above += 13 * len(lines)
    ax.set_title(
        textwrap.fill(title, _TITLE), loc="left", pad=above + 2, fontsize=11, color=INK,
        fontweight="bold",
    )  # fmt: skip
    ax.set_xlabel(along, color=INK)
    ax.set_ylabel(ylabel, color=INK)
    long = ax.get_xlim()[1] > 1000
    if ax.lines or long:
        ax.xaxis.set_major_locator(MaxNLocator(nbins=5 if long else 9, integer=True))
    if long:
        ax.xaxis.set_major_formatter(THOUSANDS)
    ax.grid(True, axis="y", color=GRID, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(colors=MUTED, which="both", labelsize=9, width=0.8)
    ax.tick_params(which="minor", left=False)
    if ax.get_yscale() == "log":  # labels as plain text; between decades only where there are few
        bottom, top = (math.log10(end) for end in ax.get_ylim())
        few = math.floor(top) - math.ceil(bottom) < 2
        ax.yaxis.set_major_formatter(TICKS)
        if few:
            ax.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        ax.yaxis.set_minor_formatter(TICKS if few else NullFormatter())
    ax.spines[:].set_color(MUTED)
    handles, labels = ax.get_legend_handles_labels()
    if handles:
        half = -(-len(labels) // 2)
        widest = sum(max(map(len, part), default=0) for part in (labels[:half], labels[half:]))
        ax.legend(
            handles, labels, loc="upper center", bbox_to_anchor=(0.5, 0), borderaxespad=_BELOW,
            ncols=1 if widest > _PAIR and len(labels) <= 4 else 2, frameon=False, fontsize=9,
            labelcolor=INK, handlelength=3.2, columnspacing=1.6, reverse=reverse,
        )  # fmt: skip
    return ax


def tick(value: float, _: object = None) -> str:
    """A tick's label as plain text, since a formula would not survive as text in an SVG."""
    size = abs(value)
    if value == 0 or 1e-3 <= size < 1e5:
        return f"{value:g}".replace("-", "−")
    power = math.floor(math.log10(size) + 1e-9)
    front = float(f"{value / 10.0**power:.3g}")
    ten = f"10{str(power).translate(_RAISED)}"
    return ten if front == 1 else f"−{ten}" if front == -1 else f"{front:g}·{ten}".replace("-", "−")


TICKS = FuncFormatter(tick)
THOUSANDS = FuncFormatter(lambda value, _: f"{value:,.0f}")
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def column(ax: Axes, width: _Width = "single", title: bool = False) -> Axes:
    """Resize the figure of these axes for a paper, with its text, legend and lines.

        ax = gradlab.figures.column(gradlab.figures.gain(profile.table()), "single")
        ax.figure.savefig("gain.pdf")

    A figure keeps its size in the paper only if it is drawn at that size: text of 7 to 8 points
    beside a paper's 9 or 10. The title is left to the caption.

    Args:
        ax: of a figure of gradlab, alone in its matplotlib figure but for a colour bar.
        width: "single" (3.25 in), "text" (5.5 in) or "double" (6.75 in).
        title: keep the title.
    """
    validation.instance("ax", ax, Axes, "matplotlib Axes, as a function of gradlab.figures returns")
    validation.word("width", width, tuple(INCHES))
    figure = ax.figure
    if not isinstance(figure, Figure):
        raise InputError("ax lies in a subfigure: draw it in a figure of its own")
    inches, height, columns = INCHES[width], _HEIGHTS[width], 1 if width == "single" else 2
    entries = -(-len(ax.get_legend_handles_labels()[0]) // columns) if ax.get_legend() else 0
    figure.set_size_inches(inches, height + entries * 1.45 * _TICK / 72)
    figure.set_layout_engine("constrained")
    for text in figure.findobj(Text):
        text.set_fontsize(min(text.get_fontsize(), _TICK))
    for each in (ax.xaxis.label, ax.yaxis.label):
        each.set_fontsize(_LABEL)
    ax.yaxis.label.set_text(_filled(ax.get_ylabel(), height - 0.5, _LABEL))
    corner = (0, 1), "axes fraction"  # where `dress` puts its notes
    above = 4.0
    for note in reversed(ax.texts):
        if note.get_text() and (getattr(note, "xy", None), getattr(note, "xycoords", "")) == corner:
            note.set_text(_filled(note.get_text(), inches - 0.6, _TICK))  # wrapped anew
            note.set_position((0, above))
            above += 1.25 * _TICK * len(note.get_text().splitlines()) + 1
    words = _filled(ax.get_title(loc="left"), 0.9 * (inches - 0.6), _LABEL) if title else ""
    ax.set_title(words, loc="left", pad=above + 2, fontsize=_LABEL, color=INK, fontweight="bold")
    for line in ax.lines:
        line.set_linewidth(0.75 * line.get_linewidth())
        line.set_markersize(0.7 * line.get_markersize())
    if (legend := ax.get_legend()) is not None:  # below the axes, where the layout keeps room
        legend.remove()
        handles, labels = ax.get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside lower center", ncols=columns, frameon=False,
            fontsize=_TICK, labelcolor=INK, handlelength=2.6, columnspacing=1.2, borderaxespad=0.2,
            labelspacing=0.3,
        )  # fmt: skip
    return ax


def _filled(text: str, inches: float, size: float) -> str:
    return textwrap.fill(text, int(72 * inches / (_LETTER * size)), break_long_words=False)
