"""Dataclasses as groups of a record: what a field says of its place, and what comes back."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from gradlab.errors import InputError
from gradlab.storage import codec, records
from gradlab.storage.codec import content_of, described, header, scalar, stored
from gradlab.storage.records import Array, Record

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Point:
    name: str
    good: bool
    curve: Annotated[Floats, stored("time", name="height", unit="m")]
    kind: str = "old"


@dataclass(frozen=True, eq=False)
class Flight:
    cells: Annotated[
        tuple[tuple[str, int], ...], stored("cell", name=("who", "at"), unit=("", "s"))
    ]
    words: Annotated[tuple[Literal["up", "down"], ...], stored("cell")]
    values: Annotated[Floats, stored("cell", "time", unit="m")]
    extra: Annotated[Floats, stored("time", optional=True)]
    points: Annotated[tuple[Point, ...], stored("point")]
    sizes: Annotated[
        Mapping[str, float], stored("size", name=("constant", "size"), unit=("", "kg"))
    ]
    starts: Annotated[int, stored("start")]
    lost: Annotated[float, scalar("plain", text=True)]
    steps: Annotated[int, scalar("plain")]
    note: str = "the caller's"


def flight():
    return Flight(
        cells=(("a", 0), ("b", 5)), words=("up", "down"),
        values=np.array([[1.0, np.nan, 3.0], [4.0, 5.0, 6.0]]), extra=np.arange(3.0),
        points=(Point("p", True, np.arange(3.0)), Point("q", False, np.ones(3), "new")),
        sizes={"m": 2.5}, starts=4, lost=float("nan"), steps=7,
    )  # fmt: skip


def on_disk(value, folder):
    path = folder / "run.h5"
    records.write(path, Record({}, {"flight": codec.arrays(value)}), overwrite=True)
    return records.read(path).groups["flight"]


def test_every_value_comes_back_through_a_file(tmp_path):
    found = flight()
    again = codec.decoded(Flight, on_disk(found, tmp_path))
    for name in ("cells", "words", "sizes", "starts", "steps", "note"):
        assert getattr(again, name) == getattr(found, name)
    for name in ("values", "extra", "lost"):
        assert np.array_equal(getattr(again, name), getattr(found, name), equal_nan=True)
    for one, other in zip(again.points, found.points, strict=True):
        assert (one.name, one.good, one.kind) == (other.name, other.good, other.kind)
        assert np.array_equal(one.curve, other.curve)


def test_a_group_names_its_arrays_dimensions_and_units(tmp_path):
    group = on_disk(flight(), tmp_path)
    assert {name: (array.dims, array.unit) for name, array in group.items()} == {
        "cell": (("cell",), ""), "who": (("cell",), ""), "at": (("cell",), "s"),
        "words": (("cell",), ""), "time": (("time",), ""), "values": (("cell", "time"), "m"),
        "extra": (("time",), ""), "point": (("point",), ""), "name": (("point",), ""),
        "good": (("point",), ""), "height": (("point", "time"), "m"), "kind": (("point",), ""),
        "size": (("size",), "kg"), "constant": (("size",), ""), "start": (("start",), ""),
        "plain": (("one",), ""), "one": (("one",), ""),
    }  # fmt: skip
    assert group["cell"].values.tolist() == [0, 1] and group["at"].values.tolist() == [0, 5]
    assert group["size"].values.tolist() == [2.5] and len(group["start"].values) == 4


def test_an_optional_array_without_entries_is_left_out(tmp_path):
    group = on_disk(replace(flight(), extra=np.zeros(0)), tmp_path)
    assert "extra" not in group and codec.decoded(Flight, group).extra.shape == (0,)


def test_a_file_of_an_older_version_has_the_defaults(tmp_path):
    group = {name: array for name, array in on_disk(flight(), tmp_path).items() if name != "kind"}
    assert [each.kind for each in codec.decoded(Flight, group).points] == ["old", "old"]


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("values", Array(np.zeros((3, 2)), ("time", "cell"))),
        ("words", codec.labels(["up", "sideways"], "cell")),
        ("at", codec.labels(["a", "b"], "cell")),
        ("plain", codec.labels(["[1]"], "one")),
    ],
)
def test_another_group_is_refused(name, array, tmp_path):
    with pytest.raises((KeyError, ValueError)):
        codec.decoded(Flight, {**on_disk(flight(), tmp_path), name: array})


def test_rows_and_columns_of_a_table_come_back():
    points = (Point("p", True, np.arange(3.0)),)
    (again,) = codec.rows(Point, codec.table(points, Point))
    assert again.name == "p" and np.array_equal(again.curve, points[0].curve)
    columns = {"x": np.arange(3), "y": np.ones(3)}
    assert codec.columns(codec.by_column(columns)).keys() == columns.keys()


def test_a_header_names_the_run_and_what_is_wrong_with_a_file():
    config = {"seed": 3, "command": "gradlab x"}
    record = Record(header("flight", config, {"commit": "abc"}, notes={"a": [1]}), {})
    assert [record.attributes[k] for k in ("kind", "command", "seed", "commit")] == [
        "flight", "gradlab x", 3, "abc",
    ]  # fmt: skip
    told = described(record, "notes")
    assert told == {"config": config, "environment": {"commit": "abc"}, "notes": {"a": [1]}}
    path = Path("run.h5")
    other = content_of(record, path, "journey", "journey")
    with pytest.raises(InputError, match="holds 'flight', expected a journey"), other:
        pass
    own = content_of(record, path, "flight", "flight")
    with pytest.raises(InputError, match="is not a complete flight"), own:
        record.groups["nothing"]
