"""A map of positive numbers in tints of one colour, readable on light and on dark pages.

Tints are one colour at six opacities above the paper, so that colour, paper and the numbers in the
cells swap together with the page: light numbers stand on full tints of a light page, dark ones on
those of a dark page. A cell that is exactly 0 has no tint and a muted "0": it cannot be taken for
the largest value.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from gradlab.figures.style import BLUE, INK, MUTED, PAPER, tick

OPACITIES = (0.1, 0.22, 0.36, 0.5, 0.85, 1.0)
FULL = 4  # from this tint on numbers are written in the colour of the paper


def tint(values: NDArray[np.float64], top: float, decades: float) -> NDArray[np.int64]:
    """Place of every number on the scale that ends at `top`; −1: exactly 0, or not known."""
    with np.errstate(divide="ignore", invalid="ignore"):
        share = 1 + np.log10(values / top) / decades
    place = np.clip(np.nan_to_num(np.floor(share * len(OPACITIES)), nan=-1), 0, len(OPACITIES) - 1)
    return np.where(values > 0, place, -1).astype(np.int64)


def tinted(
    ax: Axes, values: NDArray[np.float64], decades: float, least: float, numbers: bool
) -> None:
    """Cells [rows, columns] with their numbers; a scale stands to the right.

    Args:
        decades: from the palest tint to the fullest; least: smaller numbers are written "~0".
    """
    rows, columns = values.shape
    positive = values[values > 0]
    top = float(positive.max()) if positive.size else 1.0
    places = tint(values, top, decades)
    for (i, j), place in np.ndenumerate(places):
        if place >= 0:
            ax.add_patch(_cell(j - 0.5, i - 0.5, 1, 1, OPACITIES[place]))
        if numbers:
            _number(ax, (j, i), float(values[i, j]), int(place), least)
    ax.set_xlim(-0.5, columns - 0.5)
    ax.set_ylim(rows - 0.5, -0.5)
    _scale(ax, top, decades)


def _number(ax: Axes, at: tuple[int, int], value: float, place: int, least: float) -> None:
    colour = MUTED if place < 0 else PAPER if place >= FULL else INK
    text = "0" if value == 0 else "–" if place < 0 else f"{value:.2g}" if value >= least else "~0"
    ax.text(*at, text, ha="center", va="center", fontsize=8, color=colour)


def _scale(ax: Axes, top: float, decades: float) -> None:
    """Every tint, the largest above, with the number at which it begins."""
    side = ax.inset_axes((1.03, 0.1, 0.035, 0.8))
    steps = len(OPACITIES)
    for place, opacity in enumerate(OPACITIES):
        side.add_patch(_cell(0, place, 1, 1, opacity))
    side.set_xlim(0, 1)
    side.set_ylim(0, steps)
    side.set_xticks([])
    begins = [top * 10 ** (decades * (place / steps - 1)) for place in range(steps + 1)]
    side.set_yticks(range(1, steps + 1), [tick(float(f"{each:.1g}")) for each in begins[1:]])
    side.yaxis.tick_right()
    side.tick_params(colors=MUTED, labelsize=8, length=0)
    for spine in side.spines.values():
        spine.set_color(MUTED)


def _cell(x: float, y: float, width: float, height: float, opacity: float) -> Rectangle:
    return Rectangle((x, y), width, height, facecolor=BLUE, alpha=opacity, linewidth=0)
