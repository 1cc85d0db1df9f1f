"""A curve in one line of characters: eight heights, or six marks where a terminal has ASCII only.

Each place shows the mean of its stretch of x. A blank is a stretch without a finite value;
where a curve has fewer rows than places, a value stands until the next one.
"""

from __future__ import annotations

import numpy as np

from gradlab.watching.curves import Curve, Floats, carried

BLOCKS = "▁▂▃▄▅▆▇█"
LETTERS = "_.-=*#"


def sparkline(curve: Curve, width: int, scale: str = "linear", ascii_only: bool = False) -> str:
    """The values over x, from its first to its last, in `width` characters."""
    marks = LETTERS if ascii_only else BLOCKS
    heights = _means(curve.x, _scaled(curve.value, scale), width)
    if len(curve.x) < width:
        heights = carried(heights)
    measured = heights[np.isfinite(heights)]
    if not len(measured):
        return " " * width
    low, span = measured.min(), measured.max() - measured.min()
    levels = (heights - low) / span if span > 0 else np.zeros(width)
    return "".join(
        marks[min(int(level * len(marks)), len(marks) - 1)] if np.isfinite(height) else " "
        for level, height in zip(levels, heights, strict=True)
    )


def _scaled(values: Floats, scale: str) -> Floats:
    """Values on the scale of the chart's axis."""
    if scale == "linear":
        return values
    return np.asarray(np.log(np.where(values > 0, values, np.nan)))


def _means(x: Floats, values: Floats, width: int) -> Floats:
    """Mean of the finite values in every stretch of x; NaN where there is none."""
    sound = np.isfinite(values)
    place = np.minimum((x - x[0]) / max(x[-1] - x[0], 1) * width, width - 1).astype(int)[sound]
    total = np.bincount(place, values[sound], minlength=width)
    count = np.bincount(place, minlength=width)
    with np.errstate(invalid="ignore"):
        return np.asarray(total / count)
