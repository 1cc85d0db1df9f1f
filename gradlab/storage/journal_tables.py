"""Tables of a run that grows: what a row may hold, and frames of rows as the arrays of a record.

Rows are numbered; of several with one number the last counts. Frames are numbered, too, so that one
that is both in the file and in its journal counts once, and one that is in neither is missed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gradlab.errors import InputError
from gradlab.storage.journal_frames import Frame
from gradlab.storage.records import Array, Attribute, Record

RUN = "run_id"  # attribute of a file and of its journal


@dataclass(frozen=True)
class Column:
    """One quantity of a table: the names of its dimensions beside the row's, its unit, and what it
    is."""

    dims: tuple[str, ...] = ()
    unit: str = ""
    text: bool = False
    description: str = ""


@dataclass(frozen=True)
class Table:
    """Rows numbered by `index` (a later row with the same number replaces the earlier).

    Attributes:
        columns: name → column.
        scales: coordinates of the dimensions that the columns name.
    """

    index: str
    columns: Mapping[str, Column]
    scales: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def shape(self, column: str) -> tuple[int, ...]:
        """Of one row's values."""
        return tuple(len(self.scales[dim]) for dim in self.columns[column].dims)

    def takes(self, name: str, shape: tuple[int, ...]) -> bool:
        """Can values of this shape be one row's of a column, or its number?"""
        wanted = () if name == self.index else self.shape(name)
        try:
            return np.broadcast_shapes(shape, wanted) == wanted
        except ValueError:
            return False


def merged(base: Record, frames: Sequence[Frame], path: Path, lost: int = 0) -> Record:
    """`base` with every frame that it does not hold yet.

    Args:
        lost: damaged frames behind the last whole one.

    Raises:
        InputError: neither says which tables there are, or they are of two runs. KeyError,
            TypeError, ValueError and the like where a foreign file made it so far.
    """
    openings = [frame.header for frame in frames if frame.header.get("kind") == "open"]
    runs = [base.attributes] * bool(base.attributes) + [each["attributes"] for each in openings]
    if len({each.get(RUN) for each in runs}) > 1:
        raise InputError(
            f"{path} and {path.name}.journal are of two runs, one was replaced: put the right file "
            f"back, or move the journal away to read the file alone"
        )
    attributes = dict(base.attributes)
    folded = int(attributes.get("folded", 0))
    fresh = sorted(
        (frame for frame in frames if int(frame.header.get("n", 0)) > folded),
        key=lambda frame: int(frame.header["n"]),
    )
    known = [tables_of(base.attributes)] if base.attributes else []
    known += [_tables_from(header["tables"]) for header in openings]
    tables = known[0] if known else {}
    for others in known[1:]:
        check_tables(tables, others, path)
    rows: dict[str, list[Frame]] = {}
    for frame in fresh:
        if frame.header.get("kind") == "open":
            attributes |= frame.header["attributes"]
        elif frame.header.get("table") in tables:
            rows.setdefault(frame.header["table"], []).append(frame)
    if not tables:
        raise InputError(f"{path} holds no tables: damaged or foreign; make the run again")
    attributes["tables"] = json.dumps({name: plain(table) for name, table in tables.items()})
    numbers = [int(frame.header["n"]) for frame in fresh]
    last = max(numbers, default=folded)
    missing = int(attributes.get("damaged_frames", 0)) + (last - folded) - len(set(numbers)) + lost
    attributes |= {"folded": last} | ({"damaged_frames": missing} if missing else {})
    groups = {
        name: _table_arrays(table, base.groups.get(name, {}), rows.get(name, []))
        for name, table in tables.items()
    }
    return Record(attributes, groups)


def check_tables(before: Mapping[str, Table], after: Mapping[str, Table], path: Path) -> None:
    """Raises InputError: a run goes on with other tables."""
    for name in sorted(before.keys() | after.keys()):
        one, other = before.get(name), after.get(name)
        if one is None or other is None or plain(one) != plain(other):
            raise InputError(f"{path} has other tables ({name}): choose another output")


def _table_arrays(
    table: Table, before: Mapping[str, Array], rows: Sequence[Frame]
) -> dict[str, Array]:
    """The table's arrays with the new rows; of several rows with one number the last counts.

    A column that a row was written without is NaN there, or empty where it is text.
    """
    old = before[table.index].values if before else np.empty(0, dtype=np.int64)
    numbers = [int(row.arrays[table.index]) for row in rows]
    places = {int(number): k for k, number in enumerate([*old.tolist(), *numbers])}
    order = [places[number] for number in sorted(places)]
    arrays = {
        table.index: Array(np.array(sorted(places), dtype=np.int64), (table.index,)),
        **{
            name: Array(np.asarray(values, dtype=np.int64), (name,))
            for name, values in table.scales.items()
        },
    }
    for name, column in table.columns.items():
        shape = table.shape(name)
        if column.text:
            new: list[Any] = [str(row.header["text"].get(name, "")) for row in rows]
            kept = before[name].values.tolist() if before else []
            values = np.array([*kept, *new], dtype=object)
        else:
            empty = np.full(shape, np.nan)
            new = [np.broadcast_to(row.arrays.get(name, empty), shape) for row in rows]
            stacked = np.array(new, dtype=np.float64).reshape(len(new), *shape)
            values = np.concatenate([before[name].values, stacked]) if before else stacked
        arrays[name] = Array(
            values[order], (table.index, *column.dims), column.unit, column.description
        )
    return arrays


def tables_of(attributes: Mapping[str, Attribute]) -> dict[str, Table]:
    """The tables that a file has."""
    return _tables_from(json.loads(str(attributes.get("tables", "{}"))))


def _tables_from(plain: Mapping[str, Any]) -> dict[str, Table]:
    """From what `plain` made of each."""
    tables = {}
    for name, each in plain.items():
        columns = {
            key: Column(tuple(dims), unit, text, description)
            for key, (dims, unit, text, description) in each["columns"].items()
        }
        scales = {key: tuple(values) for key, values in each["scales"].items()}
        tables[name] = Table(str(each["index"]), columns, scales)
    return tables


def plain(table: Table) -> dict[str, Any]:
    """As JSON, for `_tables_from`."""
    return {
        "index": table.index,
        "columns": {
            k: [list(c.dims), c.unit, c.text, c.description] for k, c in table.columns.items()
        },
        "scales": {name: [int(v) for v in values] for name, values in table.scales.items()},
    }
