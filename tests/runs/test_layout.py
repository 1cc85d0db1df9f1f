"""Typed results as labelled arrays and back, and what every result can do."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pytest
import torch
import xarray
from numpy.typing import NDArray

import gradlab
from gradlab import load
from gradlab.errors import InputError
from gradlab.runs import layout
from gradlab.runs.layout import stored
from gradlab.runs.run import content_of, described, header
from gradlab.storage import records
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
    """
    Attributes:
        cells: who flew, and when; words, values: which way, and how high
            above the ground.
        lost: what fell off: bags, say; steps: of the stairs.
    """

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
    lost: Annotated[float, stored(unit="kg")]
    steps: Annotated[int, stored()]
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
    records.write(path, Record({}, layout.groups_of(value, "flight")), overwrite=True)
    return records.read(path).groups["flight"]


def test_every_value_comes_back_through_a_file(tmp_path):
    found = flight()
    again = layout.value_of(Flight, {"flight": on_disk(found, tmp_path)}, "flight")
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
        "lost": ((), "kg"), "steps": ((), ""),
    }  # fmt: skip
    assert group["cell"].values.tolist() == [0, 1] and group["at"].values.tolist() == [0, 5]
    assert group["size"].values.tolist() == [2.5] and len(group["start"].values) == 4


def test_the_docstring_describes_the_arrays(tmp_path):
    said = {name: array.description for name, array in on_disk(flight(), tmp_path).items()}
    assert said["who"] == said["at"] == "who flew, and when"
    assert said["words"] == said["values"] == "which way, and how high above the ground"
    assert said["lost"] == "what fell off: bags, say" and said["steps"] == "of the stairs"
    assert said["cell"] == "number of the cell" and all(said.values())


def test_an_optional_array_without_entries_is_left_out(tmp_path):
    group = on_disk(replace(flight(), extra=np.zeros(0)), tmp_path)
    assert "extra" not in group and layout.value_of(
        Flight, {"flight": group}, "flight"
    ).extra.shape == (0,)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("values", Array(np.zeros((3, 2)), ("time", "cell"))),
        ("words", layout.labels(["up", "sideways"], "cell")),
        ("at", layout.labels(["a", "b"], "cell")),
        ("steps", layout.labels(["[1]"], "one")),
    ],
)
def test_another_group_is_refused(name, array, tmp_path):
    with pytest.raises((KeyError, ValueError)):
        group = {**on_disk(flight(), tmp_path), name: array}
        layout.value_of(Flight, {"flight": group}, "flight")


def test_rows_and_columns_of_a_table_come_back():
    points = (Point("p", True, np.arange(3.0)),)
    (again,) = layout.rows(Point, layout.table(points, Point))
    assert again.name == "p" and np.array_equal(again.curve, points[0].curve)
    columns = {"x": np.arange(3), "y": np.ones(3)}
    assert layout.columns(layout.by_column(columns)).keys() == columns.keys()


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
    with (
        pytest.raises(InputError, match=r"expected a journey: see `gradlab report run\.h5`"),
        other,
    ):
        pass
    nothing = content_of(Record({"kind": "states"}, {}), path, "flight", "flight")
    with pytest.raises(InputError, match="holds 'states', expected a flight: it is no"), nothing:
        pass
    own = content_of(record, path, "flight", "flight")
    with pytest.raises(InputError, match="is not a complete flight"), own:
        record.groups["nothing"]


def measured():
    task = gradlab.tasks.linear_quadratic()
    policy = torch.nn.Linear(2, 1).double()
    policy.weight.data = torch.tensor([[-0.6, -0.9]]).double()
    return gradlab.measure(task, policy, lambda s, a: -(s**2).sum(1), horizon=3, starts=32)


def test_the_file_of_a_measurement_is_its_tree(tmp_path):
    """xarray alone reads what `load` gives, and every array says what it is."""
    profile = measured()
    path = profile.save(tmp_path / "run.h5")
    run = load(path)
    with xarray.open_datatree(path, engine="h5netcdf") as tree:
        assert set(tree.children) == set(run.tree.children)
        for node in run.tree.subtree:
            for name, variable in node.data_vars.items():
                assert variable.attrs["description"] and "units" in variable.attrs
                there = tree[node.path][name]
                assert there.dims == variable.dims and there.shape == variable.shape
    assert run.table().equals(profile.table()) and run.config == profile.config
    assert len(repr(run).splitlines()) <= 30 and "jackknife" in run.tree.children
    with pytest.raises(InputError, match="name is 'nothing', expected a table: profile"):
        run.table("nothing")
    cells = run.table("jackknife")
    first = run.estimate("data", "gain", 0).left_out
    here = cells.query("estimator == 'data' and quantity == 'gain' and horizon == 0")
    assert np.array_equal(here["left_out"], first, equal_nan=True)


def test_one_door_reads_every_kind_and_refuses_what_is_none(tmp_path):
    trained = Path(__file__).parents[1] / "tools" / "runs" / "td3-path_tracking.h5"
    run = load(trained)
    assert run.kind == "training" and "updates" in run.tree.children
    assert list(run.table("evaluations")["iteration"].unique()) == list(run.iteration)
    assert run.findings and run.recommendation.fields[0].name == "return"
    records.write(tmp_path / "x.h5", Record({"kind": "flight"}, {}))
    with pytest.raises(InputError, match="holds 'flight', expected a run of profile, training"):
        load(tmp_path / "x.h5")
    records.write(tmp_path / "y.h5", Record({"kind": "race"}, {}))
    with pytest.raises(InputError, match="is not a complete race"):
        load(tmp_path / "y.h5")
