"""What tests of figures look for on axes, and what a figure shows as a table.

The table has every curve, band, interval, bar, point and cell that is drawn. Values are those
drawn: on a logarithmic axis a band ends at the axis's floor, as it does in the figure. What is not
in the legend is of the series that its label names after "_" (of none: "__"), else of the only one
of its colour.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from math import nan
from typing import Any, cast

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import (
    Collection,
    LineCollection,
    PathCollection,
    PolyCollection,
    QuadMesh,
)
from matplotlib.colors import to_hex
from matplotlib.container import Container
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator


def line(ax: Axes, label: str) -> Line2D:
    (found,) = [each for each in ax.lines if str(each.get_label()).startswith(label)]
    return found


def texts(ax: Axes) -> str:
    # Notes are drawn from the plot upwards.
    return " ".join(" ".join(text.get_text().split()) for text in reversed(ax.texts))


def check_texts(ax: Axes) -> None:
    """No text covers another, none is cut off, and the legend stands beside the axes."""
    figure = ax.figure
    figure.canvas.draw()
    legend, page = ax.get_legend(), figure.bbox
    assert legend is not None
    assert not legend.get_window_extent().overlaps(ax.get_window_extent())
    parts = [ax.title, ax._left_title, ax.xaxis.label, ax.yaxis.label, *legend.get_texts()]
    shown = [part for part in (*parts, *ax.texts) if part.get_text()]
    boxes = [part.get_window_extent() for part in shown]
    for part, box in zip(shown, boxes, strict=True):
        assert page.x0 - 1 <= box.x0 and box.x1 <= page.x1 + 1, part.get_text()
        assert page.y0 - 1 <= box.y0 and box.y1 <= page.y1 + 1, part.get_text()
    for i, box in enumerate(boxes):
        for j in range(i):
            assert not box.overlaps(boxes[j]), (shown[i].get_text(), shown[j].get_text())


COLUMNS = ("axes", "series", "kind", "x", "x_name", "y", "y_name", "low", "high", "value")
_Row = dict[str, object]


def drawn(figure: Figure) -> pd.DataFrame:
    """One row per point of a curve, band, interval, bar or cell.

    Returns:
        axes: its title; series: the legend's name; kind: "line", "level" (over the whole axis),
        "band", "interval", "bar", "span", "point" or "cell"; x, y: in the units of the axes;
        x_name, y_name: of a tick that has words; low, high: ends of a band, an interval, a span or
        a bar, in y; value: of a cell.
    """
    rows = [row for ax in figure.axes if ax.get_label() != "<colorbar>" for row in _of_axes(ax)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _of_axes(ax: Axes) -> Iterator[_Row]:
    title = " ".join((ax.get_title(loc="left") or ax.get_title()).split())
    handles, labels = ax.get_legend_handles_labels()
    pairs = {
        (_colour(handle), label.strip()) for handle, label in zip(handles, labels, strict=True)
    }
    often = Counter(colour for colour, _ in pairs)  # one that several share says nothing
    names = {colour: label for colour, label in pairs if colour and often[colour] == 1}
    x_names, y_names = _tick_names(ax.xaxis), _tick_names(ax.yaxis)
    for artist, kind, numbers in _artists(ax):
        label = str(artist.get_label())
        unnamed = label == "_" or label.startswith(("_child", "_nolegend_"))
        series = names.get(_colour(artist), "") if unnamed else label.lstrip("_").strip()
        for row in numbers:
            yield {
                "axes": title,
                "series": series,
                "kind": kind,
                **row,
                "x_name": _word(x_names, row.get("x", nan)),
                "y_name": _word(y_names, row.get("y", nan)),
            }


def _artists(ax: Axes) -> Iterator[tuple[Any, str, list[dict[str, float]]]]:
    for line in ax.lines:
        yield line, *_line(ax, line)
    for collection in ax.collections:
        yield collection, *_collection(collection)
    for patch in ax.patches:
        if isinstance(patch, Rectangle):
            yield patch, *_rectangle(ax, patch)
    for image in ax.images:
        values = _filled(image.get_array())
        if values.ndim == 2:
            yield image, "cell", _cells(values, np.arange(values.shape[1]), np.arange(len(values)))


def _line(ax: Axes, line: Line2D) -> tuple[str, list[dict[str, float]]]:
    across, up = line.get_transform().contains_branch_seperately(ax.transData)
    x, y = (np.asarray(each, dtype=float) for each in line.get_data())
    if across and up:
        points = [{"x": float(at), "y": float(to)} for at, to in zip(x, y, strict=True)]
        return "line" if len(x) > 1 else "point", points
    return "level", [{"x": float(x[0])}] if across else [{"y": float(y[0])}] if up else []


def _collection(drawn: Collection) -> tuple[str, list[dict[str, float]]]:
    if isinstance(drawn, QuadMesh):
        edges = np.asarray(drawn.get_coordinates())
        x, y = (edges[0, :, 0], edges[:, 0, 1])
        values = _filled(drawn.get_array()).reshape(len(y) - 1, len(x) - 1)
        return "cell", _cells(values, (x[1:] + x[:-1]) / 2, (y[1:] + y[:-1]) / 2)
    if isinstance(drawn, LineCollection):
        ends = [np.asarray(each) for each in drawn.get_segments() if len(each) > 1]
        return "interval", [_interval(each) for each in ends]
    if isinstance(drawn, PolyCollection):
        corners = [np.asarray(path.vertices) for path in drawn.get_paths()]
        over = [(each[each[:, 0] == at, 1], at) for each in corners for at in np.unique(each[:, 0])]
        return "band", [
            {"x": float(at), "low": float(y.min()), "high": float(y.max())} for y, at in over
        ]
    if isinstance(drawn, PathCollection):
        points = _filled(drawn.get_offsets())
        return "point", [{"x": float(x), "y": float(y)} for x, y in points]
    return "", []


def _interval(ends: Any) -> dict[str, float]:
    along = 1 if np.ptp(ends[:, 0]) == 0 else 0
    low, high = float(ends[:, along].min()), float(ends[:, along].max())
    return {"yx"[along]: float(ends[0, 1 - along]), "low": low, "high": high}


def _rectangle(ax: Axes, patch: Rectangle) -> tuple[str, list[dict[str, float]]]:
    low, high = sorted((patch.get_y(), patch.get_y() + patch.get_height()))
    across, up = patch.get_transform().contains_branch_seperately(ax.transData)
    if across and up:
        middle = patch.get_x() + patch.get_width() / 2
        return "bar", [{"x": round(float(middle), 12), "low": float(low), "high": float(high)}]
    if up:
        return "span", [{"low": float(low), "high": float(high)}]
    ends = [{"x": float(x)} for x in (patch.get_x(), patch.get_x() + patch.get_width())]
    return "span", ends if across else []


def _cells(values: Any, x: Any, y: Any) -> list[dict[str, float]]:
    return [
        {"x": float(x[k]), "y": float(y[j]), "value": float(value)}
        for (j, k), value in np.ndenumerate(values)
    ]


def _filled(values: Any) -> Any:
    return np.ma.filled(np.ma.asarray(values, dtype=float), nan)


def _colour(artist: Any) -> str:
    """Of a curve, or of what is filled; "" where there are several or none."""
    if isinstance(artist, Container):  # of bars, or of a curve with its intervals
        artist = artist[0]
    if isinstance(artist, Line2D):
        return to_hex(cast(Any, artist.get_color()))
    several = isinstance(artist, LineCollection)
    filled: Any = artist.get_colors() if several else getattr(artist, "get_facecolor", list)()
    colours: Any = np.atleast_2d(np.asarray(filled, dtype=float))
    return to_hex(tuple(colours[0][:3])) if colours.shape[0] == 1 and colours.size else ""


def _word(names: dict[float, str], at: float) -> str:
    """Of a place: its tick's, else that of the whole number it stands beside."""
    return (names.get(at) or names.get(round(at), "")) if np.isfinite(at) else ""


def _tick_names(axis: Any) -> dict[float, str]:
    """Words of ticks by their place; none where ticks are numbers."""
    places = axis.get_majorticklocs() if isinstance(axis.get_major_locator(), FixedLocator) else []
    words = axis.get_major_formatter().format_ticks(places) if len(places) else []
    named = {float(at): " ".join(w.split()) for at, w in zip(places, words, strict=True)}
    return named if any(any(c.isalpha() for c in word) for word in words) else {}
