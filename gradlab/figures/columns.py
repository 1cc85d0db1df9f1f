"""Any figure at the width of a paper's column, with text that is readable there.

    ax = gradlab.figures.column(gradlab.figures.gain(profile.table()), "single")
    ax.figure.savefig("gain.pdf")

A figure keeps its size in the paper only if it is drawn at that size: text of 7 to 8 points beside
a paper's 9 or 10. The title is left to the caption.
"""

from __future__ import annotations

import textwrap
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from gradlab import validation
from gradlab.errors import InputError
from gradlab.figures.style import INK

_Width = Literal["single", "text", "double"]
# ICML's column, NeurIPS' and ICLR's text, ICML's two columns; IEEE's 3.5 and 7.16 have room.
INCHES = {"single": 3.25, "text": 5.5, "double": 6.75}
_HEIGHTS = {"single": 2.0, "text": 2.3, "double": 2.5}  # inches of the figure without its legend
LABELS, TICKS = 8.0, 7.0  # points
_LETTER = 0.56  # mean width of a letter, in heights of the text


def column(ax: Axes, width: _Width = "single", title: bool = False) -> Axes:
    """Resize the figure of these axes for a paper, with its text, legend and lines.

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
    figure.set_size_inches(inches, height + entries * 1.45 * TICKS / 72)
    figure.set_layout_engine("constrained")
    for text in figure.findobj(Text):
        text.set_fontsize(min(text.get_fontsize(), TICKS))
    for label in (ax.xaxis.label, ax.yaxis.label):
        label.set_fontsize(LABELS)
    ax.yaxis.label.set_text(_filled(ax.get_ylabel(), height - 0.5, LABELS))
    _head(ax, inches - 0.6, title)
    for line in ax.lines:
        line.set_linewidth(0.75 * line.get_linewidth())
        line.set_markersize(0.7 * line.get_markersize())
    if (legend := ax.get_legend()) is not None:  # below the axes, where the layout keeps room
        legend.remove()
        handles, labels = ax.get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside lower center", ncols=columns, frameon=False,
            fontsize=TICKS, labelcolor=INK, handlelength=2.6, columnspacing=1.2, borderaxespad=0.2,
            labelspacing=0.3,
        )  # fmt: skip
    return ax


def _head(ax: Axes, inches: float, title: bool) -> None:
    """The title, wrapped or none, above the notes, which take a line or more each."""
    notes = [text for text in ax.texts if text.get_text() and _above(text)]
    height = 4.0
    for note in reversed(notes):
        note.set_text(_filled(note.get_text(), inches, TICKS))
        note.set_position((0, height))
        height += 1.25 * TICKS * len(note.get_text().splitlines()) + 1
    words = _filled(ax.get_title(loc="left"), 0.9 * inches, LABELS) if title else ""
    ax.set_title(words, loc="left", pad=height + 2, fontsize=LABELS, color=INK, fontweight="bold")


def _filled(text: str, inches: float, size: float) -> str:
    return textwrap.fill(text, int(72 * inches / (_LETTER * size)), break_long_words=False)


def _above(text: Text) -> bool:
    """Is it a note of `style.dress`, in points above the axes' upper left corner?"""
    return getattr(text, "xy", None) == (0, 1) and getattr(text, "xycoords", "") == "axes fraction"
