"""Curves of a run that grows, thinned to what a screen can show without losing an extreme.

    rows kept = smallest and largest of line, lower and upper end, in each of 98 stretches

so that a single spike among a million rows is still seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Scale = Literal["linear", "log"]
MOST = 400  # points of a curve
STRETCHES = 98  # four rows each; beside them the first row, the last, and the last with a value


@dataclass(frozen=True, eq=False)
class Curve:
    """Values [K] at x [K], with an interval or a range where the run has one; NaN: not measured."""

    label: str
    x: Floats
    value: Floats
    low: Floats | None = None
    high: Floats | None = None

    @property
    def latest(self) -> int | None:
        """Row of the last value, which may be infinite."""
        measured = np.flatnonzero(~np.isnan(self.value))
        return int(measured[-1]) if len(measured) else None


@dataclass(frozen=True, eq=False)
class Chart:
    """Curves of one quantity.

    Attributes:
        name: by which a page knows it again; title, unit, about: for readers, the last says what
            line and band are.
        across: what x counts: the run's steps, or "horizon" in the last measurement.
        levels: fixed values to compare with, by their names.
    """

    name: str
    title: str
    unit: str
    curves: Sequence[Curve]
    scale: Scale = "linear"
    across: str = "iteration"
    about: str = ""
    levels: Mapping[str, float] = field(default_factory=dict)

    @property
    def through_run(self) -> bool:
        return self.across != "horizon"


def kept(value: Floats, low: Floats, high: Floats) -> NDArray[np.int64]:
    """Rows of a curve, at most `MOST` of them: its extremes, its first and its last."""
    count = len(value)
    if count <= MOST:
        return np.arange(count)
    measured = np.flatnonzero(~np.isnan(value))
    edges = [0, count - 1, int(measured[-1]) if len(measured) else 0]
    return np.unique([*edges, *(row for part in _extremes(value, low, high) for row in part)])


def _extremes(value: Floats, low: Floats, high: Floats) -> Iterator[NDArray[np.int64]]:
    for signed in (value, -value, low, -high):
        yield _lowest(signed)


def _lowest(values: Floats) -> NDArray[np.int64]:
    """The row of the smallest finite value in every stretch that has one."""
    size = -(-len(values) // STRETCHES)
    padded = np.full(size * STRETCHES, np.inf)
    padded[: len(values)] = np.where(np.isfinite(values), values, np.inf)
    table = padded.reshape(STRETCHES, size)
    rows = table.argmin(axis=1) + size * np.arange(STRETCHES)
    return np.asarray(rows[np.isfinite(table.min(axis=1))])


def carried(values: Floats) -> Floats:
    """Every NaN replaced by what stood last in its column, [K, …]: seeds are measured in turn."""
    measured = ~np.isnan(values)
    rows = np.arange(len(values)).reshape(-1, *[1] * (values.ndim - 1))
    last = np.maximum.accumulate(np.where(measured, rows, -1), axis=0)
    latest = np.take_along_axis(values, np.maximum(last, 0), axis=0)
    return np.where(last < 0, np.nan, latest)


def spread(values: Floats) -> tuple[Floats, Floats, Floats]:
    """Median, smallest and largest of the seeds, [K, E] → [K] each, NaN where none has a value."""
    empty = np.asarray(np.isnan(values).all(axis=1))
    filled = np.where(empty[:, None], 0.0, values)
    parts = np.nanmedian(filled, axis=1), np.nanmin(filled, axis=1), np.nanmax(filled, axis=1)
    median, low, high = (np.where(empty, np.nan, part) for part in parts)
    return median, low, high
