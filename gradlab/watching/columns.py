"""Columns of a run's tables as charts: one `Column` is one chart.

Several seeds are one line, their median, with a band from the smallest to the largest; one seed has
its own interval where the file holds one: value ± 1.96 standard errors, or two columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from gradlab.statistics.intervals import Z
from gradlab.storage.records import Array, Record
from gradlab.watching.curves import Chart, Curve, Floats, Scale, carried, kept, spread

Arrays = Mapping[str, Array]
MOST_CURVES = 6
MOST_BANDS = 3  # curves whose bands a page draws: more would hide each other
SEED = "seed"


def same(values: Floats) -> Floats:
    return values


@dataclass(frozen=True)
class Column:
    """A column of a run that is charted, and how.

    Attributes:
        table, column: in the run's file; title, unit: for readers.
        error: column of its standard errors; ends: columns of its interval; "" and (): none.
        also: further columns on the same chart, with their labels; label: of the first.
        entry: what an entry of a further dimension is called; last: show its last entry alone.
        convert: applied to value and ends alike, monotone.
    """

    table: str
    column: str
    title: str
    unit: str = ""
    scale: Scale = "linear"
    error: str = ""
    ends: tuple[str, ...] = ()
    label: str = ""
    also: tuple[tuple[str, str], ...] = ()
    entry: str = ""
    last: bool = False
    convert: Callable[[Floats], Floats] = same


def chart(
    record: Record,
    wanted: Column,
    prefix: str = "",
    levels: Mapping[str, float] | None = None,
) -> Chart | None:
    """The chart of a column; None where the run has no value of it.

    Args:
        prefix: of the table's name, for tables of a probe in a run of training, whose seeds are
            measured in turn.
    """
    arrays = record.groups.get(f"{prefix}{wanted.table}", {})
    if wanted.column not in arrays:
        return None
    columns = [(wanted.column, wanted.label), *wanted.also]
    curves = [
        curve
        for column, label in columns
        if column in arrays
        for curve in _curves(arrays, wanted, column, label, in_turn=bool(prefix))
        if curve.latest is not None
    ]
    if not curves:
        return None
    return Chart(
        f"{prefix}{wanted.table}-{wanted.column}",
        wanted.title,
        wanted.unit,
        curves[:MOST_CURVES],
        wanted.scale,
        across=arrays[wanted.column].dims[0],
        about=_about(arrays, wanted, len(curves)),
        levels=levels or {},
    )


def _curves(
    arrays: Arrays, wanted: Column, column: str, label: str, in_turn: bool
) -> Iterator[Curve]:
    """One curve for each entry of the dimension beside rows and seeds."""
    main = column == wanted.column
    value = by_seed(arrays[column], in_turn)
    ends = _ends(arrays, wanted, in_turn) if main and value.shape[1] == 1 else None
    x = arrays[arrays[column].dims[0]].values.astype(np.float64)
    names = _entries(arrays, wanted, column, label)
    for k in range(value.shape[2])[-1 if wanted.last else 0 :]:
        line, low, high = spread(value[:, :, k])
        if ends is not None:
            low, high = ends[0][:, 0, k], ends[1][:, 0, k]
        rows = kept(line, low, high)
        line, low, high = (wanted.convert(part[rows]) for part in (line, low, high))
        if ends is None and value.shape[1] == 1:
            yield Curve(names[k], x[rows], line)
        else:
            yield Curve(names[k], x[rows], line, np.minimum(low, high), np.maximum(low, high))


def by_seed(array: Array, in_turn: bool) -> Floats:
    """[K, E, entries]; without seeds E is 1, without further dimensions there is one entry."""
    values = array.values.astype(np.float64)
    if SEED in array.dims:
        values = np.moveaxis(values, array.dims.index(SEED), 1)
    else:
        values = values[:, None]
    flat = values.reshape(*values.shape[:2], prod(values.shape[2:]))
    return carried(flat) if in_turn and flat.shape[1] > 1 else flat


def _ends(arrays: Arrays, wanted: Column, in_turn: bool) -> tuple[Floats, Floats] | None:
    """Lower and upper end, [K, E, entries]."""
    if wanted.ends and all(name in arrays for name in wanted.ends):
        low, high = (by_seed(arrays[name], in_turn) for name in wanted.ends)
        return low, high
    if wanted.error not in arrays:
        return None
    value, error = (by_seed(arrays[each], in_turn) for each in (wanted.column, wanted.error))
    return value - Z * error, value + Z * error


def _entries(arrays: Arrays, wanted: Column, column: str, label: str) -> list[str]:
    others = [dim for dim in arrays[column].dims[1:] if dim != SEED]
    if len(others) != 1 or wanted.last:
        return [label] * int(np.prod([len(arrays[dim].values) for dim in others], dtype=int))
    numbers = arrays[others[0]].values.tolist()
    return [f"{label} {wanted.entry} {number}".strip() for number in numbers]


def _about(arrays: Arrays, wanted: Column, curves: int) -> str:
    """Meaning of line and band, and the number of curves left out."""
    dims = arrays[wanted.column].dims
    seeds = len(arrays[SEED].values) if SEED in dims else 1
    parts = [f"median of {seeds} seeds"] if seeds > 1 else []
    what = "from the smallest to the largest" if seeds > 1 else "95% interval"
    if seeds > 1 or {wanted.error, *wanted.ends} & arrays.keys():
        parts.append(f"band: {what}" if curves <= MOST_BANDS else f"{what} where you point")
    if curves > MOST_CURVES:
        parts.append(f"{curves - MOST_CURVES} more not drawn")
    return "; ".join(parts)
